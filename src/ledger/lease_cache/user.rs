//! What this instance knows about one user: the sessions that it has seen counted, let in, or seen
//! running, and the ends that the store doesn't know. Pure functions; callers pass in the time.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::identity::{Facts, Kind, SessionKey};
use crate::session::{
    Admission, AdmissionKind, Admitted, EndCause, Ending, Flags, PROVEN_AFTER, Playing, Provenance,
    Roster, Session, Sighting, Start, StartRules, Terms, Ticket, Tombstone,
};

/// What is known about one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CachedSession {
    /// Its key.
    pub(super) key: SessionKey,
    /// Its optional facts.
    pub(super) facts: Facts,
    /// When it started, if this instance has seen it.
    pub(super) started_at: Option<Timestamp>,
    /// When it last showed a sign of life here.
    pub(super) seen_at: Timestamp,
    /// Until when it counts here: a lease after that.
    pub(super) until: Timestamp,
    /// Until when the store certainly counts it.
    pub(super) sure_until: Timestamp,
    /// Whether the store has this information.
    pub(super) sync: SyncState,
    /// Whether it is about to be renewed in the background.
    pub(super) in_renewal: bool,
    /// The ticket of the call that started it, as in a roster.
    pub(super) ticket: Option<Ticket>,
    /// Whether its id may start again, as in a roster.
    pub(super) derived: bool,
    /// Whether part of it has reached its viewer, according to the store or to what was seen here
    /// during an outage.
    pub(super) played: bool,
    /// Whether the store has yet to say that it may stay.
    pub(super) provisional: bool,
    /// Whether the store has ever said that it counts it.
    pub(super) confirmed: bool,
}

/// Whether the store has this instance's information about a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SyncState {
    /// The store has confirmed it.
    Confirmed,
    /// The store must be told: it could not be asked, or has lost the session.
    Unsynced,
}

/// A session that the store has confirmed to count.
#[derive(Debug)]
pub(in crate::ledger) struct Confirmed<'a> {
    /// Its key.
    pub(in crate::ledger) key: &'a SessionKey,
    /// Its facts.
    pub(in crate::ledger) facts: &'a Facts,
    /// When it started, if the store said so.
    pub(in crate::ledger) started_at: Option<Timestamp>,
    /// How long it certainly counts, measured from the question: zero if the answer doesn't say.
    pub(in crate::ledger) lease: Duration,
    /// How many streams its user may watch.
    pub(in crate::ledger) limit: u32,
    /// Whether its id may start again.
    pub(in crate::ledger) derived: bool,
    /// Whether part of it has reached its viewer.
    pub(in crate::ledger) played: bool,
    /// Whether its next request must ask again.
    pub(in crate::ledger) provisional: bool,
    /// The ticket of the call that started it, unless something has renewed it since.
    pub(in crate::ledger) ticket: Option<Ticket>,
}

/// The result of looking up a session whose request asks to continue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheLookup {
    /// It is unknown, or no longer counts.
    Unknown,
    /// The store certainly counts it.
    Good {
        /// Whether it is time to renew it in the background, and nobody has begun to.
        due: bool,
    },
    /// The store must be told that it is running, and say whether it may.
    Ask,
}

/// An end that the store must be told about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::ledger) struct End {
    /// The session that has ended.
    pub(in crate::ledger) key: SessionKey,
    /// Who reported it.
    pub(in crate::ledger) ending: Ending,
    /// When it was reported.
    pub(in crate::ledger) said_at: Timestamp,
    /// The ticket of the call that started the session here, if it is known.
    pub(in crate::ledger) ticket: Option<Ticket>,
    /// Until when it is worth telling.
    pub(super) until: Timestamp,
}

/// How many ends of one user are kept for the store: as many as a roster remembers of live
/// sessions.
const MAX_ENDS: usize = 64;

/// What is known about one user.
#[derive(Debug, Default)]
pub(super) struct CachedUser {
    /// The sessions, in the order they became known.
    pub(super) sessions: Vec<CachedSession>,
    /// What decides about starts while the store can't: the ends known here, and this instance's
    /// own budget. No sessions. Few users have any of it, so it has a place of its own.
    memory: Option<Box<Roster>>,
    /// The ends to report to the store.
    pub(super) ends: Vec<End>,
    /// The user's limit, as last resolved.
    pub(super) limit: u32,
}

impl CachedUser {
    /// Holds another session. A user has few, and usually one, so the list grows by as little as it
    /// can: by default it would begin with room for four.
    fn hold(&mut self, session: CachedSession) {
        if self.sessions.len() == self.sessions.capacity() {
            self.sessions.reserve_exact(self.sessions.len() / 2 + 1);
        }
        self.sessions.push(session);
    }

