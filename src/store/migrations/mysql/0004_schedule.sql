-- How far each plan's slots are decided, and what became of each.
CREATE TABLE IF NOT EXISTS schedule_cursor (
  plan VARCHAR(255) NOT NULL PRIMARY KEY,
  document LONGTEXT NOT NULL
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE TABLE IF NOT EXISTS slot (
  plan VARCHAR(255) NOT NULL,
  slot BIGINT NOT NULL,
  project VARCHAR(255) NOT NULL,
  outcome VARCHAR(64) NOT NULL,
  detail LONGTEXT NOT NULL,
  run BINARY(16),
  load_at BIGINT,
  decided_at BIGINT NOT NULL,
  PRIMARY KEY (plan, slot),
  KEY slot_by_time (slot),
  KEY slot_by_outcome (outcome, load_at)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
