//! One face for both databases: connections, parameters, rows, the few places where their SQL differs. Every wait has a deadline.

use super::fault::Fault;
use super::value::{Row, Unreadable, Value, read_all};
use super::{Result, StoreError};
use sqlx::mysql::MySqlPool;
use sqlx::pool::PoolConnection;
use sqlx::sqlite::SqlitePool;
use sqlx::{AssertSqlSafe, MySql, Sqlite, Transaction};
use std::borrow::Cow;
use std::future::Future;
use std::time::Duration;

/// Longest wait for one statement's answer. Lock waits (5 s) end before it; a healthy statement takes milliseconds.
pub(super) const STATEMENT_DEADLINE: Duration = Duration::from_secs(10);
/// Longest wait for another writer's lock; a flush holds its locks for well under a second.
pub(super) const LOCK_WAIT: Duration = Duration::from_secs(5);
/// The same in MySQL, which tries again after it: [`TRIES`] times this is the longest.
pub(super) const MYSQL_LOCK_WAIT_S: u32 = 2;
/// How often a transaction that lost a deadlock is tried. One of those that meet always wins, so few are enough.
pub(super) const TRIES: u32 = 6;
/// Most rows in one INSERT: beyond it the gain is small and packets grow (5,000 parameters; SQLite allows 32,766).
const ROWS_MAX: usize = 512;
/// Most bytes of parameters in one INSERT, far below the smallest `max_allowed_packet` accepted (16 MiB).
pub(super) const BYTES_MAX: usize = 4 << 20;

/// SQL text: a constant, or put together from constants.
pub(super) type Sql = Cow<'static, str>;

/// A database.
#[derive(Debug)]
pub(super) enum Db {
    /// One file, or memory. One connection writes, so that writers queue here and not in SQLite's busy handler.
    Sqlite {
        /// The one that writes.
        writer: SqlitePool,
        /// Those that read.
        readers: SqlitePool,
        /// A database in memory lives as long as a connection to it: this one is never used for anything else.
        _anchor: Option<SqlitePool>,
    },
    /// MySQL or MariaDB.
    MySql(MySqlPool),
}

/// What a statement did.
#[derive(Debug, Clone, Copy)]
pub(super) struct Done {
    /// Rows it matched (both databases count those that already were as wanted).
    pub(super) rows: u64,
    /// The number the database chose for the last row inserted.
    pub(super) id: u64,
}

/// A pooled MySQL connection that is closed, not given back, when it is dropped in the middle of something: the server then
/// rolls back, and a connection that hangs does not stay in the pool.
#[derive(Debug)]
pub(super) struct Guarded(Option<PoolConnection<MySql>>);

impl Guarded {
    fn connection(&mut self) -> &mut sqlx::MySqlConnection {
        self.0
            .as_mut()
            .expect("the connection is taken only when the guard ends")
    }

    fn give_back(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(connection.detach());
        }
    }
}

/// One connection in use, inside a transaction or not.
#[derive(Debug)]
pub(super) enum Conn {
    /// Outside a transaction.
    Sqlite(PoolConnection<Sqlite>),
    /// Inside one; rolls back when dropped.
    SqliteTransaction(Transaction<'static, Sqlite>),
    /// Either.
    MySql(Guarded),
}

async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, Fault> {
    match tokio::time::timeout(limit, work).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(Fault::Store(StoreError::Unavailable(format!(
            "no answer within {} s",
            limit.as_secs()
        )))),
    }
}

macro_rules! bound {
    ($sql:expr, $values:expr) => {
        $values
            .iter()
            .fold(sqlx::query(AssertSqlSafe($sql)), |query, value| match value {
                Value::Null => query.bind(None::<i64>),
                Value::Int(number) => query.bind(*number),
                Value::Text(text) => query.bind(text.as_str()),
                Value::Bytes(bytes) => query.bind(bytes.as_slice()),
            })
    };
}

impl Conn {
    /// Runs a statement.
    pub(super) async fn execute(&mut self, sql: impl Into<Sql>, values: &[Value]) -> Result<Done, Fault> {
        let sql = sql.into();
        let connection = match self {
            Self::Sqlite(connection) => &mut **connection,
            Self::SqliteTransaction(transaction) => &mut **transaction,
            Self::MySql(guarded) => {
                let done = within(STATEMENT_DEADLINE, bound!(sql, values).execute(guarded.connection())).await?;
                return Ok(Done {
                    rows: done.rows_affected(),
                    id: done.last_insert_id(),
                });
            }
        };
        let done = within(STATEMENT_DEADLINE, bound!(sql, values).execute(connection)).await?;
        Ok(Done {
            rows: done.rows_affected(),
            id: u64::try_from(done.last_insert_rowid()).unwrap_or(0),
        })
    }

