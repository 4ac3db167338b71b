//! Renewals and releases that nobody waits for: taken at once, delivered when the store can.
//!
//! [`Outbox`] is the handle, [`Delivery`] the worker. Between them lies a bounded map with the *last state* of each session, a
//! release winning over a renewal: a hundred entries of one stream cost one call. What fails is tried again until its lease would
//! have run out anyway, and holds nothing else up; what had to be given up is counted. One user's flood
//! leaves everybody else their room. Leases are the safety net for all of it.

mod queue;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::clock::Stopwatch;
use crate::ledger::Ledger;
use crate::session::{Ending, PlanName, SessionId, SessionKey, Sighting, Terms, Ticket, UserId};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::{DropReason, EntryOutcome, ReleaseCause};
use crate::util::lock;
use queue::{Pending, Queue};

/// How many sessions' states are kept at most. Renewals get three quarters of it, so that releases find room for longer.
const CAPACITY: usize = 200_000;

/// The pauses after a delivery that failed, from the first to the longest.
const BACKOFF: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(20)..=Duration::from_secs(1);

/// What is to be told to the store.
#[derive(Debug, Clone)]
pub enum Notice {
    /// This stream was seen running; its user is said to be on that plan, and the response that was seen has that id.
    Renew(Sighting, Option<PlanName>, Option<SessionId>),
    /// Some of this playback has reached its viewer.
    Played(SessionKey),
    /// The call of that ticket takes back its start.
    Undo(SessionKey, Ticket),
    /// This session is over, as somebody says.
    Release(SessionKey, Ending, ReleaseCause),
}

impl Notice {
    /// The session that it is about.
    pub(crate) const fn key(&self) -> &SessionKey {
        match self {
            Self::Renew(sighting, ..) => &sighting.key,
            Self::Played(key) | Self::Undo(key, _) | Self::Release(key, ..) => key,
        }
    }

    /// What the access log's metric calls it.
    #[must_use]
    pub const fn entry_outcome(&self) -> EntryOutcome {
        match self {
            Self::Renew(..) => EntryOutcome::Renewal,
            Self::Played(_) => EntryOutcome::Played,
            Self::Release(_, Ending::Failed, _) => EntryOutcome::Failed,
            Self::Undo(..) | Self::Release(..) => EntryOutcome::Release,
        }
    }
}

/// What handle and worker share.
#[derive(Debug)]
struct Shared {
    /// The notices. A std mutex: held for a moment, never across an `.await`.
    queue: Mutex<Queue>,
    /// Wakes the worker.
    arrived: Notify,
    /// Cancelled when no more will come, and the worker is to deliver the rest and end.
    closed: CancellationToken,
    /// Counts what is given up.
    metrics: Arc<Metrics>,
    /// How many may wait.
    capacity: usize,
}

/// Takes renewals and releases. Cheap to clone; never blocks.
#[derive(Debug, Clone)]
pub struct Outbox(Arc<Shared>);

/// Delivers what a [`Outbox`] has taken.
#[derive(Debug)]
pub struct Delivery {
    /// Shared with the handles.
    shared: Arc<Shared>,
    /// Where to.
    ledger: Arc<Ledger>,
    /// How long a notice means anything.
    terms: Terms,
}

/// A handle and its worker, which delivers to that ledger.
#[must_use]
pub fn outbox(ledger: Arc<Ledger>, terms: Terms, metrics: Arc<Metrics>) -> (Outbox, Delivery) {
    with_capacity(CAPACITY, ledger, terms, metrics)
}

