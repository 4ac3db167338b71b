//! The vocabulary of streamgate and its one rule: what a session is, and who may start one.
//!
//! Everything here is plain data and pure functions. Nothing reads a clock, does I/O or knows a
//! wire format; callers pass in the time. [`Roster`] implements the rule, and is the reference that
//! every store is tested against.

mod admission;
mod roster;
#[cfg(test)]
pub(crate) mod tests;

pub use admission::{Admission, AdmissionKind, Admitted, Playing, Refusal, Released, Renewal};
pub use roster::{Budget, EndList, Forgotten, MAX_PUT_BACK, Roster};

use std::time::Duration;

use crate::clock::Timestamp;
use crate::identity::{EndMessage, Facts, Kind, SessionKey};

/// Identifies the call that started a session, so that the call can take back its own start and no
/// other. The first renewal clears it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket(u32);

impl Ticket {
    /// The ticket with that number, or `None` for zero.
    #[must_use]
    pub fn new(number: u32) -> Option<Self> {
        (number != 0).then_some(Self(number))
    }

    /// The ticket's number, never zero.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }
}

/// One live stream of a user, as the roster stores it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Session {
    /// The session's key.
    pub key: SessionKey,
    /// Optional facts about the session.
    pub facts: Facts,
    /// When it was admitted, or put back.
    pub started_at: Timestamp,
    /// When it last showed a sign of life.
    pub renewed_at: Timestamp,
    /// When it expires without another sign of life: its lease.
    pub expires_at: Timestamp,
    /// The ticket of the call that started it, until the first renewal.
    pub ticket: Option<Ticket>,
    /// The rule's flags.
    pub flags: Flags,
}

/// What the rule records about a session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Flags {
    /// The player did not make the id for this playback, so the id may start again after its end.
    pub derived: bool,
    /// Part of it has reached its viewer: Envoy reported a success, or the session showed a sign of
    /// life [`PROVEN_AFTER`] its start.
    pub played: bool,
    /// Its lease doesn't grow until it shows a sign of life [`PROVEN_AFTER`] its start while its
    /// user is within the limit.
    pub provisional: bool,
    /// Its start drew on the user's budget of displacements.
    pub paid: bool,
}

impl Session {
    /// Whether the store keeps counting the session as long as it shows signs of life, so that
    /// instances don't need to ask each time.
    #[must_use]
    pub const fn is_proven(&self) -> bool {
        self.flags.played && !self.flags.provisional
    }
}

/// How long after its start a sign of life proves that a session plays, if no gateway has reported
/// so.
pub const PROVEN_AFTER: Duration = Duration::from_secs(2);

/// The lease of a derived id that starts again right after its release: the most that a late
/// request of the old playback can cost.
pub const PROVISIONAL_LEASE: Duration = Duration::from_secs(4);

/// Why a session has ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum EndCause {
    /// It ended by itself, or its client released it.
    Released,
    /// Another session of the same user took its slot.
    Displaced {
        /// The session that took the slot.
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
    /// The session that ended.
    pub key: SessionKey,
    /// Why it ended.
    pub cause: EndCause,
    /// When it ended, or when the tombstone last caused a refusal.
    pub asked_at: Timestamp,
    /// When the tombstone expires.
    pub until: Timestamp,
    /// Whether the session was live when it ended.
    pub was_live: bool,
    /// Whether its id may start again. Recorded only if the session was live.
    pub derived: bool,
    /// The origin of the session that took its slot: a device and a joined origin.
    pub rival: Facts,
    /// What its viewer is told, if whoever ended it said something.
    pub message: Option<EndMessage>,
}

/// The limits that one instance's configuration sets for leases and tombstones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// The longest lease it grants.
    pub longest_lease: Duration,
    /// How long it remembers an end: longer than the longest lease and the store's deadline
    /// together.
    pub memory: Duration,
    /// How long until a user may displace once more: the lease of a playback.
    pub refill: Duration,
}

impl Terms {
    /// The terms for a longest lease and a store timeout. After that timeout no message to the
    /// store is still under way.
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

    /// The same terms, for a playback lease that is not the longest.
    #[must_use]
    pub const fn refilling_every(self, refill: Duration) -> Self {
        Self { refill, ..self }
    }

    /// When a lease granted now ends: after the requested time, capped at the longest lease.
    fn lease_ends(&self, lease: Duration, now: Timestamp) -> Timestamp {
        now.after(lease.min(self.longest_lease))
    }

    /// How much longer an end is remembered than the longest lease.
    #[must_use]
    pub const fn margin(&self) -> Duration {
        self.memory.saturating_sub(self.longest_lease)
    }

    /// Covers the store's rounding and a message sent just before its deadline.
    const MARGIN: Duration = Duration::from_secs(1);
}

/// A request to start a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// The session to start.
    pub key: SessionKey,
    /// Optional facts about it.
    pub facts: Facts,
    /// How long it counts without a sign of life.
    pub lease: Duration,
    /// The ticket of the call.
    pub ticket: Option<Ticket>,
    /// The player did not make this id for this playback.
    pub derived: bool,
}

