//! The rule: one user's live sessions, the remembered ends, and the operations on them.
//!
//! The memory store keeps [`Roster`]s, and tests compare the Redis scripts with them, operation by
//! operation. A key is never both live and buried, and everything in a roster expires. `mod.rs` has
//! the operations; [`reuse`] decides when an ended id may be used again, [`budget`] how often a
//! user may displace, and [`room`] which session is displaced. [`ends`] holds the remembered ends.

mod budget;
mod ends;
mod reuse;
mod room;

pub use budget::Budget;
pub use ends::{EndList, Forgotten};

use std::time::Duration;

use super::{
    Admission, AdmissionKind, Admitted, EndCause, Ending, PROVEN_AFTER, PROVISIONAL_LEASE, Playing,
    Provenance, Refusal, Released, Renewal, Session, Sighting, Start, StartRules, Terms, Tombstone,
};
use crate::clock::Timestamp;
use crate::identity::{EndMessage, Kind, SessionKey};

/// How many streams above the limit are put back when they are seen running.
pub const MAX_PUT_BACK: usize = 32;

/// One user's live sessions, and the remembered ends.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Roster {
    /// The live sessions, in the order they took their slots.
    sessions: Vec<Session>,
    /// The remembered ends, in the order they were recorded.
    tombstones: Vec<Tombstone>,
    /// The displacements that are not refilled yet.
    budget: Option<Budget>,
    /// How long a forgotten end might still matter.
    forgotten: Option<Forgotten>,
}

impl Roster {
    /// The same roster with these live sessions, in the order they started. None of them may have a
    /// tombstone in it.
    #[must_use]
    pub fn with_sessions(self, sessions: Vec<Session>) -> Self {
        Self { sessions, ..self }
    }

    /// Takes the sessions out and leaves the rest.
    pub fn take_sessions(&mut self) -> Vec<Session> {
        std::mem::take(&mut self.sessions)
    }

    /// Decides whether this session may start. A repeated start is a renewal, so a caller can
    /// safely retry.
    pub fn admit(
        &mut self,
        start: &Start,
        rules: &StartRules,
        terms: &Terms,
        now: Timestamp,
    ) -> Admission {
        self.settle(terms, now);
        if let Some(refusal) = self.still_ended(start, rules, terms, now) {
            return Admission::Refused(refusal);
        }
        let within_limit = self.is_within(rules.limit);
        if let Some(session) = self.session_mut(&start.key) {
            session.facts.update(&start.facts);
            session.see(terms.lease_ends(start.lease, now), within_limit, now);
            let renewed = session.clone();
            return self.admitted(AdmissionKind::Renewed, renewed, Vec::new(), now);
        }
        // Of the ids that may start again, only a released one may come from a late request.
        let is_provisional = self
            .tombstone(&start.key)
            .is_some_and(|tombstone| tombstone.cause == EndCause::Released);
        let room = match self.find_room(start, rules, is_provisional, now) {
            Ok(room) => room,
            Err(refusal) => return Admission::Refused(refusal),
        };
        self.forget_end(&start.key);
        let message = rules.message.as_ref();
        let displaced = self.displace(room.giving_way, start, message, terms, now);
        if room.is_paid {
            self.spend(now);
        }
        let lease = if is_provisional {
            start.lease.min(PROVISIONAL_LEASE)
        } else {
            start.lease
        };
        let mut started = Session::starting(start, terms.lease_ends(lease, now), now);
        (started.flags.provisional, started.flags.paid) = (is_provisional, room.is_paid);
        self.sessions.push(started.clone());
        self.admitted(AdmissionKind::Started, started, displaced, now)
    }

    /// Handles a sighting. Starts are limited, but streams seen running are counted, above the
    /// limit if necessary.
    ///
    /// An unknown playback that hasn't played is decided like a start. So is any unknown playback
    /// while its end might be among those [forgotten](Forgotten). A sighting never displaces.
    pub fn renew(
        &mut self,
        sighting: &Sighting,
        limit: u32,
        terms: &Terms,
        now: Timestamp,
    ) -> Renewal {
        self.settle(terms, now);
        if let Some(tombstone) = self.tombstone(&sighting.key) {
            return Renewal::Ended(tombstone.cause.clone());
        }
        let (within_limit, has_room) = (self.is_within(limit), self.has_room(limit));
        let lease_ends = terms.lease_ends(sighting.lease, now);
        if let Some(session) = self.session_mut(&sighting.key) {
            session.flags.played |= sighting.provenance != Provenance::Unplayed;
            session.see(lease_ends, within_limit, now);
            let expires_at = session.expires_at;
            return if session.is_proven() {
                Renewal::Renewed { expires_at }
            } else {
                Renewal::Provisional { expires_at }
            };
        }
        let is_request = sighting.key.kind == Kind::Request;
        let as_start = !is_request
            && (sighting.provenance == Provenance::Unplayed || self.forgotten.is_some());
        let most = to_count(limit).saturating_add(MAX_PUT_BACK);
        if self.sessions.len() >= most || (as_start && !has_room) {
            return Renewal::Crowded;
        }
        let is_guest = !is_request && !has_room && sighting.provenance == Provenance::ByRule;
        let mut session = Session::put_back(sighting, lease_ends, now);
        session.flags.provisional = is_guest;
        self.sessions.push(session);
        if as_start || is_guest {
            Renewal::Provisional {
                expires_at: lease_ends,
            }
        } else {
            Renewal::PutBack {
                expires_at: lease_ends,
            }
        }
    }

