//! Sorts the events of several instances by the store's time. Each event waits for a moment, because
//! one of another instance that happened before it may still be on its way.

use std::collections::HashSet;

use super::event::{Event, EventType};
use crate::clock::Timestamp;

/// How many events may wait. Any more are passed on at once, and perhaps in another order.
const MOST_WAITING: usize = 20_000;

/// Events that wait for earlier ones.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// Each, with the turn in which it came.
    events: Vec<(u64, Event)>,
    /// The turn.
    turn: u64,
}

impl Waiting {
    /// Adds events.
    pub(super) fn add(&mut self, events: impl IntoIterator<Item = Event>) {
        let turn = self.turn;
        self.events
            .extend(events.into_iter().map(|event| (turn, event)));
    }

    /// Takes those that have waited for that many turns, in their order, with all that happened
    /// before them. The next turn begins.
    pub(super) fn take(&mut self, turns: u64) -> Vec<Event> {
        self.turn += 1;
        let turns = if self.events.len() > MOST_WAITING {
            0
        } else {
            turns
        };
        let has_waited = |(came, _): &&(u64, Event)| came + turns < self.turn;
        let due = self.events.iter().filter(has_waited);
        let Some(until) = due.map(|(_, event)| event.at).max() else {
            return Vec::new();
        };
        let (due, rest) = std::mem::take(&mut self.events)
            .into_iter()
            .partition(|(_, event)| event.at <= until);
        self.events = rest;
        let due: Vec<(u64, Event)> = due;
        sorted(due.into_iter().map(|(_, event)| event).collect())
    }
}

/// The events in the order in which they happened. The store's time has a resolution of a
/// millisecond: within one, sessions end before others start, but not before they have started
/// themselves.
pub(super) fn sorted(mut events: Vec<Event>) -> Vec<Event> {
    let of_session = |event: &Event| (event.at, event.user.clone(), event.session.clone());
    let started: HashSet<(Timestamp, Option<String>, Option<String>)> = events
        .iter()
        .filter(|event| event.kind == EventType::Started)
        .map(of_session)
        .collect();
    events.sort_by_cached_key(|event| {
        let is_end = matches!(event.kind, EventType::Ended | EventType::Displaced);
        let rank = match event.kind {
            EventType::Started => 1,
            _ if is_end && !started.contains(&of_session(event)) => 0,
            _ => 2,
        };
        (event.at, rank)
    });
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: EventType, session: &str, at: u64) -> Event {
        Event {
            user: Some("anna".to_owned()),
            session: Some(session.to_owned()),
            at: Timestamp::from_millis(at),
            ..Event::new(kind)
        }
    }

    fn shown(events: &[Event]) -> Vec<String> {
        let show = |event: &Event| {
            let session = event.session.as_deref().unwrap_or_default();
            format!("{} {session}", event.kind.as_str())
        };
        events.iter().map(show).collect()
    }

    #[test]
    fn events_wait_for_earlier_ones_of_other_instances() {
        let mut waiting = Waiting::default();
        waiting.add([event(EventType::Started, "p2", 20)]);
        assert!(waiting.take(2).is_empty());
        waiting.add([
            event(EventType::Ended, "p1", 10),
            event(EventType::Started, "p3", 30),
        ]);
        assert!(waiting.take(2).is_empty());
        // The earlier one goes with it although it has just come.
        assert_eq!(shown(&waiting.take(2)), ["ended p1", "started p2"]);
        assert_eq!(shown(&waiting.take(2)), ["started p3"]);
        assert!(waiting.take(2).is_empty());
    }

    #[test]
    fn within_a_millisecond_a_slot_is_freed_before_it_is_taken() {
        let mut waiting = Waiting::default();
        waiting.add([
            event(EventType::Ended, "p2", 7),
            event(EventType::Started, "p2", 7),
            event(EventType::Ended, "p1", 7),
            event(EventType::Refused, "p3", 7),
        ]);
        let order = ["ended p1", "started p2", "ended p2", "refused p3"];
        assert_eq!(shown(&waiting.take(0)), order);
    }
}
