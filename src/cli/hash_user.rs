//! `hash-user`: what the log shows in the place of users where `telemetry.log_users` is `hashed`.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;

use super::{CommandStatus, complain, print};
use crate::config::{Config, LogUsers};
use crate::identity::UserId;
use crate::reload::{Files, Unusable};
use crate::telemetry::UserHash;

/// The key of the configuration that names the file.
const KEY: &str = "telemetry.log_users_key_file";

/// The arguments of `hash-user`.
#[derive(Debug, Args)]
pub(super) struct HashUserArgs {
    /// The users to look for in a log.
    #[arg(value_name = "USER", required = true, value_parser = UserId::parse)]
    users: Vec<UserId>,
    /// The file with the secret key that the instances use.
    #[arg(
        long,
        value_name = "FILE",
        env = "STREAMGATE_TELEMETRY__LOG_USERS_KEY_FILE"
    )]
    key_file: PathBuf,
}

/// Prints the hash of each user in a line of its own, in the order of the arguments.
pub(super) fn run(
    args: &HashUserArgs,
    out: &mut impl Write,
    errors: &mut impl Write,
) -> CommandStatus {
    match key(&args.key_file) {
        Ok(hash) => {
            let hashes = args.users.iter();
            let lines = hashes.map(|user| hash.of(user.as_str()) + "\n");
            print(lines.collect::<String>(), out, errors)
        }
        Err(unusable) => complain(errors, unusable, CommandStatus::Usage),
    }
}

/// What hashes the users in the log, if the configuration says that they are hashed.
///
/// # Errors
/// The configuration names a file that holds no key.
pub(super) fn of_config(config: &Config) -> Result<Option<UserHash>, Unusable> {
    let telemetry = &config.telemetry;
    let named = telemetry.log_users_key_file.as_deref();
    let hash = named.map(key).transpose()?;
    Ok(hash.filter(|_| telemetry.log_users == LogUsers::Hashed))
}

/// The key in that file.
fn key(path: &Path) -> Result<UserHash, Unusable> {
    let shown = path.display().to_string();
    let file = Files::new(vec![(KEY, path.to_owned())], move |contents| {
        let text = contents.first().map_or(&[][..], |text| text);
        UserHash::parse(text).map_err(|flaw| format!("{KEY}: {shown}: {flaw}"))
    });
    file.read()
}
