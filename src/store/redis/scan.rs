//! All users' sessions, page by page: steps through the keys of the database, and reads the rosters
//! among them.
//!
//! Redis is single-threaded, so a slow command delays every check. Hence we use `SCAN` in small
//! steps, never `KEYS`; a page takes a bounded number of steps, however few keys are ours; and it
//! ends before it is full rather than take longer. A step is one call, `SCAN` and then `MGET`,
//! under the deadline of every call; once a page has taken as long as one call may, it begins no
//! further step. So a page takes two deadlines at most.
//!
//! `SCAN` shows a key that exists all the while at least once, and may show it again if the
//! server's table of keys grows or shrinks meanwhile; within a page we skip repeats. Its cursors
//! are the server's own: any number is valid.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::try_join;
use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, RedisError};

use super::RedisStore;
use super::codec::record::{Malformed, decode_roster};
use super::connection::RedisConnection;
use crate::clock::{Stopwatch, Timestamp};
use crate::identity::UserId;
use crate::session::Session;
use crate::store::{Cursor, Page, StoreError};
use crate::util::Throttle;

/// The most steps that a page takes.
pub(super) const MOST_STEPS: usize = 10;

/// The most users that a step should find: Redis returns this many rosters in a fraction of a
/// millisecond.
const MOST_USERS: usize = 200;

/// Roughly the most keys that a step visits if most aren't ours: Redis also skips this many in a
/// fraction of a millisecond.
const MOST_KEYS: usize = 1000;

/// How much larger the next step is if a step found less than one part in this many of its target.
const STRETCH: usize = 4;

/// How often the log repeats that our keys hold something else.
const REMINDER: Duration = Duration::from_secs(60);

/// The result of one step.
struct ScanStep {
    /// The server's time, if requested.
    time: Option<Timestamp>,
    /// Where the next step begins; 0 if there is none.
    next: u64,
    /// The users of the rosters.
    users: Vec<UserId>,
    /// The rosters, in the same order; `None` if one no longer exists or is not a string.
    rosters: Vec<Option<Vec<u8>>>,
}

/// Sizes the next step, so that a page neither gets much longer than requested nor takes more steps
/// than necessary.
#[derive(Debug)]
pub(super) struct Pace {
    /// The requested number of sessions.
    size: usize,
    /// Approximately how many keys there are for each of ours.
    stretch: usize,
}

impl Pace {
    /// The pace of a page of that size, before its first step.
    pub(super) const fn new(size: usize) -> Self {
        Self { size, stretch: 1 }
    }

    /// Approximately how many keys the next step should visit, given the sessions found so far.
    /// Most users have one to three sessions, so we ask for half of what is missing, and the page
    /// ends soon after its size.
    pub(super) fn keys(&self, sessions: usize) -> usize {
        let missing = self.size.saturating_sub(sessions) / 2;
        let users = missing.max(self.size / 8).clamp(1, MOST_USERS);
        users.saturating_mul(self.stretch).min(MOST_KEYS)
    }

    /// Records how many of the visited keys were ours.
    pub(super) const fn note(&mut self, keys: usize, ours: usize) {
        if ours < (keys / self.stretch).div_ceil(STRETCH) {
            self.stretch = self.stretch.saturating_mul(STRETCH);
        }
    }
}

/// Reports from time to time that data at our keys can't be decoded.
#[derive(Debug)]
pub(super) struct Unread(Throttle);

impl Default for Unread {
    fn default() -> Self {
        Self(Throttle::every(REMINDER))
    }
}

impl Unread {
    /// Reports a user that was left out of a page. One such key must not hide all others from the
    /// operator: the page continues, and calls about that user fail and say why.
    fn note(&self, user: &UserId, reason: Malformed) {
        if self.0.is_due() {
            tracing::warn!(user.id = user.as_str(), %reason, "can't decode the data at a user's key; the listing leaves that user out");
        }
    }
}

impl RedisStore {
    /// The page from that cursor on, of one server.
    pub(super) async fn page_from(
        &self,
        server: &RedisConnection,
        from: &Cursor,
        size: usize,
    ) -> Result<Page, StoreError> {
        let begun = Stopwatch::start();
        let mut time = self.clock.as_ref().map(|clock| clock.now());
        let mut pace = Pace::new(size);
        let (mut place, mut entries, mut shown) = (from.place, Vec::new(), HashSet::new());
        for _ in 0..MOST_STEPS {
            let keys = pace.keys(entries.len());
            let found = self.step(server, place, keys, time).await?;
            time = time.or(found.time);
            place = found.next;
            pace.note(keys, found.users.len());
            if found.rosters.len() != found.users.len() {
                let text = "it returned another number of values than the keys in the question";
                return Err(StoreError::Protocol(text.to_owned()));
            }
            for (user, roster) in found.users.into_iter().zip(found.rosters) {
                if shown.insert(user.clone()) {
                    entries.extend(self.live(&user, roster, time.unwrap_or_default()));
                }
            }
            if place == 0 || entries.len() >= size || begun.elapsed() >= server.deadline() {
                break;
            }
        }
        Ok(Page {
            entries,
            next: (place != 0).then(|| Cursor::at(place)),
            taken_at: time.unwrap_or_default(),
            may_miss: None,
        })
    }

