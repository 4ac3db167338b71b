//! The ledger's background work: renews held leases, syncs sessions and ends with the store, probes
//! shards that don't answer, and detects shards that have lost data.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;
use tracing::warn;

use super::lease_cache::{End, Unsynced};
use super::shards::KnownShard;
use super::suspicion::{PROOF, SAMPLE};
use super::{Ledger, Outage};
use crate::identity::{Kind, SessionKey, UserId};
use crate::session::{Ending, Released, Renewal};
use crate::store::{Seen, Shard};
use crate::telemetry::metrics::Operation;

/// How many sessions are renewed at a time.
const RENEWED_AT_A_TIME: usize = 256;

/// How many users are synced at a time.
const TOLD_AT_A_TIME: usize = 64;

/// The pause after that: with [`TOLD_AT_A_TIME`], at most some 6,000 users a second, so that a
/// store that has just come back isn't flooded.
const TOLD_PAUSE: Duration = Duration::from_millis(10);

/// The pause after a failed sync.
pub(super) const TOLD_IN_VAIN_PAUSE: Duration = Duration::from_millis(500);

/// The pause between two probes; up to half of it is subtracted at random.
const PROBE_PAUSE: Duration = Duration::from_millis(150);

/// The result of reporting many running streams to the store.
#[derive(Default)]
struct SyncResult<'a> {
    /// How many of them the store didn't know.
    unknown: usize,
    /// Those whose report failed.
    untold: Vec<&'a Seen>,
    /// The error of one of those.
    outage: Option<Outage>,
}

impl Ledger {
    /// Runs the background work until dropped.
    pub async fn run_background(&self) {
        tokio::join!(
            self.keep_renewed(),
            self.keep_synced(),
            self.mind_store(),
            self.mind_access_log(),
            self.statistics.run(self.store.notes(), &self.metrics)
        );
    }

    /// Renews the sessions that are due, many at a time. No shard waits for another.
    async fn keep_renewed(&self) {
        loop {
            self.cache.due_arrived.notified().await;
            tokio::time::sleep(self.cache.gathering()).await;
            let mut due: HashMap<Shard, Vec<_>> = HashMap::new();
            for (user, key) in self.cache.take_due() {
                let shard = self.store.shard_of(&user);
                due.entry(shard).or_default().push((user, key));
            }
            join_all(due.values().map(|due| self.renew_held(due))).await;
        }
    }

    /// Renews these sessions of one shard. One that can't be renewed stays until the end of its
    /// lease, and its next request asks the store.
    async fn renew_held(&self, due: &[(UserId, SessionKey)]) {
        for some in due.chunks(RENEWED_AT_A_TIME) {
            let seen: Vec<Seen> = some
                .iter()
                .filter_map(|(user, key)| self.cache.sighting(user, key))
                .collect();
            for seen in self.tell_all_running(&seen).await.untold {
                self.cache.not_renewed(&seen.user, &seen.sighting.key);
            }
        }
    }

