//! Captures log lines for a test to read.

use std::io;
use std::sync::{Arc, Mutex, OnceLock};

use tracing::Dispatch;
use tracing::subscriber::DefaultGuard;

/// The log lines of the thread that made it, and of the tasks that it runs, while the guard lives.
#[derive(Debug, Clone, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Begins to listen.
    pub fn listen() -> (Self, DefaultGuard) {
        // With a single subscriber, the first thread that reaches a log statement would decide for
        // the whole process whether it is logged.
        static SECOND: OnceLock<Dispatch> = OnceLock::new();
        SECOND.get_or_init(|| {
            let unheard = tracing_subscriber::fmt().with_writer(io::sink);
            Dispatch::new(unheard.finish())
        });
        let log = Self::default();
        let guard = listen_with(log.clone());
        (log, guard)
    }

    /// How many lines hold that.
    pub fn counts(&self, text: &str) -> usize {
        let log = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        log.lines().filter(|line| line.contains(text)).count()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Has this thread log into that.
pub fn listen_with(log: impl io::Write + Clone + Send + Sync + 'static) -> DefaultGuard {
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || log.clone());
    tracing::subscriber::set_default(subscriber.finish())
}
