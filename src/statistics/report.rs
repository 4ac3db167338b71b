//! What one instance tells the others: its sample and its counts, in the store's time.

use std::collections::{BTreeMap, HashMap};

use super::minutes::Minutes;
use super::sample::{Sample, SampledStream, digest_of_content};
use super::wire::{Decoder, Encoder};
use crate::clock::Timestamp;
use crate::identity::{ContentId, Kind, PlanName};

/// The version of the bytes. A report of another version is left out, and the numbers are marked
/// incomplete.
const VERSION: u64 = 1;

/// How many contents a report has names for: those with the most streams.
const NAMED_CONTENTS: usize = 256;

/// One instance's report.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct InstanceReport {
    /// When it was made.
    pub(super) at: Timestamp,
    /// Whether the instance has stopped.
    pub(super) is_last: bool,
    /// How many zero bits the digest of each of its users begins with.
    pub(super) level: u32,
    /// The plans that users name by their place.
    pub(super) plans: Vec<String>,
    /// The contents that streams name by their place: the digest, and the name of frequent ones.
    pub(super) contents: Vec<(u64, Option<String>)>,
    /// The sampled users.
    pub(super) users: Vec<ReportedUser>,
    /// The counts of the last hour.
    pub(super) minutes: Minutes,
}

/// A user in a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ReportedUser {
    /// The digest of the name.
    pub(super) user: u64,
    /// How many streams the user may watch at once.
    pub(super) limit: u32,
    /// The place of the plan, from 1 on; 0 if none is known.
    pub(super) plan: usize,
    /// The streams.
    pub(super) streams: Vec<ReportedStream>,
}

/// A stream in a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ReportedStream {
    /// The digest of its key.
    pub(super) key: u64,
    /// The kind of stream.
    pub(super) kind: Kind,
    /// The place of the content, from 1 on; 0 if none is known.
    pub(super) content: usize,
    /// When the store last confirmed it.
    pub(super) seen_at: Timestamp,
    /// Until when the store counts it.
    pub(super) until: Timestamp,
    /// When it ended.
    pub(super) ended_at: Option<Timestamp>,
}

/// How an instance's time becomes the store's.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ClockOffset(i64);

/// Collects names, and gives each a place.
#[derive(Debug)]
struct NamePlaces<'a, T>(HashMap<&'a T, usize>);

// === impl ClockOffset ===

impl ClockOffset {
    /// The offset of a store whose clock shows `theirs` when ours shows `ours`.
    pub(super) fn between(ours: Timestamp, theirs: Timestamp) -> Self {
        let signed = |at: Timestamp| i64::try_from(at.as_millis()).unwrap_or_default();
        Self(signed(theirs).saturating_sub(signed(ours)))
    }

    /// Our time in the store's.
    pub(super) const fn to_store(self, ours: Timestamp) -> Timestamp {
        Timestamp::from_millis(ours.as_millis().saturating_add_signed(self.0))
    }
}

// === impl NamePlaces ===

impl<'a, T: Eq + std::hash::Hash> NamePlaces<'a, T> {
    /// The place of a name, from 1 on; 0 for none.
    fn of(&mut self, name: Option<&'a T>) -> usize {
        let next = self.0.len() + 1;
        name.map_or(0, |name| *self.0.entry(name).or_insert(next))
    }

    /// The names in the order of their places.
    fn names(&self) -> Vec<&'a T> {
        let mut names: Vec<_> = self.0.iter().map(|(name, place)| (*place, *name)).collect();
        names.sort_unstable_by_key(|(place, _)| *place);
        names.into_iter().map(|(_, name)| name).collect()
    }
}

// === impl InstanceReport ===

impl InstanceReport {
    /// The report of a sample and counts. It has at least that level, so that all reports together
    /// stay small.
    pub(super) fn of(
        sample: &Sample,
        minutes: &Minutes,
        least_level: u32,
        now: Timestamp,
        offset: ClockOffset,
    ) -> Self {
        let level = sample.complete_level(now).max(least_level);
        let mut plans = NamePlaces::<PlanName>(HashMap::new());
        let mut contents = NamePlaces::<ContentId>(HashMap::new());
        let mut streams_of: HashMap<&ContentId, usize> = HashMap::new();
        let mut users = Vec::new();
        let sampled = sample.users.iter();
        for (digest, user) in sampled.filter(|(digest, _)| digest.leading_zeros() >= level) {
            let mut streams = Vec::with_capacity(user.streams.len());
            for (key, stream) in &user.streams {
                if let Some(content) = &stream.content {
                    *streams_of.entry(content).or_default() += 1;
                }
                let content = contents.of(stream.content.as_ref());
                streams.push(ReportedStream::of(*key, stream, content, offset));
            }
            users.push(ReportedUser {
                user: *digest,
                limit: user.limit,
                plan: plans.of(user.plan.as_ref()),
                streams,
            });
        }
        let mut most: Vec<_> = streams_of
            .iter()
            .map(|(name, count)| (*count, *name))
            .collect();
        most.sort_unstable_by(|one, other| other.cmp(one));
        let named: std::collections::HashSet<_> = most
            .into_iter()
            .take(NAMED_CONTENTS)
            .map(|(_, name)| name)
            .collect();
        let contents = contents.names().into_iter().map(|content| {
            let name = named.contains(content).then(|| content.to_string());
            (digest_of_content(content), name)
        });
        Self {
            at: offset.to_store(now),
            is_last: false,
            level,
            plans: plans.names().into_iter().map(ToString::to_string).collect(),
            contents: contents.collect(),
            users,
            minutes: minutes.clone(),
        }
    }