    /// Reports many running streams of one shard to the store, and caches its answers.
    async fn tell_all_running<'a>(&self, seen: &'a [Seen]) -> SyncResult<'a> {
        let mut told = SyncResult::default();
        let Some(first) = seen.first() else {
            return told;
        };
        let stamps: Vec<_> = seen
            .iter()
            .map(|seen| self.cache.version(&seen.user))
            .collect();
        seen.iter().for_each(|seen| self.renews_itself(seen));
        let asked = self
            .timed(Operation::RenewAll, &first.user, || async {
                let answers = self.store.renew_all(seen).await;
                let mut failed = None;
                for ((seen, version), answer) in seen.iter().zip(stamps).zip(answers) {
                    match answer {
                        Ok(renewal) => {
                            self.note_renewal(seen, version, &renewal);
                            if matches!(renewal, Renewal::PutBack { .. }) {
                                told.unknown += 1;
                                self.take_back_again(seen);
                            }
                        }
                        Err(error) => {
                            failed = Some(error);
                            told.untold.push(seen);
                        }
                    }
                }
                match failed {
                    // An error about one user doesn't mean that the store is down.
                    Some(error) if told.untold.len() < seen.len() => Ok(Some(error)),
                    Some(error) => Err(error),
                    None => Ok(None),
                }
            })
            .await;
        match asked {
            Ok(failed) => told.outage = failed.map(Outage::from),
            // The store was not asked at all, or failed for each of them.
            Err(outage) => {
                (told.untold, told.outage) = (seen.iter().collect(), Some(outage));
            }
        }
        told
    }

    /// A report from memory has put a session back. If its caller has left meanwhile, the store took
    /// back a start that it didn't know, and remembers nothing of it. Ends it in a way that lets the
    /// caller ask again.
    fn take_back_again(&self, seen: &Seen) {
        let Seen { user, sighting, .. } = seen;
        if sighting.key.kind == Kind::Request && !self.cache.knows(user, &sighting.key) {
            let now = self.now();
            self.cache
                .ended_untold(user, &sighting.key, Ending::Vouched, now);
        }
    }

    /// Syncs with the shards that answer, at a bounded rate. What the others must learn waits.
    async fn keep_synced(&self) {
        let mut shards = self.shards.watch();
        loop {
            let users = self
                .cache
                .take_queued(TOLD_AT_A_TIME, |user| self.is_store_up(user));
            if users.is_empty() {
                tokio::select! {
                    () = self.cache.unsynced_arrived.notified() => {}
                    // The sender lives as long as the ledger.
                    _ = shards.changed() => self.cache.requeue(),
                }
                continue;
            }
            let synced = join_all(users.iter().map(|user| self.settle(user))).await;
            // An answer that was void because another session was released meanwhile is requested
            // again.
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

    /// Syncs a user's ends and then their sessions.
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

    /// Syncs a user's ends.
    ///
    /// # Errors
    /// The store could not answer.
    pub(super) async fn settle_ends(&self, user: &UserId) -> Result<(), Outage> {
        match self.cache.unsynced(user) {
            Some(unsynced) => self.tell_ends(user, &unsynced.ends).await,
            None => Ok(()),
        }
    }

    /// Reports these ends to the store.
    ///
    /// # Errors
    /// The store could not answer.
    async fn tell_ends(&self, user: &UserId, ends: &[End]) -> Result<(), Outage> {
        let told = ends.iter().map(|end| self.tell_end(user, end));
        let mut failed = None;
        for (end, told) in ends.iter().zip(join_all(told).await) {
            match told {
                Ok(Released::Freed) => {
                    self.metrics.release(end.ending);
                    self.statistics.released();
                }
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

    /// Reports this end to the store. If the session seems to have started after the end was
    /// reported, it may be a start of our own that the store has executed late: takes that one back.
    ///
    /// # Errors
    /// The store could not answer.
    async fn tell_end(&self, user: &UserId, end: &End) -> Result<Released, Outage> {
        let told = async || {
            let age = self.now().since(end.said_at);
            let ending = (end.ending, None);
            self.tell_ended(user, &end.key, ending, age).await
        };
        let released = told().await?;
        let is_real = !matches!(end.ending, Ending::Undone(_) | Ending::Failed);
        let own_start = end.ticket.filter(|_| is_real);
        let (Released::Kept, Some(ticket)) = (&released, own_start) else {
            return Ok(released);
        };
        let undoing = (Ending::Undone(ticket), None);
        let undone = self
            .tell_ended(user, &end.key, undoing, Duration::ZERO)
            .await?;
        if undone == Released::Freed {
            // The store remembers the end, so that no sign of life puts the session back.
            told().await?;
        }
        Ok(undone)
    }

    /// Syncs everything, as far as possible, before the process exits. Each user is tried once.
    pub async fn settle_all(&self) {
        loop {
            let users = self
                .cache
                .take_queued(TOLD_AT_A_TIME, |user| self.is_store_up(user));
            if users.is_empty() {
                return;
            }
            join_all(users.iter().map(|user| self.settle(user))).await;
        }
    }

    /// Minds each shard for as long as it has users.
    async fn mind_store(&self) {
        let mut minding = FuturesUnordered::new();
        loop {
            let unminded = self.shards.take_unminded().into_iter();
            minding.extend(unminded.map(|known| self.mind_shard(known)));
            tokio::select! {
                () = self.shards.unminded_arrived.notified() => {}
                Some(()) = minding.next() => {}
            }
        }
    }

    /// Minds one shard until it has no users any more.
    async fn mind_shard(&self, known: Arc<KnownShard>) {
        let minding = async { tokio::join!(self.mind_outages(&known), self.clear_doubts(&known)) };
        tokio::select! {
            () = known.gone.cancelled() => {}
            _ = minding => {}
        }
    }

    /// Probes a shard that doesn't answer until it does, and then checks whether it has lost data.
    async fn mind_outages(&self, known: &KnownShard) {
        let mut up = known.breaker.watch();
        loop {
            self.outage(known, &mut up).await;
            while !*up.borrow_and_update() {
                self.probe_shard(known).await;
                if !*up.borrow() {
                    // Another may have been promoted in its place.
                    self.shards.follow(self.store.shards());
                    rest_between_probes().await;
                }
            }
            // It may have come back empty.
            self.wiring.forget();
            self.look_for_loss(known).await;
        }
    }

    /// Waits until a shard is down: calls show it, or the store reports it. A failed probe is
    /// repeated soon, because an idle instance would otherwise notice too late.
    async fn outage(&self, known: &KnownShard, up: &mut watch::Receiver<bool>) {
        loop {
            tokio::select! {
                () = async { drop(up.wait_for(|up| !*up).await) } => return,
                lost = self.store.outage(&known.shard) => self.shards.note_loss(known, &lost),
                () = known.breaker.probe_failed() => {
                    rest_between_probes().await;
                    self.probe_shard(known).await;
                }
            }
        }
    }

    /// Asks a shard about a few users. If two of them are unknown to it, it has lost all data.
    async fn look_for_loss(&self, known: &KnownShard) {
        let is_there = |user: &UserId| self.store.shard_of(user) == known.shard;
        let except = known.suspicion.users();
        let sample = self.cache.sample(SAMPLE, &except, is_there);
        // Sessions whose report fails now ask at their next request.
        if self.tell_all_running(&sample).await.unknown >= PROOF {
            self.note_forgetting(known);
        }
    }

    /// Records that the store didn't know a session that it should have counted: the user's other
    /// sessions are reported, and their shard is asked about some other users'.
    pub(super) fn suspect_loss(&self, user: &UserId, key: &SessionKey) {
        self.cache.unsync_others(user, key);
        let known = self.shard_of(user);
        if known.suspicion.note(user) {
            known.doubted.notify_one();
        }
    }

    /// Asks the store about all sessions of a user but that one; returns whether it has lost any.
    pub(super) async fn has_forgotten_others(&self, user: &UserId, key: &SessionKey) -> bool {
        let seen = self.cache.beside(user, key);
        let told = seen.iter().map(|seen| self.tell_running(seen));
        let answers = join_all(told).await;
        answers
            .iter()
            .any(|answer| matches!(answer, Ok(Renewal::PutBack { .. })))
    }

    /// Checks whether a shard has lost data, whenever it didn't know a session that it should have
    /// counted.
    async fn clear_doubts(&self, known: &KnownShard) {
        loop {
            known.doubted.notified().await;
            self.look_for_loss(known).await;
        }
    }

    /// Asks the store about `request` sessions that started here, to see whether Envoy's access log
    /// arrives.
    async fn mind_access_log(&self) {
        loop {
            let begun = self.wiring.next().await;
            match self.list(&begun.user).await {
                Ok(listing) => self.wiring.judge(&begun, &listing.sessions, &self.metrics),
                // A store that can't answer reveals nothing about the log.
                Err(_) => self.wiring.exclude(&begun.user, &begun.key),
            }
        }
    }

    /// A shard has lost data: schedules the held sessions of its users for reporting, and their
    /// recent ends, of which it may lack some as well.
    fn note_forgetting(&self, known: &KnownShard) {
        if known.forgot.is_due() {
            let shard = known.shard.name();
            warn!(
                shard,
                "the store lost live sessions; re-announcing all cached sessions"
            );
        }
        self.metrics.store_forgot();
        self.wiring.forget();
        let is_there = |user: &UserId| self.store.shard_of(user) == known.shard;
        let now = self.now();
        for end in self.recent_ends.of(is_there, now) {
            // What runs under that key now has started again since.
            if !self.cache.counts(&end.user, &end.key) {
                self.cache
                    .ended_untold(&end.user, &end.key, end.ending, end.said_at);
            }
        }
        self.cache.unsync_all(is_there);
    }
}

/// Waits between two probes.
async fn rest_between_probes() {
    let pause = PROBE_PAUSE.mul_f64(rand::random_range(0.5..1.0));
    tokio::time::sleep(pause).await;
}
