-- The ledger. Instants are UTC microseconds, ids 16 bytes, documents JSON text. Every statement can run again.
CREATE TABLE IF NOT EXISTS meta (
  name VARCHAR(255) NOT NULL PRIMARY KEY,
  value LONGTEXT NOT NULL
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE TABLE IF NOT EXISTS project (
  project VARCHAR(63) NOT NULL PRIMARY KEY,
  observed_revision VARCHAR(80) NOT NULL,
  good_revision VARCHAR(80),
  resources LONGTEXT NOT NULL,
  diagnostics LONGTEXT NOT NULL,
  high_water BIGINT NOT NULL,
  written_at BIGINT NOT NULL
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE TABLE IF NOT EXISTS applied (
  resource VARCHAR(255) NOT NULL PRIMARY KEY,
  document LONGTEXT NOT NULL
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE TABLE IF NOT EXISTS deletion (
  id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  project VARCHAR(63) NOT NULL,
  resource VARCHAR(255) NOT NULL,
  deleted_at BIGINT NOT NULL,
  KEY deletion_by_time (deleted_at)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE TABLE IF NOT EXISTS inventory (
  unit VARCHAR(255) NOT NULL PRIMARY KEY,
  owner VARCHAR(255) NOT NULL,
  environment VARCHAR(255) NOT NULL,
  digest VARCHAR(80) NOT NULL,
  revision VARCHAR(80) NOT NULL,
  since BIGINT NOT NULL
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE TABLE IF NOT EXISTS resource_status (
  resource VARCHAR(255) NOT NULL PRIMARY KEY,
  document LONGTEXT NOT NULL
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE TABLE IF NOT EXISTS changeset (
  id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  revision VARCHAR(80) NOT NULL,
  computed_at BIGINT NOT NULL,
  changeset LONGTEXT NOT NULL,
  outcome LONGTEXT NOT NULL
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE TABLE IF NOT EXISTS deletion_approval (
  revision VARCHAR(80) NOT NULL,
  keys_digest VARCHAR(80) NOT NULL,
  document LONGTEXT NOT NULL,
  PRIMARY KEY (revision, keys_digest)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE TABLE IF NOT EXISTS overlay (
  plan VARCHAR(255) NOT NULL PRIMARY KEY,
  reason LONGTEXT NOT NULL,
  who VARCHAR(255) NOT NULL,
  since BIGINT NOT NULL,
  until BIGINT
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE TABLE IF NOT EXISTS event (
  id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  happened_at BIGINT NOT NULL,
  project VARCHAR(63),
  about VARCHAR(255) NOT NULL,
  severity VARCHAR(32) NOT NULL,
  reason VARCHAR(255) NOT NULL,
  message LONGTEXT NOT NULL,
  KEY event_by_about (about, id),
  KEY event_by_project (project, id)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE TABLE IF NOT EXISTS run (
  id BINARY(16) NOT NULL PRIMARY KEY,
  plan VARCHAR(255) NOT NULL,
  project VARCHAR(63) NOT NULL,
  revision VARCHAR(80) NOT NULL,
  digest VARCHAR(80) NOT NULL,
  triggered_by VARCHAR(255) NOT NULL,
  created_at BIGINT NOT NULL,
  stage VARCHAR(32) NOT NULL,
  ending VARCHAR(255),
  state LONGTEXT NOT NULL,
  pinned LONGTEXT NOT NULL,
  deadline BIGINT,
  started_at BIGINT,
  finished_at BIGINT,
  tag VARCHAR(255),
  retention_s BIGINT,
  version BIGINT NOT NULL,
  KEY run_by_time (created_at),
  KEY run_by_plan (plan, created_at),
  KEY run_by_project (project, created_at),
  KEY run_by_stage (stage)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE TABLE IF NOT EXISTS run_worker (
  run BINARY(16) NOT NULL,
  worker BINARY(16) NOT NULL,
  position BIGINT NOT NULL,
  session BINARY(16) NOT NULL,
  detail LONGTEXT NOT NULL,
  PRIMARY KEY (run, worker)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE TABLE IF NOT EXISTS hook (
  run BINARY(16) NOT NULL,
  name VARCHAR(255) NOT NULL,
  started_at BIGINT NOT NULL,
  finished_at BIGINT,
  succeeded BIGINT,
  message LONGTEXT NOT NULL,
  PRIMARY KEY (run, name)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE TABLE IF NOT EXISTS summary (
  run BINARY(16) NOT NULL PRIMARY KEY,
  report LONGTEXT NOT NULL
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE TABLE IF NOT EXISTS content (
  digest VARCHAR(80) NOT NULL PRIMARY KEY,
  bytes LONGBLOB NOT NULL
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
