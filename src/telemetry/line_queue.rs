//! Writes log lines to standard error, through a bounded queue and one writer thread.
//!
//! Logging is best effort. Code that logs never waits for standard error and never sees it fail: a
//! line that finds no room or can't be written is dropped and counted by its cause.
//!
//! `tracing-appender` does nearly the same, but it reports its own problems with `eprintln!`, which
//! blocks on a full pipe and panics on a closed one, and it does not count failed writes.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::labels::{LabelValue, LogDrop};
use crate::util::{lock, unpoisoned};

/// How many lines may wait: some seconds of a busy log, and a few megabytes of memory.
const ROOM: usize = 4096;

/// How many lines were dropped, by cause.
#[derive(Debug)]
pub(super) struct Dropped([AtomicU64; LogDrop::ALL.len()]);

/// Lines on their way to one writer.
#[derive(Debug)]
pub(super) struct LineQueue {
    state: Mutex<LineQueueState>,
    /// Signals that a line has arrived.
    filled: Condvar,
    /// Signals that all lines are written or dropped.
    emptied: Condvar,
    dropped: &'static Dropped,
}

/// The waiting lines, and whether another is being written.
#[derive(Debug, Default)]
struct LineQueueState {
    waiting: VecDeque<Vec<u8>>,
    is_writing: bool,
}

// === impl Dropped ===

impl Dropped {
    /// All counts at zero.
    pub(super) const fn none() -> Self {
        Self([const { AtomicU64::new(0) }; LogDrop::ALL.len()])
    }

    /// The count for that cause.
    pub(super) fn count(&self, cause: LogDrop) -> u64 {
        let counter = self.0.get(cause.index());
        counter.map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    fn add(&self, cause: LogDrop) {
        if let Some(counter) = self.0.get(cause.index()) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

// === impl LineQueue ===

impl LineQueue {
    /// A queue, and the thread that writes its lines.
    pub(super) fn start(
        writer: impl Write + Send + 'static,
        dropped: &'static Dropped,
    ) -> io::Result<Arc<Self>> {
        let queue = Arc::new(Self {
            state: Mutex::default(),
            filled: Condvar::new(),
            emptied: Condvar::new(),
            dropped,
        });
        let written = Arc::clone(&queue);
        let thread = std::thread::Builder::new().name("log".to_owned());
        thread.spawn(move || written.write_all_to(writer))?;
        Ok(queue)
    }

    /// Waits until all lines are written or dropped, for at most that long; returns whether they
    /// are.
    pub(super) fn flush(&self, bound: Duration) -> bool {
        let waiting = self
            .emptied
            .wait_timeout_while(lock(&self.state), bound, |state| {
                state.is_writing || !state.waiting.is_empty()
            });
        let (state, timeout) = unpoisoned(waiting);
        drop(state);
        !timeout.timed_out()
    }

    /// Queues a line, or drops it if there is no room.
    pub(super) fn push(&self, line: &[u8]) {
        let mut state = lock(&self.state);
        if state.waiting.len() < ROOM {
            state.waiting.push_back(line.to_vec());
            drop(state);
            self.filled.notify_one();
        } else {
            self.dropped.add(LogDrop::QueueFull);
        }
    }

    fn write_all_to(&self, mut writer: impl Write) {
        loop {
            let line = self.next();
            if writer.write_all(&line).is_err() {
                self.dropped.add(LogDrop::WriteFailed);
            }
        }
    }

    /// Waits for the next line; the previous one is done.
    fn next(&self) -> Vec<u8> {
        let mut state = lock(&self.state);
        state.is_writing = false;
        loop {
            if let Some(line) = state.waiting.pop_front() {
                state.is_writing = true;
                return line;
            }
            self.emptied.notify_all();
            state = unpoisoned(self.filled.wait(state));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Longer than anything here takes.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// Writes a line each time it is allowed to, or fails on request.
    struct Gate {
        let_through: Receiver<io::Result<()>>,
        written: Sender<String>,
    }

    impl Write for Gate {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            match self.let_through.recv() {
                Ok(outcome) => outcome?,
                // Nothing controls the gate any more: it stays shut.
                Err(_) => std::thread::park(),
            }
            let text = String::from_utf8(line.to_vec()).unwrap();
            self.written.send(text).unwrap();
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    type Opened = (
        Arc<LineQueue>,
        &'static Dropped,
        Sender<io::Result<()>>,
        Receiver<String>,
    );

    fn gated() -> Opened {
        let (open, let_through) = channel();
        let (written, lines) = channel();
        let dropped = Box::leak(Box::new(Dropped::none()));
        let gate = Gate {
            let_through,
            written,
        };
        let queue = LineQueue::start(gate, dropped).unwrap();
        (queue, dropped, open, lines)
    }

    fn log(queue: &LineQueue, line: &str) {
        queue.push(line.as_bytes());
    }

    #[test]
    fn a_blocked_writer_drops_lines_and_blocks_nobody() {
        let (queue, dropped, open, lines) = gated();
        // The writer holds at most one line.
        for n in 0..ROOM + 10 {
            log(&queue, &n.to_string());
        }
        let lost = dropped.count(LogDrop::QueueFull);
        assert!((9..=10).contains(&lost), "{lost}");
        assert!(!queue.flush(Duration::from_millis(1)));
        for _ in 0..ROOM + 10 {
            open.send(Ok(())).unwrap();
        }
        assert!(queue.flush(PATIENCE));
        let written: Vec<_> = lines.try_iter().collect();
        let expected: Vec<_> = (0..written.len()).map(|n| n.to_string()).collect();
        assert_eq!(written, expected, "in order, from the first on");
        assert_eq!(written.len() as u64 + lost, ROOM as u64 + 10);
        assert_eq!(dropped.count(LogDrop::WriteFailed), 0);
    }

    #[test]
    fn a_failed_line_is_counted_and_the_next_is_tried() {
        let (queue, dropped, open, lines) = gated();
        for line in ["one", "two", "three"] {
            log(&queue, line);
        }
        // EIO, as from a lost terminal.
        open.send(Err(io::Error::from_raw_os_error(5))).unwrap();
        open.send(Err(io::ErrorKind::StorageFull.into())).unwrap();
        open.send(Ok(())).unwrap();
        assert!(queue.flush(PATIENCE));
        assert_eq!(lines.try_iter().collect::<Vec<_>>(), ["three"]);
        assert_eq!(dropped.count(LogDrop::WriteFailed), 2);
        assert_eq!(dropped.count(LogDrop::QueueFull), 0);
    }

    #[test]
    fn a_flush_returns_when_the_last_line_is_written() {
        let (queue, _, open, lines) = gated();
        assert!(queue.flush(Duration::ZERO), "nothing waits");
        log(&queue, "last");
        let flushed = Arc::clone(&queue);
        let flushing = std::thread::spawn(move || flushed.flush(PATIENCE));
        open.send(Ok(())).unwrap();
        assert!(flushing.join().unwrap());
        assert_eq!(lines.try_recv().unwrap(), "last");
    }
}
