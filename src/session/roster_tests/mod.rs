//! The rule, clause by clause. Sessions are written as on the wire, `playback:tv`, so that a table reads like the story it tells.

mod admit;
mod budget;
mod displace;
mod forget;
mod lists;
mod played;
mod release;
mod renew;
mod reuse;
mod terms;

use std::time::Duration;

use super::*;
use crate::identity::{ContentId, DeviceId, Door, SessionId};

/// What every test here grants: leases of at most 30 s, ends remembered for 31.05 s.
pub(super) fn terms() -> Terms {
    Terms::new(seconds(30), Duration::from_millis(50))
}

pub(super) fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// The key that is written so.
pub(crate) fn key(text: &str) -> SessionKey {
    let (kind, id) = text.split_once(':').unwrap();
    SessionKey {
        kind: Kind::from_name(kind).unwrap(),
        id: SessionId::parse(id).unwrap(),
    }
}

/// The keys that are written so, with spaces between them.
fn keys(text: &str) -> Vec<SessionKey> {
    text.split_whitespace().map(key).collect()
}

/// A start of that session, for half a minute, by nobody in particular.
pub(super) fn start(session: &str) -> Start {
    Start {
        key: key(session),
        facts: Facts::default(),
        lease: seconds(30),
        ticket: None,
        derived: false,
    }
}

/// The same start of an id that the player did not make for this playback, from that device if it has a name.
fn derived(session: &str, device: &str) -> Start {
    Start {
        facts: from(device),
        derived: true,
        ..start(session)
    }
}

/// Facts that name a device only, or nothing if it has no name.
fn from(device: &str) -> Facts {
    Facts {
        device: DeviceId::parse(device).ok(),
        ..Facts::default()
    }
}

/// The news that this session was seen running.
pub(super) fn sighting(session: &str) -> Sighting {
    Sighting {
        key: key(session),
        facts: Facts::default(),
        lease: seconds(30),
        started_at: None,
        derived: false,
        provenance: Provenance::Counted,
    }
}

fn ticket(number: u32) -> Ticket {
    Ticket::new(number).unwrap()
}

/// A user with a limit, and the clock of the store that keeps the roster.
#[derive(Debug, Clone)]
struct Viewer {
    roster: Roster,
    limit: u32,
    when_full: WhenFull,
    free: bool,
    terms: Terms,
    now: Timestamp,
}

impl Viewer {
    fn limited_to(limit: u32) -> Self {
        Self {
            roster: Roster::default(),
            limit,
            when_full: WhenFull::Refuse,
            free: false,
            terms: terms(),
            now: Timestamp::from_millis(1_000_000),
        }
    }

    /// A viewer whose sessions came one second after the other, and whose limit was lowered afterwards.
    fn watching(sessions: &str, limit: u32) -> Self {
        let mut viewer = Self::limited_to(u32::MAX);
        for session in sessions.split_whitespace() {
            viewer.admit(session);
            viewer.wait(seconds(1));
        }
        viewer.limit = limit;
        viewer
    }

    fn wait(&mut self, span: Duration) {
        self.now = self.now.after(span);
    }

    fn step_back(&mut self, span: Duration) {
        self.now = Timestamp::from_millis(self.now.as_millis() - as_millis(span));
    }

    fn admit(&mut self, session: &str) -> Admission {
        self.ask(&start(session))
    }

    fn ask(&mut self, start: &Start) -> Admission {
        let rules = StartRules {
            free: self.free,
            ..StartRules::new(self.limit, self.when_full.clone())
        };
        self.roster.admit(start, &rules, &self.terms, self.now)
    }

    fn renew(&mut self, session: &str) -> Renewal {
        self.see(&sighting(session))
    }

    fn see(&mut self, sighting: &Sighting) -> Renewal {
        let terms = &self.terms;
        self.roster.renew(sighting, self.limit, terms, self.now)
    }

    /// A renewal by a gateway that has seen nothing of the session play.
    fn renew_unplayed(&mut self, session: &str) -> Renewal {
        self.see(&Sighting {
            provenance: Provenance::Unplayed,
            ..sighting(session)
        })
    }

    fn played(&mut self, session: &str) -> Option<Playing> {
        self.roster.played(&key(session), &self.terms, self.now)
    }

    fn release(&mut self, session: &str, ending: Ending) -> Released {
        self.release_said(Duration::ZERO, session, ending)
    }

    /// An end that somebody reported `age` ago.
    fn release_said(&mut self, age: Duration, session: &str, ending: Ending) -> Released {
        self.roster
            .release(&key(session), ending, age, &self.terms, self.now)
    }

    /// Ends a session of every cause there is: `playback:released`, `playback:operator`, and `playback:displaced` by `playback:taker`, which is released.
    fn with_an_end_of_each_cause() -> Self {
        let mut viewer = Self::limited_to(1);
        viewer.admit("playback:displaced");
        viewer.when_full = WhenFull::DisplaceOldest;
        viewer.admit("playback:taker");
        viewer.release("playback:taker", Ending::Stream);
        viewer.release("playback:released", Ending::Stream);
        viewer.release("playback:operator", Ending::Operator);
        viewer
    }

    fn live(&self) -> Vec<SessionKey> {
        let live = self.roster.live(self.now);
        live.map(|session| session.key.clone()).collect()
    }

    fn session(&self, session: &str) -> Session {
        let mut live = self.roster.live(self.now);
        live.find(|live| live.key == key(session)).unwrap().clone()
    }

    fn tombstone(&self, session: &str) -> Option<Tombstone> {
        let mut tombstones = self.roster.tombstones(self.now);
        tombstones.find(|end| end.key == key(session)).cloned()
    }

    /// Until when an end that is written now is remembered.
    fn memory(&self) -> Timestamp {
        self.now.after(terms().memory)
    }
}

fn as_millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap()
}

/// An admission in a few words.
fn answer(admission: &Admission) -> &'static str {
    match admission {
        Admission::Admitted(admitted) => match admitted.entry {
            AdmissionKind::Started => "started",
            AdmissionKind::Renewed => "renewed",
        },
        Admission::Refused(Refusal::Full { .. }) => "full",
        Admission::Refused(Refusal::Ended(cause, _)) => cause.as_str(),
        Admission::Refused(Refusal::NotStoppable) => "not stoppable",
    }
}

/// All that can be known of a session.
pub(crate) fn facts(device: &str, content: &str, door: Door, position_seconds: u32) -> Facts {
    Facts {
        device: Some(DeviceId::parse(device).unwrap()),
        content: Some(ContentId::parse(content).unwrap()),
        door: Some(door),
        position_seconds: Some(position_seconds),
        joined: None,
    }
}
