//! Why a request got no response that counts.

use crate::files;
use muster_core::measure::slice::ErrorKind;
use std::borrow::Cow;
use std::io;

/// A request that broke: the kind it is counted under, and one text for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Broken {
    pub(crate) kind: ErrorKind,
    pub(crate) text: Cow<'static, str>,
    /// The connection was closed or reset: on a reused one the request may be worth another try.
    pub(crate) died: bool,
    /// For what the generator lacks, not the target.
    pub(crate) own: bool,
}

impl Broken {
    pub(crate) fn new(kind: ErrorKind, text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            text: text.into(),
            died: kind == ErrorKind::ClosedEarly,
            own: false,
        }
    }

    /// An error of a connection that was to be opened.
    pub(crate) fn connect(error: &io::Error) -> Self {
        Self {
            own: files::is_own(error),
            ..Self::new(ErrorKind::Connect, error.to_string())
        }
    }

    /// An error of a connection that stood.
    pub(crate) fn io(kind: ErrorKind, error: &io::Error) -> Self {
        use io::ErrorKind as Io;
        let died = matches!(
            error.kind(),
            Io::ConnectionReset | Io::ConnectionAborted | Io::BrokenPipe | Io::UnexpectedEof | Io::NotConnected
        );
        Self {
            kind,
            text: error.to_string().into(),
            died,
            own: false,
        }
    }
}
