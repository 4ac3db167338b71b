//! The log: standard error, as text or JSON. At `info`, it explains each refusal and each change of
//! state; starts and ends are `debug`.
//!
//! Logging is best effort: see [`line_queue`](super::line_queue).

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::panic::PanicHookInfo;
use std::sync::Arc;
use std::time::Duration;

use tracing::error;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use super::hidden::shown;
use super::json_lines::JsonLines;
use super::labels::LogDrop;
use super::line_queue::{Dropped, LineQueue};
use super::user_hash::{TextFields, UserHash};
use crate::config::LogFormat;

/// The lines that this process could not log. A process has one log, so it has one such counter.
static DROPPED: Dropped = Dropped::none();

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The process has another subscriber for events already.
    #[error(transparent)]
    Taken(#[from] TryInitError),
    /// The thread that writes lines didn't start.
    #[error("failed to start the thread that writes: {0}")]
    Thread(#[from] io::Error),
}

/// This process's log.
#[derive(Debug)]
pub struct Log {
    /// Changes its level.
    pub level: LogLevel,
    /// The lines that are still to be written.
    pub unwritten: Unwritten,
}

/// Changes the level of the log.
pub struct LogLevel(Box<dyn Fn(tracing::Level) + Send + Sync>);

/// The lines that are still to be written.
#[derive(Debug)]
pub struct Unwritten(Arc<LineQueue>);

impl LogLevel {
    /// From now on, logs events of that level and more severe ones.
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
    /// Waits until they are written, but no longer than `bound`: standard error may be blocked.
    pub fn flush(&self, bound: Duration) {
        self.0.flush(bound);
    }
}

/// Sends this process's events, and its panics, to standard error from now on. With `users`, lines
/// show hashes in the place of user ids.
///
/// # Errors
/// The process has another subscriber already, or the thread that writes lines doesn't start.
pub fn init(
    format: LogFormat,
    level: tracing::Level,
    users: Option<UserHash>,
) -> Result<Log, InitError> {
    let queue = LineQueue::start(io::stderr(), &DROPPED)?;
    let level = subscribe(format, level, users, Arc::clone(&queue))?;
    // The default hook writes to standard error by itself, which may block.
    std::panic::set_hook(Box::new(log_panic));
    Ok(Log {
        level,
        unwritten: Unwritten(queue),
    })
}

/// Formats events and puts them into the queue.
fn subscribe(
    format: LogFormat,
    level: tracing::Level,
    users: Option<UserHash>,
    queue: Arc<LineQueue>,
) -> Result<LogLevel, TryInitError> {
    let (filter, handle) = reload::Layer::new(targets(level));
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(Queued { queue, format });
    match format {
        LogFormat::Text => {
            let lines = lines
                .fmt_fields(TextFields(users))
                .with_ansi(io::stderr().is_terminal());
            registry.with(lines).try_init()?;
        }
        LogFormat::Json => {
            let lines = lines.event_format(JsonLines(users));
            registry.with(lines).try_init()?;
        }
    }
    Ok(LogLevel(Box::new(move |level| {
        // This fails only once the subscriber is gone.
        drop(handle.reload(targets(level)));
    })))
}

/// How many lines of this process were dropped for that cause.
pub(super) fn dropped(cause: LogDrop) -> u64 {
    DROPPED.count(cause)
}

/// Logs a panic as an error, through the same queue as every other line.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let location = panic.location().map(tracing::field::display);
    let text = panic.payload_as_str().unwrap_or("no message");
    // `RUST_BACKTRACE` decides whether there is one.
    let backtrace = Backtrace::capture();
    let is_captured = backtrace.status() == BacktraceStatus::Captured;
    let backtrace = is_captured.then(|| tracing::field::display(&backtrace));
    error!(location, backtrace, "panicked: {text}");
}

/// Makes the writer of each event.
struct Queued {
    /// The queue for lines.
    queue: Arc<LineQueue>,
    /// The form of lines.
    format: LogFormat,
}

/// Escapes hidden characters in the formatted line of one event, then queues it; each `write` is
/// one line.
struct ShownLine<'a> {
    /// Queues it.
    queue: &'a LineQueue,
    /// The form of the line.
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

/// What is logged at a level. Libraries log only warnings and errors: their other lines would bury
/// ours.
fn targets(level: tracing::Level) -> Targets {
    Targets::new()
        .with_default(LevelFilter::WARN)
        .with_target("streamgate", level)
}
