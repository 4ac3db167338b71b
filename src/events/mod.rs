//! Events: what happens in the whole installation, for the operators who listen.
//!
//! [`Events`] is the handle that the rest of the program reports events through. While nobody
//! listens, a report is one load of an atomic and nothing else. Otherwise the event goes into a
//! bounded queue, and the reporter never waits.
//!
//! - `event` is one event, and its form on every wire.
//! - `feed` keeps the latest events for listeners, and wakes them.
//! - `order` sorts the events of several instances by the store's time.
//! - `worker` takes events out of the queue, to this instance's listeners and to other instances.
//! - `bus` joins the instances through the store.
//!
//! An [`EventSink`] receives this instance's own events even if nobody listens.

mod bus;
mod event;
mod feed;
mod order;
#[cfg(test)]
mod tests;
mod worker;

pub use event::{Event, EventType};
pub use feed::{EventListener, Hangup, TooManyListeners};
pub use worker::EventWorker;

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::mpsc;

use crate::clock::{Clock, Timestamp};
use crate::identity::UserId;
use crate::store::Broadcast;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::EventLoss;
use feed::Feed;

/// How many events wait to be taken out of the queue. Any more are dropped, and counted.
const QUEUE: usize = 4096;

/// How many listeners one instance has at once: they leave a third of the connections of the HTTP
/// port, and of the memory of its requests, to others.
pub const MAX_LISTENERS: usize = 10_000;

/// Somebody listens at this instance.
const HERE: u8 = 1;

/// Somebody listens at another instance.
const ELSEWHERE: u8 = 2;

/// The sink takes the events of this instance.
const PASSED_ON: u8 = 4;

/// Receives this instance's own events in order, even if nobody listens. It must not block.
pub trait EventSink: fmt::Debug + Send + Sync + 'static {
    /// Takes events.
    fn take(&self, events: &[Event]);
}

/// Takes the events of this instance, for listeners at any instance.
#[derive(Debug)]
pub struct Events {
    /// Who listens: [`HERE`], [`ELSEWHERE`], [`PASSED_ON`]. Zero if nobody does.
    heard: AtomicU8,
    /// The queue.
    queue: mpsc::Sender<Event>,
    /// This instance's listeners.
    feed: Arc<Feed>,
    /// What takes this instance's own events.
    sink: OnceLock<Arc<dyn EventSink>>,
    /// How many events the sink was not given since it was last told.
    withheld: AtomicU64,
    /// This instance's clock.
    clock: Arc<dyn Clock>,
    /// How far the store's clock was ahead of this instance's, in milliseconds, when last seen.
    store_ahead: AtomicI64,
    /// Counts what is lost.
    metrics: Arc<Metrics>,
    /// The id of this instance.
    instance: Arc<str>,
}

