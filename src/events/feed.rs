//! The latest events, and who listens to them at this instance.
//!
//! All listeners read one ring of batches, each at its own place. So an event is kept once however
//! many listen, a listener costs its connection and a few words, and one that falls behind by more
//! than the ring has lost its place.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::task::AtomicWaker;
use tokio::sync::Notify;
use tokio::time::{Sleep, sleep};
use tokio_util::sync::CancellationToken;

use super::event::{Event, EventType};
use crate::clock::{Stopwatch, Timestamp};
use crate::identity::UserId;
use crate::store::StoreError;
use crate::telemetry::Metrics;
use crate::util::lock;

/// How many bytes of events are remembered at most, and how many batches. That is how far a
/// listener may fall behind, and what `Last-Event-ID` finds.
const REMEMBERED: (usize, usize) = (4 * 1024 * 1024, 4096);

/// How long a listener hears nothing before it gets a comment, so that no proxy takes its
/// connection for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The comment.
const COMMENT: &[u8] = b":\n\n";

/// How long this instance goes on listening to others after its last listener has left, so that it
/// can continue where it was.
pub(super) const LINGER: Duration = Duration::from_secs(60);

/// Too many listen already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} listen to this instance already")]
pub struct TooManyListeners(pub usize);

/// Closes the connection of a listener that has stopped reading.
#[derive(Debug, Clone, Default)]
pub struct Hangup(pub CancellationToken);

/// The latest events, and who listens.
#[derive(Debug)]
pub(super) struct Feed {
    /// The latest events.
    ring: Mutex<Ring>,
    /// The listeners.
    seats: Mutex<Seats>,
    /// How many there may be.
    room: usize,
    /// Notified when one comes.
    pub(super) arrived: Notify,
    /// How many events were lost since listeners were last told.
    lost: AtomicU64,
    /// What the store refuses, and in which words.
    refused: Mutex<Vec<(BusStep, String)>>,
    /// Cancelled when nobody may listen any more.
    closed: CancellationToken,
    /// Counts listeners.
    metrics: Arc<Metrics>,
}

/// The latest events, in batches that were made at the same time.
#[derive(Debug, Default)]
struct Ring {
    /// The batches, from the oldest.
    batches: VecDeque<Arc<EventBatch>>,
    /// The number of the first of them.
    first: u64,
    /// How many bytes they have.
    bytes: usize,
}

/// Events that became known at the same time.
#[derive(Debug)]
struct EventBatch {
    /// Each of them.
    entries: Vec<FeedEntry>,
    /// All frames.
    whole: Bytes,
}

/// One event of a batch.
#[derive(Debug)]
struct FeedEntry {
    /// Its id.
    id: Box<str>,
    /// Its user; none if it concerns all.
    user: Option<Box<str>>,
    /// Its frame: a part of the batch's.
    frame: Bytes,
}

/// Those who listen.
#[derive(Debug, Default)]
struct Seats {
    /// Each, by its number.
    taken: BTreeMap<u64, Arc<Seat>>,
    /// The last number.
    last: u64,
    /// Since when nobody has listened; none if somebody does, or nobody ever did.
    empty_since: Option<Stopwatch>,
}

/// What the feed knows about a listener.
#[derive(Debug)]
struct Seat {
    /// Wakes it.
    waker: AtomicWaker,
    /// The number of the batch that it reads next.
    next: AtomicU64,
    /// Whether it had lost its place when the feed last looked.
    is_behind: AtomicBool,
    /// Closes its connection.
    hangup: Option<Hangup>,
}

/// What the store may refuse, so that the events of other instances don't come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BusStep {
    /// To ask who listens: then instances don't tell each other anything.
    Ask,
    /// To subscribe.
    Subscribe,
}

/// What there is to read at a place.
enum FeedReading {
    /// These frames, and the number of the next batch.
    Frames(Bytes, u64),
    /// Nothing yet; the next batch has that number.
    Nothing(u64),
    /// The place is gone.
    Lost,
}