    /// Records Envoy's report that a request of this session reached its viewer, so that it has
    /// played. The report doesn't say when that was: the lease stays unchanged, and an unknown
    /// session stays unknown.
    pub fn played(&mut self, key: &SessionKey, terms: &Terms, now: Timestamp) -> Option<Playing> {
        self.settle(terms, now);
        let session = self.session_mut(key)?;
        session.flags.played = true;
        Some(Playing {
            left: session.expires_at.since(now),
            proven: session.is_proven(),
        })
    }

    /// Ends this session for the reason that `ending` gives; the end was reported `age` ago.
    pub fn release(
        &mut self,
        key: &SessionKey,
        ending: Ending,
        age: Duration,
        terms: &Terms,
        now: Timestamp,
    ) -> Released {
        self.release_telling(key, (ending, None), age, terms, now)
    }

    /// The same. If it is an operator's end, it is remembered with the message for the viewer.
    pub fn release_telling(
        &mut self,
        key: &SessionKey,
        (ending, message): (Ending, Option<&EndMessage>),
        age: Duration,
        terms: &Terms,
        now: Timestamp,
    ) -> Released {
        // A session that started before the clock stepped back isn't known to be younger.
        let is_ahead = self
            .session(key)
            .is_some_and(|session| session.started_at > now);
        let said_at = if is_ahead { now } else { now.before(age) };
        self.settle(terms, now);
        if let Some(tombstone) = self.tombstone(key) {
            return Released::AlreadyEnded(tombstone.cause.clone());
        }
        if self.goes_on(key, ending, said_at) {
            return Released::Kept;
        }
        let is_live = self.session(key).is_some();
        let released = key.kind.leaves_tombstone().then_some(EndCause::Released);
        let cause = match ending {
            Ending::Operator if key.kind.is_stoppable() => Some(EndCause::Operator),
            Ending::Operator if is_live => return Released::NotStoppable,
            Ending::Stream | Ending::Abandoned | Ending::Outlived | Ending::GaveWay => released,
            Ending::Vouched if key.kind.is_stoppable() => released,
            Ending::Failed | Ending::Undone(_) => {
                return self.take_back(key);
            }
            Ending::Operator | Ending::Vouched => None,
        };
        let said_for = self.term(terms, now).saturating_sub(age);
        let freed = self.remove(key);
        // The instance that granted the lease may answer from it until it expires, however old the
        // report.
        let left = freed.as_ref().map_or(said_for, |session| {
            let lease = session.expires_at.since(now);
            said_for.max(lease.saturating_add(terms.margin()))
        });
        if let Some(cause) = cause
            && !left.is_zero()
        {
            self.bury(Tombstone {
                key: key.clone(),
                cause,
                asked_at: now,
                until: now.after(left),
                was_live: freed.is_some(),
                derived: freed.as_ref().is_some_and(|session| session.flags.derived),
                rival: Default::default(),
                message: message.filter(|_| ending == Ending::Operator).cloned(),
            });
        }
        match freed {
            Some(_) => Released::Freed,
            None => Released::NotLive,
        }
    }

    /// The sessions that count at `now`.
    pub fn live(&self, now: Timestamp) -> impl Iterator<Item = &Session> {
        self.sessions
            .iter()
            .filter(move |session| session.expires_at > now)
    }

    /// The ends remembered at `now`.
    pub fn tombstones(&self, now: Timestamp) -> impl Iterator<Item = &Tombstone> {
        self.tombstones
            .iter()
            .filter(move |tombstone| tombstone.until > now)
    }

    /// When everything in this roster has expired, so that it can be deleted; `None` if it is
    /// empty.
    #[must_use]
    pub fn forgettable_at(&self, terms: &Terms) -> Option<Timestamp> {
        let leases = self.sessions.iter().map(|session| session.expires_at);
        leases
            .chain(self.tombstones.iter().map(|tombstone| tombstone.until))
            .chain(self.budget.map(|budget| budget.full_at(terms)))
            .chain(self.forgotten.map(|forgotten| forgotten.until))
            .max()
    }