    /// Runs a query.
    pub(super) async fn rows(&mut self, sql: impl Into<Sql>, values: &[Value]) -> Result<Vec<Row>, Fault> {
        let sql = sql.into();
        let connection = match self {
            Self::Sqlite(connection) => &mut **connection,
            Self::SqliteTransaction(transaction) => &mut **transaction,
            Self::MySql(guarded) => {
                let rows = within(STATEMENT_DEADLINE, bound!(sql, values).fetch_all(guarded.connection())).await?;
                return Ok(rows.into_iter().map(Row::MySql).collect());
            }
        };
        let rows = within(STATEMENT_DEADLINE, bound!(sql, values).fetch_all(connection)).await?;
        Ok(rows.into_iter().map(Row::Sqlite).collect())
    }

    /// Runs a statement without parameters by the text protocol, which also takes those that cannot be prepared.
    pub(super) async fn raw(&mut self, sql: impl Into<Sql>, limit: Duration) -> Result<(), Fault> {
        let sql = AssertSqlSafe(sql.into());
        match self {
            Self::Sqlite(connection) => within(limit, sqlx::raw_sql(sql).execute(&mut **connection))
                .await
                .map(drop),
            Self::SqliteTransaction(transaction) => within(limit, sqlx::raw_sql(sql).execute(&mut **transaction))
                .await
                .map(drop),
            Self::MySql(guarded) => within(limit, sqlx::raw_sql(sql).execute(guarded.connection()))
                .await
                .map(drop),
        }
    }

    /// Inserts many rows, in their order, in as few statements as the limits allow. Sizes are powers of two, so that only a few
    /// different statements are ever prepared. `tail` ends each statement: what to do with a row that is there.
    pub(super) async fn insert_many(
        &mut self,
        table: &str,
        columns: &[&str],
        rows: &[Vec<Value>],
        tail: &str,
    ) -> Result<(), Fault> {
        let mut rest = rows;
        while !rest.is_empty() {
            let mut size = 1 << rest.len().min(ROWS_MAX).ilog2();
            while size > 1 && rest[..size].iter().flatten().map(Value::size).sum::<usize>() > BYTES_MAX {
                size /= 2;
            }
            let (now, later) = rest.split_at(size);
            let sql = format!("{}{tail}", insert_sql(table, columns, size));
            self.execute(sql, &now.concat()).await?;
            rest = later;
        }
        Ok(())
    }

    /// Ends the transaction. When it fails, whether it took effect is unknown: read to find out.
    pub(super) async fn commit(self) -> Result<(), Fault> {
        match self {
            Self::Sqlite(_) => Ok(()),
            Self::SqliteTransaction(transaction) => within(STATEMENT_DEADLINE, transaction.commit()).await,
            Self::MySql(mut guarded) => {
                within(
                    STATEMENT_DEADLINE,
                    sqlx::raw_sql("COMMIT").execute(guarded.connection()),
                )
                .await?;
                guarded.give_back();
                Ok(())
            }
        }
    }

    /// Undoes the transaction. A connection that cannot is closed, which undoes it as well.
    pub(super) async fn rollback(self) {
        match self {
            Self::Sqlite(_) => {}
            Self::SqliteTransaction(transaction) => drop(within(STATEMENT_DEADLINE, transaction.rollback()).await),
            Self::MySql(mut guarded) => {
                if within(
                    STATEMENT_DEADLINE,
                    sqlx::raw_sql("ROLLBACK").execute(guarded.connection()),
                )
                .await
                .is_ok()
                {
                    guarded.give_back();
                }
            }
        }
    }

    /// Gives a connection outside a transaction back to its pool.
    pub(super) fn release(self) {
        if let Self::MySql(guarded) = self {
            guarded.give_back();
        }
    }
}

/// Runs a transaction, anew where the database chose it as a deadlock's victim. `$body` uses `$tx: Conn` and gives
/// `Result<_, Fault>`.
macro_rules! transaction {
    ($db:expr, |$tx:ident| $body:block) => {{
        let mut tries = 1;
        loop {
            let mut $tx = $db.begin().await?;
            let outcome: std::result::Result<_, $crate::store::fault::Fault> = async { $body }.await;
            let outcome = match outcome {
                Ok(value) => $tx.commit().await.map(|()| value),
                Err(fault) => {
                    $tx.rollback().await;
                    Err(fault)
                }
            };
            match outcome {
                Err($crate::store::fault::Fault::Again(_)) if tries < $crate::store::db::TRIES => {
                    $crate::store::db::before_retry(tries).await;
                    tries += 1;
                }
                outcome => break outcome.map_err($crate::store::StoreError::from),
            }
        }
    }};
}
pub(super) use transaction;

/// Waits a little longer before each new try: 5, 10, 20, … ms.
pub(super) async fn before_retry(tries: u32) {
    tokio::time::sleep(Duration::from_millis(5 << tries.min(6))).await;
}