/// A listener: a stream of frames. It ends when the feed is closed, or after the word that it was
/// too slow.
#[derive(Debug)]
pub struct EventListener {
    /// The feed.
    feed: Arc<Feed>,
    /// Its number.
    number: u64,
    /// What the feed knows about it.
    seat: Arc<Seat>,
    /// The one user that it wants to hear about; none for all.
    user: Option<UserId>,
    /// The first bytes: what it missed.
    missed: Option<Bytes>,
    /// Ends when a comment is due.
    silence: Pin<Box<Sleep>>,
    /// Whether it has heard its last word.
    is_over: bool,
}

// === impl Feed ===

impl Feed {
    /// A feed without events and with room for that many listeners.
    pub(super) fn new(room: usize, metrics: Arc<Metrics>) -> Self {
        Self {
            ring: Mutex::default(),
            seats: Mutex::default(),
            room,
            arrived: Notify::new(),
            lost: AtomicU64::new(0),
            refused: Mutex::default(),
            closed: CancellationToken::new(),
            metrics,
        }
    }

    /// Adds a listener, see [`Events::listen`](super::Events::listen).
    pub(super) fn listen(
        feed: &Arc<Self>,
        user: Option<UserId>,
        last: Option<&str>,
        hangup: Option<Hangup>,
    ) -> Result<EventListener, TooManyListeners> {
        let mut seats = lock(&feed.seats);
        if seats.taken.len() >= feed.room {
            return Err(TooManyListeners(feed.room));
        }
        let (missed, next) = feed.missed_since(last, user.as_ref());
        let missed = feed.with_refusal(missed);
        let seat = Arc::new(Seat {
            waker: AtomicWaker::new(),
            next: AtomicU64::new(next),
            is_behind: AtomicBool::new(false),
            hangup,
        });
        seats.last += 1;
        let number = seats.last;
        seats.taken.insert(number, Arc::clone(&seat));
        seats.empty_since = None;
        feed.metrics.event_listeners(seats.taken.len());
        drop(seats);
        feed.arrived.notify_one();
        Ok(EventListener {
            feed: Arc::clone(feed),
            number,
            seat,
            user,
            missed: Some(missed),
            silence: Box::pin(sleep(KEEP_ALIVE)),
            is_over: false,
        })
    }

    /// What a listener has missed since its last event, with the comment that opens the stream; and
    /// the batch that it reads next.
    fn missed_since(&self, last: Option<&str>, user: Option<&UserId>) -> (Bytes, u64) {
        let mut missed = COMMENT.to_vec();
        let ring = lock(&self.ring);
        let end = ring.first + ring.batches.len() as u64;
        let Some(last) = last else {
            return (missed.into(), end);
        };
        let is_last = |entry: &FeedEntry| *entry.id == *last;
        let places = ring.batches.iter().enumerate().rev();
        let found = places
            .filter_map(|(at, batch)| Some((at, batch.entries.iter().position(is_last)?)))
            .next();
        let Some((at, place)) = found else {
            let told = "the event in Last-Event-ID isn't remembered here; events may be missing";
            let mut frame = String::new();
            Event::saying(EventType::Gap, told).write_frame(&mut frame);
            missed.extend(frame.into_bytes());
            return (missed.into(), end);
        };
        let batch = ring.batches.get(at);
        let entries = batch.iter().flat_map(|batch| batch.entries.iter());
        for entry in entries.skip(place + 1).filter(|it| it.concerns(user)) {
            missed.extend_from_slice(&entry.frame);
        }
        (missed.into(), ring.first + at as u64 + 1)
    }

    /// The first bytes of a stream; with the reason, if the events of other instances don't come.
    fn with_refusal(&self, missed: Bytes) -> Bytes {
        let refused = lock(&self.refused);
        let Some((_, why)) = refused.first() else {
            return missed;
        };
        let mut frame = String::new();
        Event::saying(EventType::Gap, why.as_str()).write_frame(&mut frame);
        [&*missed, frame.as_bytes()].concat().into()
    }

