//! What libgit2's errors mean to a user: one reason each, and a text without credentials.

use super::credentials::{self, Credentials, redact_url};
use crate::source::{SourceError, SourceReason};
use git2::{ErrorClass, ErrorCode};

/// Longest text taken over from libgit2 or a server.
const TEXT_MAX: usize = 500;

/// Classifies an error of a conversation with a remote.
pub(super) fn of_remote(error: &git2::Error, url: &str, credentials: &Credentials) -> SourceError {
    let status = http_status(error.message());
    let reason = match (error.code(), error.class(), status) {
        (ErrorCode::Timeout, _, _) => SourceReason::Timeout,
        (_, _, Some(429)) => SourceReason::RateLimited,
        (_, _, Some(401 | 403)) | (ErrorCode::Auth, _, _) => SourceReason::AuthenticationFailed,
        (_, ErrorClass::Ssh, _) if error.message().contains("authenticat") => SourceReason::AuthenticationFailed,
        (_, _, _) if error.message().contains("timed out") => SourceReason::Timeout,
        (ErrorCode::User, _, _) => SourceReason::Timeout,
        (ErrorCode::NotFound | ErrorCode::Certificate | ErrorCode::Eof, _, _) => SourceReason::Unreachable,
        (
            _,
            ErrorClass::Net
            | ErrorClass::Os
            | ErrorClass::Ssl
            | ErrorClass::Ssh
            | ErrorClass::Http
            | ErrorClass::Repository,
            _,
        ) => SourceReason::Unreachable,
        _ => SourceReason::Internal,
    };
    let said: String = credentials
        .redact(&error.message().replace(url, &redact_url(url)))
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(TEXT_MAX)
        .collect();
    let hint = match (error.code(), status) {
        (_, Some(404)) => " (no such repository, or it is hidden from these credentials)",
        (ErrorCode::Certificate, _) if credentials::is_ssh(url) => " (its key is not among the known hosts)",
        (ErrorCode::Certificate, _) => " (SSL_CERT_FILE names other authorities than the system's)",
        _ => "",
    };
    SourceError::transient(reason, format!("{}: {said}{hint}", redact_url(url)))
}

/// An error of the local copy or of an object in it.
pub(super) fn of_store(error: &git2::Error) -> SourceError {
    SourceError::transient(
        SourceReason::Internal,
        format!("cannot read the local copy: {}", error.message()),
    )
}

/// libgit2 has no codes for HTTP statuses; its text ends with the number.
fn http_status(message: &str) -> Option<u16> {
    let (_, number) = message.split_once("unexpected http status code: ")?;
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{Credentials, of_remote};
    use crate::source::SourceReason;
    use git2::{Error, ErrorClass, ErrorCode};

    #[test]
    fn s02_each_failure_has_its_reason() {
        let url = "https://bot:canary@git.example.com/a.git";
        let credentials = Credentials::from_secret(&"bot:canary".into());
        let http = |status: u16| {
            let text = format!("unexpected http status code: {status} from https://bot:canary@git.example.com/a.git");
            Error::new(ErrorCode::GenericError, ErrorClass::Http, text)
        };
        let ssh = "Failed to authenticate SSH session: Unable to extract";
        for (error, reason) in [
            (http(401), SourceReason::AuthenticationFailed),
            (http(403), SourceReason::AuthenticationFailed),
            (http(404), SourceReason::Unreachable),
            (http(429), SourceReason::RateLimited),
            (http(502), SourceReason::Unreachable),
            (
                Error::new(ErrorCode::Auth, ErrorClass::Callback, "no"),
                SourceReason::AuthenticationFailed,
            ),
            (
                Error::new(ErrorCode::GenericError, ErrorClass::Ssh, ssh),
                SourceReason::AuthenticationFailed,
            ),
            (
                Error::new(ErrorCode::Certificate, ErrorClass::Ssl, "bad"),
                SourceReason::Unreachable,
            ),
            (
                Error::new(ErrorCode::Timeout, ErrorClass::Net, "slow"),
                SourceReason::Timeout,
            ),
            (
                Error::new(ErrorCode::GenericError, ErrorClass::Os, "failed to resolve"),
                SourceReason::Unreachable,
            ),
            (
                Error::new(ErrorCode::GenericError, ErrorClass::Zlib, "odd"),
                SourceReason::Internal,
            ),
        ] {
            let seen = of_remote(&error, url, &credentials);
            assert_eq!(seen.reason, reason, "{error}");
            assert!(!seen.message.contains("canary"), "{seen}");
        }
    }
}
