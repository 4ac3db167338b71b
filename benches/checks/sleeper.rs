//! The machine's own delay: a thread that only sleeps, and looks how late it wakes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use hdrhistogram::Histogram;
use streamgate::clock::Stopwatch;

use super::client::times;

/// How long it sleeps at a time.
const SLEEP: Duration = Duration::from_millis(1);

/// That thread.
pub(crate) struct Sleeper {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Histogram<u64>>,
}

impl Sleeper {
    /// Starts it, on the client's core.
    pub(crate) fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut late = times();
            while !stopped.load(Ordering::Relaxed) {
                let slept = Stopwatch::start();
                std::thread::sleep(SLEEP);
                let nanos = slept.elapsed().saturating_sub(SLEEP).as_nanos();
                late.saturating_record(u64::try_from(nanos).unwrap());
            }
            late
        });
        Self { stop, thread }
    }

    /// Stops it. Returns how many nanoseconds late it woke each time.
    pub(crate) fn stop(self) -> Histogram<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}
