//! What the ledger does beside its calls: renews held leases in the background, tells the store what it is yet to be told, probes a store
//! that doesn't answer, and finds out whether it has forgotten.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;
use tracing::warn;

use super::lease_cache::{End, Unsynced};
use super::suspicion::{PROOF, SAMPLE};
use super::{Ledger, Outage};
use crate::identity::{SessionKey, UserId};
use crate::session::{Released, Renewal};
use crate::store::Seen;
use crate::telemetry::metrics::Operation;

/// How many sessions are renewed at a time.
const RENEWED_AT_A_TIME: usize = 256;

/// How many users the store is told of at a time.
const TOLD_AT_A_TIME: usize = 64;

/// The pause after that: with [`TOLD_AT_A_TIME`], at most some 6,000 users a second, so that a store which has just come back isn't flooded.
const TOLD_PAUSE: Duration = Duration::from_millis(10);

/// The pause after the store could not be told.
pub(super) const TOLD_IN_VAIN_PAUSE: Duration = Duration::from_millis(500);

/// The pause between two probes, but for up to half of it, taken off at random.
const PROBE_PAUSE: Duration = Duration::from_millis(150);

/// What came of telling the store about many running streams.
#[derive(Default)]
struct SyncResult<'a> {
    /// How many of them it did not know.
    unknown: usize,
    /// Those that it could not be told about.
    untold: Vec<&'a Seen>,
    /// Why, for one of those.
    outage: Option<Outage>,
}

impl Ledger {
    /// Does what is to be done beside the calls, until it is dropped.
    pub async fn run_background(&self) {
        tokio::join!(
            self.keep_renewed(),
            self.keep_synced(),
            self.mind_store(),
            self.clear_doubts(),
            self.mind_access_log()
        );
    }

    /// Renews what is due, many at a time.
    async fn keep_renewed(&self) {
        loop {
            self.cache.due_arrived.notified().await;
            tokio::time::sleep(self.cache.gathering()).await;
            let due = self.cache.take_due();
            for some in due.chunks(RENEWED_AT_A_TIME) {
                self.renew_held(some).await;
            }
        }
    }

    /// Renews some sessions. One that can't be goes on to its lease's end, and its next request asks.
    async fn renew_held(&self, due: &[(UserId, SessionKey)]) {
        let seen: Vec<Seen> = due
            .iter()
            .filter_map(|(user, key)| self.cache.sighting(user, key))
            .collect();
        for seen in self.tell_all_running(&seen).await.untold {
            self.cache.not_renewed(&seen.user, &seen.sighting.key);
        }
    }

