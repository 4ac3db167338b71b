//! The command line: the commands of the program, and their exit codes.
//!
//! Only this module reads the process's arguments and environment.

mod check_config;
mod client;
mod doctor;
mod envoy_check;
mod envoy_config;
mod events;
mod everybody;
mod hash_user;
mod health;
mod limit;
mod notify;
mod packaging;
mod release;
pub mod serve;
mod sessions;
mod show;
mod stats;
mod tls;
mod top;
mod what_if;

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use clap_complete::Shell;

use crate::config::{Config, ConfigFile, PREFIX};
use crate::http;

#[cfg(any(fuzzing, test))]
pub(crate) use envoy_check::fuzzing;

/// Limits how many streams one user watches at once, in the path of an Envoy gateway.
#[derive(Debug, Parser)]
#[command(name = "streamgate", version, after_help = EXIT_CODES, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str =
    "Exit codes: 0 ok, 1 refused or not found, 2 usage or configuration, 3 outage.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service.
    Serve {
        /// The configuration file. Without it, the defaults apply. The environment overrides both.
        #[arg(long, value_name = "FILE", env = "STREAMGATE_CONFIG")]
        config: Option<PathBuf>,
    },
    /// Check a configuration file together with the environment, and print the settings in effect.
    CheckConfig {
        /// The configuration file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Write the configuration of an Envoy that asks streamgate, or the pieces for one that you have. What is left unsaid is an example,
    /// marked CHANGE.
    EnvoyConfig(Box<envoy_config::EnvoyConfigArgs>),
    /// Say what is missing or dangerous in the configuration of an Envoy, and print the pieces to paste. What is found exits with 1.
    EnvoyCheck(envoy_check::EnvoyCheckArgs),
    /// Check whether running instances are connected right: to Envoy, its access log, Redis and
    /// each other. Exits with 1 if something is wrong.
    Doctor(doctor::DoctorArgs),
    /// Ask a running instance for its health, over TLS if --ca is given. Exits with 1 if it is not
    /// SERVING, and with 3 without an answer within a second.
    Health(health::HealthArgs),
    /// Ask a running instance which sessions hold a user's slots, or without a user for everybody's
    /// sessions. The limit shown is the one without a plan.
    Sessions(sessions::SessionsArgs),
    /// Show what happens in the installation, as it happens: starts, ends, refusals, outages. It
    /// listens again after a break, until you stop it.
    Events(events::EventsArgs),
    /// Ask a running instance for the numbers of the whole installation: streams, users, starts and
    /// refusals.
    Stats(stats::StatsArgs),
    /// Ask a running instance what other limits would have refused.
    WhatIf(what_if::WhatIfArgs),
    /// Print the hash that a log with hashed users shows for each user, one line each.
    HashUser(hash_user::HashUserArgs),
    /// Print the OpenAPI document of the HTTP API, as JSON.
    Openapi,
    /// Print a shell's completions for this program.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Write the manual pages into a folder, one for each command.
    Man {
        /// The folder. It must exist.
        #[arg(value_name = "FOLDER")]
        folder: PathBuf,
    },
    /// Release sessions of a user through a running instance. A session that isn't live counts as
    /// released.
    Release(release::ReleaseArgs),
    /// Show, set or remove the limit of one user, above the configured ones. It always expires.
    Limit(limit::LimitArgs),
    /// Show the numbers of the whole installation and who is watching, again and again.
    Top(top::TopArgs),
}

/// How a command ended, from good to bad. Of several outcomes, the worst counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CommandStatus {
    /// The command did what was asked.
    Ok,
    /// Refused, or not found.
    Refused,
    /// The arguments or the configuration are wrong.
    Usage,
    /// Something that the command needs did not answer.
    Outage,
}

/// A variable of ours isn't text. The error leaves out its value, which can't be shown faithfully
/// and may be a secret.
#[derive(Debug, thiserror::Error)]
#[error("{0}: got bytes that are not UTF-8; allowed: text")]
struct NotText(String);