impl Events {
    /// The events of that instance, and the task that delivers them; `bus` joins it with others.
    #[must_use]
    pub fn open(
        instance: &str,
        bus: Option<Arc<dyn Broadcast>>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> (Arc<Self>, EventWorker) {
        let (queue, queued) = mpsc::channel(QUEUE);
        let events = Arc::new(Self {
            heard: AtomicU8::new(0),
            queue,
            feed: Arc::new(Feed::new(MAX_LISTENERS, Arc::clone(&metrics))),
            sink: OnceLock::new(),
            withheld: AtomicU64::new(0),
            clock,
            store_ahead: AtomicI64::new(0),
            metrics,
            instance: instance.into(),
        });
        let worker = EventWorker::new(Arc::clone(&events), queued, bus);
        (events, worker)
    }

    /// Events that nobody can ever hear.
    #[must_use]
    pub fn unheard(clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Arc<Self> {
        Self::open("", None, clock, metrics).0
    }

    /// Whether somebody listens, here or at another instance.
    #[must_use]
    pub fn are_heard(&self) -> bool {
        self.heard.load(Ordering::Relaxed) != 0
    }

    /// Tells these events, if somebody listens; otherwise they aren't even made. `at` is the store's
    /// time, if it is known. Never waits.
    pub fn tell<I: IntoIterator<Item = Event>>(
        &self,
        at: Option<Timestamp>,
        events: impl FnOnce() -> I,
    ) {
        if !self.are_heard() {
            return;
        }
        let at = self.store_time(at);
        for mut event in events() {
            event.at = at;
            if self.queue.try_send(event).is_err() {
                self.metrics.events_lost(EventLoss::Queue, 1);
                self.feed.note_loss(1);
                self.withheld.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Names the sink that takes this instance's events. There is one at most.
    pub fn pass_to(&self, sink: Arc<dyn EventSink>) {
        // A second one would be a mistake in the wiring, and the first one stays.
        let _ = self.sink.set(sink);
    }

    /// Passes events on to the sink from now on, or no longer.
    pub fn pass_on(&self, is_wanted: bool) {
        self.hear(PASSED_ON, is_wanted);
        self.feed.arrived.notify_one();
    }

    /// Waits until the sink has all that has happened so far.
    pub async fn passed_on(&self) {
        while self.queue.capacity() < self.queue.max_capacity() {
            tokio::time::sleep(worker::TURN).await;
        }
        // What left the queue a moment ago reaches the sink within the same turn.
        tokio::time::sleep(worker::TURN).await;
    }

    /// Gives events to the sink, if it wants them.
    fn give_to_sink(&self, told: &[Event]) {
        let is_wanted = self.heard.load(Ordering::Relaxed) & PASSED_ON != 0;
        let withheld = self.withheld.swap(0, Ordering::Relaxed);
        let (true, Some(sink)) = (is_wanted, self.sink.get()) else {
            return;
        };
        let mut told = order::sorted(told.to_vec());
        if withheld > 0 {
            let text = format!("{withheld} events are missing: more happened than can be told");
            told.push(Event {
                at: self.store_time(None),
                instance: Some(self.instance.to_string()),
                ..Event::saying(EventType::Gap, text)
            });
        }
        sink.take(&told);
    }

    /// Listens from now on, or from the event after `last` on if it is remembered; to the events of
    /// one user, or to all. `hangup` closes the connection of a listener that stops reading.
    ///
    /// # Errors
    /// Too many listen already.
    pub fn listen(
        &self,
        user: Option<UserId>,
        last: Option<&str>,
        hangup: Option<Hangup>,
    ) -> Result<EventListener, TooManyListeners> {
        // Before the listener is there, so that it misses nothing from then on.
        self.hear(HERE, true);
        Feed::listen(&self.feed, user, last, hangup)
    }

    /// Ends all listeners' streams, and lets nobody listen from now on.
    pub fn close(&self) {
        self.feed.close();
    }

    /// Records whether somebody listens there.
    fn hear(&self, place: u8, is_heard: bool) {
        if is_heard {
            self.heard.fetch_or(place, Ordering::Relaxed);
        } else {
            self.heard.fetch_and(!place, Ordering::Relaxed);
        }
    }

    /// Whether somebody listens at another instance.
    fn are_heard_elsewhere(&self) -> bool {
        self.heard.load(Ordering::Relaxed) & ELSEWHERE != 0
    }

    /// Whether somebody listens at this instance, or did until a moment ago.
    fn are_heard_here(&self) -> bool {
        self.heard.load(Ordering::Relaxed) & HERE != 0
    }

    /// The store's time: exact, or estimated by this instance's clock.
    fn store_time(&self, exact: Option<Timestamp>) -> Timestamp {
        let now = self.clock.now().as_millis().cast_signed();
        match exact {
            Some(at) => {
                let ahead = at.as_millis().cast_signed().saturating_sub(now);
                self.store_ahead.store(ahead, Ordering::Relaxed);
                at
            }
            None => {
                let ahead = self.store_ahead.load(Ordering::Relaxed);
                let millis = now.saturating_add(ahead).max(0);
                Timestamp::from_millis(millis.cast_unsigned())
            }
        }
    }
}
