//! Recognises a refused stream that asks again, so that its start counts once.

use std::time::Duration;

use crate::clock::Timestamp;

/// How many refused streams are remembered.
const ROOM: u64 = 8192;

/// A stream that hasn't asked for that long is a new start.
const QUIET: Duration = Duration::from_secs(60);

/// The streams that were refused lately. One may take another's place; then a repeated start counts
/// twice.
#[derive(Debug, Default)]
pub(super) struct Retries(Vec<(u64, Timestamp)>);

impl Retries {
    /// Whether that refused stream has not asked for a while.
    pub(super) fn is_first(&mut self, key: u64, now: Timestamp) -> bool {
        if self.0.is_empty() {
            // Most instances refuse nothing for long.
            let room = usize::try_from(ROOM).unwrap_or_default();
            self.0.resize(room, (0, Timestamp::default()));
        }
        let place = usize::try_from(key % ROOM).unwrap_or_default();
        let Some(slot) = self.0.get_mut(place) else {
            return true;
        };
        let (last, asked_at) = std::mem::replace(slot, (key, now));
        last != key || now.since(asked_at) >= QUIET
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_keeps_asking_is_one_start() {
        let (mut retries, at) = (Retries::default(), |seconds: u64| {
            Timestamp::from_millis(1_000_000 + seconds * 1000)
        });
        assert!(retries.is_first(7, at(0)));
        assert!(!retries.is_first(7, at(50)));
        assert!(!retries.is_first(7, at(100)));
        assert!(retries.is_first(8, at(100)));
        assert!(retries.is_first(7, at(161)));
    }
}
