//! Wakes the shim's loop out of `poll` from another thread.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

/// Both ends of a socket that only ever says "look". Clones are the same one.
#[derive(Debug, Clone)]
pub(super) struct Waker {
    ends: Arc<(UnixStream, UnixStream)>,
}

impl Waker {
    pub(super) fn new() -> io::Result<Self> {
        let ends = UnixStream::pair()?;
        ends.0.set_nonblocking(true)?;
        ends.1.set_nonblocking(true)?;
        Ok(Self { ends: Arc::new(ends) })
    }

    /// Makes the other end readable; a full socket already is.
    pub(super) fn wake(&mut self) {
        (&self.ends.1).write_all(&[0]).ok();
    }

    /// Becomes readable with [`Waker::wake`].
    pub(super) fn woken(&self) -> BorrowedFd<'_> {
        self.ends.0.as_fd()
    }

    /// Forgets earlier wakes; what they were about is looked at after this.
    pub(super) fn clear(&self) {
        let mut drain = [0; 64];
        while (&self.ends.0).read(&mut drain).is_ok_and(|count| count > 0) {}
    }
}
