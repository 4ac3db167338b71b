//! Renewals and releases that nobody waits for: accepted immediately, delivered when the store can
//! take them.
//!
//! [`Outbox`] is the handle, [`Delivery`] the worker. Between them is a bounded map with the *last
//! state* of each session, in which a release takes precedence over a renewal: a hundred entries
//! about one stream cost one call. A failed delivery is retried until its lease would have expired
//! anyway, and doesn't block others; notices that are given up are counted. A flood from one user
//! leaves room for all others. Leases are the safety net for all of this.

mod queue;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::clock::Stopwatch;
use crate::identity::{PlanName, SessionId, SessionKey, UserId};
use crate::ledger::Ledger;
use crate::session::{Ending, Sighting, Terms};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::DropReason;
use crate::util::lock;
use queue::{Batch, Pending, Queue};

/// How many sessions' states are kept at most. Renewals may fill three quarters of it, so that
/// releases still find room.
const CAPACITY: usize = 200_000;

/// The pauses after a failed delivery, from the first to the longest.
const BACKOFF: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(20)..=Duration::from_secs(1);

/// A notice for the store.
#[derive(Debug, Clone)]
pub enum Notice {
    /// This stream was seen running, with its user's plan and the id of its response, if known.
    Renew(Sighting, Option<PlanName>, Option<SessionId>),
    /// Part of this playback has reached its viewer.
    Played(SessionKey),
    /// This session is over.
    Release(SessionKey, Ending),
}

impl Notice {
    /// The session it concerns.
    pub(crate) const fn key(&self) -> &SessionKey {
        match self {
            Self::Renew(sighting, ..) => &sighting.key,
            Self::Played(key) | Self::Release(key, _) => key,
        }
    }
}

/// What the handle and the worker share.
#[derive(Debug)]
struct OutboxState {
    /// The notices. A std mutex, because it is held only briefly and never across an `.await`.
    queue: Mutex<Queue>,
    /// Wakes the worker.
    arrived: Notify,
    /// Cancelled when no more notices will come, so that the worker delivers the rest and ends.
    closed: CancellationToken,
    /// Counts the notices that are given up.
    metrics: Arc<Metrics>,
    /// How many notices may wait.
    capacity: usize,
}

/// Accepts renewals and releases. Cheap to clone; never blocks.
#[derive(Debug, Clone)]
pub struct Outbox(Arc<OutboxState>);

/// Delivers what an [`Outbox`] has accepted.
#[derive(Debug)]
pub struct Delivery {
    /// Shared with the handles.
    shared: Arc<OutboxState>,
    /// The destination.
    ledger: Arc<Ledger>,
    /// How long a notice stays meaningful.
    terms: Terms,
}

/// A handle and its worker, which delivers to that ledger.
#[must_use]
pub fn outbox(ledger: Arc<Ledger>, terms: Terms, metrics: Arc<Metrics>) -> (Outbox, Delivery) {
    with_capacity(CAPACITY, ledger, terms, metrics)
}

/// The same with that capacity.
fn with_capacity(
    capacity: usize,
    ledger: Arc<Ledger>,
    terms: Terms,
    metrics: Arc<Metrics>,
) -> (Outbox, Delivery) {
    let shared = Arc::new(OutboxState {
        queue: Mutex::default(),
        arrived: Notify::new(),
        closed: CancellationToken::new(),
        metrics,
        capacity,
    });
    (
        Outbox(Arc::clone(&shared)),
        Delivery {
            shared,
            ledger,
            terms,
        },
    )
}

// === impl Outbox ===

impl Outbox {
    /// Accepts a notice about that user. Callers needn't wait: it is delivered, superseded by a
    /// later one, or counted as dropped.
    pub fn submit(&self, user: UserId, notice: Notice) {
        let shared = &self.0;
        let room = match notice {
            Notice::Renew(..) | Notice::Played(_) | Notice::Release(_, Ending::Undone(_)) => {
                shared.capacity / 4 * 3
            }
            Notice::Release(..) => shared.capacity,
        };
        let pending = Pending {
            notice,
            since: Stopwatch::start(),
        };
        let (taken, waiting) = {
            let mut queue = lock(&shared.queue);
            (queue.put(user, pending, room), queue.len())
        };
        if !taken {
            shared.metrics.releaser_dropped(DropReason::QueueFull);
        }
        shared.metrics.releaser_pending(waiting);
        shared.arrived.notify_one();
    }

    /// Says that no more notices will come.
    pub fn close(&self) {
        self.0.closed.cancel();
    }
}

// === impl Delivery ===

