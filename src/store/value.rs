//! Parameters and rows, the same for both databases.

use super::{Result, StoreError};
use jiff::Timestamp;
use sqlx::Row as _;
use sqlx::mysql::MySqlRow;
use sqlx::sqlite::SqliteRow;

/// A parameter.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// NULL.
    Null,
    /// Every number, truth value and instant (UTC microseconds).
    Int(i64),
    /// UTF-8.
    Text(String),
    /// Anything.
    Bytes(Vec<u8>),
}

impl Value {
    /// About how many bytes it takes in a packet.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Null | Self::Int(_) => 8,
            Self::Text(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
        }
    }
}

macro_rules! value_from {
    ($($type:ty: |$value:ident| $made:expr),* $(,)?) => {
        $(impl From<$type> for Value {
            fn from($value: $type) -> Self {
                $made
            }
        })*
    };
}

value_from! {
    i64: |value| Self::Int(value),
    // Numbers of events and frames do not reach 2^63.
    u64: |value| Self::Int(i64::try_from(value).unwrap_or(i64::MAX)),
    u32: |value| Self::Int(i64::from(value)),
    bool: |value| Self::Int(i64::from(value)),
    Timestamp: |value| Self::Int(value.as_microsecond()),
    String: |value| Self::Text(value),
    &str: |value| Self::Text(value.to_owned()),
    &[u8]: |value| Self::Bytes(value.to_vec()),
    &serde_json::Value: |value| Self::Text(value.to_string()),
    uuid::Uuid: |value| Self::Bytes(value.into_bytes().to_vec()),
    &muster_core::model::key::Key: |value| Self::Text(value.to_string()),
    &muster_core::model::id::Name: |value| Self::Text(value.to_string()),
    &muster_core::model::id::Revision: |value| Self::Text(value.to_string()),
    &muster_core::model::id::Digest: |value| Self::Text(value.to_string()),
    &muster_core::model::unit::UnitName: |value| Self::Text(value.to_string()),
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// A list of parameters.
macro_rules! values {
    ($($value:expr),* $(,)?) => { [$($crate::store::value::Value::from($value)),*] };
}
pub(super) use values;

/// A row as read.
#[derive(Debug)]
pub(super) enum Row {
    /// SQLite's.
    Sqlite(SqliteRow),
    /// MySQL's.
    MySql(MySqlRow),
}

/// Why a column or a row could not be read.
#[derive(Debug)]
pub(super) struct Unreadable(pub(super) String);

impl<E: std::error::Error> From<E> for Unreadable {
    fn from(error: E) -> Self {
        Self(muster_core::base::chain::chain(&error))
    }
}

macro_rules! column {
    ($(#[$doc:meta] $name:ident, $optional:ident: $type:ty),*) => {
        $(
            #[$doc]
            pub(super) fn $name(&self, index: usize) -> Result<$type, Unreadable> {
                self.$optional(index)?.ok_or_else(|| Unreadable(format!("column {index} is NULL")))
            }

            #[$doc]
            pub(super) fn $optional(&self, index: usize) -> Result<Option<$type>, Unreadable> {
                Ok(match self {
                    Self::Sqlite(row) => row.try_get_unchecked(index)?,
                    Self::MySql(row) => row.try_get_unchecked(index)?,
                })
            }
        )*
    };
}

impl Row {
    column! {
        /// A number.
        int, int_or_null: i64,
        /// A text.
        text, text_or_null: String,
        /// Bytes.
        bytes, bytes_or_null: Vec<u8>
    }

    /// What names the row in an error: its first column.
    fn label(&self) -> String {
        let bytes = || {
            self.bytes(0)
                .map(|bytes| uuid::Uuid::from_slice(&bytes).map_or_else(|_| String::new(), |id| id.to_string()))
        };
        match self {
            Self::Sqlite(row) => match sqlx::Column::type_info(&row.columns()[0]).to_string().as_str() {
                "INTEGER" => self.int(0).map(|number| number.to_string()),
                "BLOB" => bytes(),
                _ => self.text(0),
            },
            Self::MySql(row) => match sqlx::Column::type_info(&row.columns()[0]).to_string().as_str() {
                "BIGINT" => self.int(0).map(|number| number.to_string()),
                "BINARY" => bytes(),
                _ => self.text(0),
            },
        }
        .unwrap_or_default()
    }
}

/// Reads a row or says which one cannot be read.
pub(super) fn read_all<T>(
    table: &'static str,
    rows: &[Row],
    read: impl Fn(&Row) -> Result<T, Unreadable>,
) -> Result<Vec<T>> {
    rows.iter()
        .map(|row| {
            read(row).map_err(|Unreadable(reason)| StoreError::Corrupt {
                table,
                row: row.label(),
                reason,
            })
        })
        .collect()
}
