//! Open files: a user needs one for its connection, and a process may have only so many.

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::io;

/// Of a load thread beside its users: its runtime, its timers, names that are being looked up.
const PER_THREAD: u64 = 24;
/// Of the rest of a worker: its owner, Kafka, the spool, the standard ones.
const REST: u64 = 200;

/// What so many users on so many threads need, and the most that the process may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooMany {
    pub(crate) needed: u64,
    pub(crate) limit: u64,
}

/// Raises the process's limit to twice what so many users need, where it is lower and may be: users of a phase that is over may still be there when the next begins,
/// and redirects give a user further connections. What fails for want of a file none the less is the generator's own failure, see [`is_own`].
///
/// # Errors
/// Where they need more than the process may have.
pub(crate) fn provide(users: u64, threads: u64) -> Result<(), TooMany> {
    let needed = users.saturating_add(threads * PER_THREAD + REST);
    let limits = getrlimit(Resource::RLIMIT_NOFILE);
    let (soft, hard) = limits.expect("a limit that the kernel has, read into memory of ours");
    // No further: programs that a worker starts inherit it, and some go through all numbers up to the limit.
    let wanted = needed.saturating_mul(2).min(hard);
    let raised = wanted > soft && setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).is_ok();
    let limit = if raised { wanted } else { soft };
    if needed <= limit {
        Ok(())
    } else {
        Err(TooMany { needed, limit })
    }
}

/// Whether a connection failed for what this machine lacks: open files, local ports, memory.
pub(crate) fn is_own(error: &io::Error) -> bool {
    let own = [
        Errno::EMFILE,
        Errno::ENFILE,
        Errno::EADDRNOTAVAIL,
        Errno::ENOBUFS,
        Errno::ENOMEM,
    ];
    error
        .raw_os_error()
        .is_some_and(|code| own.contains(&Errno::from_raw(code)))
}

#[cfg(test)]
mod tests {
    use super::{is_own, provide};
    use nix::errno::Errno;
    use nix::sys::resource::{Resource, getrlimit};
    use std::io;

    #[test]
    fn only_what_is_needed_and_allowed_is_provided() {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!(provide(1, 1), Ok(()));
        assert!(getrlimit(Resource::RLIMIT_NOFILE).unwrap().0 >= soft.min(225));
        let refused = provide(hard, 1).unwrap_err();
        assert_eq!((refused.needed, refused.limit), (hard.saturating_add(224), hard));
    }

    #[test]
    fn what_the_target_refuses_is_not_the_generators_failure() {
        let own = |code: Errno| is_own(&io::Error::from(code));
        assert!([Errno::EMFILE, Errno::EADDRNOTAVAIL].map(own).iter().all(|own| *own));
        assert!(
            [Errno::ECONNREFUSED, Errno::ENETUNREACH]
                .map(own)
                .iter()
                .all(|own| !*own)
        );
        assert!(!is_own(&io::Error::other("no code")));
    }
}
