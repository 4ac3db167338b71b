//! The log: standard error, as text or JSON. `info` explains each refusal and each change of state; starts and ends are `debug`.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::config::LogFormat;

/// Sends this process's events to standard error from now on.
///
/// # Errors
/// Something else receives them already.
pub fn init(format: LogFormat, level: tracing::Level) -> Result<(), TryInitError> {
    // The libraries below speak up only when something is wrong; their chatter would bury ours.
    let filter = EnvFilter::new(format!("warn,streamgate={}", level.as_str().to_lowercase()));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder
            .with_ansi(std::io::stderr().is_terminal())
            .finish()
            .try_init(),
        LogFormat::Json => builder.json().flatten_event(true).finish().try_init(),
    }
}
