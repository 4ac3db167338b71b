//! Takes events out of the queue: to this instance's listeners, and through the bus to those of
//! others.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{self, error::TryRecvError};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::bus::{events_in, messages};
use super::event::{Event, EventType};
use super::feed::{BusStep, Feed};
use super::order::Waiting;
use super::{ELSEWHERE, Events, HERE};
use crate::store::{Broadcast, StoreError};
use crate::telemetry::metrics::EventLoss;

/// How often events are taken out of the queue.
pub(super) const TURN: Duration = Duration::from_millis(100);

/// How many events are taken out of the queue at a time. A flood of refusals is cut here, so that
/// neither the bus nor the listeners have more to do than that.
const MOST_AT_ONCE: usize = 250;

/// How many turns an event waits for earlier ones of other instances.
const WAITS: u64 = 3;

/// How many listeners are woken at a time, and how long the others wait meanwhile. Thousands at
/// once would keep checks waiting.
const AT_A_TIME: (usize, Duration) = (16, Duration::from_millis(1));

/// How often listeners that have stopped reading are looked for.
const HANG_UP: u32 = 50;

/// How often the bus is asked whether somebody listens elsewhere, and how soon a lost subscription
/// is made again.
const ASK: Duration = Duration::from_secs(1);

/// How many messages wait to be sent, and how many received events wait to be sorted.
const ROOM: (usize, usize) = (32, 4096);

/// Delivers events until it is dropped.
#[derive(Debug)]
pub struct EventWorker {
    /// The handle of those who tell.
    events: Arc<Events>,
    /// What they have told.
    queued: mpsc::Receiver<Event>,
    /// Joins this instance with others.
    bus: Option<Arc<dyn Broadcast>>,
    /// The number of the last event.
    number: u64,
}

/// Delivers to this instance's listeners.
struct Local {
    /// Those who listen.
    feed: Arc<Feed>,
    /// Events that wait for earlier ones.
    waiting: Waiting,
    /// How many turns they wait.
    waits: u64,
    /// How many turns there were.
    turns: u32,
}

/// Joins this instance with others.
struct Relay {
    /// The handle of those who tell.
    events: Arc<Events>,
    /// The way.
    bus: Arc<dyn Broadcast>,
    /// Whether this instance has a subscription.
    subscribed: watch::Sender<bool>,
}

// === impl EventWorker ===

impl EventWorker {
    /// A worker that takes events out of that queue.
    pub(super) fn new(
        events: Arc<Events>,
        queued: mpsc::Receiver<Event>,
        bus: Option<Arc<dyn Broadcast>>,
    ) -> Self {
        Self {
            events,
            queued,
            bus,
            number: 0,
        }
    }

    /// Delivers events until it is dropped.
    pub async fn run(self) {
        let (outgoing, to_send) = mpsc::channel(ROOM.0);
        let (heard, incoming) = mpsc::channel(ROOM.1);
        let relay = self.bus.as_ref().map(|bus| Relay {
            events: Arc::clone(&self.events),
            bus: Arc::clone(bus),
            subscribed: watch::Sender::default(),
        });
        let delivering = self.deliver(outgoing, incoming);
        match &relay {
            None => delivering.await,
            Some(relay) => {
                tokio::join!(
                    delivering,
                    relay.ask_who_listens(),
                    relay.send(to_send),
                    relay.receive(heard),
                );
            }
        }
    }

    /// Takes events out of the queue, turn by turn, as long as somebody listens.
    async fn deliver(
        mut self,
        outgoing: mpsc::Sender<(usize, Vec<u8>)>,
        mut incoming: mpsc::Receiver<Event>,
    ) {
        let events = Arc::clone(&self.events);
        let mut local = Local {
            feed: Arc::clone(&events.feed),
            waiting: Waiting::default(),
            waits: if self.bus.is_some() { WAITS } else { 0 },
            turns: 0,
        };
        loop {
            if !events.are_heard() {
                // Nobody tells either. Whether somebody listens elsewhere is asked once a second.
                let _ = timeout(ASK, events.feed.arrived.notified()).await;
                continue;
            }
            sleep(TURN).await;
            let told = self.take_queued();
            events.give_to_sink(&told);
            if events.are_heard_elsewhere() {
                for message in messages(&events.instance, &told) {
                    let count = message.0;
                    if outgoing.try_send(message).is_err() {
                        events.metrics.events_lost(EventLoss::Store, count);
                    }
                }
            }
            if events.are_heard_here() {
                local.waiting.add(told);
                local
                    .waiting
                    .add(std::iter::from_fn(|| incoming.try_recv().ok()));
                local.deliver().await;
                if !local.feed.is_in_use() {
                    events.hear(HERE, false);
                    local.feed.forget();
                    local.waiting = Waiting::default();
                    // A listener may have come in between.
                    if local.feed.count() > 0 {
                        events.hear(HERE, true);
                    }
                }
            }
        }
    }

