//! The control task measures how long the machine itself delays a thread, and a task on the runtime
//! of the viewers. The time of a check is reported as the excess over this delay, so that a busy
//! machine changes no row.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use streamgate::clock::Stopwatch;
use tokio::task::JoinSet;

/// How long the sleeper sleeps.
const NAP: Duration = Duration::from_millis(1);

/// Shorter delays are what every machine has.
const NOTED: Duration = Duration::from_millis(2);

/// One delay: when it began, and how long it was.
type Delay = (Duration, Duration);

/// A thread that sleeps and then has a byte sent back over loopback, again and again.
pub(crate) struct Control {
    delays: Arc<Mutex<Vec<Delay>>>,
    lags: Arc<Mutex<Vec<Delay>>>,
    lagging: JoinSet<()>,
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Control {
    /// Starts it; times count from when `clock` was started.
    pub(crate) fn start(clock: Stopwatch) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let echo = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut byte = [0];
            while socket.read_exact(&mut byte).is_ok() {
                socket.write_all(&byte).unwrap();
            }
        });
        let delays: Arc<Mutex<Vec<Delay>>> = Arc::default();
        let is_over = Arc::new(AtomicBool::new(false));
        let (noting, ending) = (Arc::clone(&delays), Arc::clone(&is_over));
        let sleeper = std::thread::spawn(move || {
            let mut socket = TcpStream::connect(address).unwrap();
            socket.set_nodelay(true).unwrap();
            while !ending.load(Ordering::Relaxed) {
                let began = clock.elapsed();
                std::thread::sleep(NAP);
                let woke = clock.elapsed();
                socket.write_all(&[1]).unwrap();
                socket.read_exact(&mut [0]).unwrap();
                let delay = woke.saturating_sub(began + NAP) + (clock.elapsed() - woke);
                if delay > NOTED {
                    noting.lock().unwrap().push((began, delay));
                }
            }
        });
        let lags: Arc<Mutex<Vec<Delay>>> = Arc::default();
        let mut lagging = JoinSet::new();
        lagging.spawn(note_lags(clock, Arc::clone(&lags)));
        Self {
            delays,
            lags,
            lagging,
            is_over,
            threads: vec![echo, sleeper],
        }
    }

    /// Ends it; the delays that it has seen.
    pub(crate) fn end(self) -> Delays {
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        drop(self.lagging);
        Delays {
            of_machine: std::mem::take(&mut self.delays.lock().unwrap()),
            of_viewers: std::mem::take(&mut self.lags.lock().unwrap()),
        }
    }
}

/// Notes how late the runtime is that the viewers run on.
async fn note_lags(clock: Stopwatch, lags: Arc<Mutex<Vec<Delay>>>) {
    loop {
        let began = clock.elapsed();
        tokio::time::sleep(NAP).await;
        let lag = (clock.elapsed() - began).saturating_sub(NAP);
        if lag > NOTED {
            lags.lock().unwrap().push((began, lag));
        }
    }
}

/// Delays, in the order in which they began.
pub(crate) struct Delays {
    /// Those of a thread.
    of_machine: Vec<Delay>,
    /// Those of a task on the runtime that the viewers run on, in which their own work has a part.
    of_viewers: Vec<Delay>,
}

impl Delays {
    /// The sum of those that fell into that time: an upper bound of what the machine, or the
    /// viewers, added to whatever ran then, whether in one piece or in several.
    pub(crate) fn within(&self, from: Duration, to: Duration) -> Duration {
        let overlap = |&(began, delay): &Delay| {
            let end = (began + NAP + delay).min(to);
            end.saturating_sub(began.max(from)).min(delay)
        };
        let sum = |delays: &[Delay]| delays.iter().map(overlap).sum();
        Duration::max(sum(&self.of_machine), sum(&self.of_viewers))
    }

    /// The longest of the machine's.
    pub(crate) fn longest(&self) -> Duration {
        let delays = self.of_machine.iter().map(|&(_, delay)| delay);
        delays.max().unwrap_or_default()
    }
}
