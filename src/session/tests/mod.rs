//! The rule, clause by clause. Sessions are written as on the wire, `playback:tv`, so that a table
//! reads like the scenario it describes.

mod admit;
mod attacks;
mod budget;
mod displace;
mod forget;
mod histories;
mod invariants;
mod lists;
mod model;
mod played;
mod release;
mod remembered;
mod renew;
mod reuse;
mod terms;

use std::time::Duration;

use super::*;
use crate::identity::{ContentId, DeviceId, Door, SessionId};

/// The terms of every test here: leases of at most 30 s, ends remembered for 31.05 s.
pub(super) fn terms() -> Terms {
    Terms::new(seconds(30), Duration::from_millis(50))
}

pub(super) fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Parses a key.
pub(crate) fn key(text: &str) -> SessionKey {
    let (kind, id) = text.split_once(':').unwrap();
    SessionKey {
        kind: Kind::from_name(kind).unwrap(),
        id: SessionId::parse(id).unwrap(),
    }
}

/// Parses keys that are separated by spaces.
fn keys(text: &str) -> Vec<SessionKey> {
    text.split_whitespace().map(key).collect()
}

/// A start of that session with a lease of 30 s and no further facts.
pub(super) fn start(session: &str) -> Start {
    Start {
        key: key(session),
        facts: Facts::default(),
        lease: seconds(30),
        ticket: None,
        derived: false,
    }
}

/// The same start with a derived id, from that device if the name is not empty.
fn derived(session: &str, device: &str) -> Start {
    Start {
        facts: from(device),
        derived: true,
        ..start(session)
    }
}

/// Facts with only a device, or none if the name is empty.
fn from(device: &str) -> Facts {
    Facts {
        device: DeviceId::parse(device).ok(),
        ..Facts::default()
    }
}

/// A sighting of this session.
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

    /// A viewer whose sessions started one second apart, and whose limit was lowered afterwards.
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

    /// A renewal by a gateway that hasn't seen the session play.
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

    /// An end that was reported `age` ago.
    fn release_said(&mut self, age: Duration, session: &str, ending: Ending) -> Released {
        self.roster
            .release(&key(session), ending, age, &self.terms, self.now)
    }

    /// Ends a session of every cause: `playback:released`, `playback:operator`, and
    /// `playback:displaced` by `playback:taker`, which is released.
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

    /// Until when an end recorded now is remembered.
    fn memory(&self) -> Timestamp {
        self.now.after(terms().memory)
    }
}

fn as_millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap()
}

/// An admission as a short label.
fn answer(admission: &Admission) -> &'static str {
    match admission {
        Admission::Admitted(admitted) => match admitted.entry {
            AdmissionKind::Started => "started",
            AdmissionKind::Renewed => "renewed",
        },
        Admission::Refused(Refusal::Full { .. }) => "full",
        Admission::Refused(Refusal::Ended(cause, ..)) => cause.as_str(),
        Admission::Refused(Refusal::NotStoppable) => "not stoppable",
    }
}

/// All the facts a session can have.
pub(crate) fn facts(device: &str, content: &str, door: Door, position_seconds: u32) -> Facts {
    Facts {
        device: Some(DeviceId::parse(device).unwrap()),
        content: Some(ContentId::parse(content).unwrap()),
        door: Some(door),
        position_seconds: Some(position_seconds),
        joined: None,
    }
}

// === The vocabulary ===

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
