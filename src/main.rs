//! The `streamgate` program: everything is in the library.

use std::process::ExitCode;

/// Does what the arguments say.
fn main() -> ExitCode {
    streamgate::cli::run()
}
