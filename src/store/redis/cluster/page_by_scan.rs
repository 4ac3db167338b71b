//! All users' sessions in a cluster that forbids `CLUSTER GETKEYSINSLOT`: we `SCAN` one master after
//! the other. A slot that moves from a master that is yet to be scanned to one that has been scanned
//! is then missed, and the page says so.

use std::collections::BTreeSet;

use futures_util::future::join_all;

use super::Cluster;
use super::page::Filling;
use crate::clock::Stopwatch;
use crate::store::redis::RedisStore;
use crate::store::redis::scan::{MOST_STEPS, Pace, time_unless};
use crate::store::{Cursor, Page, StoreError};

/// What pages by `SCAN` may miss.
const SCANNED: &str = "the cluster forbids CLUSTER GETKEYSINSLOT; users whose slots moved to another server during the listing may be left out";

/// Marks a cursor of a page by `SCAN`. Then the next bits are the number of the master, and the
/// rest is its own cursor.
pub(super) const BY_SCAN: u64 = 1 << 63;

/// How many bits of a cursor are a master's own: a master's table of keys is never so large that
/// it needs more.
const OWN_BITS: u32 = 54;

impl RedisStore {
    /// The page by `SCAN` from that place on.
    pub(super) async fn page_by_scan(
        &self,
        cluster: &Cluster,
        place: u64,
        size: usize,
    ) -> Result<Page, StoreError> {
        let begun = Stopwatch::start();
        let map = cluster.map().await?;
        let own = (1 << OWN_BITS) - 1;
        let (mut number, mut place) = ((place & !BY_SCAN) >> OWN_BITS, place & own);
        let (mut page, mut pace) = (Filling::new(size), Pace::new(size));
        let (mut time, mut shown, mut next) = (self.now(), BTreeSet::new(), None);
        for _ in 0..MOST_STEPS {
            let index = usize::try_from(number).unwrap_or(usize::MAX);
            let Some(node) = map.masters().get(index) else {
                next = None;
                break;
            };
            let keys = pace.keys(page.entries.len());
            let act = async |link| {
                let time = time_unless(&link, time).await?;
                Ok((time, self.scan(&link, place, keys).await?))
            };
            let (now, (later, ours)) = cluster.call_node(node, act).await?;
            time = now;
            pace.note(keys, ours.len());
            let users = ours.into_iter().map(|(_, user)| (0, user));
            let users: Vec<_> = users.filter(|user| shown.insert(user.clone())).collect();
            // All of them, since a cursor of `SCAN` can't lead into the middle of a step.
            let rosters = users.iter().map(|(_, user)| self.roster(cluster, user));
            for ((_, user), roster) in users.iter().zip(join_all(rosters).await) {
                page.entries
                    .extend(self.live(user, roster?, time.unwrap_or_default()));
            }
            place = later & own;
            number += u64::from(later == 0);
            next = Some(Cursor::at(BY_SCAN | (number << OWN_BITS) | place));
            if page.is_full() || begun.elapsed() >= cluster.deadline() {
                break;
            }
        }
        let has_more = usize::try_from(number).is_ok_and(|number| number < map.masters().len());
        Ok(Page {
            entries: page.entries,
            next: next.filter(|_| has_more),
            taken_at: time.unwrap_or_default(),
            may_miss: Some(SCANNED),
        })
    }
}
