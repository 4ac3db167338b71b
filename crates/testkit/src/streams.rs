//! Short ways to name users, sessions and operations.

use std::time::Duration;

use streamgate::identity::{Facts, Kind, SessionId, SessionKey, UserId};
use streamgate::session::{Provenance, Sighting, Start, StartRules, Terms, Ticket, WhenFull};

/// The lease of everything that does not say otherwise.
pub const LEASE: Duration = Duration::from_secs(30);

/// The terms that go with it.
pub fn terms() -> Terms {
    Terms::new(LEASE, Duration::from_millis(50))
}

/// A lease that no test outlasts.
pub const LONG: Duration = Duration::from_secs(3600);

/// A deadline that no sound Redis reaches.
pub const PATIENT: Duration = Duration::from_secs(10);

/// The terms of a store that grants such leases.
pub fn lasting_terms() -> Terms {
    Terms::new(LONG, PATIENT)
}

/// A start with such a lease.
pub fn lasting(key: &SessionKey) -> Start {
    Start {
        lease: LONG,
        ..start(key)
    }
}

/// A user of that name.
pub fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

/// A playback of that name.
pub fn playback(id: &str) -> SessionKey {
    key(Kind::Playback, id)
}

/// A session of that kind and name.
pub fn key(kind: Kind, id: &str) -> SessionKey {
    SessionKey {
        kind,
        id: SessionId::parse(id).unwrap(),
    }
}

/// A start with no further facts.
pub fn start(key: &SessionKey) -> Start {
    Start {
        key: key.clone(),
        facts: Facts::default(),
        lease: LEASE,
        ticket: None,
        derived: false,
    }
}

/// A start that can be taken back with that ticket.
pub fn start_with(key: &SessionKey, ticket: Ticket) -> Start {
    Start {
        ticket: Some(ticket),
        ..start(key)
    }
}

/// That limit, where a start that finds all slots taken is refused.
pub fn refusing(limit: u32) -> StartRules {
    StartRules::new(limit, WhenFull::Refuse)
}

/// A sighting with no further facts.
pub fn sighting(key: &SessionKey) -> Sighting {
    Sighting {
        key: key.clone(),
        facts: Facts::default(),
        lease: LEASE,
        started_at: None,
        derived: false,
        provenance: Provenance::Counted,
    }
}
