//! The log: standard error, as text or JSON. `info` explains each refusal and each change of state; starts and ends are `debug`.
//!
//! It is best effort: see [`line_queue`](super::line_queue).

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::panic::PanicHookInfo;
use std::sync::Arc;
use std::time::Duration;

use tracing::error;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use super::hidden::shown;
use super::json_lines::JsonLines;
use super::labels::LogDrop;
use super::line_queue::{Dropped, LineQueue};
use crate::config::LogFormat;

/// The lines that this process could not log. The log is the process's, and so are these.
static DROPPED: Dropped = Dropped::none();

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// Something else receives the events already.
    #[error(transparent)]
    Taken(#[from] TryInitError),
    /// The thread that writes can't be started.
    #[error("failed to start the thread that writes: {0}")]
    Thread(#[from] io::Error),
}

/// This process's log.
#[derive(Debug)]
pub struct Log {
    /// Has it tell more, or less.
    pub level: LogLevel,
    /// What is yet to be written.
    pub unwritten: Unwritten,
}

/// What has the log tell more, or less.
pub struct LogLevel(Box<dyn Fn(tracing::Level) + Send + Sync>);

/// The lines that are yet to be written.
#[derive(Debug)]
pub struct Unwritten(Arc<LineQueue>);

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

impl Unwritten {
    /// Waits until they are written, at most that long: standard error may be blocked.
    pub fn flush(&self, bound: Duration) {
        self.0.flush(bound);
    }
}

/// Sends this process's events, and its panics, to standard error from now on.
///
/// # Errors
/// Something else receives them already, or the thread that writes can't be started.
pub fn init(format: LogFormat, level: tracing::Level) -> Result<Log, InitError> {
    let queue = LineQueue::start(io::stderr(), &DROPPED)?;
    let level = subscribe(format, level, Arc::clone(&queue))?;
    // The default hook writes to standard error by itself, which may block.
    std::panic::set_hook(Box::new(log_panic));
    Ok(Log {
        level,
        unwritten: Unwritten(queue),
    })
}

/// Has the events formatted and put into the queue.
fn subscribe(
    format: LogFormat,
    level: tracing::Level,
    queue: Arc<LineQueue>,
) -> Result<LogLevel, TryInitError> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(level))
        .with_writer(Queued { queue, format });
    match format {
        LogFormat::Text => {
            let builder = builder
                .with_ansi(io::stderr().is_terminal())
                .with_filter_reloading();
            let handle = builder.reload_handle();
            builder.finish().try_init()?;
            // It fails only where nobody receives events any more.
            Ok(LogLevel(Box::new(move |level| {
                drop(handle.reload(filter(level)));
            })))
        }
        LogFormat::Json => {
            let builder = builder.event_format(JsonLines).with_filter_reloading();
            let handle = builder.reload_handle();
            builder.finish().try_init()?;
            Ok(LogLevel(Box::new(move |level| {
                drop(handle.reload(filter(level)));
            })))
        }
    }
}

/// How many lines of this process were dropped for that cause.
pub(super) fn dropped(cause: LogDrop) -> u64 {
    DROPPED.count(cause)
}

/// Logs a panic as an error, on the same way as every other line.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let location = panic.location().map(tracing::field::display);
    let text = panic.payload_as_str().unwrap_or("no message");
    // `RUST_BACKTRACE` decides.
    let backtrace = Backtrace::capture();
    let is_captured = backtrace.status() == BacktraceStatus::Captured;
    let backtrace = is_captured.then(|| tracing::field::display(&backtrace));
    error!(location, backtrace, "panicked: {text}");
}

/// Makes the writer of each event.
struct Queued {
    /// Where lines go.
    queue: Arc<LineQueue>,
    /// What they look like.
    format: LogFormat,
}

/// Escapes hidden characters in the formatted line of one event, then queues it; each `write` is
/// one line.
struct ShownLine<'a> {
    /// Takes it then.
    queue: &'a LineQueue,
    /// What it looks like.
    format: LogFormat,
}

impl<'a> MakeWriter<'a> for Queued {
    type Writer = ShownLine<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        ShownLine {
            queue: &self.queue,
            format: self.format,
        }
    }
}

impl Write for ShownLine<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.queue.push(&shown(line, self.format));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is told at that level. The libraries below speak up only when something is wrong; their chatter would bury ours.
fn filter(level: tracing::Level) -> EnvFilter {
    EnvFilter::new(format!("warn,streamgate={}", level.as_str().to_lowercase()))
}
