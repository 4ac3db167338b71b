//! When an id that has ended may be used again.

use super::{EndCause, Refusal, Roster, Start, StartRules, Terms, Tombstone};
use crate::clock::Timestamp;
use crate::identity::{Kind, SameOrigin};
use crate::session::WhenFull;

impl Roster {
    /// Why the start of an ended session is refused; `None` if it has not ended, or may start
    /// again. A refusal against the viewer's will extends the end, so a client that keeps asking
    /// stays out.
    pub(super) fn still_ended(
        &mut self,
        start: &Start,
        rules: &StartRules,
        terms: &Terms,
        now: Timestamp,
    ) -> Option<Refusal> {
        let ended = self.tombstone(&start.key)?;
        if ended.lets_begin(start, rules, self.has_room(rules.limit), now) {
            return None;
        }
        if ended.cause == EndCause::Released {
            return Some(Refusal::Ended(EndCause::Released, None, None));
        }
        let until = now.after(self.term(terms, now));
        let ended = self.tombstone_mut(&start.key)?;
        ended.asked_at = now;
        ended.until = ended.until.max(until);
        // Once the end is forgotten, nothing keeps the id out.
        let quiet = rules.quiet.min(ended.until.since(now));
        let quiet = ended.is_derived(start).then_some(quiet);
        Some(Refusal::Ended(
            ended.cause.clone(),
            quiet,
            ended.message.clone(),
        ))
    }
}

impl Tombstone {
    /// Whether the session may start again.
    ///
    /// A *fresh* id was made for one playback and may never start again. A video's id is the
    /// film's: its end keeps it out only while all slots are taken, so that it can't come back by
    /// displacing. Any other id is *derived*.
    fn lets_begin(
        &self,
        start: &Start,
        rules: &StartRules,
        has_room: bool,
        now: Timestamp,
    ) -> bool {
        if self.key.kind == Kind::Video {
            return has_room;
        }
        if !self.is_derived(start) {
            return false;
        }
        let was_quiet = now.since(self.asked_at) >= rules.quiet;
        match self.cause {
            EndCause::Released => true,
            EndCause::Operator => was_quiet,
            EndCause::Displaced { .. } => {
                was_quiet || has_room || rules.takeover || self.gives_way_again(start, rules)
            }
        }
    }

    /// Whether a displaced session may displace in turn without asking for it: its viewer watched
    /// other content on the same device and has come back. If nothing tells devices apart, the
    /// budget limits the cost.
    fn gives_way_again(&self, start: &Start, rules: &StartRules) -> bool {
        match self.rival.same_origin(&start.facts) {
            SameOrigin::Yes => true,
            SameOrigin::No => false,
            SameOrigin::Unknown => rules.when_full != WhenFull::Refuse,
        }
    }

    /// Whether the id is derived. What the store recorded about the session takes precedence over
    /// this instance's configuration.
    fn is_derived(&self, start: &Start) -> bool {
        if self.key.kind == Kind::Video {
            false
        } else if self.was_live {
            self.derived
        } else {
            start.derived
        }
    }
}
