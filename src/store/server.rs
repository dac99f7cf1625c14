//! Whether a MySQL or MariaDB server and the schema on it are fit for what Muster promises. What is not is said with a code, the
//! value found, and what to change.

use super::db::{BYTES_MAX, Conn, Db};
use super::fault::Fault;
use super::migrate::tables;
use super::value::{Row, read_all};
use super::{Result, StoreError};

/// The smallest `max_allowed_packet` accepted: MariaDB's default. An INSERT of a flush is [`BYTES_MAX`] and one row more at most.
const PACKET_MIN: i64 = 16 << 20;
/// The collation of all of Muster's tables: names that differ in case or accents are different names.
const COLLATION: &str = "utf8mb4_bin";

/// Why a server cannot hold a store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Unfit {
    #[error("S01 {name} {version} is too old: {oldest} is the oldest that works")]
    TooOld {
        name: &'static str,
        version: String,
        oldest: String,
    },
    #[error(
        "S02 its max_allowed_packet is {found} bytes; one INSERT of results takes up to {} and one row, so at least {PACKET_MIN} are \
         needed: `SET GLOBAL max_allowed_packet = 67108864`, and in the server's configuration",
        BYTES_MAX
    )]
    Packet { found: i64 },
    #[error("S03 it is read-only ({0}): point the address at the writable primary, or `SET GLOBAL read_only = OFF`")]
    ReadOnly(&'static str),
    #[error(
        "S04 its connections stay at sql_mode `{0}` though STRICT_ALL_TABLES was asked for, so it would cut off what is too long: \
         connect to the server itself, not through what answers in its place"
    )]
    NotStrict(String),
    #[error(
        "S04 its connections stay at collation {0} though {COLLATION} was asked for: connect to the server itself, not through what \
         answers in its place"
    )]
    OtherCollation(String),
    #[error(
        "S05 table {table} has collation {found} (column {table}.{column}), which takes different names for the same: \
         `ALTER TABLE {table} CONVERT TO CHARACTER SET utf8mb4 COLLATE {COLLATION}`"
    )]
    Collation {
        table: String,
        column: String,
        found: String,
    },
    #[error(
        "S06 table {table} is of engine {found}, which knows no transactions: `ALTER TABLE {table} ENGINE = InnoDB`"
    )]
    Engine { table: String, found: String },
}

impl From<Unfit> for StoreError {
    fn from(unfit: Unfit) -> Self {
        Self::Refused(unfit.to_string())
    }
}

/// Looks at the server, before anything is written to it.
pub(super) async fn check(db: &Db) -> Result<()> {
    let Db::MySql(_) = db else { return Ok(()) };
    let mut conn = db.connection(false).await?;
    let sql = "SELECT VERSION(), CAST(@@max_allowed_packet AS SIGNED), CAST(@@global.read_only AS SIGNED), @@session.sql_mode, \
               @@session.collation_connection";
    let rows = conn.rows(sql, &[]).await?;
    let found = read_all("variables", &rows, |row| {
        Ok((row.text(0)?, row.int(1)?, row.int(2)?, row.text(3)?, row.text(4)?))
    })?;
    conn.release();
    for (version, packet, read_only, sql_mode, collation) in found {
        check_version(&version)?;
        check_packet(packet)?;
        if read_only != 0 {
            return Err(Unfit::ReadOnly("read_only").into());
        }
        if !sql_mode.contains("STRICT_ALL_TABLES") {
            return Err(Unfit::NotStrict(sql_mode).into());
        }
        if collation != COLLATION {
            return Err(Unfit::OtherCollation(collation).into());
        }
    }
    Ok(())
}

/// Looks at the schema once it is there, and whether its user may do everything with it.
pub(super) async fn check_schema(db: &Db) -> Result<()> {
    let Db::MySql(_) = db else { return Ok(()) };
    let mut conn = db.connection(true).await?;
    let outcome = async {
        check_tables(&mut conn).await?;
        check_rights(&mut conn).await
    }
    .await;
    conn.release();
    Ok(outcome?)
}

/// Looks at the tables that are there.
pub(super) async fn check_tables(conn: &mut Conn) -> Result<(), Fault> {
    let names: Vec<String> = tables().map(|table| format!("'{table}'")).collect();
    let ours = format!("table_schema = DATABASE() AND table_name IN ({})", names.join(", "));
    let sql = format!(
        "SELECT table_name, engine FROM information_schema.tables WHERE {ours} AND engine <> 'InnoDB' ORDER BY table_name"
    );
    let rows = conn.rows(sql, &[]).await?;
    if let Some((table, found)) = read_all("tables", &rows, pair)?.into_iter().next() {
        return Err(StoreError::from(Unfit::Engine { table, found }).into());
    }
    let sql = format!(
        "SELECT table_name, column_name, collation_name FROM information_schema.columns \
         WHERE {ours} AND collation_name <> '{COLLATION}' ORDER BY table_name, ordinal_position"
    );
    let rows = conn.rows(sql, &[]).await?;
    let read = |row: &Row| Ok((pair(row)?, row.text(2)?));
    if let Some(((table, column), found)) = read_all("columns", &rows, read)?.into_iter().next() {
        return Err(StoreError::from(Unfit::Collation { table, column, found }).into());
    }
    Ok(())
}

/// Whether its user may write and delete rows: each of these changes nothing, and a server that is read-only refuses it too.
pub(super) async fn check_rights(conn: &mut Conn) -> Result<(), Fault> {
    for sql in [
        "INSERT INTO slice_part (run, generation, second, data) SELECT run, generation, second, data FROM slice_part WHERE 1 = 0",
        "UPDATE slice_part SET generation = generation WHERE 1 = 0",
        "DELETE FROM slice_part WHERE 1 = 0",
    ] {
        conn.execute(sql, &[]).await?;
    }
    Ok(())
}

fn pair(row: &Row) -> Result<(String, String), super::value::Unreadable> {
    Ok((row.text(0)?, row.text(1)?))
}

fn check_version(version: &str) -> Result<(), Unfit> {
    let (name, oldest) = match version.contains("MariaDB") {
        true => ("MariaDB", [10, 11, 0]),
        false => ("MySQL", [8, 0, 12]),
    };
    let mut found = version
        .split(|letter: char| !letter.is_ascii_digit())
        .map(|part| part.parse().unwrap_or(0));
    let found: [u32; 3] = std::array::from_fn(|_| found.next().unwrap_or(0));
    if found < oldest {
        return Err(Unfit::TooOld {
            name,
            version: version.to_owned(),
            oldest: oldest.map(|part| part.to_string()).join("."),
        });
    }
    Ok(())
}

fn check_packet(found: i64) -> Result<(), Unfit> {
    match found < PACKET_MIN {
        true => Err(Unfit::Packet { found }),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{check_packet, check_version};

    #[test]
    fn s52_servers_that_are_too_old_or_too_small_are_refused() {
        for (version, fine) in [
            ("8.0.12", true),
            ("8.4.2-log", true),
            ("10.11.14-MariaDB-0+deb12u2-log", true),
            ("8.0.11", false),
            ("5.7.44", false),
            ("10.6.1-MariaDB", false),
        ] {
            assert_eq!(check_version(version).is_ok(), fine, "{version}");
        }
        assert!(check_packet(16 << 20).is_ok());
        let small = check_packet(4 << 20).unwrap_err().to_string();
        assert!(small.contains("4194304") && small.contains("16777216"), "{small}");
    }
}
