//! libgit2's process-wide settings: the only `unsafe` of the git source.
//!
//! Without its timeouts libgit2 waits for a silent server for ever. The setters are `unsafe` because they write globals that
//! other threads may be reading inside libgit2. [`init`] writes them exactly once, and every use of libgit2 in this crate
//! goes through a constructor of [`super`] that calls [`init`] first, so nothing reads while they are written.

use git2::ConfigLevel;
use std::sync::OnceLock;
use std::time::Duration;

/// A server that has not accepted a connection by then is unreachable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest silence in the middle of an answer; a server that packs a large repository reports progress meanwhile.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(30);
/// Each fetch leaves a pack file; more than this are not kept open at once.
const OPEN_PACKS: usize = 256;

/// Sets the timeouts, and shuts out every git configuration of the machine and its user (promise 6): no `insteadOf`, no
/// helper and no filter from there may change what a configured URL means.
///
/// # Errors
/// libgit2's own text, the same for every later call.
#[expect(
    unsafe_code,
    reason = "libgit2 offers its timeouts and search paths only as process globals"
)]
pub(super) fn init() -> Result<(), String> {
    static DONE: OnceLock<Result<(), String>> = OnceLock::new();
    DONE.get_or_init(|| {
        let set = || -> Result<(), git2::Error> {
            let millis = |limit: Duration| i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
            // SAFETY: `OnceLock` runs this once, and before any other call into libgit2 (see the module's text).
            unsafe {
                git2::opts::set_server_connect_timeout_in_milliseconds(millis(CONNECT_TIMEOUT))?;
                git2::opts::set_server_timeout_in_milliseconds(millis(SILENCE_TIMEOUT))?;
                git2::opts::set_mwindow_file_limit(OPEN_PACKS)?;
                for level in [
                    ConfigLevel::ProgramData,
                    ConfigLevel::System,
                    ConfigLevel::XDG,
                    ConfigLevel::Global,
                ] {
                    git2::opts::set_search_path(level, "")?;
                }
                // A local repository of another user is read like any other: libgit2 runs no hook and no filter here.
                git2::opts::set_verify_owner_validation(false)?;
            }
            Ok(())
        };
        set().map_err(|error| error.message().to_owned())
    })
    .clone()
}
