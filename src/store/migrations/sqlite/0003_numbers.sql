-- Numbers of each part as columns, what a run's results are of, views for dashboards, and what retention took. In SQLite a whole
-- migration is one transaction, so a column is added once.
ALTER TABLE slice_part ADD COLUMN requests INTEGER;
ALTER TABLE slice_part ADD COLUMN failed INTEGER;
ALTER TABLE slice_part ADD COLUMN dropped INTEGER;
ALTER TABLE slice_part ADD COLUMN iterations INTEGER;
ALTER TABLE slice_part ADD COLUMN p50_ns INTEGER;
ALTER TABLE slice_part ADD COLUMN p95_ns INTEGER;
ALTER TABLE slice_part ADD COLUMN p99_ns INTEGER;
ALTER TABLE slice_part ADD COLUMN max_ns INTEGER;
CREATE TABLE IF NOT EXISTS run_info (
  run BLOB NOT NULL PRIMARY KEY,
  id TEXT NOT NULL,
  plan TEXT NOT NULL,
  started_at INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS run_info_by_plan ON run_info (plan, started_at);
CREATE TABLE IF NOT EXISTS expired (
  run BLOB NOT NULL PRIMARY KEY,
  expired_at INTEGER NOT NULL
);
CREATE VIEW IF NOT EXISTS series_second AS
SELECT i.started_at / 1000000 + p.second AS time, i.id AS run, i.plan AS plan, p.phase AS phase, p.scenario AS scenario, p.name AS name,
  p.requests AS requests, p.failed AS errors, p.requests AS rps, p.dropped AS dropped, p.iterations AS iterations,
  p.p50_ns / 1e6 AS p50_ms, p.p95_ns / 1e6 AS p95_ms, p.p99_ns / 1e6 AS p99_ms, p.max_ns / 1e6 AS max_ms
FROM run_info i JOIN run_state r ON r.run = i.run JOIN slice_part p ON p.run = i.run AND p.generation = r.generation
WHERE p.worker IS NULL;
CREATE VIEW IF NOT EXISTS run_overview AS
SELECT i.started_at / 1000000 AS time, i.id AS run, i.plan AS plan, r.sealed <> 0 AS sealed, r.generation AS compacted
FROM run_info i JOIN run_state r ON r.run = i.run;