/// Runs the command that the process's arguments name.
#[must_use]
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // If standard error is closed, there is no way to report anything.
            let _ = error.print();
            return usage(&error).into();
        }
    };
    let (mut out, mut errors) = (std::io::stdout(), std::io::stderr());
    match cli.command {
        Command::Serve { config } => load_and_serve(config, &mut errors),
        Command::CheckConfig { file } => match ours(std::env::vars_os()) {
            Ok(ours) => check_config::run(Config::examine(&file, ours), &mut out, &mut errors),
            Err(error) => complain(&mut errors, error, CommandStatus::Usage),
        }
        .into(),
        Command::HashUser(args) => hash_user::run(&args, &mut out, &mut errors).into(),
        Command::Completions { shell } => {
            print(packaging::completions(shell), &mut out, &mut errors).into()
        }
        Command::Man { folder } => packaging::write_manual(&folder, &mut errors).into(),
        Command::EnvoyConfig(args) => {
            let words = std::env::args_os().skip(1);
            let words: Vec<_> = words
                .map(|word| word.to_string_lossy().into_owned())
                .collect();
            envoy_config::run(&args, &words.join(" "), &mut out, &mut errors).into()
        }
        Command::EnvoyCheck(args) => {
            envoy_check::run(&args, &mut std::io::stdin(), &mut out, &mut errors).into()
        }
        Command::Openapi => print(http::document(), &mut out, &mut errors).into(),
        Command::Health(args) => health::run(&args, &mut out, &mut errors).into(),
        Command::Sessions(args) => {
            sessions::run(&args, |name| std::env::var_os(name), &mut out, &mut errors).into()
        }
        Command::Events(args) => {
            events::run(&args, |name| std::env::var_os(name), &mut out, &mut errors).into()
        }
        Command::Stats(args) => {
            stats::run(&args, |name| std::env::var_os(name), &mut out, &mut errors).into()
        }
        Command::WhatIf(args) => {
            what_if::run(&args, |name| std::env::var_os(name), &mut out, &mut errors).into()
        }
        Command::Doctor(args) => {
            doctor::run(&args, |name| std::env::var_os(name), &mut out, &mut errors).into()
        }
        Command::Release(args) => {
            release::run(&args, |name| std::env::var_os(name), &mut out, &mut errors).into()
        }
        Command::Limit(args) => {
            limit::run(&args, |name| std::env::var_os(name), &mut out, &mut errors).into()
        }
        Command::Top(args) => {
            let is_terminal = out.is_terminal();
            let variable = |name: &str| std::env::var_os(name);
            top::run(&args, variable, is_terminal, &mut out, &mut errors).into()
        }
    }
}

/// Loads the configuration, and serves until the process is told to stop.
fn load_and_serve(file: Option<PathBuf>, errors: &mut impl Write) -> ExitCode {
    let ours = match ours(std::env::vars_os()) {
        Ok(ours) => ours,
        Err(error) => return complain(errors, error, CommandStatus::Usage).into(),
    };
    let loaded = match file {
        Some(file) => ConfigFile::load(file, ours).map(|(file, config)| (config, Some(file))),
        None => Config::load(None, ours).map(|config| (config, None)),
    };
    match loaded {
        Ok((config, file)) => {
            let log = std::env::var_os("RUST_LOG");
            let has_rust_log = log.is_some_and(|value| !value.is_empty());
            let notify = std::env::var_os(notify::VARIABLE).map(PathBuf::from);
            serve::run(&config, file, has_rust_log, notify)
        }
        Err(error) => complain(errors, error, CommandStatus::Usage).into(),
    }
}

/// The outcome of an error of clap, which reports help and version as errors too.
fn usage(error: &clap::Error) -> CommandStatus {
    if error.use_stderr() {
        CommandStatus::Usage
    } else {
        CommandStatus::Ok
    }
}

/// The variables with our prefix.
fn ours(
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Vec<(String, String)>, NotText> {
    let mut ours = Vec::new();
    for (name, value) in variables {
        let name = name.to_string_lossy().into_owned();
        if !name.starts_with(PREFIX) {
            continue;
        }
        match value.into_string() {
            Ok(value) => ours.push((name, value)),
            Err(_) => return Err(NotText(name)),
        }
    }
    Ok(ours)
}

/// Prints the result of a command.
fn print(
    asked: impl std::fmt::Display,
    out: &mut impl Write,
    errors: &mut impl Write,
) -> CommandStatus {
    match write!(out, "{asked}").and_then(|()| out.flush()) {
        Ok(()) => CommandStatus::Ok,
        // A reader that stops early (`| head`) is no error.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => CommandStatus::Ok,
        Err(error) => complain(
            errors,
            format_args!("failed to print: {error}"),
            CommandStatus::Outage,
        ),
    }
}

/// Prints an error, each line with the program's name, and returns the outcome.
fn complain(
    errors: &mut impl Write,
    error: impl std::fmt::Display,
    outcome: CommandStatus,
) -> CommandStatus {
    for line in error.to_string().lines() {
        let _ = writeln!(errors, "streamgate: {line}");
    }
    outcome
}

impl From<CommandStatus> for ExitCode {
    fn from(outcome: CommandStatus) -> Self {
        match outcome {
            CommandStatus::Ok => Self::SUCCESS,
            CommandStatus::Refused => Self::from(1),
            CommandStatus::Usage => Self::from(2),
            CommandStatus::Outage => Self::from(3),
        }
    }
}

#[cfg(test)]
mod tests;
