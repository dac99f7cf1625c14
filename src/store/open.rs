//! Opening a store by its address: connections, settings each of them must have, file rights. No password leaves this file.

use super::db::{Db, LOCK_WAIT, MYSQL_LOCK_WAIT_S, STATEMENT_DEADLINE};
use super::fault::Fault;
use super::ledger::SqlLedger;
use super::migrate::migrate;
use super::results::SqlResults;
use super::server;
use super::{Ledger, Result, Results, StoreError};
use sqlx::mysql::{MySqlConnectOptions, MySqlPoolOptions};
use sqlx::pool::PoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _};
use std::path::Path;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

/// Longest wait for a connection: a local one takes milliseconds, a full pool drains within a statement or two.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// Connections to MySQL: ingest, the loop, runs and the API each hold one for a statement or a short transaction.
const MYSQL_CONNECTIONS: u32 = 8;
/// Connections that read a SQLite file beside the one that writes.
const SQLITE_READERS: u32 = 4;
/// A ledger and the results beside it, in one database.
#[derive(Clone)]
pub struct Stores {
    /// What was decided and done.
    pub ledger: Arc<dyn Ledger>,
    /// What was measured.
    pub results: Arc<dyn Results>,
}

/// Opens a database, brings its schema up to date and gives both stores on it.
///
/// - `sqlite:///var/lib/muster/muster.db` or `sqlite://muster.db`: a file, made with its folder when missing, readable by its owner only;
/// - `sqlite::memory:`: nothing is kept;
/// - `mysql://user:password@host:3306/database`, also for MariaDB (`mariadb://` is the same); MySQL is 8.0.12 or newer, MariaDB 10.11 or
///   newer. `?socket=/path` connects by a socket. TLS is used where the server offers it, unless `?ssl-mode=DISABLED`; `?ssl-mode=REQUIRED`
///   insists, `VERIFY_CA` and `VERIFY_IDENTITY` with `&ssl-ca=/path` also check the certificate. A user with a password needs TLS or
///   `IDENTIFIED WITH mysql_native_password`, also on a socket.
///
/// # Errors
/// [`StoreError::Unavailable`] when it does not answer (trying later makes sense), [`StoreError::Refused`] when somebody has to mend something.
pub async fn open(url: &str) -> Result<Stores> {
    let db = Arc::new(connect(url).await.map_err(|error| hide(error, url))?);
    migrate(&db).await.map_err(|error| hide(error, url))?;
    server::check_schema(&db).await.map_err(|error| hide(error, url))?;
    Ok(Stores {
        ledger: Arc::new(SqlLedger::new(Arc::clone(&db))),
        results: Arc::new(SqlResults::new(db)),
    })
}

/// Connects and changes nothing: no file is made, no schema brought up to date. False: a file that is still to be made.
///
/// # Errors
/// As [`open`].
pub async fn reach(url: &str) -> Result<bool> {
    let file = url.strip_prefix("sqlite://").map(Path::new);
    if file.is_some_and(|file| !file.exists()) {
        return Ok(false);
    }
    connect(url).await.map(|_| true).map_err(|error| hide(error, url))
}

/// The address without its password, for people.
pub fn redact(url: &str) -> String {
    match password(url) {
        Some(password) => url.replacen(&format!(":{password}@"), ":***@", 1),
        None => url.to_owned(),
    }
}

/// The password as the address writes it: between the first colon after the scheme and the last `@` before path and options.
fn password(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let (user, _) = rest.rsplit_once('@')?;
    user.split_once(':')
        .map(|(_, password)| password)
        .filter(|password| !password.is_empty())
}

/// Names the database in an error, without the password; also where a driver's text repeats the address.
pub(super) fn hide(error: StoreError, url: &str) -> StoreError {
    let clean = |text: String| format!("{}: {}", redact(url), text.replace(url, &redact(url)));
    match error {
        StoreError::Unavailable(text) => StoreError::Unavailable(clean(text)),
        StoreError::Refused(text) => StoreError::Refused(clean(text)),
        other => other,
    }
}

pub(super) async fn connect(url: &str) -> Result<Db> {
    if url == "sqlite::memory:" {
        return sqlite_memory().await;
    }
    match url.split_once("://") {
        Some(("sqlite", path)) if !path.is_empty() => sqlite_file(Path::new(path)).await,
        Some(("mysql" | "mariadb", rest)) => mysql(&format!("mysql://{rest}")).await,
        _ => Err(StoreError::Refused(
            "a store's address is sqlite://PATH, sqlite::memory: or mysql://USER:PASSWORD@HOST:PORT/DATABASE"
                .to_owned(),
        )),
    }
}

fn sqlite_options() -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .busy_timeout(LOCK_WAIT)
        // What is answered for must survive a power cut.
        .synchronous(SqliteSynchronous::Full)
        .disable_statement_logging()
}

