//! Looks at a database without changing it: which server it is, whether Muster can write there, whether the tables are its own and new.

use super::db::{Conn, Db};
use super::fault::Fault;
use super::migrate::{behind, tables};
use super::open::{connect, hide};
use super::value::{Row, read_all};
use super::{Result, StoreError};

/// The collation of all of Muster's tables: names that differ in case or accents are different names.
const COLLATION: &str = "utf8mb4_bin";

/// What a look found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examined {
    /// `MariaDB 10.11.14`, `MySQL 8.4.2`.
    pub server: String,
    /// Whether its tables are to be made or brought up to date.
    pub migrate: bool,
    /// What somebody has to mend.
    pub problems: Vec<String>,
}

/// Looks at a database of MySQL or MariaDB, and changes nothing.
///
/// # Errors
/// As [`super::open()`]: when it does not answer, or somebody has to mend something before anything can be seen.
pub async fn examine(url: &str) -> Result<Examined> {
    let look = async {
        // A file would be made by being looked at, and other hosts could not reach it.
        if !["mysql://", "mariadb://"].iter().any(|scheme| url.starts_with(scheme)) {
            let text = "its address is not mysql://USER:PASSWORD@HOST:PORT/DATABASE";
            return Err(StoreError::Refused(text.to_owned()));
        }
        let db = connect(url).await?;
        let mut conn = db.connection(false).await?;
        let examined = mysql(&mut conn).await?;
        conn.release();
        if let Db::MySql(pool) = &db {
            pool.close().await;
        }
        Ok(examined)
    };
    look.await.map_err(|error| hide(error, url))
}

async fn mysql(conn: &mut Conn) -> Result<Examined, Fault> {
    let found = conn
        .rows(
            "SELECT VERSION(), @@SESSION.sql_mode, @@SESSION.collation_connection",
            &[],
        )
        .await?;
    let texts = |row: &Row| Ok((row.text(0)?, row.text(1)?, row.text(2)?));
    let (version, mode, collation) = read_all("version", &found, texts)?.pop().unwrap_or_default();
    let number = version.split('-').next().unwrap_or(&version);
    let server = match version.contains("MariaDB") {
        true => format!("MariaDB {number}"),
        false => format!("MySQL {number}"),
    };
    let mut problems = Vec::new();
    // Each connection asks for both; where it does not get them, something in between decides.
    if !mode.split(',').any(|word| word == "STRICT_ALL_TABLES") {
        problems.push(format!(
            "its sql_mode stays `{mode}`, STRICT_ALL_TABLES is needed: let a proxy in between pass `SET SESSION sql_mode`"
        ));
    }
    if collation != COLLATION {
        problems.push(format!(
            "the collation of connections stays {collation}, {COLLATION} is needed: let a proxy in between pass `SET NAMES`"
        ));
    }
    let missing = behind(conn).await?;
    let wrong = conn
        .rows(
            format!(
                "SELECT TABLE_NAME, TABLE_COLLATION FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() \
                 AND TABLE_COLLATION <> '{COLLATION}' AND TABLE_NAME IN ({}) ORDER BY TABLE_NAME",
                tables()
                    .map(|table| format!("'{table}'"))
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
            &[],
        )
        .await?;
    for (table, collation) in read_all("tables", &wrong, |row| Ok((row.text(0)?, row.text(1)?)))? {
        problems.push(format!(
            "table {table} has collation {collation}: `ALTER TABLE {table} CONVERT TO CHARACTER SET utf8mb4 COLLATE {COLLATION}`"
        ));
    }
    if !missing {
        writable(conn, &mut problems).await?;
    }
    Ok(Examined {
        server,
        migrate: missing,
        problems,
    })
}

/// A server that is read-only, or a user that may only read, refuses this as any other write; it touches no row.
async fn writable(conn: &mut Conn, problems: &mut Vec<String>) -> Result<(), Fault> {
    match conn.execute("DELETE FROM schema_version WHERE 1 = 0", &[]).await {
        Ok(_) => Ok(()),
        Err(Fault::Store(StoreError::Refused(reason))) => {
            problems.push(reason);
            Ok(())
        }
        Err(other) => Err(other),
    }
}
