//! The lifecycle of an instance: signals, the order of the drain, and its deadline.
//!
//! The first SIGTERM or SIGINT begins the drain, in this order: not ready and `NOT_SERVING` → a
//! grace period, in which everything is answered and read as before, so that gateways notice →
//! access log streams end → listeners close and calls in progress finish → notices queued for the
//! store are delivered → the last events go to webhooks → exit. A second signal or the deadline cuts it short. Leases stay in the
//! store: a restart loses no session.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// The two ways to stop an instance.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// Drain, then exit.
    pub soft: CancellationToken,
    /// Exit now.
    pub hard: CancellationToken,
}

/// Time limits of the drain.
#[derive(Debug, Clone, Copy)]
pub struct DrainTimes {
    /// How long everything continues as before, once the gateways have been informed.
    pub grace: Duration,
    /// The limit for the whole drain, grace period included.
    pub deadline: Duration,
}

/// The signals that stop an instance.
#[derive(Debug)]
pub struct Signals {
    /// SIGTERM, from service managers.
    terminate: Signal,
    /// SIGINT, from Ctrl-C.
    interrupt: Signal,
    /// SIGHUP, which asks to check files that may have changed.
    hangup: Signal,
}

impl Signals {
    /// Catches the signals from now on, so that none is lost before somebody waits for it.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn catch() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Turns the first signal into a soft stop and the second into a hard one, and ignores later
    /// ones. A SIGHUP triggers a reload.
    pub async fn forward(mut self, stop: Stop, reload_now: Arc<Notify>) -> Infallible {
        // The fields of a log line are evaluated only if its level is enabled, so the waiting stays
        // outside.
        let signal = self.next(&reload_now).await;
        info!(signal, "asked to stop: draining");
        stop.soft.cancel();
        let signal = self.next(&reload_now).await;
        warn!(signal, "asked again to stop: stopping immediately");
        stop.hard.cancel();
        std::future::pending().await
    }

    /// Waits for the next stop signal and returns its name.
    async fn next(&mut self, reload_now: &Notify) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.hangup.recv() => {
                    info!(signal = "SIGHUP", "reload requested: checking for changed files");
                    reload_now.notify_waiters();
                }
            }
        }
    }
}
