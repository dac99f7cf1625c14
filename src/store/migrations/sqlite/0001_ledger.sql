-- The ledger. Instants are UTC microseconds, ids 16 bytes, documents JSON text. Every statement can run again.
CREATE TABLE IF NOT EXISTS meta (
  name TEXT NOT NULL PRIMARY KEY,
  value TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS project (
  project TEXT NOT NULL PRIMARY KEY,
  observed_revision TEXT NOT NULL,
  good_revision TEXT,
  resources TEXT NOT NULL,
  diagnostics TEXT NOT NULL,
  high_water INTEGER NOT NULL,
  written_at INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS applied (
  resource TEXT NOT NULL PRIMARY KEY,
  document TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS deletion (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  project TEXT NOT NULL,
  resource TEXT NOT NULL,
  deleted_at INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS deletion_by_time ON deletion (deleted_at);
CREATE TABLE IF NOT EXISTS inventory (
  unit TEXT NOT NULL PRIMARY KEY,
  owner TEXT NOT NULL,
  environment TEXT NOT NULL,
  digest TEXT NOT NULL,
  revision TEXT NOT NULL,
  since INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS resource_status (
  resource TEXT NOT NULL PRIMARY KEY,
  document TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS changeset (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  revision TEXT NOT NULL,
  computed_at INTEGER NOT NULL,
  changeset TEXT NOT NULL,
  outcome TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS deletion_approval (
  revision TEXT NOT NULL,
  keys_digest TEXT NOT NULL,
  document TEXT NOT NULL,
  PRIMARY KEY (revision, keys_digest)
);
CREATE TABLE IF NOT EXISTS overlay (
  plan TEXT NOT NULL PRIMARY KEY,
  reason TEXT NOT NULL,
  who TEXT NOT NULL,
  since INTEGER NOT NULL,
  until INTEGER
);
CREATE TABLE IF NOT EXISTS event (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  happened_at INTEGER NOT NULL,
  project TEXT,
  about TEXT NOT NULL,
  severity TEXT NOT NULL,
  reason TEXT NOT NULL,
  message TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS event_by_about ON event (about, id);
CREATE INDEX IF NOT EXISTS event_by_project ON event (project, id);
CREATE TABLE IF NOT EXISTS run (
  id BLOB NOT NULL PRIMARY KEY,
  plan TEXT NOT NULL,
  project TEXT NOT NULL,
  revision TEXT NOT NULL,
  digest TEXT NOT NULL,
  triggered_by TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  stage TEXT NOT NULL,
  ending TEXT,
  state TEXT NOT NULL,
  pinned TEXT NOT NULL,
  deadline INTEGER,
  started_at INTEGER,
  finished_at INTEGER,
  tag TEXT,
  retention_s INTEGER,
  version INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS run_by_time ON run (created_at);
CREATE INDEX IF NOT EXISTS run_by_plan ON run (plan, created_at);
CREATE INDEX IF NOT EXISTS run_by_project ON run (project, created_at);
CREATE INDEX IF NOT EXISTS run_by_stage ON run (stage);
CREATE TABLE IF NOT EXISTS run_worker (
  run BLOB NOT NULL,
  worker BLOB NOT NULL,
  position INTEGER NOT NULL,
  session BLOB NOT NULL,
  detail TEXT NOT NULL,
  PRIMARY KEY (run, worker)
);
CREATE TABLE IF NOT EXISTS hook (
  run BLOB NOT NULL,
  name TEXT NOT NULL,
  started_at INTEGER NOT NULL,
  finished_at INTEGER,
  succeeded INTEGER,
  message TEXT NOT NULL,
  PRIMARY KEY (run, name)
);
CREATE TABLE IF NOT EXISTS summary (
  run BLOB NOT NULL PRIMARY KEY,
  report TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS content (
  digest TEXT NOT NULL PRIMARY KEY,
  bytes BLOB NOT NULL
);
