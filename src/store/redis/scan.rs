//! Everybody's sessions, page by page: steps through the keys of the database, and the rosters found on the way.
//!
//! Redis does one thing at a time, so that a command which takes long holds up every check. Hence `SCAN` in small steps, never `KEYS`;
//! a bounded number of steps for a page, however few of our keys there are among others'; and a page that ends before it is full
//! rather than later. A step is one call, `SCAN` and then `MGET`, under the deadline of every call; once a page has taken as
//! long as one call may, it begins no further step. So a page takes two deadlines at most.
//!
//! `SCAN` shows what is there all the while at least once, and may show it again where the server's table of keys grows or shrinks
//! meanwhile; within a page it is left out then. Its cursors are the server's own: any number is one.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::try_join;
use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, RedisError};

use super::RedisStore;
use super::codec::record::{Malformed, decode_roster};
use crate::clock::Stopwatch;
use crate::session::{Session, Timestamp, UserId};
use crate::store::{Cursor, Page, StoreError};
use crate::util::Throttle;

/// How many steps a page takes at most.
const MOST_STEPS: usize = 10;

/// How many users a step is meant to find at most: Redis hands out so many rosters in a fraction of a millisecond.
const MOST_USERS: usize = 200;

/// How many keys a step looks at, about, at most, where most are others': Redis passes over so many in a fraction of a millisecond too.
const MOST_KEYS: usize = 1000;

/// How much further the next step goes where a step has found less than such a part of what it was meant to.
const STRETCH: usize = 4;

/// How often it is said that there is something else at our keys.
const REMINDER: Duration = Duration::from_secs(60);

/// What one step has found.
struct ScanStep {
    /// The server's time, if it was asked for.
    time: Option<Timestamp>,
    /// Where the next step begins; 0 if there is none.
    next: u64,
    /// Whose rosters there are.
    users: Vec<UserId>,
    /// The rosters, in the same order; nothing where there is none any more, or something that is no string.
    rosters: Vec<Option<Vec<u8>>>,
}

/// Says how far the next step goes, so that a page becomes neither much longer than it is meant to be nor takes more steps than it must.
#[derive(Debug)]
struct Pace {
    /// How many sessions the page is to hold.
    size: usize,
    /// About how many keys there are to each of ours.
    stretch: usize,
}

impl Pace {
    /// About how many keys the next step is to look at, if there are so many sessions already. Users have one to three sessions mostly,
    /// so half of what is missing is asked for, and the page ends not far behind its size.
    fn keys(&self, sessions: usize) -> usize {
        let missing = self.size.saturating_sub(sessions) / 2;
        let users = missing.max(self.size / 8).clamp(1, MOST_USERS);
        users.saturating_mul(self.stretch).min(MOST_KEYS)
    }

    /// Takes note that so many of the keys that were asked for were ours.
    const fn note(&mut self, keys: usize, ours: usize) {
        if ours < (keys / self.stretch).div_ceil(STRETCH) {
            self.stretch = self.stretch.saturating_mul(STRETCH);
        }
    }
}

/// Says once in a while that there is something at our keys that can't be read.
#[derive(Debug)]
pub(super) struct Unread(Throttle);

impl Default for Unread {
    fn default() -> Self {
        Self(Throttle::every(REMINDER))
    }
}

impl Unread {
    /// It was left out of a page. One such key must not hide everybody else from the operator: the page goes on, and calls about that
    /// user fail and say so.
    fn note(&self, user: &UserId, reason: Malformed) {
        if self.0.is_due() {
            tracing::warn!(user.id = user.as_str(), %reason, "what is at a user's key can't be read; the listing leaves it out");
        }
    }
}

impl RedisStore {
    /// The page that begins there.
    pub(super) async fn page_from(&self, from: &Cursor, size: usize) -> Result<Page, StoreError> {
        let begun = Stopwatch::start();
        let mut time = self.clock.as_ref().map(|clock| clock.now());
        let mut pace = Pace { size, stretch: 1 };
        let (mut place, mut entries, mut shown) = (from.place, Vec::new(), HashSet::new());
        for _ in 0..MOST_STEPS {
            let keys = pace.keys(entries.len());
            let found = self.step(place, keys, time).await?;
            time = time.or(found.time);
            place = found.next;
            pace.note(keys, found.users.len());
            entries.extend(self.live(found, time.unwrap_or_default(), &mut shown)?);
            if place == 0 || entries.len() >= size || begun.elapsed() >= self.connection.deadline()
            {
                break;
            }
        }
        Ok(Page {
            entries,
            next: (place != 0).then(|| Cursor::at(place)),
            taken_at: time.unwrap_or_default(),
        })
    }

    /// Looks at about so many keys, and reads those that are ours. Asks for the time too unless that is known.
    async fn step(
        &self,
        place: u64,
        keys: usize,
        time: Option<Timestamp>,
    ) -> Result<ScanStep, StoreError> {
        self.connection
            .call(async |link| {
                let scan = ask(&link, "SCAN", |scan| {
                    scan.arg(place).arg("MATCH").arg(self.keys.pattern());
                    scan.arg("COUNT").arg(keys);
                });
                let (time, (next, keys)): (_, (u64, Vec<Vec<u8>>)) =
                    try_join!(time_unless(&link, time), scan)?;
                let ours = |key: Vec<u8>| self.keys.user_of(&key).map(|user| (key, user));
                let (keys, users): (Vec<_>, Vec<_>) = keys.into_iter().filter_map(ours).unzip();
                let rosters = match keys.is_empty() {
                    true => Vec::new(),
                    // `GET` would fail where there is something else than a string.
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

    /// The sessions that were found and live at that time, of users who have not been shown yet.
    fn live(
        &self,
        found: ScanStep,
        time: Timestamp,
        shown: &mut HashSet<UserId>,
    ) -> Result<Vec<(UserId, Session)>, StoreError> {
        if found.rosters.len() != found.users.len() {
            let text = "it was asked for some keys and answered with another number of values";
            return Err(StoreError::Protocol(text.to_owned()));
        }
        let mut live = Vec::new();
        for (user, roster) in found.users.into_iter().zip(found.rosters) {
            if !shown.insert(user.clone()) {
                continue;
            }
            match decode_roster(&roster.unwrap_or_default()) {
                Ok(roster) => {
                    let sessions = roster.sessions.into_iter();
                    let sessions = sessions.filter(|session| session.expires_at > time);
                    live.extend(sessions.map(|session| (user.clone(), session)));
                }
                Err(reason) => self.unread.note(&user, reason),
            }
        }
        Ok(live)
    }
}

/// The server's time, unless it is known.
async fn time_unless(
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

/// Asks with a command that is no script.
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
    fn a_page_that_is_meant_to_be_short_takes_short_steps_and_none_a_long_one() {
        let pace = |size| Pace { size, stretch: 1 };
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
    fn where_others_keys_are_many_steps_grow_and_where_they_are_few_they_do_not() {
        let mut pace = Pace {
            size: 8,
            stretch: 1,
        };
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
