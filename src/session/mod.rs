//! The vocabulary of streamgate and its one rule: what a session is, and who may start one.
//!
//! Everything here is plain data and pure functions. Nothing reads a clock, does I/O or knows a wire format; whoever calls
//! brings the time along. [`Roster`] is the rule itself, and the reference that every store is tested against.

mod admission;
mod id;
mod roster;
#[cfg(test)]
mod roster_invariants;
#[cfg(test)]
mod roster_tests;
mod time;

pub use admission::{Admission, Admitted, Entry, Refusal, Released, Renewal};
pub use id::{ContentId, DeviceId, IdError, MAX_ID_BYTES, PlanName, SessionId, UserId};
pub use roster::{MAX_PUT_BACK, MAX_TOMBSTONES, Roster};
pub use time::Timestamp;

use std::fmt;
use std::time::Duration;

/// What a stream is to us; part of a session's key, so that a name in one kind is never a name in another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// One HTTP request through Envoy *is* the stream. It runs inside Envoy and can't be stopped from here.
    Request,
    /// Many requests, or an API client's heartbeats, make one playback.
    Playback,
    /// A video of the small API; the id is the video's.
    Video,
}

impl Kind {
    /// Every kind there is.
    pub const ALL: [Self; 3] = [Self::Request, Self::Playback, Self::Video];

    /// The kind's name on every wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Playback => "playback",
            Self::Video => "video",
        }
    }

    /// The kind of that name, if there is one.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// Whether a session of this kind can be ended against its viewer's will: a displaced playback is refused at its next
    /// request, while a `request` runs on inside Envoy whatever we say.
    #[must_use]
    pub const fn is_stoppable(self) -> bool {
        match self {
            Self::Request => false,
            Self::Playback | Self::Video => true,
        }
    }

    /// Whether the end of such a session is remembered. A video's is not: its id is the film's, and may be watched again at once.
    #[must_use]
    pub const fn leaves_tombstone(self) -> bool {
        match self {
            Self::Request | Self::Playback => true,
            Self::Video => false,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What names a session among its user's.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey {
    /// What kind of stream it is.
    pub kind: Kind,
    /// Its id within that kind.
    pub id: SessionId,
}

impl fmt::Display for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.id)
    }
}

/// A way in. Kept with the session, so that "who holds my slots" can be answered with how they came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Door {
    /// Envoy's `ext_authz` check.
    ExtAuthz,
    /// Envoy's access log.
    AccessLog,
    /// The HTTP API.
    Http,
}

/// What is known of a session beside its key; all of it optional.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// The device it plays on.
    pub device: Option<DeviceId>,
    /// What is being watched.
    pub content: Option<ContentId>,
    /// The door it came through.
    pub door: Option<Door>,
    /// Where in the content the viewer is, in whole seconds from its start.
    pub position_seconds: Option<u32>,
}

impl Facts {
    /// Takes over what `newer` knows, and keeps the rest. The door stays the one it came through.
    pub fn update(&mut self, newer: &Self) {
        if newer.device.is_some() {
            self.device.clone_from(&newer.device);
        }
        if newer.content.is_some() {
            self.content.clone_from(&newer.content);
        }
        self.door = self.door.or(newer.door);
        self.position_seconds = newer.position_seconds.or(self.position_seconds);
    }
}

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
#[derive(Debug, Clone, PartialEq, Eq)]
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
}

/// Why a session has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tombstone {
    /// The session that has ended.
    pub key: SessionKey,
    /// Why.
    pub cause: EndCause,
    /// Until when this is remembered.
    pub until: Timestamp,
}

/// How far ahead anything in a roster may end. Whatever ends later was written by a clock that has since stepped back, and is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// The longest lease that is granted.
    pub longest_lease: Duration,
    /// How long an end is remembered: longer than the longest lease and the store's deadline together.
    pub memory: Duration,
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
        }
    }

    /// Until when a lease counts that is granted now: as long as was asked for, and no longer than the longest.
    fn lease_ends(&self, lease: Duration, now: Timestamp) -> Timestamp {
        now.after(lease.min(self.longest_lease))
    }

    /// Until when an end is remembered that is written down now.
    fn memory_ends(&self, now: Timestamp) -> Timestamp {
        now.after(self.memory)
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

/// Whose slot a start asks for, should all be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Takeover {
    /// That of the session that started first, of those that can be stopped from here.
    Oldest,
    /// That of the session of this id.
    Session(SessionId),
}

impl Takeover {
    /// What every door takes for [`Self::Oldest`]; so no session of that id can be named.
    const OLDEST: &str = "oldest";

    /// A session by its id, or `oldest`.
    ///
    /// # Errors
    /// It is neither.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        if text == Self::OLDEST {
            return Ok(Self::Oldest);
        }
        SessionId::parse(text).map(Self::Session)
    }
}

/// Who says that a session is over, and so what that leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The stream itself, or its client. A tombstone keeps late messages from bringing it back.
    Stream,
    /// Somebody who may act for others vouches for the end. For a stream that can't be stopped from here that leaves no tombstone: if
    /// it runs after all, its next sign of life counts it again. Any other ends as if it had said so itself.
    Vouched,
    /// An operator ends it, and it is told so if it asks again.
    Operator,
    /// The call of that ticket takes back its own start, if nobody has renewed it since. No tombstone: it may be tried again.
    Undone(Ticket),
}

#[cfg(test)]
mod tests {
    use super::roster_tests::{facts, key};
    use super::*;

    #[test]
    fn a_kind_says_what_it_is_and_what_can_be_done_to_it() {
        for (kind, name, is_stoppable, leaves_tombstone) in [
            (Kind::Request, "request", false, true),
            (Kind::Playback, "playback", true, true),
            (Kind::Video, "video", true, false),
        ] {
            assert!(Kind::ALL.contains(&kind));
            assert_eq!((kind.as_str(), kind.to_string().as_str()), (name, name));
            assert_eq!(Kind::from_name(name), Some(kind));
            assert_eq!(kind.is_stoppable(), is_stoppable, "{name}");
            assert_eq!(kind.leaves_tombstone(), leaves_tombstone, "{name}");
        }
        for name in ["", "Request", "requests", "video "] {
            assert_eq!(Kind::from_name(name), None, "{name:?}");
        }
    }

    #[test]
    fn a_key_shows_its_kind_before_its_id() {
        assert_eq!(key("video:tv:1").to_string(), "video:tv:1");
    }

    #[test]
    fn newer_facts_replace_what_they_know_and_keep_the_rest_and_the_door() {
        let none = Facts::default();
        let older = facts("tv", "news", Door::ExtAuthz, 7);
        let newer = facts("phone", "film", Door::Http, 0);
        let newer_by_the_old_door = facts("phone", "film", Door::ExtAuthz, 0);
        for (known, told, expected) in [
            (&none, &none, &none),
            (&none, &newer, &newer),
            (&older, &none, &older),
            (&older, &newer, &newer_by_the_old_door),
        ] {
            let mut facts = known.clone();
            facts.update(told);
            assert_eq!(&facts, expected);
        }
    }

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