    /// Records that the store refuses that, or no longer. All listeners hear the first refusal, and
    /// those who come later hear it at once: otherwise they would wait for events of other instances
    /// that never come.
    pub(super) fn note_refusal(&self, step: BusStep, refusal: Option<&StoreError>, at: Timestamp) {
        let mut refused = lock(&self.refused);
        let Some(refusal) = refusal else {
            refused.retain(|(known, _)| *known != step);
            return;
        };
        if refused.iter().any(|(known, _)| *known == step) {
            return;
        }
        let why = format!(
            "the events of other instances don't come, because the store refuses that: {refusal}"
        );
        refused.push((step, why.clone()));
        let is_first = refused.len() == 1;
        drop(refused);
        if is_first {
            let gap = Event {
                at,
                ..Event::saying(EventType::Gap, why)
            };
            self.add(&[gap]);
            self.wakers().into_iter().for_each(|wake| wake());
        }
    }

    /// How many listen.
    pub(super) fn count(&self) -> usize {
        lock(&self.seats).taken.len()
    }

    /// Whether somebody listens, or did until a moment ago.
    pub(super) fn is_in_use(&self) -> bool {
        let seats = lock(&self.seats);
        let since = seats.empty_since.as_ref();
        !seats.taken.is_empty() || since.is_some_and(|since| since.elapsed() < LINGER)
    }

    /// Forgets all events: what follows doesn't continue them.
    pub(super) fn forget(&self) {
        let mut ring = lock(&self.ring);
        ring.first += ring.batches.len() as u64;
        ring.batches = VecDeque::new();
        ring.bytes = 0;
    }

    /// Adds events, in their order.
    pub(super) fn add(&self, events: &[Event]) {
        if events.is_empty() {
            return;
        }
        let batch = Arc::new(EventBatch::of(events));
        let mut ring = lock(&self.ring);
        ring.bytes += batch.whole.len();
        ring.batches.push_back(batch);
        while ring.batches.len() > 1
            && (ring.bytes > REMEMBERED.0 || ring.batches.len() > REMEMBERED.1)
        {
            let oldest = ring.batches.pop_front();
            ring.bytes -= oldest.map_or(0, |oldest| oldest.whole.len());
            ring.first += 1;
        }
    }

    /// The wakers' owners, to be woken a few at a time.
    pub(super) fn wakers(&self) -> Vec<impl FnOnce() + use<>> {
        let seats = lock(&self.seats);
        let seats = seats.taken.values().map(Arc::clone);
        seats.map(|seat| move || seat.waker.wake()).collect()
    }

    /// Hangs up on the listeners that had lost their places when this was last called, and still
    /// haven't noticed: they don't read, so that no word reaches them.
    pub(super) fn hang_up(&self) {
        let first = lock(&self.ring).first;
        for seat in lock(&self.seats).taken.values() {
            let is_behind = seat.next.load(Ordering::Relaxed) < first;
            if !seat.is_behind.swap(is_behind, Ordering::Relaxed) || !is_behind {
                continue;
            }
            if let Some(Hangup(hangup)) = &seat.hangup
                && !hangup.is_cancelled()
            {
                self.metrics.event_listener_dropped();
                hangup.cancel();
            }
        }
    }

    /// Records that events were lost.
    pub(super) fn note_loss(&self, count: u64) {
        self.lost.fetch_add(count, Ordering::Relaxed);
    }

    /// How many events were lost since this was last called.
    pub(super) fn take_loss(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }

    /// Ends all streams, and lets nobody listen from now on.
    pub(super) fn close(&self) {
        self.closed.cancel();
        self.wakers().into_iter().for_each(|wake| wake());
    }

