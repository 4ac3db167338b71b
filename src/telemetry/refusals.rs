//! Decides which refusals get a line of their own: each user's first, and then few, so that a player which retries for hours
//! neither fills the disk nor hides the others. What was left out is counted in the next line.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::session::{Timestamp, UserId};

/// How long a user's further refusals are only counted.
const QUIET: Duration = Duration::from_secs(10);

/// How many users are remembered; beyond it everybody is forgotten at once, and somebody may get a line too many.
const MAX_USERS: usize = 10_000;

/// When each user last got a line, and how many have been left out since.
#[derive(Debug, Default)]
pub struct RefusalLog(Mutex<HashMap<UserId, (Timestamp, u64)>>);

impl RefusalLog {
    /// Whether this refusal gets a line: then how many of the same user were left out before it.
    pub fn admit(&self, user: &UserId, now: Timestamp) -> Option<u64> {
        let mut users = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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
