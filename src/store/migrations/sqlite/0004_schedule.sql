-- How far each plan's slots are decided, and what became of each.
CREATE TABLE IF NOT EXISTS schedule_cursor (
  plan TEXT NOT NULL PRIMARY KEY,
  document TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS slot (
  plan TEXT NOT NULL,
  slot INTEGER NOT NULL,
  project TEXT NOT NULL,
  outcome TEXT NOT NULL,
  detail TEXT NOT NULL,
  run BLOB,
  load_at INTEGER,
  decided_at INTEGER NOT NULL,
  PRIMARY KEY (plan, slot)
);
CREATE INDEX IF NOT EXISTS slot_by_time ON slot (slot);
CREATE INDEX IF NOT EXISTS slot_by_outcome ON slot (outcome, load_at);