    /// What there is to read from that batch on.
    fn read(&self, from: u64, user: Option<&UserId>) -> FeedReading {
        let ring = lock(&self.ring);
        let Some(skipped) = from.checked_sub(ring.first) else {
            return FeedReading::Lost;
        };
        let mut next = from;
        let skipped = usize::try_from(skipped).unwrap_or(usize::MAX);
        for batch in ring.batches.iter().skip(skipped) {
            next += 1;
            let frames = batch.for_user(user);
            if !frames.is_empty() {
                return FeedReading::Frames(frames, next);
            }
        }
        FeedReading::Nothing(next)
    }
}

// === impl EventBatch, FeedEntry ===

impl EventBatch {
    /// A batch of these events.
    fn of(events: &[Event]) -> Self {
        let mut frames = String::new();
        let ends: Vec<usize> = events
            .iter()
            .map(|event| {
                event.write_frame(&mut frames);
                frames.len()
            })
            .collect();
        let whole = Bytes::from(frames);
        let starts = [0].into_iter().chain(ends.iter().copied());
        let entries = events.iter().zip(starts.zip(&ends));
        let entries = entries.map(|(event, (start, end))| FeedEntry {
            id: event.id.as_str().into(),
            user: event.user.as_deref().map(Into::into),
            frame: whole.slice(start..*end),
        });
        Self {
            entries: entries.collect(),
            whole,
        }
    }

    /// The frames for a listener.
    fn for_user(&self, user: Option<&UserId>) -> Bytes {
        if user.is_none() {
            return self.whole.clone();
        }
        let mut concerning = self.entries.iter().filter(|entry| entry.concerns(user));
        let Some(first) = concerning.next() else {
            return Bytes::new();
        };
        let mut rest = concerning.peekable();
        if rest.peek().is_none() {
            return first.frame.clone();
        }
        let mut frames = first.frame.to_vec();
        rest.for_each(|entry| frames.extend_from_slice(&entry.frame));
        frames.into()
    }
}

impl FeedEntry {
    /// Whether a listener wants it. Everybody wants to know that events are missing.
    fn concerns(&self, user: Option<&UserId>) -> bool {
        let (Some(wanted), Some(user)) = (user, &self.user) else {
            return user.is_none() || self.id.is_empty();
        };
        wanted.as_str() == &**user
    }
}

// === impl EventListener ===

impl Stream for EventListener {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.is_over {
            return Poll::Ready(None);
        }
        if let Some(missed) = this.missed.take() {
            return Poll::Ready(Some(Ok(missed)));
        }
        // Before the ring is read: an event after that wakes it.
        this.seat.waker.register(cx.waker());
        if this.feed.closed.is_cancelled() {
            return Poll::Ready(None);
        }
        let next = this.seat.next.load(Ordering::Relaxed);
        let told = match this.feed.read(next, this.user.as_ref()) {
            FeedReading::Frames(frames, next) => {
                this.seat.next.store(next, Ordering::Relaxed);
                frames
            }
            FeedReading::Nothing(next) => {
                this.seat.next.store(next, Ordering::Relaxed);
                if this.silence.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                Bytes::from_static(COMMENT)
            }
            FeedReading::Lost => {
                this.is_over = true;
                this.feed.metrics.event_listener_dropped();
                let told = "too slow: more events came than are kept for a listener; listen again";
                let mut frame = String::new();
                Event::saying(EventType::Dropped, told).write_frame(&mut frame);
                frame.into()
            }
        };
        this.silence.set(sleep(KEEP_ALIVE));
        Poll::Ready(Some(Ok(told)))
    }
}

impl Drop for EventListener {
    fn drop(&mut self) {
        let mut seats = lock(&self.feed.seats);
        seats.taken.remove(&self.number);
        self.feed.metrics.event_listeners(seats.taken.len());
        if seats.taken.is_empty() {
            seats.empty_since = Some(Stopwatch::start());
        }
    }
}