impl Db {
    /// A connection outside a transaction.
    pub(super) async fn connection(&self, writes: bool) -> Result<Conn, Fault> {
        Ok(match self {
            Self::Sqlite { writer, .. } if writes => Conn::Sqlite(writer.acquire().await?),
            Self::Sqlite { readers, .. } => Conn::Sqlite(readers.acquire().await?),
            Self::MySql(pool) => Conn::MySql(Guarded(Some(pool.acquire().await?))),
        })
    }

    /// Begins a transaction that writes.
    pub(super) async fn begin(&self) -> Result<Conn, Fault> {
        if let Self::Sqlite { writer, .. } = self {
            let begun = within(STATEMENT_DEADLINE, writer.begin_with("BEGIN IMMEDIATE")).await?;
            return Ok(Conn::SqliteTransaction(begun));
        }
        let mut conn = self.connection(true).await?;
        conn.raw("START TRANSACTION", STATEMENT_DEADLINE).await?;
        Ok(conn)
    }

    /// Runs one statement that writes, in a transaction of its own.
    pub(super) async fn execute(&self, sql: impl Into<Sql>, values: &[Value]) -> Result<Done> {
        let sql = sql.into();
        let mut tries = 1;
        loop {
            let mut conn = self.connection(true).await?;
            match conn.execute(sql.clone(), values).await {
                Err(Fault::Again(_)) if tries < TRIES => {
                    conn.release();
                    before_retry(tries).await;
                    tries += 1;
                }
                Err(fault) => return Err(fault.into()),
                Ok(done) => {
                    conn.release();
                    return Ok(done);
                }
            }
        }
    }

    /// Runs a query and reads every row.
    pub(super) async fn fetch<T>(
        &self,
        table: &'static str,
        sql: impl Into<Sql>,
        values: &[Value],
        read: impl Fn(&Row) -> Result<T, Unreadable>,
    ) -> Result<Vec<T>> {
        let mut conn = self.connection(false).await?;
        let rows = conn.rows(sql, values).await?;
        conn.release();
        read_all(table, &rows, read)
    }

    /// An INSERT that overwrites `columns` of a row with the same `keys`; with no columns it leaves that row alone.
    pub(super) fn upsert_sql(&self, table: &str, keys: &[&str], columns: &[&str]) -> Sql {
        let insert = insert_sql(table, &[keys, columns].concat(), 1);
        format!("{insert}{}", self.where_there(keys, columns)).into()
    }

    /// The end of an INSERT that overwrites `columns` where a row with the same `keys` is there.
    pub(super) fn where_there(&self, keys: &[&str], columns: &[&str]) -> String {
        let set = |columns: &[&str], to: fn(&str) -> String| {
            let set: Vec<String> = columns
                .iter()
                .map(|column| format!("{column} = {}", to(column)))
                .collect();
            set.join(", ")
        };
        match self {
            Self::Sqlite { .. } if columns.is_empty() => " ON CONFLICT DO NOTHING".to_owned(),
            Self::Sqlite { .. } => {
                let set = set(columns, |column| format!("excluded.{column}"));
                format!(" ON CONFLICT ({}) DO UPDATE SET {set}", keys.join(", "))
            }
            // `VALUES()`, because MariaDB and MySQL before 8.0.19 do not know `AS new`.
            Self::MySql(_) => {
                let columns = if columns.is_empty() { &keys[..1] } else { columns };
                let set = set(columns, |column| format!("VALUES({column})"));
                format!(" ON DUPLICATE KEY UPDATE {set}")
            }
        }
    }

    /// Writes one row over what has the same keys. `values`: the keys', then the columns'.
    pub(super) async fn upsert(&self, table: &str, keys: &[&str], columns: &[&str], values: &[Value]) -> Result<()> {
        self.execute(self.upsert_sql(table, keys, columns), values)
            .await
            .map(drop)
    }

    /// What has parts of a run read in the order of its index. Left alone, MySQL reads the parts of all runs in the order of their
    /// numbers, and MariaDB sorts all that is left of the run for each page.
    pub(super) fn by_run(&self) -> &'static str {
        match self {
            Self::Sqlite { .. } => " INDEXED BY slice_part_by_run",
            Self::MySql(_) => " FORCE INDEX (slice_part_by_run)",
        }
    }

    /// What makes a SELECT in a transaction hold its rows until the end. SQLite's writers already have the whole database.
    pub(super) fn for_update(&self) -> &'static str {
        match self {
            Self::Sqlite { .. } => "",
            Self::MySql(_) => " FOR UPDATE",
        }
    }
}

fn insert_sql(table: &str, columns: &[&str], rows: usize) -> Sql {
    let row = format!("({})", vec!["?"; columns.len()].join(", "));
    format!(
        "INSERT INTO {table} ({}) VALUES {}",
        columns.join(", "),
        vec![row.as_str(); rows].join(", ")
    )
    .into()
}