    /// Tells the store about many running streams, and holds what it answers.
    async fn tell_all_running<'a>(&self, seen: &'a [Seen]) -> SyncResult<'a> {
        let mut told = SyncResult::default();
        if seen.is_empty() {
            return told;
        }
        let stamps: Vec<_> = seen
            .iter()
            .map(|seen| self.cache.version(&seen.user))
            .collect();
        seen.iter().for_each(|seen| self.renews_itself(seen));
        let asked = self
            .timed(Operation::RenewAll, || async {
                let answers = self.store.renew_all(seen).await;
                let mut failed = None;
                for ((seen, version), answer) in seen.iter().zip(stamps).zip(answers) {
                    match answer {
                        Ok(renewal) => {
                            told.unknown += usize::from(matches!(renewal, Renewal::PutBack { .. }));
                            self.note_renewal(seen, version, &renewal);
                        }
                        Err(error) => {
                            failed = Some(error);
                            told.untold.push(seen);
                        }
                    }
                }
                match failed {
                    // One user's trouble is not the store's.
                    Some(error) if told.untold.len() < seen.len() => Ok(Some(error)),
                    Some(error) => Err(error),
                    None => Ok(None),
                }
            })
            .await;
        match asked {
            Ok(failed) => told.outage = failed.map(Outage::from),
            // It was not asked at all, or has failed with each.
            Err(outage) => {
                (told.untold, told.outage) = (seen.iter().collect(), Some(outage));
            }
        }
        told
    }

    /// Tells the store, whenever it answers, what it is yet to be told, at a bounded rate.
    async fn keep_synced(&self) {
        let mut up = self.breaker.watch();
        loop {
            // It lives as long as the ledger does.
            drop(up.wait_for(|up| *up).await);
            let users = self.cache.take_queued(TOLD_AT_A_TIME);
            if users.is_empty() {
                self.cache.unsynced_arrived.notified().await;
                continue;
            }
            let synced = join_all(users.iter().map(|user| self.settle(user))).await;
            // What was answered while another session was released was not heeded, and is asked again.
            for user in users
                .iter()
                .filter(|user| self.cache.is_still_unsynced(user))
            {
                self.cache.enqueue(user);
            }
            let pause = if synced.iter().any(Result::is_err) {
                TOLD_IN_VAIN_PAUSE
            } else {
                TOLD_PAUSE
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Tells the store what it is yet to be told of a user, ends before sessions.
    ///
    /// # Errors
    /// The store could not answer.
    pub(super) async fn settle(&self, user: &UserId) -> Result<(), Outage> {
        let Some(Unsynced { ends, seen }) = self.cache.unsynced(user) else {
            return Ok(());
        };
        self.tell_ends(user, &ends).await?;
        let told = self.tell_all_running(&seen).await;
        told.outage.map_or(Ok(()), Err)
    }

    /// Tells the store what it is yet to be told of a user's ends.
    ///
    /// # Errors
    /// The store could not answer.
    pub(super) async fn settle_ends(&self, user: &UserId) -> Result<(), Outage> {
        match self.cache.unsynced(user) {
            Some(unsynced) => self.tell_ends(user, &unsynced.ends).await,
            None => Ok(()),
        }
    }

    /// Tells the store of these ends.
    ///
    /// # Errors
    /// The store could not answer.
    async fn tell_ends(&self, user: &UserId, ends: &[End]) -> Result<(), Outage> {
        let told = ends
            .iter()
            .map(|end| self.tell_ended(user, &end.key, end.ending, self.now().since(end.said_at)));
        let mut failed = None;
        for (end, told) in ends.iter().zip(join_all(told).await) {
            match told {
                Ok(Released::Freed) => self.metrics.release(end.ending),
                Ok(_) => {}
                Err(outage) => {
                    failed = Some(outage);
                    continue;
                }
            }
            self.cache.end_told(user, end);
        }
        failed.map_or(Ok(()), Err)
    }

    /// Tells the store all that it is yet to be told, as far as it can be: for who is about to end.
    pub async fn settle_all(&self) {
        loop {
            let users = self.cache.take_queued(TOLD_AT_A_TIME);
            let told = join_all(users.iter().map(|user| self.settle(user))).await;
            if users.is_empty() || told.iter().any(Result::is_err) {
                return;
            }
        }
    }

    /// Probes a store that doesn't answer until it does, and then looks whether it has forgotten.
    async fn mind_store(&self) {
        let mut up = self.breaker.watch();
        loop {
            self.outage(&mut up).await;
            while !*up.borrow_and_update() {
                self.probe().await;
                if !*up.borrow() {
                    rest_between_probes().await;
                }
            }
            // It may have come back empty.
            self.wiring.forget();
            self.look_for_loss().await;
        }
    }

    /// Waits until the store is out: its calls show it, or it reports so. A failed probe is repeated soon, because an idle instance would
    /// otherwise notice too late.
    async fn outage(&self, up: &mut watch::Receiver<bool>) {
        loop {
            tokio::select! {
                () = async { drop(up.wait_for(|up| !*up).await) } => return,
                lost = self.store.outage() => self.breaker.note_loss(&lost, &self.metrics),
                () = self.breaker.probe_failed() => {
                    rest_between_probes().await;
                    self.probe().await;
                }
            }
        }
    }

    /// Asks the store about a few users. If two of them are unknown to it, it has forgotten everybody.
    async fn look_for_loss(&self) {
        let sample = self.cache.sample(SAMPLE, &self.suspicion.users());
        // Sessions that the store can't be told of now ask at their next request.
        if self.tell_all_running(&sample).await.unknown >= PROOF {
            self.note_forgetting();
        }
    }

    /// Notes that the store did not know a session that it should have counted: its user's others are told, and some of other users are
    /// asked about.
    pub(super) fn suspect_loss(&self, user: &UserId, key: &SessionKey) {
        self.cache.unsync_others(user, key);
        if self.suspicion.note(user) {
            self.cache.doubted.notify_one();
        }
    }

    /// Asks the store about all sessions of a user but that one; whether it has forgotten any.
    pub(super) async fn has_forgotten_others(&self, user: &UserId, key: &SessionKey) -> bool {
        let seen = self.cache.beside(user, key);
        let told = seen.iter().map(|seen| self.tell_running(seen));
        let answers = join_all(told).await;
        answers
            .iter()
            .any(|answer| matches!(answer, Ok(Renewal::PutBack { .. })))
    }

    /// Looks whether the store has forgotten, whenever it did not know a session that it should have counted.
    async fn clear_doubts(&self) {
        loop {
            self.cache.doubted.notified().await;
            self.look_for_loss().await;
        }
    }

    /// Asks the store about `request` sessions that started here, to see whether Envoy's access log arrives.
    async fn mind_access_log(&self) {
        loop {
            let begun = self.wiring.next().await;
            match self.list(&begun.user).await {
                Ok(listing) => self.wiring.judge(&begun, &listing.sessions, &self.metrics),
                // A store that can't answer says nothing about the log.
                Err(_) => self.wiring.exclude(&begun.user, &begun.key),
            }
        }
    }

    /// The store has forgotten everybody: it is told of all that are held.
    pub(super) fn note_forgetting(&self) {
        if self.forgot.is_due() {
            warn!("the store lost live sessions; re-announcing all cached sessions");
        }
        self.metrics.store_forgot();
        self.wiring.forget();
        self.cache.unsync_all();
    }
}

/// Lets some time pass between two probes.
async fn rest_between_probes() {
    let pause = PROBE_PAUSE.mul_f64(rand::random_range(0.5..1.0));
    tokio::time::sleep(pause).await;
}
