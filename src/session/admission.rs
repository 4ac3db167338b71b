//! The outcomes of the operations on a roster. A refusal is a value; only an outage is an error,
//! and only the store reports one.

use std::time::Duration;

use super::{EndCause, Session};
use crate::clock::Timestamp;
use crate::identity::EndMessage;

/// The answer to a start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// The session may play.
    Admitted(Admitted),
    /// The session may not play.
    Refused(Refusal),
}

/// A start that was admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// Whether the session takes a slot now or already had one.
    pub entry: AdmissionKind,
    /// The session after the admission.
    pub session: Session,
    /// The number of the user's live sessions, including this one.
    pub active: usize,
    /// The sessions it displaced, in the order they were displaced.
    pub displaced: Vec<Session>,
    /// The store's time of the decision.
    pub decided_at: Timestamp,
    /// The limit that an operator has set for the user, if one is in force.
    pub limit_override: Option<u32>,
}

/// How an admitted session got its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdmissionKind {
    /// It took the slot with this start.
    Started,
    /// It already held the slot: a start can be repeated.
    Renewed,
}

/// Why a start was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// All slots are taken, and none could be freed.
    Full {
        /// How many streams the user may watch at once.
        limit: u32,
        /// The live sessions that hold the slots, in the order they took them.
        holders: Vec<Session>,
        /// The store's time of the decision.
        decided_at: Timestamp,
    },
    /// This session has ended, with this cause, and its name can't be used again yet. If waiting
    /// helps, the duration says how long it must not ask. The message is for its viewer.
    Ended(EndCause, Option<Duration>, Option<EndMessage>),
    /// The session to be taken over runs inside Envoy, so it can't be stopped from here.
    NotStoppable,
}

impl Refusal {
    /// When a refused start is worth retrying: after a third of the shortest lease left among the
    /// holders, at least one second; or when a derived id may start again. `None` if waiting won't
    /// help, for example because the limit is zero.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Full { limit: 0, .. } | Self::NotStoppable => None,
            // Rounded up, because asking too early would restart the wait.
            Self::Ended(_, quiet, _) => quiet.map(|quiet| {
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

/// The answer to a sighting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Renewal {
    /// The session was live, and its lease has grown.
    Renewed {
        /// When its lease ends.
        expires_at: Timestamp,
    },
    /// The store had lost the session and counts it again, even if that exceeds the limit.
    PutBack {
        /// When its lease ends.
        expires_at: Timestamp,
    },
    /// It counts, but hasn't played yet or may not stay, so its next request asks the store.
    Provisional {
        /// When its lease ends.
        expires_at: Timestamp,
    },
    /// The session has ended, with this cause; nothing changed.
    Ended(EndCause),
    /// The session was unknown and doesn't count: the user is already too far above the limit, or
    /// this session may not be put back above it.
    Crowded,
}

/// The answer to a report that a request of a live session reached its viewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Playing {
    /// How long it counts from now without a sign of life.
    pub left: Duration,
    /// Whether it is [proven](Session::is_proven) now.
    pub proven: bool,
}

/// The answer to a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Released {
    /// The session held a slot, which is now free.
    Freed,
    /// The session held no slot. If its kind has tombstones, the end is now remembered, if the
    /// store has room.
    NotLive,
    /// The session had already ended, with this cause.
    AlreadyEnded(EndCause),
    /// The session runs inside Envoy and can't be stopped from here.
    NotStoppable,
    /// The session stays live: the start to undo belongs to another call, or has been renewed
    /// since; or the session has played; or it started after the reported end.
    Kept,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Facts;
    use crate::session::Flags;
    use crate::session::tests::key;

    /// A refusal for a user with that limit, whose sessions' leases end after these numbers of
    /// milliseconds.
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
    fn retry_after_is_a_third_of_the_shortest_lease_left() {
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
    fn a_derived_id_gets_the_full_quiet_time() {
        for (quiet, seconds) in [(20_000, 20), (1_000, 1), (1_001, 2), (1_999, 2)] {
            let refusal =
                Refusal::Ended(EndCause::Operator, Some(Duration::from_millis(quiet)), None);
            let expected = Some(Duration::from_secs(seconds));
            assert_eq!(refusal.retry_after(), expected, "{quiet}");
        }
    }

    #[test]
    fn no_retry_after_where_waiting_does_not_help() {
        for refusal in [
            full(0, &[]),
            full(0, &[30_000]),
            Refusal::Ended(EndCause::Released, None, None),
            Refusal::NotStoppable,
        ] {
            assert_eq!(refusal.retry_after(), None, "{refusal:?}");
        }
    }
}