    /// Drops expired entries. A time later than now was written before the clock stepped back: it
    /// is moved back too, so that nothing lasts longer than was granted.
    pub(crate) fn settle(&mut self, terms: &Terms, now: Timestamp) {
        for session in &mut self.sessions {
            if session.renewed_at > now {
                session.expires_at = now.after(session.expires_at.since(session.renewed_at));
                session.renewed_at = now;
                session.started_at = session.started_at.min(now);
            }
        }
        self.sessions.retain(|session| session.expires_at > now);
        self.settle_ends(now);
        self.settle_budget(terms, now);
    }

    /// Whether the report of an end is known to be wrong, or doesn't concern this session.
    fn goes_on(&self, key: &SessionKey, ending: Ending, said_at: Timestamp) -> bool {
        let Some(session) = self.session(key) else {
            return false;
        };
        match ending {
            Ending::Undone(ticket) => {
                session.ticket != Some(ticket)
                    || (key.kind != Kind::Request && session.flags.played)
            }
            Ending::Failed if session.flags.played => true,
            _ => session.started_at > said_at,
        }
    }

    /// Removes a session that hasn't played and undoes its start: the sessions it displaced may
    /// continue, and its displacement is refunded.
    fn take_back(&mut self, key: &SessionKey) -> Released {
        let Some(session) = self.remove(key) else {
            return Released::NotLive;
        };
        // An earlier session of this key made any older end. (If its player has asked since this
        // one started, the end counts as made by this one, because its own time isn't recorded; its
        // player may then start again if there is room.)
        self.tombstones.retain(|tombstone| {
            tombstone.asked_at < session.started_at
                || !matches!(&tombstone.cause, EndCause::Displaced { by } if by == key)
        });
        if session.flags.paid {
            self.refund();
        }
        Released::Freed
    }

    /// Whether the user is within the limit.
    fn is_within(&self, limit: u32) -> bool {
        self.sessions.len() <= to_count(limit)
    }

    /// Whether one more session fits within the limit.
    fn has_room(&self, limit: u32) -> bool {
        self.sessions.len() < to_count(limit)
    }

    /// Removes a session, if it is live.
    fn remove(&mut self, key: &SessionKey) -> Option<Session> {
        let index = self
            .sessions
            .iter()
            .position(|session| session.key == *key)?;
        Some(self.sessions.remove(index))
    }

    /// The live session of that key.
    fn session(&self, key: &SessionKey) -> Option<&Session> {
        self.sessions.iter().find(|session| session.key == *key)
    }

    /// The live session of that key, mutable.
    fn session_mut(&mut self, key: &SessionKey) -> Option<&mut Session> {
        self.sessions.iter_mut().find(|session| session.key == *key)
    }

    /// The answer to an admitted start.
    fn admitted(
        &self,
        entry: AdmissionKind,
        session: Session,
        displaced: Vec<Session>,
        now: Timestamp,
    ) -> Admission {
        Admission::Admitted(Admitted {
            entry,
            session,
            active: self.sessions.len(),
            displaced,
            decided_at: now,
            limit_override: None,
        })
    }
}

impl Session {
    /// A session that was just admitted.
    #[must_use]
    pub fn starting(start: &Start, expires_at: Timestamp, now: Timestamp) -> Self {
        Self {
            key: start.key.clone(),
            facts: start.facts.clone(),
            started_at: now,
            renewed_at: now,
            expires_at,
            ticket: start.ticket,
            flags: start.flags(),
        }
    }

    /// A session that was seen running although its start is no longer recorded.
    fn put_back(sighting: &Sighting, expires_at: Timestamp, now: Timestamp) -> Self {
        Self {
            key: sighting.key.clone(),
            facts: sighting.facts.clone(),
            started_at: sighting
                .started_at
                .map_or(now, |started_at| started_at.min(now)),
            renewed_at: now,
            expires_at,
            ticket: None,
            flags: sighting.flags(),
        }
    }

    /// Applies a sign of life: the lease grows, never shrinks, and the start can no longer be taken
    /// back.
    fn see(&mut self, lease_ends: Timestamp, within_limit: bool, now: Timestamp) {
        if now.since(self.started_at) >= PROVEN_AFTER {
            self.flags.played = true;
            self.flags.provisional &= !within_limit;
        }
        self.renewed_at = now;
        self.ticket = None;
        if !self.flags.provisional {
            self.expires_at = self.expires_at.max(lease_ends);
        }
    }
}

/// The limit as a number of sessions.
fn to_count(limit: u32) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}