impl Start {
    /// The flags of the session that it starts. A `request` counts as played from the start,
    /// because the request is the stream.
    #[must_use]
    pub fn flags(&self) -> Flags {
        Flags {
            derived: self.derived,
            played: self.key.kind == Kind::Request,
            ..Flags::default()
        }
    }
}

/// A report that a stream was seen running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// The session that was seen.
    pub key: SessionKey,
    /// Facts about it, in case it has to be put back.
    pub facts: Facts,
    /// How long it counts from now without another sign of life.
    pub lease: Duration,
    /// When it started, if the reporter knows; a time in the future is ignored.
    pub started_at: Option<Timestamp>,
    /// What the reporter knows about it, in case the store has lost it.
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

/// What is known about a running stream, in case the store has lost it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provenance {
    /// The store counted it, or it runs inside Envoy: it counts again, above the limit if
    /// necessary.
    Counted,
    /// The outage rule let it in: above the limit it counts for one more lease.
    ByRule,
    /// Nothing of it has played yet: it counts only if a start would be admitted.
    Unplayed,
}

/// The limit that an operator has set for one user. While it lasts, it takes the place of every
/// configured limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitOverride {
    /// How many streams the user may watch at once; 0 refuses every start.
    pub limit: u32,
    /// When it expires.
    pub until: Timestamp,
}

impl LimitOverride {
    /// The highest limit, as in the configuration.
    pub const MOST: u32 = 1000;

    /// The longest that an override lasts.
    pub const LONGEST: Duration = Duration::from_secs(90 * 24 * 60 * 60);

    /// How long it lasts unless its operator says otherwise.
    pub const DEFAULT: Duration = Duration::from_secs(30 * 24 * 60 * 60);
}

/// What happens to a start when all of the user's slots are taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// The start is refused.
    #[default]
    Refuse,
    /// The session that started first is displaced.
    DisplaceOldest,
    /// The session without a sign of life for the longest time is displaced.
    DisplaceIdlest,
    /// That session is displaced, and no other.
    TakeOver(SessionKey),
}

/// The rules that apply to a start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartRules {
    /// How many streams the user may watch at once.
    pub limit: u32,
    /// What happens when that many sessions are live.
    pub when_full: WhenFull,
    /// Whether the start itself asked for another session's slot; otherwise `when_full` comes from
    /// the configuration.
    pub takeover: bool,
    /// How many starts may displace in one burst, in addition to the limit.
    pub displacements: u32,
    /// Displacing costs nothing, because an operator asks or because nothing is refused anyway.
    pub free: bool,
    /// How long a derived id that was ended against its viewer's will must stay quiet before it may
    /// start again.
    pub quiet: Duration,
    /// The caller only renews: `limit` is 0 so that nothing starts, and a [`LimitOverride`] doesn't
    /// take its place.
    pub renews_only: bool,
    /// What the viewers of displaced sessions are told.
    pub message: Option<EndMessage>,
}

impl StartRules {
    /// The default number of starts that may displace in one burst, in addition to the limit.
    pub const DISPLACEMENTS: u32 = 5;

    /// The default time that a derived id must stay quiet.
    pub const QUIET: Duration = Duration::from_secs(20);

    /// Rules with this limit and policy, and defaults for the rest.
    #[must_use]
    pub fn new(limit: u32, when_full: WhenFull) -> Self {
        Self {
            takeover: matches!(when_full, WhenFull::TakeOver(_)),
            limit,
            when_full,
            displacements: Self::DISPLACEMENTS,
            free: false,
            quiet: Self::QUIET,
            renews_only: false,
            message: None,
        }
    }

    /// The same rules with the limit that an operator has set for the user, if there is one.
    #[must_use]
    pub fn overridden(&self, by: Option<LimitOverride>) -> Self {
        match by {
            Some(by) if !self.renews_only => Self {
                limit: by.limit,
                ..self.clone()
            },
            _ => self.clone(),
        }
    }

    /// How many starts may displace in one burst.
    #[must_use]
    pub const fn burst(&self) -> u32 {
        self.limit.saturating_add(self.displacements)
    }
}

/// How a session has ended and who reports it, which decides what remains in the roster. The metric
/// of releases counts each apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Envoy's access log reports the end of the stream. A tombstone keeps late messages from
    /// bringing it back.
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
    /// Its client, or a caller that may act for others, reports it over HTTP. A stream that can't be
    /// stopped from here gets no tombstone: if it still runs, its next sign of life counts it again.
    /// Any other ends as with [`Self::Stream`].
    Vouched,
    /// An operator. If the session asks again, the answer says so.
    Operator,
    /// Envoy's access log reports that a request of it failed. If nothing of it has played, its
    /// start is taken back; otherwise the report has no effect.
    Failed,
    /// The call with that ticket takes back its own start, unless the session has been renewed
    /// since. There is no tombstone, so it may be tried again.
    Undone(Ticket),
}
