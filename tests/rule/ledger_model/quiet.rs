//! What must hold once a history is over and the store answers. First the instances have nothing
//! left to tell. Then the streams that still ask, the store, the model and the instances agree.

use std::collections::BTreeSet;
use std::time::Duration;

use streamgate::clock::Stopwatch;
use streamgate::identity::{Kind, SessionKey, UserId};
use streamgate::ledger::ShardTally;

use super::history::{Door, INSTANCES, Manner, Viewer};
use super::instance::LEASES;
use super::meanwhile::{RECOVERY, TELLING};
use super::shared_store::Answer;
use super::trial::{Stream, Trial};
use super::witness::ALL_SHARDS;
use testkit::streams::key;

/// Longer than the pause after a ledger has told the store something in vain.
const TOLD_AGAIN: Duration = Duration::from_secs(1);

/// How long streams are watched: what nobody watches ends meanwhile.
const WATCHING: Duration = LEASES.playback.saturating_mul(2);

/// The pause between two requests of a stream that is watched.
const INTERVAL: Duration = Duration::from_secs(1);

impl Trial {
    /// Waits until all is quiet, and judges what is left.
    pub(super) async fn come_to_rest(&self) {
        for instance in &self.instances {
            instance.witness.heal(&ALL_SHARDS);
        }
        for (number, instance) in self.instances().enumerate() {
            let mut shards = instance.ledger.watch_store();
            let waited = tokio::time::timeout(RECOVERY, shards.wait_for(ShardTally::all_up)).await;
            if waited.is_err() {
                return self.wrong(format!("to instance {number} the store is out for ever"));
            }
        }
        let waiting = Stopwatch::start();
        while !self
            .instances()
            .all(|instance| instance.held_and_untold().1 == 0)
        {
            if waiting.elapsed() > TELLING {
                return self.wrong("not all is told".to_owned());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // The metrics don't show ends that the ledger has yet to tell.
        tokio::time::sleep(TOLD_AGAIN).await;
        self.no_end_is_untold().await;
        self.ends_have_stuck(self.shared.now()).await;
        self.watch().await;
        self.all_agree().await;
    }

    /// An end that an instance has yet to tell is told before anything else is asked of its user.
    async fn no_end_is_untold(&self) {
        for instance in 0..INSTANCES {
            for place in 0..self.users.len() {
                let nobody = Viewer {
                    instance,
                    user: place,
                    key: key(Kind::Video, "nobody"),
                };
                let (user, since) = (&self.users[place], self.notes().answered());
                self.ask(&nobody, &Manner::quiet(Door::Refresh)).await;
                let told: Vec<Answer> = self.notes().about_since(since, instance, user).collect();
                if told
                    .iter()
                    .any(|answer| matches!(answer, Answer::Released(_)))
                {
                    self.wrong(format!("instance {instance} had yet to tell {told:?}"));
                }
            }
        }
    }

    /// Every stream that was let in when it last asked, and counts until it asks again, asks each
    /// second.
    async fn watch(&self) {
        let mut watched = Vec::new();
        for (user, key) in self.named(|_, stream| stream.watching.is_some()) {
            if self.shared.live_in(&user, INTERVAL).await.contains(&key) {
                watched.push((user, key));
            }
        }
        self.streams().iter_mut().for_each(|(name, stream)| {
            if !watched.contains(name) {
                stream.watching = None;
            }
        });
        let watching = Stopwatch::start();
        while watching.elapsed() < WATCHING {
            for (user, key) in &watched {
                let asks = self
                    .streams()
                    .get(&(user.clone(), key.clone()))
                    .and_then(|stream| stream.watching.clone());
                let Some((viewer, manner)) = asks else {
                    continue;
                };
                let manner = Manner::quiet(manner.door);
                if !self.ask(&viewer, &manner).await {
                    self.is_explained(user, key);
                }
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// A stream that was watched has been refused.
    fn is_explained(&self, user: &UserId, key: &SessionKey) {
        let touched = !self
            .named(|name, stream| (&name.0, &name.1) == (user, key) && stream.touched)
            .is_empty();
        let displaced = self.notes().was_displaced(user, key);
        if self.is_calm() && !touched && !displaced {
            self.wrong(format!(
                "{key} of {user} was watched, and is refused for no reason"
            ));
        }
    }

    /// Who still watches is who counts, and whom the instances hold.
    async fn all_agree(&self) {
        for user in &self.users {
            let watching =
                self.named(|(name, _), stream| name == user && stream.watching.is_some());
            let watching: BTreeSet<String> =
                watching.iter().map(|(_, key)| key.to_string()).collect();
            let live = self.shared.live(user).await;
            let live: BTreeSet<String> = live.iter().map(ToString::to_string).collect();
            if watching != live {
                self.wrong(format!("of {user} {watching:?} watch, and {live:?} count"));
            }
            for instance in self.instances() {
                // The witness compares the answer with the model.
                let listed = instance.ledger.list(user).await;
                if let Err(outage) = listed {
                    self.wrong(format!("{outage} after the outage"));
                }
            }
        }
        for (number, instance) in self.instances().enumerate() {
            let watching = self.named(|_, stream| {
                let watching = stream.watching.as_ref();
                watching.is_some_and(|(viewer, _)| viewer.instance == number)
            });
            let ((held, untold), watching) = (instance.held_and_untold(), watching.len());
            if held != watching {
                self.wrong(format!(
                    "instance {number} holds {held}, and {watching} watch by it"
                ));
            }
            if untold > 0 || !instance.runs() {
                self.wrong(format!("instance {number} is not at rest"));
            }
        }
    }

    /// The streams of which that is so.
    pub(super) fn named(
        &self,
        is_so: impl Fn(&(UserId, SessionKey), &Stream) -> bool,
    ) -> Vec<(UserId, SessionKey)> {
        let streams = self.streams();
        let of_these = streams.iter().filter(|(name, stream)| is_so(name, stream));
        of_these.map(|(name, _)| name.clone()).collect()
    }
}

impl Manner {
    /// A stream that goes on.
    const fn quiet(door: Door) -> Self {
        Self {
            door,
            times: 1,
            takes_over: None,
            device: None,
            plays: true,
            leaves: false,
        }
    }
}