impl Delivery {
    /// Delivers until the handle is closed and no notice waits. Callers that can't wait for that
    /// drop the future and call [`Self::give_up`].
    pub async fn run(&self) {
        let mut pause = *BACKOFF.start();
        let retry = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(retry);
        let mut retrying = false;
        let mut store = self.ledger.watch_store();
        loop {
            let batch = lock(&self.shared.queue).take_batch();
            if !batch.is_empty() {
                let failed = self.deliver(batch).await;
                let mut queue = lock(&self.shared.queue);
                queue.settle(failed);
                self.shared.metrics.releaser_pending(queue.len());
            }
            let (idle, failed) = {
                let queue = lock(&self.shared.queue);
                (queue.fresh.is_empty(), !queue.failed.is_empty())
            };
            if !failed {
                (retrying, pause) = (false, *BACKOFF.start());
            } else if !retrying {
                let wait = pause.mul_f64(rand::random_range(0.5..1.0));
                retry.set(tokio::time::sleep(wait));
                (retrying, pause) = (true, (pause * 2).min(*BACKOFF.end()));
            }
            if idle && !failed && self.shared.closed.is_cancelled() {
                return;
            }
            tokio::select! {
                biased;
                () = &mut retry, if retrying => {
                    self.expire();
                    self.try_again();
                    retrying = false;
                }
                // Failed notices are delivered as soon as their part of the store is back.
                Ok(()) = store.changed(), if retrying => {
                    if self.try_again() {
                        (retrying, pause) = (false, *BACKOFF.start());
                    }
                }
                () = std::future::ready(()), if !idle => {}
                () = self.shared.arrived.notified() => {}
                () = self.shared.closed.cancelled(), if !failed => {}
            }
        }
    }

    /// Counts the remaining notices as lost, including those in progress, whose outcome is unknown.
    /// Their leases expire on their own.
    pub fn give_up(&self) -> usize {
        let left = std::mem::take(&mut *lock(&self.shared.queue)).len();
        for _ in 0..left {
            self.shared.metrics.releaser_dropped(DropReason::Shutdown);
        }
        self.shared.metrics.releaser_pending(0);
        left
    }

    /// Delivers a batch to the store; returns what it could not take.
    async fn deliver(&self, batch: Batch) -> Batch {
        let calls: FuturesUnordered<_> = batch
            .into_iter()
            .map(async |(place, pending)| {
                let is_done = self.tell(&place.0, &pending).await;
                (!is_done).then_some((place, pending))
            })
            .collect();
        calls.filter_map(std::future::ready).collect().await
    }

    /// Delivers one notice to the store; false if it is worth another try.
    async fn tell(&self, user: &UserId, pending: &Pending) -> bool {
        let (notice, age) = (&pending.notice, pending.since.elapsed());
        if age >= self.term(notice) {
            self.shared.metrics.releaser_dropped(DropReason::Expired);
            return true;
        }
        let told = match notice {
            Notice::Renew(sighting, plan, response) => {
                // A stream that was seen running a while ago gets what is left of its lease. If it
                // is put back, it began before an end that was reported after it.
                let seen_at = self.ledger.now().before(age);
                let sighting = Sighting {
                    lease: sighting.lease.saturating_sub(age),
                    started_at: sighting.started_at.or(Some(seen_at)),
                    ..sighting.clone()
                };
                let renewed = self
                    .ledger
                    .renew(user, plan.as_ref(), &sighting, response.as_ref());
                renewed.await.map(drop)
            }
            Notice::Played(key) => self.ledger.played(user, key).await,
            Notice::Release(key, ending) => {
                let released = self.ledger.release(user, key, *ending, age);
                released.await.map(drop)
            }
        };
        let Err(outage) = told else { return true };
        if outage.error.is_transient() {
            return false;
        }
        debug!(user.id = user.as_str(), ?notice, %outage, "given up");
        self.shared.metrics.releaser_dropped(DropReason::Protocol);
        true
    }

    /// Schedules those failed notices for another try whose part of the store answers, because the
    /// others would fail; returns whether there are any.
    fn try_again(&self) -> bool {
        lock(&self.shared.queue).try_again(|user| self.ledger.is_store_up(user))
    }

    /// Drops notices that have waited so long that they mean nothing any more, so that they don't
    /// block newer ones.
    fn expire(&self) {
        let expired = lock(&self.shared.queue)
            .drop_failed(|pending| pending.since.elapsed() < self.term(&pending.notice));
        for _ in 0..expired {
            self.shared.metrics.releaser_dropped(DropReason::Expired);
        }
        let waiting = lock(&self.shared.queue).len();
        self.shared.metrics.releaser_pending(waiting);
    }

    /// How long a notice is worth delivering: a sign of life for its lease, an end for as long as
    /// the session could be held.
    const fn term(&self, notice: &Notice) -> Duration {
        match notice {
            Notice::Renew(sighting, ..) => sighting.lease,
            Notice::Played(_) | Notice::Release(..) => self.terms.memory,
        }
    }
}
