-- Results. A run's parts of generation 0 are as they arrived; compaction writes generation 1 beside them and then switches over.
CREATE TABLE IF NOT EXISTS run_state (
  run BINARY(16) NOT NULL PRIMARY KEY,
  sealed BIGINT NOT NULL,
  generation BIGINT NOT NULL,
  compacted_above BIGINT NOT NULL
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE TABLE IF NOT EXISTS session (
  run BINARY(16) NOT NULL,
  session BINARY(16) NOT NULL,
  worker BIGINT NOT NULL,
  watermark BIGINT NOT NULL,
  late BIGINT NOT NULL,
  last_sequence BIGINT,
  dropped LONGTEXT NOT NULL,
  PRIMARY KEY (run, session)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE TABLE IF NOT EXISTS slice_part (
  id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  run BINARY(16) NOT NULL,
  generation BIGINT NOT NULL,
  second BIGINT NOT NULL,
  worker BIGINT,
  phase VARCHAR(255),
  scenario VARCHAR(255),
  name VARCHAR(1024),
  data LONGBLOB NOT NULL,
  KEY slice_part_by_run (run, generation, id),
  KEY slice_part_by_second (run, generation, second)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE TABLE IF NOT EXISTS reject (
  run BINARY(16) NOT NULL,
  session BINARY(16) NOT NULL,
  sequence BIGINT NOT NULL,
  reason VARCHAR(255) NOT NULL,
  bytes BIGINT NOT NULL,
  at BIGINT NOT NULL,
  PRIMARY KEY (run, session, sequence)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
