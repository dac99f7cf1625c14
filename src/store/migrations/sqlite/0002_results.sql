-- Results. A run's parts of generation 0 are as they arrived; compaction writes generation 1 beside them and then switches over.
CREATE TABLE IF NOT EXISTS run_state (
  run BLOB NOT NULL PRIMARY KEY,
  sealed INTEGER NOT NULL,
  generation INTEGER NOT NULL,
  compacted_above INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS session (
  run BLOB NOT NULL,
  session BLOB NOT NULL,
  worker INTEGER NOT NULL,
  watermark INTEGER NOT NULL,
  late INTEGER NOT NULL,
  last_sequence INTEGER,
  dropped TEXT NOT NULL,
  PRIMARY KEY (run, session)
);
CREATE TABLE IF NOT EXISTS slice_part (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  run BLOB NOT NULL,
  generation INTEGER NOT NULL,
  second INTEGER NOT NULL,
  worker INTEGER,
  phase TEXT,
  scenario TEXT,
  name TEXT,
  data BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS slice_part_by_run ON slice_part (run, generation, id);
CREATE INDEX IF NOT EXISTS slice_part_by_second ON slice_part (run, generation, second);
CREATE TABLE IF NOT EXISTS reject (
  run BLOB NOT NULL,
  session BLOB NOT NULL,
  sequence INTEGER NOT NULL,
  reason TEXT NOT NULL,
  bytes INTEGER NOT NULL,
  at INTEGER NOT NULL,
  PRIMARY KEY (run, session, sequence)
);
