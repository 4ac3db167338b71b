//! The `streamgate` program: everything is in the library.

use std::process::ExitCode;

/// Runs the command that the arguments name.
fn main() -> ExitCode {
    streamgate::cli::run()
}
