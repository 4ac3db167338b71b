//! Ends reconstructed from messages and answers alone, as a reference for the rule.

use std::collections::HashMap;

use super::histories::{Message, Step};
use super::*;
use crate::identity::SameOrigin;

/// An end as an observer of all messages and answers remembers it.
#[derive(Debug, Clone)]
pub(super) struct Memory {
    pub(super) until: Timestamp,
    asked_at: Timestamp,
    cause: EndCause,
    /// Whether the id may start again, if the session was live.
    derived: Option<bool>,
    rival: Facts,
}

impl Memory {
    /// Whether a start may begin the session again.
    pub(super) fn lets_begin(&self, start: &Start, rules: &StartRules, step: &Step) -> bool {
        let has_room = step.before.live(step.now).count() < step.limit as usize;
        if start.key.kind == Kind::Video {
            return has_room;
        }
        let is_quiet = step.now.since(self.asked_at) >= rules.quiet;
        let same = self.rival.same_origin(&start.facts);
        let may_displace = same == SameOrigin::Yes
            || (same == SameOrigin::Unknown && rules.when_full != WhenFull::Refuse);
        self.derived.unwrap_or(start.derived)
            && match self.cause {
                EndCause::Released => true,
                EndCause::Operator => is_quiet,
                EndCause::Displaced { .. } => {
                    is_quiet || has_room || rules.takeover || may_displace
                }
            }
    }
}

/// What the observer remembers after this step.
pub(super) fn remembered(
    mut ended: HashMap<SessionKey, Memory>,
    step: &Step,
) -> HashMap<SessionKey, Memory> {
    let (own, until) = (step.message.key(), step.now.after(step.term()));
    let remember = |cause, live: Option<&Session>, until, rival| Memory {
        until,
        asked_at: step.now,
        cause,
        derived: live.map(|session| session.flags.derived),
        rival,
    };
    match (&step.message, step.told()) {
        (Message::Start(start, _), "started" | "started instead of another") => {
            ended.remove(own);
            for gone in step.answer.displaced() {
                let cause = EndCause::Displaced { by: own.clone() };
                let end = remember(cause, Some(gone), until, start.facts.origin());
                ended.insert(gone.key.clone(), end);
            }
        }
        (_, "start of an ended one") => {
            if let Some(end) = ended.get_mut(own)
                && end.cause != EndCause::Released
            {
                end.asked_at = step.now;
                end.until = end.until.max(until);
            }
        }
        (Message::End(_, Ending::Failed | Ending::Undone(_), _), "freed") => {
            let by_it = EndCause::Displaced { by: own.clone() };
            let started = step.was_live().map(|live| live.started_at);
            ended.retain(|_, end| end.cause != by_it || Some(end.asked_at) < started);
        }
        (Message::End(_, ending, age), "freed" | "not live") => {
            let lease = step.was_live().map(|live| live.expires_at);
            let answered = lease.map_or(step.now, |ends| ends.after(step.terms.margin()));
            let until = step.now.after(step.term().saturating_sub(*age));
            let until = until.max(answered);
            if let Some(cause) = cause_of(own.kind, *ending)
                && until > step.now
            {
                let end = remember(cause, step.was_live(), until, Facts::default());
                ended.insert(own.clone(), end);
            }
        }
        _ => (),
    }
    ended
}

/// The cause to remember for such an end, if the rule wants it remembered.
fn cause_of(kind: Kind, ending: Ending) -> Option<EndCause> {
    match (ending, kind) {
        (
            Ending::Stream | Ending::Abandoned | Ending::Outlived | Ending::GaveWay,
            Kind::Request | Kind::Playback,
        )
        | (Ending::Vouched, Kind::Playback) => Some(EndCause::Released),
        (Ending::Operator, Kind::Playback | Kind::Video) => Some(EndCause::Operator),
        (Ending::Stream | Ending::Abandoned | Ending::Outlived | Ending::GaveWay, Kind::Video)
        | (Ending::Vouched, Kind::Request | Kind::Video)
        | (Ending::Operator, Kind::Request)
        | (Ending::Failed | Ending::Undone(_), _) => None,
    }
}
