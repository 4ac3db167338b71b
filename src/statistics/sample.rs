//! A sample of the users and their streams, the same at every instance.
//!
//! A user is in the sample if the digest of their name begins with as many zero bits as the sample's
//! level. So all instances choose the same users, the samples of several instances can be joined
//! without counting anybody twice, and one sample yields every number: streams, users, users at
//! their limit, and each of them by kind, plan and content. At level 0 everybody is in it, and the
//! numbers are exact. At level `n` they are multiplied by 2ⁿ.
//!
//! It is fed by the store's answers, so its streams are those that the store counts.

use std::collections::HashMap;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::clock::Timestamp;
use crate::identity::{ContentId, Kind, PlanName, SessionKey, UserId};

/// How many streams of one user are kept. A user counts for no more.
const MOST_STREAMS: usize = 1024;

/// How many streams there is room for, for each user that there is room for.
const STREAMS_A_USER: usize = 4;

/// The sample.
#[derive(Debug)]
pub(super) struct Sample {
    /// The users, by the digest of their name.
    pub(super) users: HashMap<u64, SampledUser>,
    /// How many zero bits a digest must begin with.
    level: u32,
    /// Until when the sample may lack users of this level, because the level was higher before.
    incomplete_until: Timestamp,
    /// How many users there is room for.
    room: usize,
    /// About how many streams there are; exact after [`Self::sweep`].
    streams: usize,
}

/// A user in the sample.
#[derive(Debug, Default)]
pub(super) struct SampledUser {
    /// How many streams the user may watch at once.
    pub(super) limit: u32,
    /// The user's plan, if a start has named it and the policy has it.
    pub(super) plan: Option<PlanName>,
    /// The streams, by the digest of their key.
    pub(super) streams: HashMap<u64, SampledStream>,
}

/// A stream in the sample.
#[derive(Debug, Clone)]
pub(super) struct SampledStream {
    /// The kind of stream.
    pub(super) kind: Kind,
    /// What it plays.
    pub(super) content: Option<ContentId>,
    /// When the store last confirmed it.
    pub(super) seen_at: Timestamp,
    /// Until when the store counts it.
    pub(super) until: Timestamp,
    /// When it ended. It is remembered for a while, since another instance may still believe in it.
    pub(super) ended_at: Option<Timestamp>,
}

/// What the store said about a stream.
#[derive(Debug)]
pub(super) struct Confirmation<'a> {
    /// The digest of its user.
    pub(super) user: u64,
    /// Its key.
    pub(super) key: &'a SessionKey,
    /// What it plays.
    pub(super) content: Option<&'a ContentId>,
    /// Its user's plan, if it was named.
    pub(super) plan: Option<&'a PlanName>,
    /// Its user's limit.
    pub(super) limit: u32,
    /// For how long the store counts it; `None` if that hasn't changed.
    pub(super) lease: Option<Duration>,
}

/// The digest of a user's name.
pub(super) fn digest_of_user(user: &UserId) -> u64 {
    first_word(Sha256::new().chain_update(user.as_str()))
}

/// The digest of a session's key.
pub(super) fn digest_of_key(user: u64, key: &SessionKey) -> u64 {
    let digest = Sha256::new().chain_update(user.to_be_bytes());
    let digest = digest.chain_update(key.kind.as_str());
    first_word(digest.chain_update(key.id.as_str()))
}

/// The digest of a content's name.
pub(super) fn digest_of_content(content: &ContentId) -> u64 {
    first_word(Sha256::new().chain_update(content.as_str()))
}

/// The first eight bytes of a digest.
fn first_word(digest: Sha256) -> u64 {
    let digest = digest.finalize();
    let first = digest.first_chunk().copied().unwrap_or_default();
    u64::from_be_bytes(first)
}

// === impl Sample ===

impl Sample {
    /// An empty sample with room for that many users.
    pub(super) fn new(room: usize) -> Self {
        Self {
            users: HashMap::new(),
            level: 0,
            incomplete_until: Timestamp::default(),
            room,
            streams: 0,
        }
    }

    /// How many zero bits the digest of a user must begin with.
    pub(super) const fn level(&self) -> u32 {
        self.level
    }

    /// The level at which the sample has everybody that it should have.
    pub(super) fn complete_level(&self, now: Timestamp) -> u32 {
        self.level + u32::from(now < self.incomplete_until)
    }

    /// Records that the store counts a stream.
    pub(super) fn confirm(
        &mut self,
        confirmed: &Confirmation<'_>,
        longest: Duration,
        now: Timestamp,
    ) {
        if confirmed.user.leading_zeros() < self.level {
            return;
        }
        let digest = digest_of_key(confirmed.user, confirmed.key);
        let user = self.users.entry(confirmed.user).or_default();
        user.limit = confirmed.limit;
        if confirmed.plan.is_some() {
            user.plan = confirmed.plan.cloned();
        }
        if user.streams.len() >= MOST_STREAMS && !user.streams.contains_key(&digest) {
            user.settle(Duration::ZERO, now);
            if user.streams.len() >= MOST_STREAMS {
                return;
            }
        }
        let until = |before: Timestamp| match confirmed.lease {
            Some(lease) => before.max(now.after(lease)),
            None => before,
        };
        let stream = user.streams.entry(digest).or_insert_with(|| {
            self.streams += 1;
            SampledStream {
                kind: confirmed.key.kind,
                content: None,
                seen_at: now,
                until: now,
                ended_at: None,
            }
        });
        stream.until = until(stream.until);
        (stream.seen_at, stream.ended_at) = (now, None);
        if confirmed.content.is_some() {
            stream.content = confirmed.content.cloned();
        }
        self.make_room(longest, now);
    }

