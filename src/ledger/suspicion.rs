//! Whose sessions the store did not know of late. That one user's are unknown proves nothing about anybody else's: that user's own doing can
//! bring it about. So an unknown session heals its user, and has a few of the others asked about; only if two of *them* are unknown has
//! the store forgotten everybody. However many unknown sessions one user has, they cause one such sample.

use std::sync::Mutex;
use std::time::Duration;

use crate::clock::Stopwatch;
use crate::identity::UserId;
use crate::util::lock;

/// How many distinct users cause a sample each within one period.
const MAX_SUSPECTS: usize = 4;

/// How many users the store is asked about at a time.
pub(super) const SAMPLE: usize = 16;

/// How many users of a sample must be unknown to the store to prove that it has forgotten everybody. One may be chance.
pub(super) const PROOF: usize = 2;

/// Whose sessions the store did not know of late.
#[derive(Debug)]
pub(super) struct Suspicion {
    /// How long a user is remembered.
    period: Duration,
    /// Those of the current period.
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
    /// Nobody yet, remembered for that long from now on.
    pub(super) fn new(period: Duration) -> Self {
        Self {
            period,
            suspects: Mutex::new(Suspects {
                since: Stopwatch::start(),
                users: Vec::new(),
            }),
        }
    }

    /// Notes that a session of that user is unknown to the store; whether that is a reason to ask about others.
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

    /// The users noted in this period.
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
