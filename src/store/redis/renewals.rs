//! Many renewals at once, on one server or in a cluster.

use std::collections::BTreeMap;
use std::iter;

use futures_util::future::join_all;

use super::RedisStore;
use super::codec::{record, reply};
use super::connection::RedisConnection;
use super::route::CallLink;
use crate::session::Renewal;
use crate::store::{Seen, Shard, Store, StoreError};

/// How many renewals go into one call: enough that the overhead of a call hardly matters, and few
/// enough that Redis, which is single-threaded, finishes within a tenth of a millisecond.
const BATCH: usize = 32;

/// How many renewals a master of a cluster gets at a time, so that a start waits for some of them
/// and not for all.
const AT_A_TIME: usize = 256;

impl RedisStore {
    /// Renews these sessions on one server: a call for every [`BATCH`] of them, all at once.
    pub(super) async fn renew_in_batches(
        &self,
        server: &RedisConnection,
        seen: &[Seen],
    ) -> Vec<Result<Renewal, StoreError>> {
        let batches = seen.chunks(BATCH);
        let batches = batches.map(|batch| self.renew_in_batch(server, batch));
        join_all(batches).await.into_iter().flatten().collect()
    }

    /// Renews those sessions of a batch that can be renewed in place, on one server; `None` marks
    /// one that needs a call of its own.
    async fn renew_batch(
        &self,
        server: &RedisConnection,
        seen: &[Seen],
    ) -> Result<Vec<Option<Renewal>>, StoreError> {
        let question = seen.iter().fold(self.question(), |question, seen| {
            question.lease(seen.sighting.lease.min(self.longest_lease))
        });
        let users = seen.iter().map(|seen| self.keys.roster(&seen.user));
        let keys = seen
            .iter()
            .map(|seen| record::encode_key(&seen.sighting.key));
        let (users, keys): (Vec<_>, Vec<_>) = (users.collect(), keys.collect());
        let keys = keys.iter().map(Vec::as_slice);
        let arguments: Vec<&[u8]> = iter::once(&*question.rest).chain(keys).collect();
        let script = &self.scripts.renew_all;
        let act = |link| {
            script.call(
                CallLink {
                    link,
                    asking: false,
                },
                &users,
                &arguments,
            )
        };
        reply::renewals(&server.call(act).await?, seen.len())
    }

    /// Renews a batch: as many as possible in one call, the others in calls of their own.
    async fn renew_in_batch(
        &self,
        server: &RedisConnection,
        seen: &[Seen],
    ) -> Vec<Result<Renewal, StoreError>> {
        let renewals = match self.renew_batch(server, seen).await {
            Ok(renewals) => renewals,
            Err(error) => return vec![Err(error); seen.len()],
        };
        join_all(
            renewals
                .into_iter()
                .zip(seen)
                .map(async |(renewal, seen)| match renewal {
                    Some(renewal) => Ok(renewal),
                    None => self.renew(&seen.user, &seen.sighting, seen.limit).await,
                }),
        )
        .await
    }

    /// Renews each session by a call of its own, as in a cluster, where a call can't have keys of
    /// several users. The connections join them into few writes. No master gets more than
    /// [`AT_A_TIME`] of them at once, and none waits for another master.
    pub(super) async fn renew_each(&self, seen: &[Seen]) -> Vec<Result<Renewal, StoreError>> {
        let mut shards: BTreeMap<Shard, Vec<_>> = BTreeMap::new();
        for (place, seen) in seen.iter().enumerate() {
            let shard = self.shard_of(&seen.user);
            shards.entry(shard).or_default().push((place, seen));
        }
        let renew = async |(place, seen): &(usize, &Seen)| {
            let renewal = self.renew(&seen.user, &seen.sighting, seen.limit);
            (*place, renewal.await)
        };
        let at_one = async |seen: Vec<_>| {
            let mut renewed = Vec::with_capacity(seen.len());
            for some in seen.chunks(AT_A_TIME) {
                renewed.extend(join_all(some.iter().map(renew)).await);
            }
            renewed
        };
        let renewed = join_all(shards.into_values().map(at_one)).await;
        let mut renewed: Vec<_> = renewed.into_iter().flatten().collect();
        renewed.sort_unstable_by_key(|(place, _)| *place);
        renewed.into_iter().map(|(_, renewal)| renewal).collect()
    }
}
