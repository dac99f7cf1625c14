//! Names and identifiers.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct IdError {
    text: String,
    expected: &'static str,
}

impl IdError {
    pub(crate) fn new(text: &str, expected: &'static str) -> Self {
        Self {
            text: text.to_owned(),
            expected,
        }
    }
}

/// A DNS label (RFC 1123): 1 to 63 of `a-z0-9-`, neither first nor last a hyphen.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// Longest name, in bytes.
    pub const MAX: usize = 63;

    /// Checks and keeps a name.
    ///
    /// # Errors
    /// When the text is not a DNS label.
    pub fn new(text: impl Into<String>) -> Result<Self, IdError> {
        let text = text.into();
        let fine = (1..=Self::MAX).contains(&text.len())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            && !text.starts_with('-')
            && !text.ends_with('-');
        if fine {
            Ok(Self(text))
        } else {
            Err(IdError {
                text,
                expected: "a name: 1 to 63 of a-z, 0-9 and -, neither first nor last a hyphen",
            })
        }
    }

    /// The project of a repository whose settings name none.
    pub fn default_project() -> Self {
        Self("default".to_owned())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        Self::new(text)
    }
}

impl FromStr for Name {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::new(text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The commit a decision was made on: a git SHA (40 or 64 hex digits), or `dir-` and a digest for a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Revision(String);

impl Revision {
    /// Checks and keeps a revision.
    ///
    /// # Errors
    /// When the text is neither a full SHA nor a directory's digest.
    pub fn new(text: impl Into<String>) -> Result<Self, IdError> {
        let text = text.into();
        let hex = text.strip_prefix("dir-").unwrap_or(&text);
        if matches!(hex.len(), 40 | 64) && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            Ok(Self(text))
        } else {
            Err(IdError {
                text,
                expected: "a full commit id or a directory's digest",
            })
        }
    }

    /// The whole id.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first digits, for people.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl TryFrom<String> for Revision {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        Self::new(text)
    }
}

impl From<Revision> for String {
    fn from(revision: Revision) -> Self {
        revision.0
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// SHA-256 of some content, written `sha256:` and 64 hex digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

impl Digest {
    /// The digest of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let mut text = String::with_capacity(71);
        text.push_str("sha256:");
        for byte in Sha256::digest(bytes) {
            text.push_str(&format!("{byte:02x}"));
        }
        Self(text)
    }

    /// The digest as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Only the hex digits.
    pub fn hex(&self) -> &str {
        &self.0[7..]
    }
}

impl TryFrom<String> for Digest {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        let fine = text
            .strip_prefix("sha256:")
            .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')));
        if fine {
            Ok(Self(text))
        } else {
            Err(IdError {
                text,
                expected: "sha256: and 64 hex digits",
            })
        }
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub Uuid);

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Uuid::parse_str(text).map(Self).map_err(|_| IdError { text: text.to_owned(), expected: "a UUID" })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(formatter)
            }
        }
    };
}

uuid_id!(
    /// One execution of a plan (UUIDv7, or given by the caller).
    RunId
);
uuid_id!(
    /// One worker's part in one run; sequence numbers start anew with it.
    SessionId
);
uuid_id!(
    /// One worker process, for as long as it lives.
    WorkerId
);

#[cfg(test)]
mod tests {
    use super::{Digest, Name, Revision};

    #[test]
    fn names_are_dns_labels() {
        for text in ["a", "checkout-monthly", "0", &"x".repeat(63)] {
            assert!(Name::new(text).is_ok(), "{text}");
        }
        for text in ["", "-a", "a-", "A", "a.b", "a/b", "ü", &"x".repeat(64)] {
            assert!(Name::new(text).is_err(), "{text}");
        }
    }

    #[test]
    fn revisions_are_whole_ids() {
        let sha = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(
            Revision::new(sha).map(|revision| revision.short().to_owned()),
            Ok("0123456789ab".to_owned())
        );
        assert!(Revision::new(format!("dir-{}", "0".repeat(64))).is_ok());
        for text in ["", "main", "0123456", "0123456789ABCDEF0123456789abcdef01234567"] {
            assert!(Revision::new(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_digest_is_sha256() {
        let digest = Digest::of(b"abc");
        assert_eq!(
            digest.as_str(),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(Digest::try_from(digest.as_str().to_owned()), Ok(digest));
        assert!(Digest::try_from("sha256:00".to_owned()).is_err());
    }
}
