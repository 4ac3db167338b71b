//! The log: standard error, as text or JSON. `info` explains each refusal and each change of state; starts and ends are `debug`.

use std::fmt;
use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::config::LogFormat;

/// What has the log tell more, or less.
pub struct LogLevel(Box<dyn Fn(tracing::Level) + Send + Sync>);

impl LogLevel {
    /// Tells events of that level, and above, from now on.
    pub fn set(&self, level: tracing::Level) {
        (self.0)(level);
    }
}

impl fmt::Debug for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogLevel")
    }
}

/// Sends this process's events to standard error from now on.
///
/// # Errors
/// Something else receives them already.
pub fn init(format: LogFormat, level: tracing::Level) -> Result<LogLevel, TryInitError> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(level))
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => {
            let builder = builder
                .with_ansi(std::io::stderr().is_terminal())
                .with_filter_reloading();
            let handle = builder.reload_handle();
            builder.finish().try_init()?;
            // It fails only where nobody receives events any more.
            Ok(LogLevel(Box::new(move |level| {
                drop(handle.reload(filter(level)));
            })))
        }
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_filter_reloading();
            let handle = builder.reload_handle();
            builder.finish().try_init()?;
            Ok(LogLevel(Box::new(move |level| {
                drop(handle.reload(filter(level)));
            })))
        }
    }
}

/// What is told at that level. The libraries below speak up only when something is wrong; their chatter would bury ours.
fn filter(level: tracing::Level) -> EnvFilter {
    EnvFilter::new(format!("warn,streamgate={}", level.as_str().to_lowercase()))
}
