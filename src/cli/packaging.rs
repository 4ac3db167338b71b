//! Completions and manual pages for packages, generated from the definitions of the arguments.

use std::io::Write;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, CommandStatus, complain};

/// The completions of that shell.
pub(super) fn completions(shell: Shell) -> String {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "streamgate", &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// Writes a manual page for the program, and one for each of its commands.
pub(super) fn write_manual(folder: &Path, errors: &mut impl Write) -> CommandStatus {
    let command = Cli::command().disable_help_subcommand(true);
    match clap_mangen::generate_to(command, folder) {
        Ok(()) => CommandStatus::Ok,
        Err(error) => {
            let folder = folder.display();
            let problem = format_args!(
                "failed to write the manual pages into {folder}: {error}; name a folder that exists and that you may write to"
            );
            complain(errors, problem, CommandStatus::Usage)
        }
    }
}
