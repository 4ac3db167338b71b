//! The rule: one user's live sessions and tombstones, and the four things that can be done to them.
//!
//! [`Roster`] is what the memory store keeps, and what the Redis scripts are compared with, operation by operation. A key is
//! never both live and buried, and nothing in a roster lasts for ever.

use std::time::Duration;

use super::{
    Admission, Admitted, EndCause, Ending, Entry, Refusal, Released, Renewal, Session, SessionKey,
    Sighting, Start, Terms, Ticket, Timestamp, Tombstone, WhenFull,
};

/// How many ends of one user are remembered; the earliest to be forgotten make room.
pub const MAX_TOMBSTONES: usize = 64;

/// How many streams above the limit are put back when they are seen running.
pub const MAX_PUT_BACK: usize = 32;

/// One user's live sessions and tombstones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roster {
    /// The live sessions, in the order in which they came to their slots.
    sessions: Vec<Session>,
    /// The ends that are remembered, in no order that means anything.
    tombstones: Vec<Tombstone>,
}

impl Roster {
    /// A roster of what is known from elsewhere: live sessions in the order in which they came, and ends. No key may be in both.
    #[must_use]
    pub const fn of(sessions: Vec<Session>, tombstones: Vec<Tombstone>) -> Self {
        Self {
            sessions,
            tombstones,
        }
    }

    /// What [`Self::of`] takes.
    #[must_use]
    pub fn into_parts(self) -> (Vec<Session>, Vec<Tombstone>) {
        (self.sessions, self.tombstones)
    }

    /// May this session start? Repeated starts are renewals, so that a caller can try again without harm.
    pub fn admit(
        &mut self,
        start: &Start,
        limit: u32,
        when_full: &WhenFull,
        terms: &Terms,
        now: Timestamp,
    ) -> Admission {
        self.settle(terms, now);
        // A video has no other id to start with, so its end keeps it out only while all slots are taken: nobody comes back by displacing.
        let has_room = self.sessions.len() < to_count(limit);
        let may_start_anew = has_room && !start.key.kind.leaves_tombstone();
        if let Some(tombstone) = self.tombstone_mut(&start.key)
            && !may_start_anew
        {
            if tombstone.cause != EndCause::Released {
                tombstone.until = terms.memory_ends(now);
            }
            return Admission::Refused(Refusal::Ended(tombstone.cause.clone()));
        }
        if let Some(session) = self.session_mut(&start.key) {
            session.facts.update(&start.facts);
            session.renew(terms.lease_ends(start.lease, now), now);
            let renewed = session.clone();
            return self.admitted(Entry::Renewed, renewed, Vec::new(), now);
        }
        let displaced = match self.make_room(&start.key, limit, when_full, terms, now) {
            Ok(displaced) => displaced,
            Err(refusal) => return Admission::Refused(refusal),
        };
        let started = Session::starting(start, terms.lease_ends(start.lease, now), now);
        self.tombstones
            .retain(|tombstone| tombstone.key != start.key);
        self.sessions.push(started.clone());
        self.admitted(Entry::Started, started, displaced, now)
    }

    /// This stream was seen running. It counts, be it above the limit: admissions are limited, observed streams are counted.
    pub fn renew(
        &mut self,
        sighting: &Sighting,
        limit: u32,
        terms: &Terms,
        now: Timestamp,
    ) -> Renewal {
        self.settle(terms, now);
        if let Some(tombstone) = self.tombstone_mut(&sighting.key) {
            return Renewal::Ended(tombstone.cause.clone());
        }
        let lease_ends = terms.lease_ends(sighting.lease, now);
        if let Some(session) = self.session_mut(&sighting.key) {
            let expires_at = session.renew(lease_ends, now);
            return Renewal::Renewed { expires_at };
        }
        if self.sessions.len() >= to_count(limit).saturating_add(MAX_PUT_BACK) {
            return Renewal::Crowded;
        }
        self.sessions
            .push(Session::put_back(sighting, lease_ends, now));
        Renewal::PutBack {
            expires_at: lease_ends,
        }
    }

    /// This session is over, says `ending`.
    pub fn release(
        &mut self,
        key: &SessionKey,
        ending: Ending,
        terms: &Terms,
        now: Timestamp,
    ) -> Released {
        self.settle(terms, now);
        if let Some(tombstone) = self.tombstone_mut(key) {
            return Released::AlreadyEnded(tombstone.cause.clone());
        }
        let released = key.kind.leaves_tombstone().then_some(EndCause::Released);
        let cause = match ending {
            Ending::Operator if key.kind.is_stoppable() => Some(EndCause::Operator),
            Ending::Operator if self.session(key).is_some() => return Released::NotStoppable,
            Ending::Stream => released,
            Ending::Vouched if key.kind.is_stoppable() => released,
            Ending::Undone(ticket) if self.was_renewed_since(key, ticket) => return Released::Kept,
            Ending::Operator | Ending::Vouched | Ending::Undone(_) => None,
        };
        let freed = self.remove(key);
        if let Some(cause) = cause {
            self.bury(key.clone(), cause, terms, now);
        }
        freed.map_or(Released::NotLive, Released::Freed)
    }

    /// The sessions that count now.
    pub fn live(&self, now: Timestamp) -> impl Iterator<Item = &Session> {
        self.sessions
            .iter()
            .filter(move |session| session.expires_at > now)
    }

    /// The ends that are remembered now.
    pub fn tombstones(&self, now: Timestamp) -> impl Iterator<Item = &Tombstone> {
        self.tombstones
            .iter()
            .filter(move |tombstone| tombstone.until > now)
    }