    /// Looks up a session whose request asks to continue for that long. The request counts as a
    /// sign of life.
    pub(super) fn lookup(
        &mut self,
        key: &SessionKey,
        facts: &Facts,
        lease: Duration,
        now: Timestamp,
    ) -> CacheLookup {
        let Some(cached) = self.session_mut(key) else {
            return CacheLookup::Unknown;
        };
        let left = cached.sure_until.since(now);
        if cached.until <= now || (cached.sync == SyncState::Confirmed && left.is_zero()) {
            return CacheLookup::Unknown;
        }
        cached.see(now, lease);
        if cached.sync == SyncState::Unsynced {
            return CacheLookup::Ask;
        }
        // A `request` asks only once, so a second time is suspicious; a session that hasn't played
        // may be taken back; and new facts belong in the store.
        if !key.kind.is_stoppable() || !cached.is_proven() || cached.is_news(facts) {
            return CacheLookup::Unknown;
        }
        if left <= lease / 3 {
            return CacheLookup::Ask;
        }
        // A renewal waits for others, and begins early enough for its answer to arrive by the end
        // of the third.
        let is_first_third = left > lease / 3 * 2 + lease / GATHERING;
        let due = !is_first_third && !std::mem::replace(&mut cached.in_renewal, true);
        CacheLookup::Good { due }
    }

    /// The answer for a session that the store certainly counts, as if the store had been asked.
    pub(super) fn admitted(&self, key: &SessionKey, now: Timestamp) -> Option<Admitted> {
        let cached = self.session(key).filter(|cached| cached.sure_until > now)?;
        Some(Admitted {
            entry: AdmissionKind::Renewed,
            session: Session {
                expires_at: cached.sure_until,
                ..cached.as_live(now)
            },
            active: self
                .sessions
                .iter()
                .filter(|cached| cached.until > now)
                .count(),
            displaced: Vec::new(),
            decided_at: now,
            limit_override: None,
        })
    }

    /// Records that the store counts this session, in its answer to a question asked at that time.
    pub(super) fn confirmed(&mut self, confirmed: &Confirmed<'_>, asked_at: Timestamp) {
        let until = asked_at.after(confirmed.lease);
        self.limit = confirmed.limit;
        if !self.has_unsynced_end(confirmed.key) {
            self.forget_end(confirmed.key);
        }
        let Some(cached) = self.session_mut(confirmed.key) else {
            self.hold(CachedSession {
                facts: confirmed.facts.clone(),
                started_at: confirmed.started_at,
                derived: confirmed.derived,
                played: confirmed.played,
                provisional: confirmed.provisional,
                ticket: confirmed.ticket,
                ..CachedSession::confirmed(confirmed.key, asked_at, until)
            });
            return;
        };
        cached.facts.update(confirmed.facts);
        cached.started_at = cached.started_at.or(confirmed.started_at);
        cached.until = cached.until.max(until);
        cached.sure_until = cached.sure_until.max(until);
        cached.derived |= confirmed.derived;
        cached.played |= confirmed.played;
        (cached.provisional, cached.confirmed) = (confirmed.provisional, true);
        (cached.sync, cached.in_renewal) = (SyncState::Confirmed, false);
        cached.ticket = confirmed.ticket;
    }

    /// Records that the store says that part of this session has reached its viewer, in its answer
    /// to a question asked at that time.
    pub(super) fn playing(&mut self, key: &SessionKey, playing: Playing, asked_at: Timestamp) {
        let sure_until = asked_at.after(playing.left);
        if let Some(cached) = self.session_mut(key) {
            (cached.played, cached.provisional) = (true, !playing.proven);
            cached.sure_until = cached.sure_until.max(sure_until);
            cached.until = cached.until.max(sure_until);
        } else {
            self.hold(CachedSession {
                played: true,
                provisional: !playing.proven,
                ..CachedSession::confirmed(key, asked_at, sure_until)
            });
        }
    }

    /// Records that the session was seen running, and that the store doesn't know.
    pub(super) fn sighted(&mut self, sighting: &Sighting, limit: u32, now: Timestamp) {
        self.limit = limit;
        if let Some(cached) = self.session_mut(&sighting.key) {
            cached.see(now, sighting.lease);
            cached.sync = SyncState::Unsynced;
        } else if !self.has_ended(&sighting.key, now) {
            self.hold(CachedSession {
                facts: sighting.facts.clone(),
                started_at: sighting.started_at,
                derived: sighting.derived,
                played: sighting.provenance != Provenance::Unplayed,
                confirmed: sighting.provenance == Provenance::Counted,
                ..CachedSession::unsynced(&sighting.key, now, now.after(sighting.lease))
            });
        }
    }

