//! The `muster` binary.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    match &arguments[..] {
        // Before anything else starts a thread or opens a file: the shim begins from nothing.
        [command, flag, dir] if command == "shim" && flag == "--dir" => {
            muster::provider::process::shim::main(Path::new(dir))
        }
        _ => ExitCode::FAILURE,
    }
}
