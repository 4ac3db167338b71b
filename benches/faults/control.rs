//! The control task measures how long the machine itself delays a thread. The time of a check is
//! reported as the excess over this delay, so that a busy machine changes no row.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use streamgate::clock::Stopwatch;

/// How long the sleeper sleeps.
const NAP: Duration = Duration::from_millis(1);

/// Shorter delays are what every machine has.
const NOTED: Duration = Duration::from_millis(2);

/// One delay: when it began, and how long it was.
pub(crate) type Delay = (Duration, Duration);

/// A thread that sleeps and then has a byte sent back over loopback, again and again.
pub(crate) struct Control {
    delays: Arc<Mutex<Vec<Delay>>>,
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
        Self {
            delays,
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
        Delays(std::mem::take(&mut self.delays.lock().unwrap()))
    }
}

/// How long the runtime that the viewers run on was late, at most and when: their own delay.
pub(crate) async fn runtime_lag(clock: Stopwatch, worst: Arc<Mutex<Vec<Delay>>>) {
    loop {
        let began = clock.elapsed();
        tokio::time::sleep(NAP).await;
        let lag = (clock.elapsed() - began).saturating_sub(NAP);
        if lag > Duration::from_millis(50) {
            worst.lock().unwrap().push((began, lag));
        }
    }
}

/// The machine's delays, in the order in which they began.
pub(crate) struct Delays(Vec<Delay>);

impl Delays {
    /// The sum of those that fell into that time: an upper bound of what the machine added to
    /// whatever ran then, whether in one piece or in several.
    pub(crate) fn within(&self, from: Duration, to: Duration) -> Duration {
        let overlap = |&(began, delay): &Delay| {
            let end = (began + NAP + delay).min(to);
            end.saturating_sub(began.max(from)).min(delay)
        };
        self.0.iter().map(overlap).sum()
    }

    /// The longest of all.
    pub(crate) fn longest(&self) -> Duration {
        let delays = self.0.iter().map(|&(_, delay)| delay);
        delays.max().unwrap_or_default()
    }
}
