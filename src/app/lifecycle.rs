//! Life and death of an instance: signals, the order of the drain, and the deadline.
//!
//! The first SIGTERM or SIGINT begins the drain, in this order: not ready and `NOT_SERVING` → a grace, in which everything is answered and
//! read as before, so that gateways notice → access log streams end → listeners close and calls under way finish → what is queued for
//! the store is delivered → exit. A second signal or the deadline cuts it short. Leases are left to run: a restart forgets nobody.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// The two ways in which an instance is told to stop.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// Drain, then end.
    pub soft: CancellationToken,
    /// End now.
    pub hard: CancellationToken,
}

/// How long the drain may take.
#[derive(Debug, Clone, Copy)]
pub struct DrainTimes {
    /// How long everything goes on as before, once the gateways have been told.
    pub grace: Duration,
    /// How long all of it may take, grace included.
    pub deadline: Duration,
}

/// The signals that stop an instance.
#[derive(Debug)]
pub struct Signals {
    /// What service managers send.
    terminate: Signal,
    /// What Ctrl-C sends.
    interrupt: Signal,
    /// What asks to look at files that may have changed.
    hangup: Signal,
}

impl Signals {
    /// Catches them from now on, so that none is lost before anybody waits for it.
    ///
    /// # Errors
    /// The system refuses.
    pub fn catch() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Turns the first signal into a soft stop and the second into a hard one, and swallows the rest. A SIGHUP is passed on as a nudge.
    pub async fn forward(mut self, stop: Stop, reload_now: Arc<Notify>) -> Infallible {
        // The fields of a log line are evaluated only where its level is enabled: the waiting stays outside.
        let signal = self.next(&reload_now).await;
        info!(signal, "asked to stop: draining");
        stop.soft.cancel();
        let signal = self.next(&reload_now).await;
        warn!(signal, "asked again: stopping at once");
        stop.hard.cancel();
        std::future::pending().await
    }

    /// The name of the next signal to stop.
    async fn next(&mut self, reload_now: &Notify) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.hangup.recv() => {
                    info!(signal = "SIGHUP", "asked to look at files that may have changed");
                    reload_now.notify_waiters();
                }
            }
        }
    }
}
