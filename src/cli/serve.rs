//! `serve`: from checked settings to a running service.

use std::process::ExitCode;

use super::Outcome;
use crate::config::Config;

/// Runs the service until it is told to end.
// The one place where the service is wired in: runtime, telemetry (then `config.warnings()` are logged), application.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the service will own its settings"
)]
pub fn run(config: Config) -> ExitCode {
    for warning in config.warnings() {
        eprintln!("streamgate: warning: {warning}");
    }
    eprintln!("streamgate: serve is not wired in yet");
    Outcome::Outage.into()
}
