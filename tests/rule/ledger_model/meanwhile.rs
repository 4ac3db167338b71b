//! What must hold while a history is played: before each step, and soon after each outage.

use std::sync::atomic::Ordering;
use std::time::Duration;

use streamgate::clock::{Stopwatch, Timestamp};

use super::instance::terms;
use super::trial::Trial;

/// How long an instance may need until it has told all: several of its pauses after failed calls,
/// and less than half a lease, so that what is never told is not over by then.
pub(super) const TELLING: Duration = Duration::from_secs(3);

/// How long an instance may need until it notices that the store answers again.
pub(super) const RECOVERY: Duration = Duration::from_secs(10);

impl Trial {
    /// In a calm history no instance counts a session that it knows to have ended, and what is over
    /// doesn't count.
    pub(super) async fn look(&self) {
        if !self.is_calm() {
            return;
        }
        let counted = self.counted_after_its_end();
        if let Some(counted) = counted {
            self.wrong(counted);
        }
        self.ends_have_stuck(self.shared.now().before(TELLING))
            .await;
    }

    /// A session that an instance counts, though it knows of its end.
    fn counted_after_its_end(&self) -> Option<String> {
        let notes = self.notes();
        let counted = notes
            .ended_sessions()
            .find(|(instance, user, key)| self.instance(*instance).ledger.may_count(user, key));
        counted.map(|known| format!("{known:?} has ended, and counts there"))
    }

    /// What is over since then or longer doesn't count.
    pub(super) async fn ends_have_stuck(&self, since: Timestamp) {
        let over = self.named(|_, stream| stream.over_since.is_some_and(|over| over <= since));
        for (user, key) in over {
            if self.shared.live(&user).await.contains(&key) {
                self.wrong(format!("{key} of {user} is over, and counts"));
            }
        }
    }

    /// Soon after an outage nothing is left to tell of it, unless there is trouble again.
    pub(super) async fn catches_up(&self) {
        let (began, waiting) = (self.shared.now(), Stopwatch::start());
        let troubles = self.troubles();
        if self.outages.load(Ordering::SeqCst) > 0 {
            // The one that ends last is judged.
            return;
        }
        let mut behind: Vec<_> = self.instances().collect();
        while waiting.elapsed() < TELLING {
            tokio::time::sleep(Duration::from_millis(100)).await;
            behind.retain(|instance| instance.untold_sessions() > 0);
        }
        if self.troubles() != troubles {
            return;
        }
        if !behind.is_empty() {
            self.wrong("some sessions were not reported after an outage".to_owned());
        }
        self.ends_are_told(began);
        self.ends_have_stuck(began).await;
    }

    /// Every end reported before that time has reached the store, as long as it can still matter.
    pub(super) fn ends_are_told(&self, before: Timestamp) {
        let from = self.shared.now().before(terms().memory);
        let owed = self.notes().owed_ends(from..before);
        if !owed.is_empty() {
            self.wrong(format!("the store has not heard of {owed:?}"));
        }
    }
}
