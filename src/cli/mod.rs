//! The command line: what can be asked of the program, and with which exit code it answers.
//!
//! The process's arguments and environment are read here and nowhere else.

mod check_config;
mod client;
mod doctor;
mod envoy_check;
mod envoy_config;
mod health;
mod release;
pub mod serve;
mod sessions;
mod show;
mod tls;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{Config, ConfigFile, PREFIX};
use crate::http;

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
        /// The configuration file. Without one, the defaults apply; the environment overrides either.
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
    /// Look whether running instances are wired right: to Envoy, to its access log, to Redis and to each other. What is wrong exits with 1.
    Doctor(doctor::DoctorArgs),
    /// Ask a running instance for its health, over TLS if --ca is given; what is not SERVING exits with 1, no answer within a second with 3.
    Health(health::HealthArgs),
    /// Ask a running instance which sessions hold a user's slots. The limit told is the one without a plan.
    Sessions(sessions::SessionsArgs),
    /// Print the OpenAPI document of the HTTP API, as JSON.
    Openapi,
    /// Release sessions of a user's through a running instance. One that isn't live counts as released.
    Release(release::ReleaseArgs),
}

/// How a command ended, from good to bad: of several the worst counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// As asked.
    Ok,
    /// Refused, or not found.
    Refused,
    /// The arguments or the configuration are wrong.
    Usage,
    /// Something needed did not answer.
    Outage,
}

/// A variable of ours isn't text. Its value isn't repeated: it can't be shown faithfully, and may be a secret.
#[derive(Debug, thiserror::Error)]
#[error("{0}: got bytes that are not UTF-8; allowed: text")]
struct NotText(String);

/// Does what the process's arguments ask for.
#[must_use]
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nobody is left to be told that nobody can be told.
            let _ = error.print();
            return usage(&error).into();
        }
    };
    let (mut out, mut errors) = (std::io::stdout(), std::io::stderr());
    match cli.command {
        Command::Serve { config: file } => {
            let ours = match ours(std::env::vars_os()) {
                Ok(ours) => ours,
                Err(error) => return complain(&mut errors, error, Outcome::Usage).into(),
            };
            let loaded = match file {
                Some(file) => {
                    ConfigFile::load(file, ours).map(|(file, config)| (config, Some(file)))
                }
                None => Config::load(None, ours).map(|config| (config, None)),
            };
            match loaded {
                Ok((config, file)) => {
                    let log = std::env::var_os("RUST_LOG");
                    let has_rust_log = log.is_some_and(|value| !value.is_empty());
                    serve::run(&config, file, has_rust_log)
                }
                Err(error) => complain(&mut errors, error, Outcome::Usage).into(),
            }
        }
        Command::CheckConfig { file } => match ours(std::env::vars_os()) {
            Ok(ours) => check_config::run(Config::examine(&file, ours), &mut out, &mut errors),
            Err(error) => complain(&mut errors, error, Outcome::Usage),
        }
        .into(),
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
        Command::Doctor(args) => {
            doctor::run(&args, |name| std::env::var_os(name), &mut out, &mut errors).into()
        }
        Command::Release(args) => {
            release::run(&args, |name| std::env::var_os(name), &mut out, &mut errors).into()
        }
    }
}

/// What clap's refusal to go on means: its help and version are no errors.
fn usage(error: &clap::Error) -> Outcome {
    if error.use_stderr() {
        Outcome::Usage
    } else {
        Outcome::Ok
    }
}

/// The variables that are ours.
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

/// Prints what was asked for.
fn print(asked: impl std::fmt::Display, out: &mut impl Write, errors: &mut impl Write) -> Outcome {
    match write!(out, "{asked}").and_then(|()| out.flush()) {
        Ok(()) => Outcome::Ok,
        // A reader that has seen enough (`| head`) is none's fault.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Outcome::Ok,
        Err(error) => complain(
            errors,
            format_args!("failed to print: {error}"),
            Outcome::Outage,
        ),
    }
}

/// Says what went wrong, each line by itself, and passes the outcome on.
fn complain(errors: &mut impl Write, error: impl std::fmt::Display, outcome: Outcome) -> Outcome {
    for line in error.to_string().lines() {
        let _ = writeln!(errors, "streamgate: {line}");
    }
    outcome
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Ok => Self::SUCCESS,
            Outcome::Refused => Self::from(1),
            Outcome::Usage => Self::from(2),
            Outcome::Outage => Self::from(3),
        }
    }
}

#[cfg(test)]
mod tests;
