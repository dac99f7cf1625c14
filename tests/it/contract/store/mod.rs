//! The stores' contract: every property holds on a SQLite file, SQLite in memory, MariaDB and MySQL 8 (promise 52).

mod kept;
mod killed;
pub mod ledger;
mod paths;
pub mod results;
mod routed;
mod server;
mod slots;
mod unfit;

use muster::store::{Stores, open};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};
use std::future::Future;
use uuid::Uuid;

/// The databases the contract is checked on.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    SqliteFile,
    SqliteMemory,
    MariaDb,
    MySql,
}

/// A database of its own, and how to open it anew.
pub struct Place {
    pub url: String,
    pub stores: Stores,
}

/// The address of a server without a database, and what to do when it is not there.
pub fn server(kind: Kind) -> Option<(String, &'static str)> {
    let from_env = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    match kind {
        Kind::SqliteFile | Kind::SqliteMemory => None,
        Kind::MariaDb => Some((
            from_env("MUSTER_TEST_MARIADB_URL", "mysql://muster:muster@127.0.0.1:13306"),
            "MariaDB does not answer: start it with `make parts` or `tests/parts/mariadb.sh up`",
        )),
        Kind::MySql => Some((
            from_env(
                "MUSTER_TEST_MYSQL_URL",
                "mysql://muster:muster@127.0.0.1:13380?ssl-mode=DISABLED",
            ),
            "MySQL 8 does not answer: start it with `make parts` or `tests/parts/mysql8.sh up`",
        )),
    }
}

/// The address with a database in it, before its options.
pub fn with_database(server: &str, database: &str) -> String {
    match server.split_once('?') {
        Some((base, options)) => format!("{}/{database}?{options}", base.trim_end_matches('/')),
        None => format!("{}/{database}", server.trim_end_matches('/')),
    }
}

/// Runs statements on a server, outside any database of Muster's.
pub async fn on_server(server: &str, hint: &str, statements: &[String]) {
    let mut connection = match sqlx::MySqlConnection::connect(server).await {
        Ok(connection) => connection,
        Err(error) => panic!("{hint} ({error})"),
    };
    for statement in statements {
        connection.execute(AssertSqlSafe(statement.clone())).await.unwrap();
    }
}

/// A database of a test's own on a server.
pub struct Database {
    kind: Kind,
    name: String,
    pub url: String,
}

/// Makes one.
pub async fn fresh_database(kind: Kind) -> Database {
    let (server, hint) = server(kind).expect("a kind with a server");
    let name = format!("muster_{}", Uuid::now_v7().simple());
    let made = format!("CREATE DATABASE {name} CHARACTER SET utf8mb4");
    on_server(&server, hint, &[made]).await;
    let url = with_database(&server, &name);
    Database { kind, name, url }
}

impl Database {
    /// Drops it.
    pub async fn remove(self) {
        let (server, hint) = server(self.kind).expect("a kind with a server");
        on_server(&server, hint, &[format!("DROP DATABASE {}", self.name)]).await;
    }
}

/// Runs one property on a fresh database and removes the database whatever comes out.
pub async fn check<F: Future<Output = ()> + Send + 'static>(kind: Kind, property: fn(Place) -> F) {
    let folder = tempfile::tempdir().unwrap();
    let database = match server(kind) {
        Some(_) => Some(fresh_database(kind).await),
        None => None,
    };
    let url = match (kind, &database) {
        (_, Some(database)) => database.url.clone(),
        (Kind::SqliteMemory, None) => "sqlite::memory:".to_owned(),
        (_, None) => format!("sqlite://{}/state/muster.db", folder.path().display()),
    };
    let outcome = tokio::spawn(async move {
        let stores = open(&url).await.unwrap();
        property(Place { url, stores }).await;
    })
    .await;
    if let Some(database) = database {
        database.remove().await;
    }
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic.into_panic());
    }
}

/// Makes a test of each property for each database.
macro_rules! contract {
    ($($property:ident),* $(,)?) => {
        contract!(@on sqlite_file SqliteFile $($property)*);
        contract!(@on sqlite_memory SqliteMemory $($property)*);
        contract!(@on mariadb MariaDb $($property)*);
        contract!(@on mysql8 MySql $($property)*);
    };
    (@on $module:ident $kind:ident $($property:ident)*) => {
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $property() {
                    crate::contract::store::check(crate::contract::store::Kind::$kind, super::$property).await;
                }
            )*
        }
    };
}
pub(crate) use contract;