    /// Visits about that many keys and reads those that are ours. Also asks for the time unless it
    /// is known.
    async fn step(
        &self,
        server: &RedisConnection,
        place: u64,
        keys: usize,
        time: Option<Timestamp>,
    ) -> Result<ScanStep, StoreError> {
        server
            .call(async |link| {
                let (time, (next, keys)) =
                    try_join!(time_unless(&link, time), self.scan(&link, place, keys))?;
                let (keys, users): (Vec<_>, Vec<_>) = keys.into_iter().unzip();
                let rosters = match keys.is_empty() {
                    true => Vec::new(),
                    // `GET` would fail on a value that isn't a string.
                    false => ask(&link, "MGET", |get| _ = get.arg(keys)).await?,
                };
                Ok(ScanStep {
                    time,
                    next,
                    users,
                    rosters,
                })
            })
            .await
    }

    /// Visits about that many keys: where the next step begins, and the keys that are ours, with
    /// their users.
    pub(super) async fn scan(
        &self,
        link: &MultiplexedConnection,
        place: u64,
        keys: usize,
    ) -> Result<(u64, Vec<(Vec<u8>, UserId)>), RedisError> {
        let scan = ask(link, "SCAN", |scan| {
            scan.arg(place).arg("MATCH").arg(self.keys.pattern());
            scan.arg("COUNT").arg(keys);
        });
        let (next, keys): (u64, Vec<Vec<u8>>) = scan.await?;
        let ours = |key: Vec<u8>| self.keys.user_of(&key).map(|user| (key, user));
        Ok((next, keys.into_iter().filter_map(ours).collect()))
    }

    /// The sessions in a user's roster that are live at that time.
    pub(super) fn live(
        &self,
        user: &UserId,
        roster: Option<Vec<u8>>,
        time: Timestamp,
    ) -> Vec<(UserId, Session)> {
        match decode_roster(&roster.unwrap_or_default()) {
            Ok(roster) => {
                let sessions = roster.sessions.into_iter();
                let live = sessions.filter(|session| session.expires_at > time);
                live.map(|session| (user.clone(), session)).collect()
            }
            Err(reason) => {
                self.unread.note(user, reason);
                Vec::new()
            }
        }
    }
}

/// The server's time, unless it is known.
pub(super) async fn time_unless(
    link: &MultiplexedConnection,
    known: Option<Timestamp>,
) -> Result<Option<Timestamp>, RedisError> {
    if known.is_some() {
        return Ok(known);
    }
    let (seconds, micros): (u64, u64) = ask(link, "TIME", |_| ()).await?;
    let millis = seconds.saturating_mul(1000).saturating_add(micros / 1000);
    Ok(Some(Timestamp::from_millis(millis)))
}

/// Runs a plain command.
async fn ask<T: FromRedisValue>(
    link: &MultiplexedConnection,
    command: &str,
    with: impl FnOnce(&mut redis::Cmd),
) -> Result<T, RedisError> {
    let mut command = redis::cmd(command);
    with(&mut command);
    command.query_async(&mut link.clone()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_page_takes_short_steps() {
        let pace = Pace::new;
        for (size, sessions, keys) in [
            (0, 0, 1),
            (1, 0, 1),
            (7, 6, 1),
            (100, 0, 50),
            (100, 60, 20),
            (100, 90, 12),
            (100, 300, 12),
            (1000, 0, MOST_USERS),
            (usize::MAX, 0, MOST_USERS),
        ] {
            assert_eq!(pace(size).keys(sessions), keys, "{size}, {sessions}");
        }
    }

    #[test]
    fn steps_grow_only_among_many_foreign_keys() {
        let mut pace = Pace::new(8);
        for (ours, expected) in [
            (1, 4),
            (0, 16),
            (1, 16),
            (0, 64),
            (3, 64),
            (0, 256),
            (0, 1000),
        ] {
            pace.note(pace.keys(0), ours);
            assert_eq!(pace.keys(0), expected, "{ours}");
        }
        for _ in 0..100 {
            pace.note(MOST_KEYS, 0);
        }
        assert_eq!(pace.keys(8), MOST_KEYS);
    }
}