    /// Decides a start from this instance's knowledge alone, by the same rule.
    pub(super) fn admit(
        &mut self,
        start: &Start,
        rules: &StartRules,
        terms: &Terms,
        now: Timestamp,
    ) -> Admission {
        let mut roster = self.roster(now);
        let admission = roster.admit(start, rules, terms, now);
        roster.take_sessions();
        self.remember(roster);
        if let Admission::Admitted(admitted) = &admission {
            self.adopt(start, admitted, terms, now);
        }
        admission
    }

    /// Records that the session is over, and that the store doesn't know.
    pub(super) fn release(&mut self, end: End, terms: &Terms, now: Timestamp) {
        let mut roster = self.roster(now);
        let age = now.since(end.said_at);
        roster.release(&end.key, end.ending, age, terms, now);
        let live = roster.take_sessions();
        self.sessions
            .retain(|cached| live.iter().any(|session| session.key == cached.key));
        self.remember(roster);
        self.queue_end(end);
    }

    /// Drops the session, and its end from those to report.
    pub(super) fn forget(&mut self, key: &SessionKey) {
        self.sessions.retain(|cached| cached.key != *key);
    }

    /// Records that the store knows that the session has ended, with that cause if it remembers
    /// one. An operator's end must still be reported unless it was that one, because other ends may
    /// let the session start again.
    pub(super) fn end_told(&mut self, key: &SessionKey, cause: Option<&EndCause>) {
        let is_unsynced =
            |end: &End| end.ending == Ending::Operator && cause != Some(&EndCause::Operator);
        self.ends.retain(|end| end.key != *key || is_unsynced(end));
        if !self.has_unsynced_end(key) {
            self.forget_end(key);
        }
    }

    /// Remembers an end that the store knows of, for when it can't be asked.
    pub(super) fn bury(&mut self, tombstone: Tombstone) {
        if !self.has_unsynced_end(&tombstone.key) {
            let memory = self.memory.get_or_insert_default();
            memory.forget_end(&tombstone.key);
            memory.bury(tombstone);
        }
    }

    /// Whether an end of that session must be reported to the store.
    fn has_unsynced_end(&self, key: &SessionKey) -> bool {
        self.ends.iter().any(|end| end.key == *key)
    }

    /// Whether anything must be reported to the store.
    pub(super) fn is_unsynced(&self) -> bool {
        !self.ends.is_empty()
            || self
                .sessions
                .iter()
                .any(|cached| cached.sync == SyncState::Unsynced)
    }

    /// How many other playbacks the store must still count.
    pub(super) fn sure_beside(&self, key: &SessionKey, now: Timestamp) -> usize {
        let beside = self.sessions.iter().filter(|cached| cached.key != *key);
        beside.filter(|cached| cached.is_proof(now)).count()
    }

    /// Whether the entry is empty.
    pub(super) fn is_empty(&self) -> bool {
        self.sessions.is_empty() && self.memory.is_none() && self.ends.is_empty()
    }

    /// Drops what has expired.
    pub(super) fn settle(&mut self, terms: &Terms, now: Timestamp) {
        self.sessions.retain(|cached| cached.until > now);
        if let Some(mut memory) = self.memory.take() {
            memory.settle(terms, now);
            self.remember(*memory);
        }
        self.ends.retain(|end| end.until > now);
    }

    /// The session of that key.
    pub(super) fn session(&self, key: &SessionKey) -> Option<&CachedSession> {
        self.sessions.iter().find(|cached| cached.key == *key)
    }

    /// The ticket of the call that started that session here, if it is known.
    pub(super) fn ticket(&self, key: &SessionKey) -> Option<Ticket> {
        self.session(key).and_then(|cached| cached.ticket)
    }

    /// The session of that key, mutable.
    pub(super) fn session_mut(&mut self, key: &SessionKey) -> Option<&mut CachedSession> {
        self.sessions.iter_mut().find(|cached| cached.key == *key)
    }

    /// Whether the session has ended here and the store doesn't know.
    fn has_ended(&self, key: &SessionKey, now: Timestamp) -> bool {
        let memory = self.memory.iter();
        let mut ends = memory.flat_map(|memory| memory.tombstones(now));
        ends.any(|tombstone| tombstone.key == *key)
    }

    /// Everything known, as a roster.
    fn roster(&self, now: Timestamp) -> Roster {
        let live = self.sessions.iter().filter(|cached| cached.until > now);
        let sessions = live.map(|cached| cached.as_live(now)).collect();
        let memory = self.memory.as_deref().cloned();
        memory.unwrap_or_default().with_sessions(sessions)
    }

    /// Remembers what the rule has left, without sessions.
    fn remember(&mut self, memory: Roster) {
        self.memory = (memory != Roster::default()).then(|| Box::new(memory));
    }

    /// Forgets the end of that session.
    fn forget_end(&mut self, key: &SessionKey) {
        if let Some(mut memory) = self.memory.take() {
            memory.forget_end(key);
            self.remember(*memory);
        }
    }

