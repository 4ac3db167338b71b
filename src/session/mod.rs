//! The vocabulary of streamgate and its one rule: what a session is, and who may start one.
//!
//! Everything here is plain data and pure functions. Nothing reads a clock, does I/O or knows a wire format; whoever calls
//! brings the time along. [`Roster`] is the rule itself, and the reference that every store is tested against.

mod admission;
mod roster;
#[cfg(test)]
mod roster_attacks;
#[cfg(test)]
mod roster_histories;
#[cfg(test)]
mod roster_invariants;
#[cfg(test)]
mod roster_model;
#[cfg(test)]
mod roster_remembered;
#[cfg(test)]
pub(crate) mod roster_tests;

pub use admission::{Admission, AdmissionKind, Admitted, Playing, Refusal, Released, Renewal};
pub use roster::{Budget, EndList, Forgotten, MAX_PUT_BACK, Roster};

use std::time::Duration;

use crate::clock::Timestamp;
use crate::identity::{Facts, Kind, SessionKey};

/// The mark a call leaves on the session it started, so that it can take back its own start and nobody else's. The first renewal wipes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket(u32);

impl Ticket {
    /// A ticket with that number; zero is no ticket.
    #[must_use]
    pub fn new(number: u32) -> Option<Self> {
        (number != 0).then_some(Self(number))
    }

    /// Its number, never zero.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }
}

/// One live stream of a user, as the roster holds it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Session {
    /// What names it.
    pub key: SessionKey,
    /// What else is known of it.
    pub facts: Facts,
    /// When it was admitted, or put back.
    pub started_at: Timestamp,
    /// When it last showed a sign of life.
    pub renewed_at: Timestamp,
    /// Until when it counts without another sign of life: its lease.
    pub expires_at: Timestamp,
    /// Whose start it is, until somebody renews it.
    pub ticket: Option<Ticket>,
    /// What the rule notes about it.
    pub flags: Flags,
}

/// What the rule notes about a session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Flags {
    /// The player did not make its id for this playback, so the id may start again after its end.
    pub derived: bool,
    /// Some of it has reached its viewer: Envoy reported a success, or it showed a sign of life [`PROVEN_AFTER`] its start.
    pub played: bool,
    /// Its lease does not grow until it shows a sign of life [`PROVEN_AFTER`] its start while its user is within the limit.
    pub provisional: bool,
    /// Its start drew on the user's budget of displacements.
    pub paid: bool,
}

impl Session {
    /// Whether the store will go on counting it for as long as it shows signs of life, so that no instance needs to ask each time.
    #[must_use]
    pub const fn is_proven(&self) -> bool {
        self.flags.played && !self.flags.provisional
    }
}

/// How long after its start a sign of life proves that a session plays, where no gateway has reported it.
pub const PROVEN_AFTER: Duration = Duration::from_secs(2);

/// The lease of a derived id that starts again right after its release: a straggling request of the old playback costs this much.
pub const PROVISIONAL_LEASE: Duration = Duration::from_secs(4);

/// Why a session has ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum EndCause {
    /// It ended by itself, or its client said so.
    Released,
    /// Another session of the same user took its slot.
    Displaced {
        /// The session that took it.
        by: SessionKey,
    },
    /// An operator ended it.
    Operator,
}

impl EndCause {
    /// The cause's name on every wire.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::Displaced { .. } => "displaced",
            Self::Operator => "operator",
        }
    }
}

/// The memory that a session has ended, so that a late or repeated message can't bring it back.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tombstone {
    /// The session that has ended.
    pub key: SessionKey,
    /// Why.
    pub cause: EndCause,
    /// When it ended, or was last refused because of this.
    pub asked_at: Timestamp,
    /// Until when this is remembered.
    pub until: Timestamp,
    /// Whether the session was live when it ended.
    pub was_live: bool,
    /// Whether its id may start again. Known only of what was live.
    pub derived: bool,
    /// Where the session came from that took its slot: a device and a joined origin.
    pub rival: Facts,
}

/// What one instance grants, by its configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// The longest lease that is granted.
    pub longest_lease: Duration,
    /// How long an end is remembered: longer than the longest lease and the store's deadline together.
    pub memory: Duration,
    /// How long it takes until a user may displace once more: the lease of a playback.
    pub refill: Duration,
}

impl Terms {
    /// The terms that follow from the longest lease and the time after which no message to the store is still under way.
    #[must_use]
    pub fn new(longest_lease: Duration, store_timeout: Duration) -> Self {
        Self {
            longest_lease,
            memory: longest_lease
                .saturating_add(store_timeout)
                .saturating_add(Self::MARGIN),
            refill: longest_lease,
        }
    }

    /// The same where a playback's lease is not the longest.
    #[must_use]
    pub const fn refilling_every(self, refill: Duration) -> Self {
        Self { refill, ..self }
    }

    /// Until when a lease counts that is granted now: as long as was asked for, and no longer than the longest.
    fn lease_ends(&self, lease: Duration, now: Timestamp) -> Timestamp {
        now.after(lease.min(self.longest_lease))
    }

    /// What an end is remembered for beyond the longest lease.
    #[must_use]
    pub const fn margin(&self) -> Duration {
        self.memory.saturating_sub(self.longest_lease)
    }

    /// What is added for the store's own rounding and for a message that was sent just before its deadline.
    const MARGIN: Duration = Duration::from_secs(1);
}

/// A request to be let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// The session that wants to start.
    pub key: SessionKey,
    /// What is known of it.
    pub facts: Facts,
    /// How long it counts without a sign of life.
    pub lease: Duration,
    /// The mark of the call that asks.
    pub ticket: Option<Ticket>,
    /// The player did not make this id for this playback.
    pub derived: bool,
}

