//! The events that wait for one webhook: bounded, in their order.

use std::collections::VecDeque;
use std::sync::Arc;

/// How many events wait, and how many bytes of them. A new one displaces the oldest.
const ROOM: (usize, usize) = (4096, 4 * 1024 * 1024);

/// How many events one POST has at most, and after how many bytes it takes no more.
const BATCH: (usize, usize) = (100, 64 * 1024);

/// The events that wait, each as JSON.
#[derive(Debug, Default)]
pub(super) struct WebhookQueue {
    /// The events, from the oldest.
    waiting: VecDeque<Arc<str>>,
    /// How many bytes they have.
    bytes: usize,
    /// How many events are on their way to the receiver.
    taken: usize,
    /// How many events were lost since the receiver was last told.
    missing: usize,
}

/// Events for one POST.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TakenEvents {
    /// The events.
    pub(super) events: Vec<Arc<str>>,
    /// How many events are missing before the first.
    pub(super) missing: usize,
}

impl WebhookQueue {
    /// Adds an event; returns how many old ones had to go for it.
    pub(super) fn push(&mut self, event: Arc<str>) -> usize {
        self.bytes += event.len();
        self.waiting.push_back(event);
        let mut dropped = 0;
        while self.waiting.len() > ROOM.0 || (self.bytes > ROOM.1 && self.waiting.len() > 1) {
            self.pop();
            dropped += 1;
        }
        self.missing += dropped;
        dropped
    }

    /// Records that an event was lost before it got here.
    pub(super) fn miss(&mut self) {
        self.missing += 1;
    }

    /// Takes the events for one POST; none if none wait.
    pub(super) fn take(&mut self) -> Option<TakenEvents> {
        let mut events = Vec::new();
        let mut bytes = 0;
        while events.len() < BATCH.0 && bytes < BATCH.1 {
            let Some(event) = self.pop() else { break };
            bytes += event.len();
            events.push(event);
        }
        if events.is_empty() {
            return None;
        }
        self.taken = events.len();
        let missing = std::mem::take(&mut self.missing);
        Some(TakenEvents { events, missing })
    }

    /// The receiver has got what was taken; returns how many events that were.
    pub(super) fn delivered(&mut self) -> usize {
        std::mem::take(&mut self.taken)
    }

    /// What was taken is lost; returns how many events that were. `missing` were lost before.
    pub(super) fn lost(&mut self, missing: usize) -> usize {
        let lost = std::mem::take(&mut self.taken);
        self.missing += lost + missing;
        lost
    }

    /// Drops all events; returns how many.
    pub(super) fn clear(&mut self) -> usize {
        let dropped = self.len();
        self.missing += dropped;
        self.waiting = VecDeque::new();
        (self.bytes, self.taken) = (0, 0);
        dropped
    }

    /// How many events wait or are on their way.
    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.taken
    }

    /// Takes the oldest event.
    fn pop(&mut self) -> Option<Arc<str>> {
        let event = self.waiting.pop_front()?;
        self.bytes -= event.len();
        Some(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(queue: &mut WebhookQueue, numbers: std::ops::Range<usize>) -> usize {
        numbers
            .map(|number| queue.push(number.to_string().into()))
            .sum()
    }

    #[test]
    fn events_leave_in_batches_and_in_order() {
        let mut queue = WebhookQueue::default();
        assert_eq!(queue.take(), None);
        assert_eq!(numbered(&mut queue, 0..150), 0);
        let first = queue.take().unwrap();
        assert_eq!(
            (first.events.len(), &*first.events[99], first.missing),
            (100, "99", 0)
        );
        assert_eq!(
            (queue.len(), queue.delivered(), queue.len()),
            (150, 100, 50)
        );
        let second = queue.take().unwrap();
        assert_eq!((second.events.len(), &*second.events[49]), (50, "149"));
        // A large event ends its batch.
        queue.push("x".repeat(BATCH.1).into());
        queue.push("y".into());
        assert_eq!(queue.take().unwrap().events.len(), 1);
    }

    #[test]
    fn a_full_queue_drops_the_oldest_and_tells_how_many_are_missing() {
        let mut queue = WebhookQueue::default();
        assert_eq!(numbered(&mut queue, 0..ROOM.0 + 7), 7);
        let taken = queue.take().unwrap();
        assert_eq!((&*taken.events[0], taken.missing), ("7", 7));
        // What the receiver didn't get is missing too.
        assert_eq!(queue.lost(taken.missing), 100);
        assert_eq!(queue.take().unwrap().missing, 107);
        assert_eq!((queue.clear(), queue.len()), (ROOM.0 - 100, 0));
    }

    #[test]
    fn a_queue_is_bounded_in_bytes_too() {
        let mut queue = WebhookQueue::default();
        let event: Arc<str> = "x".repeat(ROOM.1 / 4).into();
        let dropped: usize = (0..10).map(|_| queue.push(Arc::clone(&event))).sum();
        assert_eq!((dropped, queue.len()), (6, 4));
        assert_eq!(queue.push("x".repeat(2 * ROOM.1).into()), 4);
        assert_eq!(queue.len(), 1);
    }
}
