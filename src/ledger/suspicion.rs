//! The users whose sessions the store didn't know recently. One user's unknown sessions prove
//! nothing about other users, because that user may have caused them. So an unknown session heals
//! its own user, and makes the ledger ask about a few others; only if two of *them* are unknown has
//! the store lost all data. However many unknown sessions one user has, they cause one such sample.

use std::sync::Mutex;
use std::time::Duration;

use crate::clock::Stopwatch;
use crate::identity::UserId;
use crate::util::lock;

/// How many distinct users cause a sample each within one period.
const MAX_SUSPECTS: usize = 4;

/// How many users the store is asked about at a time.
pub(super) const SAMPLE: usize = 16;

/// How many users of a sample must be unknown to the store to prove that it has lost all data. One
/// may be chance.
pub(super) const PROOF: usize = 2;

/// The users whose sessions the store didn't know recently.
#[derive(Debug)]
pub(super) struct Suspicion {
    /// How long a user is remembered.
    period: Duration,
    /// The users of the current period.
    suspects: Mutex<Suspects>,
}

/// The users of one period.
#[derive(Debug)]
struct Suspects {
    /// When the period began.
    since: Stopwatch,
    /// At most [`MAX_SUSPECTS`].
    users: Vec<UserId>,
}

impl Suspicion {
    /// No users yet; each is remembered for that long.
    pub(super) fn new(period: Duration) -> Self {
        Self {
            period,
            suspects: Mutex::new(Suspects {
                since: Stopwatch::start(),
                users: Vec::new(),
            }),
        }
    }

    /// Records that the store doesn't know a session of that user; returns whether that is a reason
    /// to ask about others.
    pub(super) fn note(&self, user: &UserId) -> bool {
        let mut suspects = lock(&self.suspects);
        if suspects.since.elapsed() >= self.period {
            *suspects = Suspects {
                since: Stopwatch::start(),
                users: Vec::new(),
            };
        }
        if suspects.users.contains(user) || suspects.users.len() >= MAX_SUSPECTS {
            return false;
        }
        suspects.users.push(user.clone());
        true
    }

    /// The users recorded in this period.
    pub(super) fn users(&self) -> Vec<UserId> {
        let suspects = lock(&self.suspects);
        suspects.users.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_user_is_a_reason_once_a_period_and_four_of_them_at_most() {
        let suspicion = Suspicion::new(Duration::from_secs(10));
        let user = |number: usize| UserId::parse(&number.to_string()).unwrap();
        for round in 0..2 {
            let reasons = (0..6).filter(|number| suspicion.note(&user(*number)));
            assert_eq!(reasons.count(), MAX_SUSPECTS, "{round}");
            assert!((0..6).all(|number| !suspicion.note(&user(number))));
            assert_eq!(suspicion.users().len(), MAX_SUSPECTS);
            tokio::time::advance(Duration::from_secs(10)).await;
        }
    }
}
