-- Numbers of each part as columns, what a run's results are of, views for dashboards, and what retention took. MySQL knows no
-- ADD COLUMN IF NOT EXISTS, so the statement is chosen by what is there.
-- Parts are reached from their runs by the index: left alone, MySQL 8.0 reads all parts of all runs.
SET @muster = IF((SELECT COUNT(*) FROM information_schema.columns
  WHERE table_schema = DATABASE() AND table_name = 'slice_part' AND column_name = 'requests') > 0, 'DO 0', 'ALTER TABLE slice_part
  ADD COLUMN requests BIGINT, ADD COLUMN failed BIGINT, ADD COLUMN dropped BIGINT, ADD COLUMN iterations BIGINT,
  ADD COLUMN p50_ns BIGINT, ADD COLUMN p95_ns BIGINT, ADD COLUMN p99_ns BIGINT, ADD COLUMN max_ns BIGINT');
PREPARE muster FROM @muster;
EXECUTE muster;
DEALLOCATE PREPARE muster;
CREATE TABLE IF NOT EXISTS run_info (
  run BINARY(16) NOT NULL PRIMARY KEY,
  id VARCHAR(36) NOT NULL,
  plan VARCHAR(255) NOT NULL,
  started_at BIGINT NOT NULL,
  KEY run_info_by_plan (plan, started_at)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE TABLE IF NOT EXISTS expired (
  run BINARY(16) NOT NULL PRIMARY KEY,
  expired_at BIGINT NOT NULL
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE OR REPLACE SQL SECURITY INVOKER VIEW series_second AS
SELECT i.started_at DIV 1000000 + p.second AS time, i.id AS run, i.plan AS plan, p.phase AS phase, p.scenario AS scenario, p.name AS name,
  p.requests AS requests, p.failed AS errors, p.requests AS rps, p.dropped AS dropped, p.iterations AS iterations,
  p.p50_ns / 1e6 AS p50_ms, p.p95_ns / 1e6 AS p95_ms, p.p99_ns / 1e6 AS p99_ms, p.max_ns / 1e6 AS max_ms
FROM run_info i STRAIGHT_JOIN run_state r ON r.run = i.run
  STRAIGHT_JOIN slice_part p FORCE INDEX (slice_part_by_run) ON p.run = i.run AND p.generation = r.generation
WHERE p.worker IS NULL;
CREATE OR REPLACE SQL SECURITY INVOKER VIEW run_overview AS
SELECT i.started_at DIV 1000000 AS time, i.id AS run, i.plan AS plan, r.sealed <> 0 AS sealed, r.generation AS compacted
FROM run_info i JOIN run_state r ON r.run = i.run;
