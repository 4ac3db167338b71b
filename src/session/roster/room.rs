//! Which session is displaced by a start when all slots are taken.

use super::{EndCause, Refusal, Roster, Session, Start, StartRules, Terms, Tombstone, to_count};
use crate::clock::Timestamp;
use crate::identity::{EndMessage, SameOrigin, SessionKey};
use crate::session::WhenFull;

/// How a start gets its slot.
#[derive(Debug)]
pub(super) struct Room {
    /// The sessions to displace, in order.
    pub(super) giving_way: Vec<SessionKey>,
    /// Whether the displacement draws on the user's budget.
    pub(super) is_paid: bool,
}

impl Roster {
    /// How one more session fits within the limit, or why it doesn't. Changes nothing. A start that
    /// may come from a late request takes no slot from another device without asking for it.
    pub(super) fn find_room(
        &self,
        start: &Start,
        rules: &StartRules,
        may_be_straggler: bool,
        now: Timestamp,
    ) -> Result<Room, Refusal> {
        let excess = (self.sessions.len() + 1).saturating_sub(to_count(rules.limit));
        if excess == 0 {
            return Ok(Room {
                giving_way: Vec::new(),
                is_paid: false,
            });
        }
        let candidates = self.candidates(&rules.when_full)?;
        let origin = |session: &&Session| session.facts.same_origin(&start.facts);
        let own = |session: &&Session| origin(session) == SameOrigin::Yes;
        let foreign = |session: &&Session| origin(session) == SameOrigin::No;
        let is_careful = may_be_straggler && !rules.takeover;
        let full = || Refusal::Full {
            limit: rules.limit,
            holders: self.sessions.clone(),
            decided_at: now,
        };
        let giving_way = candidates
            .get(..excess)
            .filter(|all| !(is_careful && all.iter().any(foreign)))
            .ok_or_else(full)?;
        let is_paid = !rules.free && !giving_way.iter().all(own);
        if is_paid && self.spent() >= rules.burst() {
            return Err(full());
        }
        let keys = giving_way.iter().map(|session| session.key.clone());
        Ok(Room {
            giving_way: keys.collect(),
            is_paid,
        })
    }

    /// The sessions that may be displaced, in order. Among equals, the earliest start goes first.
    fn candidates(&self, when_full: &WhenFull) -> Result<Vec<&Session>, Refusal> {
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
        Ok(stoppable)
    }

    /// Displaces these sessions in favour of a start, and records that.
    pub(super) fn displace(
        &mut self,
        giving_way: Vec<SessionKey>,
        start: &Start,
        message: Option<&EndMessage>,
        terms: &Terms,
        now: Timestamp,
    ) -> Vec<Session> {
        let until = now.after(self.term(terms, now));
        let leaving = giving_way.into_iter();
        let displaced: Vec<Session> = leaving.filter_map(|key| self.remove(&key)).collect();
        for session in &displaced {
            self.bury(Tombstone {
                key: session.key.clone(),
                cause: EndCause::Displaced {
                    by: start.key.clone(),
                },
                asked_at: now,
                until,
                was_live: true,
                derived: session.flags.derived,
                rival: start.facts.origin(),
                message: message.cloned(),
            });
        }
        displaced
    }
}
