//! The schema's versions: which files make it, and bringing a database up to the newest one. Forward only.

use super::db::{Conn, Db, STATEMENT_DEADLINE};
use super::fault::Fault;
use super::value::{read_all, values};
use super::{Result, StoreError};
use std::time::Duration;

/// Number, SQLite's text, MySQL's text. A file may be extended only until a release contains it; then a new one is added.
/// Statements end with `;` at a line's end. MySQL's can run again: it commits every DDL statement by itself, so a daemon killed
/// within a file begins it anew. SQLite runs a file whole or not at all.
const MIGRATIONS: [(u32, &str, &str); 4] = [
    (
        1,
        include_str!("migrations/sqlite/0001_ledger.sql"),
        include_str!("migrations/mysql/0001_ledger.sql"),
    ),
    (
        2,
        include_str!("migrations/sqlite/0002_results.sql"),
        include_str!("migrations/mysql/0002_results.sql"),
    ),
    (
        3,
        include_str!("migrations/sqlite/0003_numbers.sql"),
        include_str!("migrations/mysql/0003_numbers.sql"),
    ),
    (
        4,
        include_str!("migrations/sqlite/0004_schedule.sql"),
        include_str!("migrations/mysql/0004_schedule.sql"),
    ),
];

/// Longest wait for one DDL statement: on a large table it copies the table.
const DDL_DEADLINE: Duration = Duration::from_secs(300);

/// Brings the schema up to what this build knows.
///
/// # Errors
/// Refused when the database is newer than this build, or does not let its user make tables.
pub(super) async fn migrate(db: &Db) -> Result<()> {
    match db {
        // DDL is transactional in SQLite: all or nothing, and other processes wait.
        Db::Sqlite { .. } => {
            let mut conn = db.begin().await?;
            let outcome = upgrade(&mut conn, |(_, sqlite, _)| sqlite).await;
            match outcome {
                Ok(()) => Ok(conn.commit().await?),
                Err(fault) => {
                    conn.rollback().await;
                    Err(fault.into())
                }
            }
        }
        // The lock keeps two daemons that start together from running the same DDL side by side; it goes with the connection.
        Db::MySql(_) => {
            let mut conn = db.connection(true).await?;
            let locked = conn
                .rows("SELECT GET_LOCK(CONCAT('muster.', MD5(DATABASE())), 8)", &[])
                .await?;
            if read_all("schema_version", &locked, |row| row.int_or_null(0))? != [Some(1)] {
                return Err(StoreError::Unavailable(
                    "another process is changing the schema".to_owned(),
                ));
            }
            upgrade(&mut conn, |(_, _, mysql)| mysql).await?;
            conn.raw(
                "DO RELEASE_LOCK(CONCAT('muster.', MD5(DATABASE())))",
                STATEMENT_DEADLINE,
            )
            .await?;
            conn.release();
            Ok(())
        }
    }
}

/// Whether the schema is still to be brought up to what this build knows. Changes nothing.
///
/// # Errors
/// Refused when the database is newer than this build.
pub(super) async fn behind(conn: &mut Conn) -> Result<bool, Fault> {
    let sql = "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'schema_version'";
    let rows = conn.rows(sql, &[]).await?;
    if read_all("tables", &rows, |row| row.int(0))? == [0] {
        return Ok(true);
    }
    let present = present(conn).await?;
    Ok(MIGRATIONS
        .iter()
        .any(|migration| !present.contains(&i64::from(migration.0))))
}

/// The tables that migrations make on MySQL.
pub(super) fn tables() -> impl Iterator<Item = &'static str> {
    MIGRATIONS
        .into_iter()
        .flat_map(|(_, _, mysql)| statements(mysql))
        .filter_map(|statement| statement.split("CREATE TABLE IF NOT EXISTS ").nth(1)?.split(' ').next())
}

/// The migrations that were applied; none of them is unknown to this build.
async fn present(conn: &mut Conn) -> Result<Vec<i64>, Fault> {
    let rows = conn
        .rows("SELECT version FROM schema_version ORDER BY version", &[])
        .await?;
    let present = read_all("schema_version", &rows, |row| row.int(0))?;
    let newest = MIGRATIONS.last().map_or(0, |migration| i64::from(migration.0));
    if let Some(found) = present.last().filter(|found| **found > newest) {
        return Err(StoreError::Refused(format!(
            "it was written by a newer muster (schema {found}, this one knows {newest}): run that version, or use another database"
        ))
        .into());
    }
    Ok(present)
}

async fn upgrade(conn: &mut Conn, text: fn((u32, &'static str, &'static str)) -> &'static str) -> Result<(), Fault> {
    let table = "CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL PRIMARY KEY)";
    conn.raw(table, STATEMENT_DEADLINE).await?;
    let present = present(conn).await?;
    for migration in MIGRATIONS {
        if present.contains(&i64::from(migration.0)) {
            continue;
        }
        for statement in statements(text(migration)) {
            conn.raw(statement, DDL_DEADLINE).await?;
        }
        conn.execute("INSERT INTO schema_version (version) VALUES (?)", &values![migration.0])
            .await?;
    }
    Ok(())
}

fn statements(text: &'static str) -> impl Iterator<Item = &'static str> {
    text.split(";\n")
        .map(str::trim)
        .filter(|statement| !statement.is_empty())
}

#[cfg(test)]
mod tests {
    use super::{MIGRATIONS, statements};

    #[test]
    fn s52_every_migration_has_idempotent_statements_and_a_number_that_grows() {
        assert!(MIGRATIONS.windows(2).all(|pair| pair[0].0 < pair[1].0));
        for (number, sqlite, mysql) in MIGRATIONS {
            for statement in statements(sqlite) {
                let is_guarded = statement.contains("IF NOT EXISTS") || statement.contains("ALTER TABLE");
                assert!(is_guarded, "{number}: {statement}");
            }
            // A statement that is chosen by what is there is prepared; views are replaced.
            let again = [
                "IF NOT EXISTS",
                "OR REPLACE",
                "SET @muster = IF(",
                "PREPARE muster",
                "EXECUTE muster",
            ];
            for statement in statements(mysql) {
                let is_guarded = again.iter().any(|word| statement.contains(word));
                assert!(is_guarded, "{number}: {statement}");
            }
        }
    }

    /// Tables and their columns in order, without the types.
    fn shape(text: &'static str) -> Vec<(String, Vec<String>)> {
        statements(text)
            .filter(|statement| statement.contains("CREATE TABLE"))
            .filter_map(|statement| {
                let (head, body) = statement.split_once("(\n")?;
                let columns = body
                    .lines()
                    .map(|line| line.trim().split(' ').next().unwrap_or("").to_owned());
                let columns =
                    columns.filter(|word| !word.is_empty() && !["PRIMARY", "KEY", ")"].contains(&word.as_str()));
                Some((head.split_whitespace().last()?.to_owned(), columns.collect()))
            })
            .collect()
    }

    #[test]
    fn s52_both_databases_have_the_same_tables_and_columns() {
        for (number, sqlite, mysql) in MIGRATIONS {
            assert_eq!(shape(sqlite), shape(mysql), "{number}");
            assert!(shape(sqlite).len() >= 2);
        }
    }
}
