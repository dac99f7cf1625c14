//! Ingest against the bus in memory and SQLite in memory.
