//! The ends that the store acknowledged a moment ago.
//!
//! A replica that is promoted may lack the last of them, and then counts those streams until their
//! leases end. So a shard that has lost data is told of them again.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::identity::{SessionKey, UserId};
use crate::session::Ending;
use crate::util::lock;

/// How long an end is kept: longer than a master of a cluster that is cut off goes on taking writes
/// (`cluster-node-timeout`, 15 s by default).
const KEPT: Duration = Duration::from_secs(20);

/// How many are kept: some ten megabytes.
const ROOM: usize = 65_536;

/// An end that the store knows of.
#[derive(Debug, Clone)]
pub(super) struct RecentEnd {
    /// The user.
    pub(super) user: UserId,
    /// The session.
    pub(super) key: SessionKey,
    /// How it ended.
    pub(super) ending: Ending,
    /// When that was reported.
    pub(super) said_at: Timestamp,
}

/// The recent ends, by when the store was told.
#[derive(Debug, Default)]
pub(super) struct RecentEnds(Mutex<VecDeque<RecentEnd>>);

impl RecentEnds {
    /// Keeps an end for a while. When there is no room, the oldest one goes.
    pub(super) fn keep(&self, end: RecentEnd, now: Timestamp) {
        let mut kept = lock(&self.0);
        while kept.len() >= ROOM || kept.front().is_some_and(|first| is_old(first, now)) {
            kept.pop_front();
        }
        kept.push_back(end);
    }

    /// Those of some users.
    pub(super) fn of(&self, is_wanted: impl Fn(&UserId) -> bool, now: Timestamp) -> Vec<RecentEnd> {
        let kept = lock(&self.0);
        let recent = kept.iter().filter(|end| !is_old(end, now));
        recent.filter(|end| is_wanted(&end.user)).cloned().collect()
    }
}

/// Whether an end need not be kept any more.
fn is_old(end: &RecentEnd, now: Timestamp) -> bool {
    now.since(end.said_at) > KEPT
}