/// The same with that much room.
fn with_capacity(
    capacity: usize,
    ledger: Arc<Ledger>,
    terms: Terms,
    metrics: Arc<Metrics>,
) -> (Outbox, Delivery) {
    let shared = Arc::new(Shared {
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
    /// Takes a notice of that user's. Whoever submits it needn't wait: it is delivered, superseded by a later one, or counted as dropped.
    pub fn submit(&self, user: UserId, notice: Notice) {
        let shared = &self.0;
        let room = match notice {
            Notice::Renew(..) | Notice::Played(_) | Notice::Undo(..) => shared.capacity / 4 * 3,
            Notice::Release(..) => shared.capacity,
        };
        let pending = Pending {
            notice,
            since: Stopwatch::start(),
        };
        let (taken, waiting) = {
            let mut queue = shared.queue();
            (queue.put(user, pending, room), queue.len())
        };
        if !taken {
            shared.metrics.releaser_dropped(DropReason::QueueFull);
        }
        shared.metrics.releaser_pending(waiting);
        shared.arrived.notify_one();
    }

    /// Says that no more will come.
    pub fn close(&self) {
        self.0.closed.cancel();
    }
}

// === impl Shared ===

impl Shared {
    /// The notices.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
    }
}

// === impl Delivery ===

impl Delivery {
    /// Delivers until the handle is closed and nothing waits any more. Whoever can't wait for that drops the future, and calls [`Self::give_up`].
    pub async fn run(&self) {
        let mut pause = *BACKOFF.start();
        let retry = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(retry);
        let mut retrying = false;
        let mut store_up = self.ledger.watch_store();
        loop {
            let batch = self.shared.queue().take_batch();
            if !batch.is_empty() {
                let failed = self.deliver(batch).await;
                let mut queue = self.shared.queue();
                queue.settle(failed);
                self.shared.metrics.releaser_pending(queue.len());
            }
            let (idle, failed) = {
                let queue = self.shared.queue();
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
                    // While the store isn't even asked, nothing is told in vain.
                    if *store_up.borrow() {
                        self.shared.queue().try_again();
                    } else {
                        self.expire();
                    }
                    retrying = false;
                }
                // What could not be told while the store was out is told as soon as it is back.
                Ok(()) = store_up.changed(), if retrying => {
                    if *store_up.borrow_and_update() {
                        self.shared.queue().try_again();
                        (retrying, pause) = (false, *BACKOFF.start());
                    }
                }
                () = std::future::ready(()), if !idle => {}
                () = self.shared.arrived.notified() => {}
                () = self.shared.closed.cancelled(), if !failed => {}
            }
        }
    }

    /// Counts what is left as lost, what was under way included: nobody knows what came of it. Leases run out by themselves.
    pub fn give_up(&self) -> usize {
        let left = std::mem::take(&mut *self.shared.queue()).len();
        for _ in 0..left {
            self.shared.metrics.releaser_dropped(DropReason::Shutdown);
        }
        self.shared.metrics.releaser_pending(0);
        left
    }

    /// Tells the store a batch; what it could not take.
    async fn deliver(&self, batch: Vec<(UserId, Pending)>) -> Vec<(UserId, Pending)> {
        let calls: FuturesUnordered<_> = batch
            .into_iter()
            .map(|(user, pending)| self.tell(user, pending))
            .collect();
        calls.filter_map(std::future::ready).collect().await
    }

    /// Tells the store one notice; gives it back if it is worth another try.
    async fn tell(&self, user: UserId, pending: Pending) -> Option<(UserId, Pending)> {
        let Some(notice) = self.still_true(&pending) else {
            self.shared.metrics.releaser_dropped(DropReason::Expired);
            return None;
        };
        let told = match &notice {
            Notice::Renew(sighting, plan, response) => {
                let renewed = self
                    .ledger
                    .renew(&user, plan.as_ref(), sighting, response.as_ref());
                renewed.await.map(drop)
            }
            Notice::Played(key) => self.ledger.played(&user, key).await,
            Notice::Undo(key, ticket) => {
                let (ending, cause) = (Ending::Undone(*ticket), ReleaseCause::Undone);
                let age = pending.since.elapsed();
                let undone = self.ledger.release(&user, key, ending, cause, age);
                undone.await.map(drop)
            }
            Notice::Release(key, ending, cause) => {
                let age = pending.since.elapsed();
                let released = self.ledger.release(&user, key, *ending, *cause, age);
                released.await.map(drop)
            }
        };
        match told {
            Ok(()) => None,
            Err(outage) if outage.error.is_transient() => Some((user, pending)),
            Err(outage) => {
                debug!(user.id = user.as_str(), ?notice, %outage, "given up");
                self.shared.metrics.releaser_dropped(DropReason::Protocol);
                None
            }
        }
    }

    /// Drops what has waited for so long that it says nothing any more, so that it keeps nothing newer out.
    fn expire(&self) {
        let expired = self
            .shared
            .queue()
            .drop_failed(|pending| self.still_true(pending).is_some());
        for _ in 0..expired {
            self.shared.metrics.releaser_dropped(DropReason::Expired);
        }
    }

    /// What a notice still says after its wait. A stream that was seen running a while ago gets what is left of its lease; an
    /// end is worth telling as long as the session could be held.
    fn still_true(&self, pending: &Pending) -> Option<Notice> {
        let age = pending.since.elapsed();
        match &pending.notice {
            Notice::Renew(sighting, plan, response) => {
                let lease = sighting
                    .lease
                    .checked_sub(age)
                    .filter(|left| !left.is_zero())?;
                let sighting = Sighting {
                    lease,
                    ..sighting.clone()
                };
                Some(Notice::Renew(sighting, plan.clone(), response.clone()))
            }
            Notice::Played(_) | Notice::Undo(..) | Notice::Release(..) => {
                (age < self.terms.memory).then(|| pending.notice.clone())
            }
        }
    }
}