    /// Takes over the rule's decision.
    fn adopt(&mut self, start: &Start, admitted: &Admitted, terms: &Terms, now: Timestamp) {
        for displaced in &admitted.displaced {
            let ticket = self.ticket(&displaced.key);
            self.forget(&displaced.key);
            self.queue_end(End {
                key: displaced.key.clone(),
                ending: Ending::GaveWay,
                said_at: now,
                ticket,
                until: now.after(terms.memory),
            });
        }
        if let Some(cached) = self.session_mut(&start.key) {
            cached.facts.update(&start.facts);
            cached.see(now, start.lease);
            (cached.sync, cached.ticket) = (SyncState::Unsynced, None);
        } else {
            self.hold(CachedSession {
                facts: start.facts.clone(),
                started_at: Some(now),
                ticket: start.ticket,
                derived: start.derived,
                played: start.key.kind == Kind::Request,
                ..CachedSession::unsynced(&start.key, now, admitted.session.expires_at)
            });
        }
    }

    /// Queues an end for the store. One session may have several of different kinds, since not each
    /// of them ends it: a failed request doesn't end a session that has played, and an undo takes
    /// back only its own start. If one kind is reported several times, the last report replaces
    /// the others, because the session may have started again in between.
    fn queue_end(&mut self, end: End) {
        let is_same = |queued: &&mut End| queued.key == end.key && queued.ending == end.ending;
        if let Some(queued) = self.ends.iter_mut().find(is_same) {
            if queued.said_at < end.said_at {
                *queued = end;
            }
            return;
        }
        if self.ends.len() >= MAX_ENDS {
            self.ends.remove(0);
        }
        self.ends.push(end);
    }
}

/// A renewal may wait for others for one part in this many of a lease.
pub(in crate::ledger) const GATHERING: u32 = 30;

impl CachedSession {
    /// A session that the store counts until then, according to its answer to a question asked at
    /// `seen_at`.
    fn confirmed(key: &SessionKey, seen_at: Timestamp, until: Timestamp) -> Self {
        Self {
            sure_until: until,
            sync: SyncState::Confirmed,
            confirmed: true,
            ..Self::unsynced(key, seen_at, until)
        }
    }

    /// A session that counts here until then and that the store doesn't know.
    fn unsynced(key: &SessionKey, seen_at: Timestamp, until: Timestamp) -> Self {
        Self {
            key: key.clone(),
            facts: Facts::default(),
            started_at: None,
            seen_at,
            until,
            sure_until: seen_at,
            sync: SyncState::Unsynced,
            in_renewal: false,
            ticket: None,
            derived: false,
            played: false,
            provisional: false,
            confirmed: false,
        }
    }

    /// Records a sign of life. If the store can't be told, it proves here that the session plays,
    /// as it would there.
    pub(super) fn see(&mut self, now: Timestamp, lease: Duration) {
        let lives_long = |started: Timestamp| now.since(started) >= PROVEN_AFTER;
        self.played |= self.sync == SyncState::Unsynced && self.started_at.is_some_and(lives_long);
        self.seen_at = now;
        self.until = self.until.max(now.after(lease));
    }

    /// Whether a store that doesn't know the session must have lost it: the store has confirmed it,
    /// must still count it, and would remember its end.
    pub(super) fn is_proof(&self, now: Timestamp) -> bool {
        self.key.kind == Kind::Playback
            && self.is_proven()
            && self.sync == SyncState::Confirmed
            && self.sure_until > now
    }

    /// Whether the store keeps counting it as long as it shows signs of life.
    pub(super) const fn is_proven(&self) -> bool {
        self.played && !self.provisional
    }

    /// Whether these facts are new to the store.
    fn is_news(&self, facts: &Facts) -> bool {
        let known = &self.facts;
        (facts.device.is_some() && facts.device != known.device)
            || (facts.content.is_some() && facts.content != known.content)
    }

    /// The report about it for the store.
    pub(super) fn sighting(&self, now: Timestamp) -> Sighting {
        Sighting {
            key: self.key.clone(),
            facts: self.facts.clone(),
            lease: self.until.since(now),
            started_at: self.started_at,
            provenance: if !self.played {
                Provenance::Unplayed
            } else if self.confirmed && !self.provisional {
                Provenance::Counted
            } else {
                Provenance::ByRule
            },
            derived: self.derived,
        }
    }

    /// The session in the form of a roster.
    fn as_live(&self, now: Timestamp) -> Session {
        Session {
            key: self.key.clone(),
            facts: self.facts.clone(),
            started_at: self.started_at.unwrap_or(self.seen_at).min(now),
            renewed_at: self.seen_at,
            expires_at: self.until,
            ticket: self.ticket,
            flags: Flags {
                derived: self.derived,
                played: self.played,
                ..Flags::default()
            },
        }
    }
}
