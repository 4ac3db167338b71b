//! `serve`: from checked settings to a running service.

use std::path::PathBuf;
use std::process::ExitCode;

use tracing::{error, warn};

use super::{CommandStatus, complain, hash_user, notify};
use crate::app::{App, Reload, Signals, Stop};
use crate::config::{Config, ConfigFile};
use crate::telemetry::log::{self, Log};

/// Runs the service until a signal stops it.
///
/// `has_rust_log`: the environment sets `RUST_LOG`, which streamgate ignores and warns about. `manager`: the socket of the service
/// manager that waits to hear that we serve.
pub fn run(
    config: &Config,
    file: Option<ConfigFile>,
    has_rust_log: bool,
    manager: Option<PathBuf>,
) -> ExitCode {
    let Log { level, unwritten } = match start_log(config) {
        Ok(log) => log,
        Err(problem) => {
            return complain(&mut std::io::stderr(), problem, CommandStatus::Usage).into();
        }
    };
    if has_rust_log {
        warn!("RUST_LOG is ignored; set telemetry.log_level (STREAMGATE_TELEMETRY__LOG_LEVEL)");
    }
    let log = Some(level);
    let outcome = run_logged(config, file.map(|file| Reload { file, log }), manager);
    unwritten.flush(config.shutdown.for_log());
    outcome.into()
}

/// Starts the log as the configuration says; or why that can't be done.
fn start_log(config: &Config) -> Result<Log, String> {
    let users = hash_user::of_config(config).map_err(|problem| problem.to_string())?;
    let telemetry = &config.telemetry;
    log::init(telemetry.log_format, telemetry.log_level, users)
        .map_err(|problem| format!("failed to set up the log: {problem}"))
}

/// The same, once there is a log.
fn run_logged(config: &Config, reload: Option<Reload>, manager: Option<PathBuf>) -> CommandStatus {
    for warning in config.warnings() {
        warn!("{warning}");
    }
    raise_open_files();
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = config.runtime.threads() {
        builder.worker_threads(threads.get());
    }
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(problem) => {
            error!(%problem, "failed to start the runtime");
            return CommandStatus::Outage;
        }
    };
    let outcome = runtime.block_on(serve(config, reload, manager));
    // The drain has given all work its time.
    runtime.shutdown_background();
    outcome
}

/// Raises the limit of open files as far as the system allows. Each connection is an open file, and
/// the usual soft limit suits programs with few of them.
fn raise_open_files() {
    if let Err(problem) = rlimit::increase_nofile_limit(u64::MAX) {
        warn!(%problem, "failed to raise the limit of open files");
    }
}

/// Builds the instance and runs it until a signal stops it.
async fn serve(config: &Config, reload: Option<Reload>, manager: Option<PathBuf>) -> CommandStatus {
    let signals = match Signals::catch() {
        Ok(signals) => signals,
        Err(problem) => {
            error!(%problem, "failed to catch signals");
            return CommandStatus::Outage;
        }
    };
    let app = match App::build(config, reload).await {
        Ok(app) => app,
        Err(problem) => {
            error!("{problem}");
            return CommandStatus::Usage;
        }
    };
    let stop = Stop::default();
    let reload_now = app.reload_now();
    let phases = app.phases();
    let running = app.run(stop.clone());
    let ended = tokio::select! {
        ended = running => ended,
        never = signals.forward(stop, reload_now) => match never {},
        never = notify::tell_phases(manager, phases) => match never {},
    };
    match ended {
        Ok(()) => CommandStatus::Ok,
        Err(problem) => {
            error!("{problem}");
            CommandStatus::Outage
        }
    }
}