    /// When the last thing in this roster ends, and it may be forgotten; `None` if it is empty.
    #[must_use]
    pub fn forgettable_at(&self) -> Option<Timestamp> {
        let leases = self.sessions.iter().map(|session| session.expires_at);
        leases
            .chain(self.tombstones.iter().map(|tombstone| tombstone.until))
            .max()
    }

    /// Drops what has expired, and cuts what ends further ahead than anything may: the clock has stepped back since it was written. Nor
    /// has anything begun or shown a sign of life later than now, or whoever comes after such a step would pass for older and idler.
    fn settle(&mut self, terms: &Terms, now: Timestamp) {
        self.sessions.retain(|session| session.expires_at > now);
        self.tombstones.retain(|tombstone| tombstone.until > now);
        let longest = terms.lease_ends(Duration::MAX, now);
        for session in &mut self.sessions {
            session.expires_at = session.expires_at.min(longest);
            session.started_at = session.started_at.min(now);
            session.renewed_at = session.renewed_at.min(now);
        }
        for tombstone in &mut self.tombstones {
            tombstone.until = tombstone.until.min(terms.memory_ends(now));
        }
    }

    /// Sees to it that one more session fits under the limit; the sessions that had to give way, or why it can't be done. Then nothing has changed.
    fn make_room(
        &mut self,
        newcomer: &SessionKey,
        limit: u32,
        when_full: &WhenFull,
        terms: &Terms,
        now: Timestamp,
    ) -> Result<Vec<Session>, Refusal> {
        let excess = (self.sessions.len() + 1).saturating_sub(to_count(limit));
        if excess == 0 {
            return Ok(Vec::new());
        }
        let candidates = self.candidates(when_full)?;
        if limit == 0 || candidates.len() < excess {
            return Err(Refusal::Full {
                limit,
                holders: self.sessions.clone(),
                decided_at: now,
            });
        }
        let giving_way = candidates.into_iter().take(excess);
        let displaced: Vec<Session> = giving_way.filter_map(|key| self.remove(&key)).collect();
        for session in &displaced {
            self.bury(
                session.key.clone(),
                EndCause::Displaced {
                    by: newcomer.clone(),
                },
                terms,
                now,
            );
        }
        Ok(displaced)
    }

    /// The sessions that may be made to give way, the first to go first. The order in which they came decides between equals.
    fn candidates(&self, when_full: &WhenFull) -> Result<Vec<SessionKey>, Refusal> {
        let mut stoppable: Vec<&Session> = self
            .sessions
            .iter()
            .filter(|session| session.key.kind.is_stoppable())
            .collect();
        match when_full {
            WhenFull::Refuse => stoppable.clear(),
            WhenFull::DisplaceOldest => stoppable.sort_by_key(|session| session.started_at),
            WhenFull::DisplaceIdlest => stoppable.sort_by_key(|session| session.renewed_at),
            WhenFull::TakeOver(named) => {
                if !named.kind.is_stoppable() && self.session(named).is_some() {
                    return Err(Refusal::NotStoppable);
                }
                stoppable.retain(|session| session.key == *named);
            }
        }
        Ok(stoppable
            .into_iter()
            .map(|session| session.key.clone())
            .collect())
    }

    /// Remembers an end. Callers have made sure that no tombstone of that key is there.
    fn bury(&mut self, key: SessionKey, cause: EndCause, terms: &Terms, now: Timestamp) {
        if self.tombstones.len() >= MAX_TOMBSTONES {
            let earliest = self
                .tombstones
                .iter()
                .enumerate()
                .min_by_key(|(_, tombstone)| tombstone.until);
            if let Some((index, _)) = earliest {
                self.tombstones.remove(index);
            }
        }
        self.tombstones.push(Tombstone {
            key,
            cause,
            until: terms.memory_ends(now),
        });
    }

    /// Whether the session is live but no longer that ticket's own untouched start.
    fn was_renewed_since(&self, key: &SessionKey, ticket: Ticket) -> bool {
        self.session(key)
            .is_some_and(|session| session.ticket != Some(ticket))
    }

    /// Takes a session out, if it is there.
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

    /// The live session of that key, to be changed.
    fn session_mut(&mut self, key: &SessionKey) -> Option<&mut Session> {
        self.sessions.iter_mut().find(|session| session.key == *key)
    }

    /// The remembered end of that key, to be changed.
    fn tombstone_mut(&mut self, key: &SessionKey) -> Option<&mut Tombstone> {
        self.tombstones
            .iter_mut()
            .find(|tombstone| tombstone.key == *key)
    }

    /// The answer to a start that was let in.
    fn admitted(
        &self,
        entry: Entry,
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
        })
    }
}

impl Session {
    /// A session that has just been let in.
    #[must_use]
    pub fn starting(start: &Start, expires_at: Timestamp, now: Timestamp) -> Self {
        Self {
            key: start.key.clone(),
            facts: start.facts.clone(),
            started_at: now,
            renewed_at: now,
            expires_at,
            ticket: start.ticket,
        }
    }

    /// A session that was seen running though nobody remembers its start.
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
        }
    }

    /// A sign of life: the lease grows, never shrinks, and the start is no longer anybody's to take back.
    fn renew(&mut self, lease_ends: Timestamp, now: Timestamp) -> Timestamp {
        self.renewed_at = now;
        self.expires_at = self.expires_at.max(lease_ends);
        self.ticket = None;
        self.expires_at
    }
}

/// A limit as a number of sessions.
fn to_count(limit: u32) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}
