//! Many renewals at once, on one server or in a cluster.

use std::iter;

use futures_util::future::join_all;

use super::RedisStore;
use super::codec::{record, reply};
use super::route::RedisRoute;
use crate::session::Renewal;
use crate::store::{Seen, Store, StoreError};

/// How many renewals go into one call: enough that the overhead of a call hardly matters, and few
/// enough that Redis, which is single-threaded, finishes within a tenth of a millisecond.
const BATCH: usize = 32;

impl RedisStore {
    /// Renews these sessions: a call for every [`BATCH`] of them, all at once.
    pub(super) async fn renew_in_batches(&self, seen: &[Seen]) -> Vec<Result<Renewal, StoreError>> {
        let batches = seen.chunks(BATCH).map(|batch| self.renew_in_batch(batch));
        join_all(batches).await.into_iter().flatten().collect()
    }

    /// Renews a batch: as many as possible in one call, the others in calls of their own.
    async fn renew_in_batch(&self, seen: &[Seen]) -> Vec<Result<Renewal, StoreError>> {
        let renewals = match self.renew_batch(seen).await {
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

    /// Renews those sessions of a batch that can be renewed in place; `None` marks one that needs a
    /// call of its own.
    ///
    /// A cluster refuses a call whose keys are in several slots. There the first user's key leads to
    /// the master, and the others are arguments. What this master doesn't own is refused by itself.
    async fn renew_batch(&self, seen: &[Seen]) -> Result<Vec<Option<Renewal>>, StoreError> {
        let question = seen.iter().fold(self.question(), |question, seen| {
            question.lease(seen.sighting.lease.min(self.longest_lease))
        });
        let users = seen.iter().map(|seen| self.keys.roster(&seen.user));
        let sessions = seen
            .iter()
            .map(|seen| record::encode_key(&seen.sighting.key));
        let (users, sessions): (Vec<_>, Vec<_>) = (users.collect(), sessions.collect());
        let keys = match self.route {
            RedisRoute::One(_) => users.len(),
            RedisRoute::Cluster(_) => users.len().min(1),
        };
        let (keys, others) = users.split_at(keys);
        let sessions = sessions.iter().map(Vec::as_slice);
        let arguments: Vec<&[u8]> = iter::once(&*question.rest)
            .chain(sessions)
            .chain(others.iter().map(String::as_bytes))
            .collect();
        let Some(first) = keys.first() else {
            return Ok(Vec::new());
        };
        let script = &self.scripts.renew_all;
        let act = |link| script.call(link, keys, &arguments);
        reply::renewals(&self.route.call(first, act).await?, seen.len())
    }
}
