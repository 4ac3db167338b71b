//! The `streamgate` program: everything is in the library.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// Makes and frees the small pieces of a check faster than the system's allocator does.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Runs the command that the arguments name.
fn main() -> ExitCode {
    streamgate::cli::run()
}
