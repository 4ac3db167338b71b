//! The outcomes of what can be done to a roster. A refusal is a value here; only an outage is an error, and that is the store's.

use std::time::Duration;

use super::{EndCause, Session, Timestamp};

/// The answer to a start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// It may play.
    Admitted(Admitted),
    /// It may not.
    Refused(Refusal),
}

/// A start that was let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// Whether it takes a slot from now on, or had it already.
    pub entry: AdmissionKind,
    /// The session as it stands now.
    pub session: Session,
    /// The user's live sessions now, this one included.
    pub active: usize,
    /// The sessions that gave way to it, in the order in which they did.
    pub displaced: Vec<Session>,
    /// The store's time at this decision.
    pub decided_at: Timestamp,
}

/// How an admitted session came by its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdmissionKind {
    /// It has just taken it.
    Started,
    /// It held it already: a start can be repeated.
    Renewed,
}

/// Why a start was not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// All slots are taken, and none could be freed.
    Full {
        /// How many streams the user may watch at once.
        limit: u32,
        /// The live sessions that hold the slots, in the order in which they came to.
        holders: Vec<Session>,
        /// The store's time at this decision.
        decided_at: Timestamp,
    },
    /// This session has ended, for that cause, and its name can't be used again yet. If waiting helps, for how long it must not ask.
    Ended(EndCause, Option<Duration>),
    /// The session that was to be taken over runs inside Envoy, and can't be stopped from here.
    NotStoppable,
}

impl Refusal {
    /// When a refused start is worth trying again: a third of the shortest lease left among the holders, at least a second; or when a derived
    /// id may start again. `None` where waiting won't help, as where no stream is allowed at all.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Full { limit: 0, .. } | Self::NotStoppable => None,
            // Rounded up: asking too early would restart the wait.
            Self::Ended(_, quiet) => quiet.map(|quiet| {
                let whole = quiet.as_secs() + u64::from(quiet.subsec_nanos() > 0);
                Duration::from_secs(whole)
            }),
            Self::Full {
                holders,
                decided_at,
                ..
            } => {
                let shortest = holders
                    .iter()
                    .map(|session| session.expires_at.since(*decided_at))
                    .min();
                shortest.map(|left| Duration::from_secs((left / 3).as_secs().max(1)))
            }
        }
    }
}

/// The answer to the news that a stream was seen running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Renewal {
    /// It was known, and its lease has grown.
    Renewed {
        /// Until when it counts now.
        expires_at: Timestamp,
    },
    /// It was unknown, and counts again, be it above the limit. The store has lost it.
    PutBack {
        /// Until when it counts now.
        expires_at: Timestamp,
    },
    /// It counts, but has yet to play or may not stay: its next request asks the store.
    Provisional {
        /// Until when it counts now.
        expires_at: Timestamp,
    },
    /// It has ended, for that cause; nothing was changed.
    Ended(EndCause),
    /// It was unknown, and does not count: too many streams count above the limit already, or it may not be put back above the limit.
    Crowded,
}

/// The answer to the report that a request of a session got through to its viewer, where the session is live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Playing {
    /// How long it counts from now on without a sign of life.
    pub left: Duration,
    /// Whether it is [proven](Session::is_proven) now.
    pub proven: bool,
}

/// The answer to the end of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Released {
    /// It held a slot, which is free now.
    Freed(Session),
    /// It held none; where its kind wants it, the end is now remembered, if the store has room.
    NotLive,
    /// That it has ended was known, with its cause.
    AlreadyEnded(EndCause),
    /// It runs inside Envoy and can't be stopped from here.
    NotStoppable,
    /// It goes on: the start to be undone is not that call's, or somebody has renewed it since; it has played; or it started after its end was
    /// reported.
    Kept,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::tests::key;
    use crate::session::{Facts, Flags};

    /// A refusal to a user with that limit, whose sessions' leases end in so many milliseconds.
    fn full(limit: u32, leases_left: &[u64]) -> Refusal {
        let decided_at = Timestamp::from_millis(5_000);
        let holder = |left: &u64| Session {
            key: key("playback:a"),
            facts: Facts::default(),
            started_at: decided_at,
            renewed_at: decided_at,
            expires_at: decided_at.after(Duration::from_millis(*left)),
            ticket: None,
            flags: Flags::default(),
        };
        Refusal::Full {
            limit,
            holders: leases_left.iter().map(holder).collect(),
            decided_at,
        }
    }

    #[test]
    fn a_refused_start_is_worth_trying_again_after_a_third_of_the_shortest_lease_left() {
        for (leases_left, seconds) in [
            (&[30_000, 27_000, 29_000][..], 9),
            (&[29_999], 9),
            (&[30_000], 10),
            (&[5_999], 1),
            (&[1], 1),
        ] {
            let expected = Some(Duration::from_secs(seconds));
            let refusal = full(3, leases_left);
            assert_eq!(refusal.retry_after(), expected, "{leases_left:?}");
        }
    }

    #[test]
    fn a_derived_id_is_told_to_be_quiet_for_as_long_as_it_takes() {
        for (quiet, seconds) in [(20_000, 20), (1_000, 1), (1_001, 2), (1_999, 2)] {
            let refusal = Refusal::Ended(EndCause::Operator, Some(Duration::from_millis(quiet)));
            let expected = Some(Duration::from_secs(seconds));
            assert_eq!(refusal.retry_after(), expected, "{quiet}");
        }
    }

    #[test]
    fn where_waiting_does_not_help_nobody_is_told_to_wait() {
        for refusal in [
            full(0, &[]),
            full(0, &[30_000]),
            Refusal::Ended(EndCause::Released, None),
            Refusal::NotStoppable,
        ] {
            assert_eq!(refusal.retry_after(), None, "{refusal:?}");
        }
    }
}