    /// Takes some events out of the queue, and gives them their ids.
    fn take_queued(&mut self) -> Vec<Event> {
        let mut told = Vec::new();
        while told.len() < MOST_AT_ONCE {
            let mut event = match self.queued.try_recv() {
                Ok(event) => event,
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            };
            self.number += 1;
            let instance = &self.events.instance;
            event.id = format!("{}-{instance}-{}", event.at.as_millis(), self.number);
            event.instance = Some(instance.to_string());
            told.push(event);
        }
        told
    }
}

// === impl Local ===

impl Local {
    /// Adds the events whose turn it is to the feed, and wakes the listeners.
    async fn deliver(&mut self) {
        let mut due = self.waiting.take(self.waits);
        let lost = self.feed.take_loss();
        if lost > 0 {
            let told = format!("{lost} events are missing: more happened than can be told");
            due.push(Event::saying(EventType::Gap, told));
        }
        let is_news = !due.is_empty();
        self.feed.add(&due);
        if is_news {
            let (at_a_time, pause) = AT_A_TIME;
            let mut wakers = self.feed.wakers();
            while !wakers.is_empty() {
                let first = wakers.len().saturating_sub(at_a_time);
                wakers.drain(first..).for_each(|wake| wake());
                if !wakers.is_empty() {
                    sleep(pause).await;
                }
            }
        }
        self.turns = self.turns.wrapping_add(1);
        if self.turns.is_multiple_of(HANG_UP) {
            self.feed.hang_up();
        }
    }
}

// === impl Relay ===

impl Relay {
    /// Asks from time to time whether somebody listens at another instance. If the bus doesn't know
    /// our own subscription, it is somewhere else now, and the subscription is made again.
    async fn ask_who_listens(&self) {
        let (mut is_told, mut unknown) = (false, 0);
        loop {
            let is_subscribed = *self.subscribed.borrow();
            let counted = self.bus.count_subscribers().await;
            self.note(BusStep::Ask, counted.as_ref().err());
            let others = match counted {
                Ok(all) => {
                    is_told = false;
                    unknown = if is_subscribed && all == 0 {
                        unknown + 1
                    } else {
                        0
                    };
                    all.saturating_sub(usize::from(is_subscribed))
                }
                Err(error) => {
                    // The store's own outage has its own line.
                    if !is_told && matches!(error, StoreError::Rejected(_)) {
                        warn!(%error, "the events of this instance can't be told to others");
                    }
                    is_told = true;
                    0
                }
            };
            if unknown > 1 {
                unknown = 0;
                self.subscribed.send_replace(false);
            }
            self.events.hear(ELSEWHERE, others > 0);
            sleep(ASK).await;
        }
    }

    /// Sends messages.
    async fn send(&self, mut messages: mpsc::Receiver<(usize, Vec<u8>)>) {
        while let Some((count, message)) = messages.recv().await {
            if let Err(error) = self.bus.publish(&message).await {
                debug!(%error, "events could not be told to other instances");
                self.events.metrics.events_lost(EventLoss::Store, count);
            }
        }
    }

    /// Receives the events of other instances, as long as somebody listens here.
    async fn receive(&self, heard: mpsc::Sender<Event>) {
        let events = &self.events;
        let mut is_missing = false;
        loop {
            if !events.are_heard_here() {
                is_missing = false;
                // The worker for local events may take the other notification.
                sleep(ASK / 10).await;
                continue;
            }
            let subscribed = self.bus.subscribe().await;
            self.note(BusStep::Subscribe, subscribed.as_ref().err());
            match subscribed {
                Ok(mut messages) => {
                    self.subscribed.send_replace(true);
                    if is_missing {
                        self.tell_gap(&heard);
                    }
                    while events.are_heard_here() && *self.subscribed.borrow() {
                        match timeout(ASK, messages.next()).await {
                            Err(_) => continue,
                            Ok(None) => break,
                            Ok(Some(message)) => self.hear(&message, &heard),
                        }
                    }
                    self.subscribed.send_replace(false);
                    is_missing = events.are_heard_here();
                }
                Err(error) => {
                    debug!(%error, "the events of other instances can't be heard");
                    is_missing = true;
                }
            }
            if is_missing {
                sleep(ASK).await;
            }
        }
    }

    /// Records whether the store has refused that. An outage of the store has its own event.
    fn note(&self, step: BusStep, error: Option<&StoreError>) {
        let refusal = error.filter(|error| matches!(error, StoreError::Rejected(_)));
        if error.is_none() || refusal.is_some() {
            let at = self.events.store_time(None);
            self.events.feed.note_refusal(step, refusal, at);
        }
    }

    /// Passes on the events in a message.
    fn hear(&self, message: &[u8], heard: &mpsc::Sender<Event>) {
        for event in events_in(message, &self.events.instance) {
            if heard.try_send(event).is_err() {
                self.events.metrics.events_lost(EventLoss::Queue, 1);
                self.events.feed.note_loss(1);
            }
        }
    }

    /// Says that events of other instances may be missing.
    fn tell_gap(&self, heard: &mpsc::Sender<Event>) {
        let told = "the way to the events of other instances was interrupted; some may be missing";
        let gap = Event {
            at: self.events.store_time(None),
            ..Event::saying(EventType::Gap, told)
        };
        if heard.try_send(gap).is_err() {
            self.events.feed.note_loss(1);
        }
    }
}
