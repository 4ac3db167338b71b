//! The vocabulary of streamgate and its one rule: what a session is, and who may start one.
//!
//! Everything here is plain data and pure functions. Nothing reads a clock, does I/O or knows a wire format; whoever calls
//! brings the time along. [`Roster`] is the rule itself, and the reference that every store is tested against.

mod admission;
mod fact;
mod id;
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
mod roster_tests;
mod time;

pub use admission::{Admission, Admitted, Entry, Playing, Refusal, Released, Renewal};
pub use fact::{Fact, FactLoss, FactName};
pub use id::{ContentId, DeviceId, IdError, MAX_ID_BYTES, PlanName, SessionId, UserId};
pub use roster::{Budget, EndList, Forgotten, MAX_PUT_BACK, Roster};
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

    /// Whether the end of such a session is remembered, and keeps its id from being used again. Not a video's: its id is the film's, and may be
    /// watched again at once. A session that was displaced or ended by an operator is refused with that reason, but may start again where there is a slot.
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
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Facts {
    /// The device it plays on.
    pub device: Option<DeviceId>,
    /// What is being watched.
    pub content: Option<ContentId>,
    /// The door it came through.
    pub door: Option<Door>,
    /// Where in the content the viewer is, in whole seconds from its start.
    pub position_seconds: Option<u32>,
    /// What a joined id says of where it comes from.
    pub joined: Option<JoinedOrigin>,
}

/// A digest of all parts of a joined session id except its path: equal for one device's playbacks of different content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct JoinedOrigin(pub u64);

/// How two sessions' origins compare. The origin of a session is its device, unless its text had to be shortened: two long texts may begin
/// alike. It also includes the parts of a joined id other than its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SameOrigin {
    /// One of the two is known of both sessions, and equal.
    Yes,
    /// What is known of both sessions differs.
    No,
    /// Nothing is known of both sessions.
    Unknown,
}

impl Facts {
    /// Whether another session comes from the same device as this one.
    #[must_use]
    pub fn same_origin(&self, other: &Self) -> SameOrigin {
        let device = self.origin_device().zip(other.origin_device());
        let joined = self.joined.zip(other.joined);
        let equal = device.is_some_and(|(one, another)| one == another)
            || joined.is_some_and(|(one, another)| one == another);
        match (equal, device.is_some() || joined.is_some()) {
            (true, _) => SameOrigin::Yes,
            (false, true) => SameOrigin::No,
            (false, false) => SameOrigin::Unknown,
        }
    }

    /// The part of the facts that says where a session comes from.
    #[must_use]
    pub fn origin(&self) -> Self {
        Self {
            device: self.origin_device().cloned(),
            joined: self.joined,
            ..Self::default()
        }
    }

    /// The device, where it tells devices apart.
    fn origin_device(&self) -> Option<&DeviceId> {
        self.device.as_ref().filter(|device| !device.is_shortened())
    }

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
        self.joined = newer.joined.or(self.joined);
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
    /// Envoy reports that a request of it failed. If nothing of it has played, its start is taken back; else that means nothing.
    Failed,
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
    fn a_device_that_was_shortened_is_nobody_s_origin() {
        let long = format!("{}ä", "x".repeat(300));
        let of = |device: &str, joined: Option<u64>| Facts {
            device: DeviceId::keep(Some(device), &|_, _| {}),
            joined: joined.map(JoinedOrigin),
            ..Facts::default()
        };
        let longest = "x".repeat(MAX_ID_BYTES);
        for (one, other, expected) in [
            (of("tv", None), of("tv", None), SameOrigin::Yes),
            (of("tv", None), of("phone", None), SameOrigin::No),
            (of(&longest, None), of(&longest, None), SameOrigin::Yes),
            (of(&long, None), of(&long, None), SameOrigin::Unknown),
            (of(&long, None), of("tv", None), SameOrigin::Unknown),
            (of(&long, Some(1)), of(&long, Some(1)), SameOrigin::Yes),
            (of(&long, Some(1)), of(&long, Some(2)), SameOrigin::No),
        ] {
            assert_eq!(one.same_origin(&other), expected, "{one:?} {other:?}");
            assert_eq!(one.origin().same_origin(&other), expected, "{one:?}");
        }
        assert_eq!(of(&long, None).origin(), Facts::default());
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
