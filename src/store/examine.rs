//! Looks at a database without changing it: which server it is, whether Muster can write there, whether the tables are its own and new.

use super::db::{Conn, Db};
use super::fault::Fault;
use super::migrate::behind;
use super::open::{connect, hide};
use super::server::{check_rights, check_tables};
use super::value::read_all;
use super::{Result, StoreError};

/// What a look found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examined {
    /// `MariaDB 10.11.14`, `MySQL 8.4.2`.
    pub server: String,
    /// Whether its tables are to be made or brought up to date.
    pub migrate: bool,
    /// What somebody has to mend, where its tables are not as Muster made them.
    pub problem: Option<String>,
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
    let found = conn.rows("SELECT VERSION()", &[]).await?;
    let version = read_all("version", &found, |row| row.text(0))?
        .pop()
        .unwrap_or_default();
    let number = version.split('-').next().unwrap_or(&version);
    let server = match version.contains("MariaDB") {
        true => format!("MariaDB {number}"),
        false => format!("MySQL {number}"),
    };
    let migrate = behind(conn).await?;
    let looked = async {
        check_tables(conn).await?;
        match migrate {
            // Tables that are still to be made cannot be written to.
            true => Ok(()),
            false => check_rights(conn).await,
        }
    };
    let problem = match looked.await {
        Ok(()) => None,
        Err(Fault::Store(StoreError::Refused(reason))) => Some(reason),
        Err(other) => return Err(other),
    };
    Ok(Examined {
        server,
        migrate,
        problem,
    })
}