    /// The report in bytes. Times are relative to the report's, so they take two or three bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::default();
        encoder.number(VERSION);
        encoder.number(self.at.as_millis());
        encoder.number(self.is_last);
        encoder.number(self.level);
        encoder.count(self.plans.len());
        self.plans.iter().for_each(|plan| encoder.text(plan));
        encoder.count(self.contents.len());
        for (digest, name) in &self.contents {
            encoder.word(*digest);
            encoder.text(name.as_deref().unwrap_or_default());
        }
        encoder.count(self.users.len());
        for user in &self.users {
            encoder.word(user.user);
            encoder.number(user.limit);
            encoder.count(user.plan);
            encoder.count(user.streams.len());
            for stream in &user.streams {
                stream.encode(self.at, &mut encoder);
            }
        }
        self.minutes.encode(&mut encoder);
        encoder.bytes()
    }

    /// The report from bytes, if they are one of this version.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut decoder = Decoder::new(bytes);
        if decoder.number()? != VERSION {
            return None;
        }
        let at = Timestamp::from_millis(decoder.number()?);
        let mut report = Self {
            at,
            is_last: decoder.number()? != 0,
            level: decoder.small()?,
            ..Self::default()
        };
        for _ in 0..decoder.count()? {
            report.plans.push(decoder.text()?.to_owned());
        }
        for _ in 0..decoder.count()? {
            let (digest, name) = (decoder.word()?, decoder.text()?);
            let name = (!name.is_empty()).then(|| name.to_owned());
            report.contents.push((digest, name));
        }
        for _ in 0..decoder.count()? {
            let (user, limit, plan) = (decoder.word()?, decoder.small()?, decoder.small()?);
            let mut streams = Vec::new();
            for _ in 0..decoder.count()? {
                streams.push(ReportedStream::decode(at, &mut decoder)?);
            }
            report.users.push(ReportedUser {
                user,
                limit,
                plan,
                streams,
            });
        }
        report.minutes = Minutes::decode(&mut decoder)?;
        Some(report)
    }

    /// The name of the plan at that place.
    pub(super) fn plan(&self, place: usize) -> Option<&str> {
        self.plans.get(place.checked_sub(1)?).map(String::as_str)
    }

    /// The names of contents by their digests.
    pub(super) fn content_names(&self) -> BTreeMap<u64, &str> {
        let named = self.contents.iter();
        named
            .filter_map(|(digest, name)| Some((*digest, name.as_deref()?)))
            .collect()
    }

    /// The digest of the content at that place.
    pub(super) fn content(&self, place: usize) -> Option<u64> {
        self.contents
            .get(place.checked_sub(1)?)
            .map(|(digest, _)| *digest)
    }
}

// === impl ReportedStream ===

impl ReportedStream {
    /// A stream of the sample.
    fn of(key: u64, stream: &SampledStream, content: usize, offset: ClockOffset) -> Self {
        Self {
            key,
            kind: stream.kind,
            content,
            seen_at: offset.to_store(stream.seen_at),
            until: offset.to_store(stream.until),
            ended_at: stream.ended_at.map(|at| offset.to_store(at)),
        }
    }

    /// The stream in bytes.
    fn encode(&self, at: Timestamp, encoder: &mut Encoder) {
        let millis =
            |span: std::time::Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        encoder.word(self.key);
        encoder.count(self.kind as usize);
        encoder.count(self.content);
        encoder.number(millis(at.since(self.seen_at)));
        encoder.number(millis(self.until.since(at)));
        encoder.number(
            self.ended_at
                .map_or(0, |ended| millis(at.since(ended)).saturating_add(1)),
        );
    }

    /// The stream from bytes.
    fn decode(at: Timestamp, decoder: &mut Decoder<'_>) -> Option<Self> {
        let millis = std::time::Duration::from_millis;
        Some(Self {
            key: decoder.word()?,
            kind: Kind::ALL.get(decoder.small::<usize>()?).copied()?,
            content: decoder.small()?,
            seen_at: at.before(millis(decoder.number()?)),
            until: at.after(millis(decoder.number()?)),
            ended_at: match decoder.number()? {
                0 => None,
                age => Some(at.before(millis(age - 1))),
            },
        })
    }
}