    /// Records that a stream has ended, even if it is known only to another instance.
    pub(super) fn end(&mut self, user: u64, key: &SessionKey, now: Timestamp) {
        if user.leading_zeros() < self.level {
            return;
        }
        let digest = digest_of_key(user, key);
        let known = self.users.entry(user).or_default();
        if known.streams.len() >= MOST_STREAMS && !known.streams.contains_key(&digest) {
            return;
        }
        let stream = known.streams.entry(digest).or_insert_with(|| {
            self.streams += 1;
            SampledStream {
                kind: key.kind,
                content: None,
                // Nothing here has confirmed it, so whoever has knows its user's limit better.
                seen_at: Timestamp::default(),
                until: now,
                ended_at: None,
            }
        });
        stream.ended_at = Some(now);
    }

    /// Drops what has expired, and adapts the level to the number of users. `longest` is the longest
    /// lease: after it, each live stream has been confirmed again.
    pub(super) fn sweep(&mut self, longest: Duration, now: Timestamp) {
        self.drop_expired(longest, now);
        if self.level > 0 && self.users.len() < self.room / 4 && now >= self.incomplete_until {
            self.level -= 1;
            self.incomplete_until = now.after(longest);
        }
    }

    /// Raises the level until everybody has room.
    fn make_room(&mut self, longest: Duration, now: Timestamp) {
        if !self.is_overfull() {
            return;
        }
        self.drop_expired(longest, now);
        while self.is_overfull() && self.level < u64::BITS {
            self.level += 1;
            // The higher level was never left.
            self.incomplete_until = Timestamp::default();
            let level = self.level;
            self.users
                .retain(|digest, _| digest.leading_zeros() >= level);
            self.recount();
        }
    }

    /// Whether there are more users or streams than there is room for.
    fn is_overfull(&self) -> bool {
        self.users.len() > self.room || self.streams > self.room * STREAMS_A_USER
    }

    /// Drops what has expired. An end is remembered for a lease.
    fn drop_expired(&mut self, longest: Duration, now: Timestamp) {
        self.users.retain(|_, user| {
            user.settle(longest, now);
            !user.streams.is_empty()
        });
        self.recount();
    }

    /// Counts the streams.
    fn recount(&mut self) {
        self.streams = self.users.values().map(|user| user.streams.len()).sum();
    }
}

// === impl SampledUser ===

impl SampledUser {
    /// Drops streams that have expired, or that ended that long ago.
    fn settle(&mut self, remembered: Duration, now: Timestamp) {
        self.streams.retain(|_, stream| match stream.ended_at {
            Some(ended_at) => now < ended_at.after(remembered),
            None => now < stream.until,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::SessionId;

    const LEASE: Duration = Duration::from_secs(30);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + seconds * 1000)
    }

    fn key(id: &str) -> SessionKey {
        SessionKey {
            kind: Kind::Playback,
            id: SessionId::parse(id).unwrap(),
        }
    }

    fn confirm(sample: &mut Sample, number: u64, now: Timestamp) {
        let user = UserId::parse(&format!("user-{number}")).unwrap();
        let confirmed = Confirmation {
            user: digest_of_user(&user),
            key: &key("a"),
            content: None,
            plan: None,
            limit: 3,
            lease: Some(LEASE),
        };
        sample.confirm(&confirmed, LEASE, now);
    }

    #[test]
    fn a_full_sample_keeps_about_the_same_part_of_everybody() {
        let mut sample = Sample::new(1000);
        for number in 0..50_000 {
            confirm(&mut sample, number, at(0));
        }
        let level = sample.level();
        let estimate = sample.users.len() << level;
        assert!((40_000..60_000).contains(&estimate), "{estimate}");
        assert!(sample.users.len() <= 1000 && sample.users.len() > 400);
        assert!(
            sample
                .users
                .keys()
                .all(|user| user.leading_zeros() >= level)
        );
    }

    #[test]
    fn a_sample_that_empties_gets_everybody_back_after_a_lease() {
        let mut sample = Sample::new(100);
        for number in 0..300 {
            confirm(&mut sample, number, at(0));
        }
        let before = sample.level();
        assert!(before > 0);
        sample.sweep(LEASE, at(31));
        assert_eq!(sample.level(), before - 1);
        assert_eq!(sample.complete_level(at(31)), before, "it may lack some");
        assert_eq!(sample.complete_level(at(61)), before - 1);
    }

    #[test]
    fn an_end_is_remembered_for_a_lease() {
        let mut sample = Sample::new(100);
        confirm(&mut sample, 1, at(0));
        let user = digest_of_user(&UserId::parse("user-1").unwrap());
        sample.end(user, &key("a"), at(1));
        sample.end(user, &key("elsewhere"), at(1));
        sample.sweep(LEASE, at(30));
        assert_eq!(sample.users[&user].streams.len(), 2);
        sample.sweep(LEASE, at(31));
        assert!(sample.users.is_empty());
    }
}
