//! Decides which refusals get a line of their own: a user's first one, then one in ten seconds. So
//! a player that retries for hours neither fills the disk nor hides other users. The next line
//! counts those that were left out. An operator's mistakes, which concern every request, are
//! bounded the same way.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Mutex;
use std::time::Duration;

use tracing::info;

use super::json_lines::Texts;
use crate::clock::Timestamp;
use crate::identity::{SessionKey, UserId};
use crate::problem::refusal_reason;
use crate::session::Refusal;
use crate::util::lock;

/// After a line, how long further refusals of the same user are only counted.
const QUIET: Duration = Duration::from_secs(10);

/// How many users are remembered. When they are too many, all are forgotten at once, and a user may
/// get a line too many.
const MAX_USERS: usize = 10_000;

/// For each user, or each cause: when it last got a line, and how many have been left out since.
#[derive(Debug)]
pub struct RefusalLog<U>(Mutex<HashMap<U, (Timestamp, u64)>>);

impl<U> Default for RefusalLog<U> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<U: Clone + Eq + Hash> RefusalLog<U> {
    /// Whether this refusal gets a line. If so, how many of the same user were left out before it.
    pub fn admit(&self, user: &U, now: Timestamp) -> Option<u64> {
        let mut users = lock(&self.0);
        if users.len() >= MAX_USERS && !users.contains_key(user) {
            users.retain(|_, (last, _)| now.since(*last) < QUIET);
            if users.len() >= MAX_USERS {
                users.clear();
            }
        }
        match users.get_mut(user) {
            Some((last, left_out)) if now.since(*last) < QUIET => {
                *left_out += 1;
                None
            }
            Some(entry) => {
                let (_, left_out) = std::mem::replace(entry, (now, 0));
                Some(left_out)
            }
            None => {
                users.insert(user.clone(), (now, 0));
                Some(0)
            }
        }
    }
}

/// A refusal, with the facts that explain it.
#[derive(Debug)]
pub struct RefusedStream<'a> {
    /// The id of the request, which its answer has too.
    pub request_id: String,
    /// The user.
    pub user: &'a UserId,
    /// The session that was refused.
    pub key: &'a SessionKey,
    /// Why it was refused.
    pub refusal: &'a Refusal,
    /// The limit that applied.
    pub limit: u32,
    /// Whether this instance decided by itself, since the store could not answer.
    pub by_this_instance_alone: bool,
    /// Whether the refusal took effect. In a dry run, the stream was let in.
    pub enforced: bool,
}

impl RefusedStream<'_> {
    /// Logs one line that explains the refusal. `left_out` refusals of this user had none.
    pub fn tell(&self, left_out: u64) {
        let holders: Option<Vec<String>> = match self.refusal {
            Refusal::Full { holders, .. } => {
                let keys = holders.iter().map(|session| session.key.to_string());
                Some(keys.collect())
            }
            Refusal::Ended(..) | Refusal::NotStoppable => None,
        };
        // Clients choose names. Strings are quoted, so a name can't pass for another field.
        info!(
            request.id = self.request_id.as_str(),
            user.id = self.user.as_str(),
            session.key = self.key.to_string(),
            reason = refusal_reason(self.refusal).as_str(),
            count = holders.as_ref().map(Vec::len),
            limit = self.limit,
            by_this_instance_alone = self.by_this_instance_alone.then_some(true),
            holders = holders
                .as_deref()
                .map(|holders| tracing::field::debug(Texts(holders))),
            left_out,
            "{}",
            if self.enforced {
                "a stream was refused"
            } else {
                "a stream would have been refused"
            }
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_gets_a_line_and_then_few() {
        let log = RefusalLog::default();
        let (anna, ben) = (
            UserId::parse("anna").unwrap(),
            UserId::parse("ben").unwrap(),
        );
        let at = |seconds: u64| Timestamp::from_millis(seconds * 1000);
        for (user, seconds, expected) in [
            (&anna, 100, Some(0)),
            (&anna, 101, None),
            (&ben, 101, Some(0)),
            (&anna, 109, None),
            (&anna, 110, Some(2)),
            (&anna, 111, None),
            (&anna, 200, Some(1)),
        ] {
            assert_eq!(
                log.admit(user, at(seconds)),
                expected,
                "{user} at {seconds}"
            );
        }
    }

    #[test]
    fn what_it_remembers_is_bounded() {
        let log = RefusalLog::default();
        for n in 0..MAX_USERS * 2 {
            assert_eq!(
                log.admit(
                    &UserId::parse(&n.to_string()).unwrap(),
                    Timestamp::default()
                ),
                Some(0)
            );
        }
        assert!(log.0.lock().unwrap().len() <= MAX_USERS);
    }
}
