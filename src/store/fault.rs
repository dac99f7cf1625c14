//! What a driver's error means: worth another try at once, worth one later, or somebody has to mend something.

use super::StoreError;
use sqlx::error::DatabaseError;
use sqlx::mysql::MySqlDatabaseError;

/// How a person gets along with a server whose TLS or passwords do not fit.
const TLS_HINT: &str = "MySQL before 8.0.16 speaks no TLS that is still safe: `?ssl-mode=DISABLED` and a user \
                        `IDENTIFIED WITH mysql_native_password` do without; a caching_sha2_password needs TLS";

/// Why a statement failed, as seen inside the store.
#[derive(Debug)]
pub(super) enum Fault {
    /// The database chose this transaction as the victim of a deadlock, or another writer was first: the same again, now.
    Again(String),
    /// Everything else, as callers see it.
    Store(StoreError),
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Again(reason) => Self::Unavailable(format!("too many writers at once: {reason}")),
            Fault::Store(error) => error,
        }
    }
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        let unavailable = |reason: String| Self::Store(StoreError::Unavailable(reason));
        let refused = |reason: String| Self::Store(StoreError::Refused(reason));
        match &error {
            sqlx::Error::Database(database) => match database.try_downcast_ref::<MySqlDatabaseError>() {
                Some(mysql) => of_mysql(mysql.number(), mysql.message()),
                None => of_sqlite(database.as_ref()),
            },
            sqlx::Error::Io(io) if io.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) => {
                refused(format!("TLS: {error}; {TLS_HINT}"))
            }
            sqlx::Error::PoolTimedOut => unavailable("no connection came free in time".to_owned()),
            sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => {
                unavailable(muster_core::base::chain::chain(&error))
            }
            // In a connection's making, Configuration is: no way to send the password.
            sqlx::Error::Tls(_) | sqlx::Error::Configuration(_) => {
                refused(format!("{}; {TLS_HINT}", muster_core::base::chain::chain(&error)))
            }
            _ => refused(muster_core::base::chain::chain(&error)),
        }
    }
}

/// Numbers: <https://dev.mysql.com/doc/mysql-errors/8.0/en/server-error-reference.html>; MariaDB shares them.
fn of_mysql(number: u16, message: &str) -> Fault {
    let text = format!("{message} (error {number})");
    let mend = match number {
        1213 | 1205 | 1062 => return Fault::Again(text),
        // Too many connections, out of memory or disk, shutting down, network, query killed.
        1040 | 1203 | 1037 | 1038 | 1041 | 1021 | 1114 | 1053 | 1077 | 1079 | 1158..=1161 | 1184 | 1317 | 3024 => {
            return Fault::Store(StoreError::Unavailable(text));
        }
        1290 | 1792 | 1836 => "it is read-only: point the address at the writable primary",
        1044 | 1045 | 1142 | 1143 | 1227 | 1698 => {
            "give its user all rights on the database (`GRANT ALL ON muster.* TO …`)"
        }
        1049 => "make it first: `CREATE DATABASE muster CHARACTER SET utf8mb4`",
        1153 | 1301 => "raise it: `SET GLOBAL max_allowed_packet = 67108864`, and in the server's configuration",
        1054 | 1146 => "its tables are not Muster's: use an empty database",
        1406 => "a text is longer than its column",
        _ => return Fault::Store(StoreError::Refused(text)),
    };
    Fault::Store(StoreError::Refused(format!("{text}; {mend}")))
}

/// Codes: <https://www.sqlite.org/rescode.html>; the low byte is the primary one.
fn of_sqlite(error: &dyn DatabaseError) -> Fault {
    let code: i32 = error.code().and_then(|code| code.parse().ok()).unwrap_or(0);
    let text = format!("{} (SQLite code {code})", error.message());
    let mend = match code & 0xff {
        // Busy beyond the busy timeout, locked, disk errors and a full disk may pass.
        5 | 6 | 10 | 13 => return Fault::Store(StoreError::Unavailable(text)),
        19 if error.is_unique_violation() => return Fault::Again(text),
        8 | 3 | 23 => "the file must be writable by this user, and so must its folder",
        11 | 26 => "the file is damaged or not a database: restore a copy or use another file",
        14 => "the file cannot be opened: look at its folder and its rights",
        1 => "its tables are not Muster's, or the file is read-only: use an empty file",
        _ => return Fault::Store(StoreError::Refused(text)),
    };
    Fault::Store(StoreError::Refused(format!("{text}; {mend}")))
}

#[cfg(test)]
mod tests {
    use super::{Fault, of_mysql};
    use crate::store::StoreError;

    #[test]
    fn numbers_of_mysql_say_who_must_act() {
        for (number, expected) in [
            (1213, "again"),
            (1205, "again"),
            (1062, "again"),
            (1040, "later"),
            (1053, "later"),
            (1114, "later"),
            (1290, "writable primary"),
            (1142, "GRANT"),
            (1049, "CREATE DATABASE"),
            (1153, "max_allowed_packet"),
            (1146, "not Muster's"),
            (1064, "error 1064"),
        ] {
            match of_mysql(number, "the server's words") {
                Fault::Again(_) => assert_eq!(expected, "again", "{number}"),
                Fault::Store(StoreError::Unavailable(_)) => assert_eq!(expected, "later", "{number}"),
                Fault::Store(StoreError::Refused(text)) => assert!(text.contains(expected), "{number}: {text}"),
                Fault::Store(other) => panic!("{number}: {other}"),
            }
        }
    }
}