impl Start {
    /// The flags of the session that it starts. A `request` has played by definition: it is the stream.
    #[must_use]
    pub fn flags(&self) -> Flags {
        Flags {
            derived: self.derived,
            played: self.key.kind == Kind::Request,
            ..Flags::default()
        }
    }
}

/// The news that a stream was seen running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// The session that was seen.
    pub key: SessionKey,
    /// What is known of it, should it have to be put back.
    pub facts: Facts,
    /// How long it counts from now on without another sign of life.
    pub lease: Duration,
    /// When it started, where the one who saw it knows; believed only if it is past.
    pub started_at: Option<Timestamp>,
    /// What is known of it, should the store not know it.
    pub provenance: Provenance,
    /// The player did not make this id for this playback.
    pub derived: bool,
}

impl Sighting {
    /// The flags of the session that it puts back.
    #[must_use]
    pub fn flags(&self) -> Flags {
        Flags {
            derived: self.derived,
            played: self.key.kind == Kind::Request || self.provenance != Provenance::Unplayed,
            ..Flags::default()
        }
    }
}

/// What is known of a running stream, should the store not know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provenance {
    /// The store counted it, or it runs inside Envoy: it counts again, above the limit if need be.
    Counted,
    /// The rule that decides in an outage let it in: above the limit it counts for one more lease.
    ByRule,
    /// Nothing of it has played yet: it counts where a start would.
    Unplayed,
}

/// What happens to a start when all of the user's slots are taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// It is refused.
    #[default]
    Refuse,
    /// The session that started first gives way.
    DisplaceOldest,
    /// The session that has shown no sign of life for longest gives way.
    DisplaceIdlest,
    /// That session gives way, and no other.
    TakeOver(SessionKey),
}

/// What applies to a start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartRules {
    /// How many streams the user may watch at once.
    pub limit: u32,
    /// What happens where that many are live.
    pub when_full: WhenFull,
    /// Whether the start itself asked for another session's slot; else `when_full` is what is configured.
    pub takeover: bool,
    /// How many starts may displace in one burst, beyond as many as the limit.
    pub displacements: u32,
    /// Displacing costs nothing: an operator asks, or nobody is refused anyway.
    pub free: bool,
    /// How long a derived id that was ended against its viewer's will must not have asked before it may start again.
    pub quiet: Duration,
}

impl StartRules {
    /// How many starts may displace in one burst, beyond as many as the limit, unless configured otherwise.
    pub const DISPLACEMENTS: u32 = 5;

    /// How long a derived id must be quiet, unless configured otherwise.
    pub const QUIET: Duration = Duration::from_secs(20);

    /// A limit, and what happens at it; the rest as it is unless configured otherwise.
    #[must_use]
    pub fn new(limit: u32, when_full: WhenFull) -> Self {
        Self {
            takeover: matches!(when_full, WhenFull::TakeOver(_)),
            limit,
            when_full,
            displacements: Self::DISPLACEMENTS,
            free: false,
            quiet: Self::QUIET,
        }
    }

    /// How many starts may displace in one burst.
    #[must_use]
    pub const fn burst(&self) -> u32 {
        self.limit.saturating_add(self.displacements)
    }
}

/// How a session has ended and who says so, which decides what that leaves behind. The metric of
/// releases counts each apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Envoy's access log reports the end of the stream. A tombstone keeps late messages from bringing it back.
    Stream,
    /// Envoy's access log reports the end of a request that had ended before our answer reached it.
    /// The rule treats it as [`Self::Stream`].
    Abandoned,
    /// Envoy's access log reports the end of a response that ran on after its playback's end. The
    /// rule treats it as [`Self::Stream`].
    Outlived,
    /// Another session took its slot while the store could not be asked. The rule treats it as
    /// [`Self::Stream`], and no metric counts it as a release.
    GaveWay,
    /// Its client, or somebody who may act for others, says so over HTTP. For a stream that can't be stopped from here that leaves no
    /// tombstone: if it runs after all, its next sign of life counts it again. Any other ends as by [`Self::Stream`].
    Vouched,
    /// An operator ends it, and it is told so if it asks again.
    Operator,
    /// Envoy's access log reports that a request of it failed. If nothing of it has played, its start is taken back; else that means
    /// nothing.
    Failed,
    /// The call of that ticket takes back its own start, if nobody has renewed it since. No tombstone: it may be tried again.
    Undone(Ticket),
}

#[cfg(test)]
mod tests {
    use super::roster_tests::key;
    use super::*;

    #[test]
    fn a_ticket_has_a_number_other_than_zero() {
        assert_eq!(Ticket::new(0), None);
        for number in [1, u32::MAX] {
            assert_eq!(Ticket::new(number).map(Ticket::number), Some(number));
        }
    }

    #[test]
    fn a_cause_has_a_name_for_every_wire() {
        let by = key("playback:a");
        for (cause, name) in [
            (EndCause::Released, "released"),
            (EndCause::Displaced { by }, "displaced"),
            (EndCause::Operator, "operator"),
        ] {
            assert_eq!(cause.as_str(), name);
        }
    }

    #[test]
    fn an_end_is_remembered_for_longer_than_the_longest_lease_and_the_deadline_together() {
        let (lease, deadline) = (Duration::from_secs(30), Duration::from_millis(50));
        let terms = Terms::new(lease, deadline);
        assert_eq!(terms.longest_lease, lease);
        assert_eq!(terms.memory, Duration::from_millis(31_050));
        assert_eq!(Terms::new(Duration::MAX, deadline).memory, Duration::MAX);
    }
}
