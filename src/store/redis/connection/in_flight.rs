//! Who waits for an answer on one connection, so that a Redis which stands still costs no more memory than so many calls take.

use std::sync::atomic::{AtomicU64, Ordering};

/// How many calls may wait for their answers on one connection.
pub(super) const MOST: usize = 4096;

/// Counts the calls that one connection has been handed and not answered yet, those included that nobody waits for any more: the client library
/// remembers them all. Answers come in the order of the calls, so that one that is answered speaks for all before it.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    /// How many calls there have been.
    asked: AtomicU64,
    /// How many of them have been answered.
    answered: AtomicU64,
}

impl InFlight {
    /// Joins at the end, if there is room; at which place.
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

    /// Takes note that the call at that place is answered.
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
    fn an_answer_speaks_for_all_before_it_and_a_late_one_takes_nothing_back() {
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