async fn sqlite_memory() -> Result<Db> {
    // Parsing this address makes a name, so that every connection with these options sees the same database.
    let options = SqliteConnectOptions::from_str("sqlite::memory:").map_err(Fault::from)?;
    let options = options.busy_timeout(LOCK_WAIT).disable_statement_logging();
    let pool = |options: SqliteConnectOptions| async move {
        let pool = PoolOptions::new()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None);
        let pool: SqlitePool = pool
            .acquire_timeout(STATEMENT_DEADLINE)
            .connect_with(options)
            .await
            .map_err(Fault::from)?;
        Ok::<_, StoreError>(pool)
    };
    let anchor = pool(options.clone()).await?;
    // Readers share the writer's connection: between connections in shared memory SQLite does not wait for locks, it fails.
    let writer = pool(options).await?;
    Ok(Db::Sqlite {
        readers: writer.clone(),
        writer,
        _anchor: Some(anchor),
    })
}

async fn sqlite_file(path: &Path) -> Result<Db> {
    make_private(path).map_err(|error| StoreError::Refused(format!("its file cannot be made: {error}")))?;
    let options = sqlite_options().filename(path).journal_mode(SqliteJournalMode::Wal);
    let pool = |connections: u32, options: SqliteConnectOptions| async move {
        let pool: SqlitePool = PoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(STATEMENT_DEADLINE)
            .connect_with(options)
            .await
            .map_err(Fault::from)?;
        Ok::<_, StoreError>(pool)
    };
    Ok(Db::Sqlite {
        writer: pool(1, options.clone()).await?,
        readers: pool(SQLITE_READERS, options).await?,
        _anchor: None,
    })
}

/// Makes the file and its folder for the owner's eyes only; SQLite gives its side files the same rights.
fn make_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
        .map(drop)
}

/// Settings that every connection must have, whatever the server's defaults: no silent truncation, no gap locks.
fn mysql_session() -> [String; 3] {
    [
        "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'".to_owned(),
        "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE".to_owned(),
        format!("SET SESSION innodb_lock_wait_timeout = {MYSQL_LOCK_WAIT_S}, SESSION autocommit = 1"),
    ]
}

async fn mysql(url: &str) -> Result<Db> {
    let options = MySqlConnectOptions::from_str(url)
        .map_err(|error| StoreError::Refused(format!("its address cannot be read: {error}")))?
        .charset("utf8mb4")
        .collation("utf8mb4_bin")
        .pipes_as_concat(false)
        .no_engine_substitution(false)
        .disable_statement_logging();
    if options.get_database().is_none_or(str::is_empty) {
        return Err(StoreError::Refused(
            "its address names no database: mysql://USER@HOST/DATABASE".to_owned(),
        ));
    }
    // Once without the pool, which would hide why a connection fails behind "timed out".
    match tokio::time::timeout(CONNECT_DEADLINE, options.connect()).await {
        Ok(Ok(connection)) => drop(connection.close().await),
        Ok(Err(error)) => return Err(Fault::from(error).into()),
        Err(_) => {
            return Err(StoreError::Unavailable(format!(
                "no answer within {} s",
                CONNECT_DEADLINE.as_secs()
            )));
        }
    }
    let pool = MySqlPoolOptions::new()
        .max_connections(MYSQL_CONNECTIONS)
        .acquire_timeout(CONNECT_DEADLINE)
        .after_connect(|connection, _| {
            Box::pin(async move {
                for setting in mysql_session() {
                    connection.execute(sqlx::raw_sql(AssertSqlSafe(setting))).await?;
                }
                Ok(())
            })
        })
        .connect_with(options)
        .await
        .map_err(Fault::from)?;
    let db = Db::MySql(pool);
    server::check(&db).await?;
    Ok(db)
}

#[cfg(test)]
mod tests {
    use super::{open, redact};
    use crate::store::StoreError;

    #[test]
    fn s57_passwords_are_not_shown() {
        for (url, shown) in [
            (
                "mysql://muster:hunter2@db:3306/muster",
                "mysql://muster:***@db:3306/muster",
            ),
            ("mysql://muster:a@b:c@db/muster?x=y", "mysql://muster:***@db/muster?x=y"),
            ("mysql://muster@db/muster", "mysql://muster@db/muster"),
            ("sqlite:///var/lib/x.db", "sqlite:///var/lib/x.db"),
            ("sqlite::memory:", "sqlite::memory:"),
        ] {
            assert_eq!(redact(url), shown);
        }
    }

    #[tokio::test]
    async fn s57_no_error_of_opening_shows_the_password() {
        // Nothing listens on port 1.
        for url in [
            "mysql://muster:hunter2@127.0.0.1:1/muster",
            "mysql://muster:hunter2@127.0.0.1:1",
            "mysql://muster:hunter2@[/x",
            "pg://a:hunter2@b/c",
        ] {
            let error = open(url).await.err().expect("must fail");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_unavailable_and_a_bad_address_is_refused() {
        let error = open("mysql://muster@127.0.0.1:1/muster").await.err();
        assert!(matches!(error, Some(StoreError::Unavailable(_))), "{error:?}");
        for url in ["", "x", "sqlite://", "mysql://muster@127.0.0.1:1", "postgres://a/b"] {
            let error = open(url).await.err();
            assert!(matches!(error, Some(StoreError::Refused(_))), "{url}: {error:?}");
        }
    }
}
