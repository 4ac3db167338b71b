//! The calls in flight on one connection, bounded so that an unresponsive Redis can't exhaust our
//! memory.

use std::sync::atomic::{AtomicU64, Ordering};

/// How many calls may wait for their answers on one connection.
pub(super) const MOST: usize = 4096;

/// Counts the unanswered calls on one connection, including abandoned ones, which the client
/// library still remembers. Answers come in the order of the calls, so an answer to one call means
/// that all before it are answered too.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    /// The number of calls made.
    asked: AtomicU64,
    /// The number of calls answered.
    answered: AtomicU64,
}

impl InFlight {
    /// Takes the next place in the queue, if there is room.
    pub(super) fn join(&self) -> Option<u64> {
        let last = self
            .asked
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |asked| {
                let waiting = asked.saturating_sub(self.answered.load(Ordering::Acquire));
                (waiting < MOST as u64).then_some(asked + 1)
            });
        last.ok().map(|last| last + 1)
    }

    /// The last place.
    pub(super) fn end(&self) -> u64 {
        self.asked.load(Ordering::Acquire)
    }

    /// Records that the call at that place was answered.
    pub(super) fn answered(&self, place: u64) {
        self.answered.fetch_max(place, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_find_a_place_and_no_more_until_one_is_answered() {
        let queue = InFlight::default();
        for place in 1..=MOST as u64 {
            assert_eq!(queue.join(), Some(place));
        }
        assert_eq!(queue.join(), None);
        assert_eq!(queue.join(), None);
        queue.answered(1);
        assert_eq!(queue.join(), Some(MOST as u64 + 1));
        assert_eq!(queue.join(), None);
    }

    #[test]
    fn an_answer_covers_earlier_calls_and_late_ones_change_nothing() {
        let queue = InFlight::default();
        while queue.join().is_some() {}
        queue.answered(queue.end());
        queue.answered(7);
        for _ in 0..MOST {
            assert!(queue.join().is_some());
        }
        assert_eq!(queue.join(), None);
    }
}
