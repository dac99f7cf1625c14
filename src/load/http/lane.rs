//! What the users of one load thread share, without a lock.

use super::response::KnownHead;
use super::script::Script;
use std::cell::{Cell, RefCell};

/// The buffer that all users of a thread read through: 64 KiB takes most responses at once.
const READ_BUFFER: usize = 64 * 1_024;

/// What the users of one thread share.
pub(crate) struct HttpLane {
    pub(super) buffer: RefCell<Box<[u8]>>,
    pub(super) known: RefCell<KnownHead>,
    /// Base URLs and addresses are taken in turn, each thread beginning elsewhere.
    pub(super) next_base: Cell<usize>,
    next_address: Cell<usize>,
}

impl HttpLane {
    pub(crate) fn new(_: &Script, stream: u64) -> Self {
        Self {
            buffer: RefCell::new(vec![0; READ_BUFFER].into_boxed_slice()),
            known: RefCell::new(KnownHead::new()),
            next_base: Cell::new(stream as usize),
            next_address: Cell::new(stream as usize),
        }
    }

    pub(super) fn next_address(&self) -> usize {
        let next = self.next_address.get();
        self.next_address.set(next.wrapping_add(1));
        next
    }
}
