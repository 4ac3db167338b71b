//! The numbers of a whole installation, joined from its instances' reports.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::minutes::{MinuteCounts, Minutes};
use super::report::{InstanceReport, ReportedStream};
use crate::clock::Timestamp;
use crate::identity::Kind;

/// How many contents are shown.
const TOP_CONTENTS: usize = 50;

/// How far the clocks of two instances may seem apart. An end counts although a sign of life at
/// another instance seems to be that much later: an id seldom starts again so soon after its end.
const CLOCKS_APART: Duration = Duration::from_millis(250);

/// The numbers of an installation at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Numbers {
    /// The time, in the store's clock.
    pub at: Timestamp,
    /// How many users the sample has one of; 1 if all numbers are exact.
    pub one_in: u64,
    /// The live streams.
    pub streams: Estimate,
    /// The users who watch something.
    pub users: Estimate,
    /// The users who watch as many streams as they may.
    pub users_at_limit: Estimate,
    /// The live streams by kind, in the order of [`Kind::ALL`].
    pub by_kind: [u64; 3],
    /// The live streams by their users' plan. Users without one have the empty name.
    pub by_plan: BTreeMap<String, u64>,
    /// The contents with the most streams, and their streams.
    pub top_content: Vec<(String, u64)>,
    /// What happened in the last minute.
    pub last_minute: Happened,
    /// The last 60 whole minutes, with their beginnings, the oldest first.
    pub minutes: Vec<(Timestamp, Happened)>,
    /// The refusals of the last hour by reason.
    pub refusals_last_hour: BTreeMap<&'static str, u64>,
    /// How many users are in the sample.
    pub(super) sampled: usize,
}

/// A number, and how far it may be off.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Estimate {
    /// The number.
    pub number: u64,
    /// The standard error relative to the number; 0 if it is exact.
    pub error: f64,
}

/// What happened in some time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Happened {
    /// Sessions that started.
    pub starts: u64,
    /// Requests that were refused, or would have been.
    pub refusals: u64,
    /// Sessions that gave way to another.
    pub displacements: u64,
    /// Slots that were freed before their lease expired.
    pub releases: u64,
}

/// A user, as all instances together know them.
#[derive(Debug, Default)]
struct JoinedUser<'a> {
    /// The limit, and when the user was seen with it.
    limit: (Timestamp, u32),
    /// The plan.
    plan: Option<&'a str>,
    /// The streams.
    streams: HashMap<u64, JoinedStream>,
}

/// A stream, as all instances together know it.
#[derive(Debug, Clone, Copy)]
struct JoinedStream {
    /// The kind of stream.
    kind: Kind,
    /// The digest of the content.
    content: Option<u64>,
    /// When the store last confirmed it to any instance.
    seen_at: Timestamp,
    /// Until when the store counts it.
    until: Timestamp,
    /// When any instance last saw it end.
    ended_at: Option<Timestamp>,
}

/// Counts of the sample, from which the numbers are estimated.
#[derive(Debug, Default)]
struct Sums {
    /// Users, and users at their limit.
    users: (u64, u64),
    /// Streams.
    streams: u64,
    /// The sum of the squares of each user's streams.
    squares: u64,
}

// === impl Numbers ===

impl Numbers {
    /// Joins reports. A stream that several of them have counts once: the latest word on it counts.
    pub(super) fn join(reports: &[&InstanceReport], now: Timestamp) -> Self {
        let levels = reports.iter().map(|report| report.level);
        let level = levels.max().unwrap_or_default();
        let (mut users, mut names) = (HashMap::<u64, JoinedUser<'_>>::new(), BTreeMap::new());
        let mut minutes = Minutes::default();
        for report in reports {
            names.append(&mut report.content_names());
            minutes.add(&report.minutes);
            let sampled = report.users.iter();
            for user in sampled.filter(|user| user.user.leading_zeros() >= level) {
                let joined = users.entry(user.user).or_default();
                joined.plan = joined.plan.or(report.plan(user.plan));
                for stream in &user.streams {
                    joined.limit = joined.limit.max((stream.seen_at, user.limit));
                    joined.add(stream, report.content(stream.content));
                }
            }
        }
        let mut numbers = Self {
            at: now,
            one_in: 1 << level.min(63),
            last_minute: Happened::of(&minutes.last_minute(now)),
            minutes: minutes
                .whole_minutes(now)
                .iter()
                .map(|(at, counts)| (*at, Happened::of(counts)))
                .collect(),
            refusals_last_hour: minutes.refusals(now),
            sampled: users.len(),
            ..Self::default()
        };
        numbers.count(&users, &names);
        numbers
    }

    /// Counts the joined users.
    fn count(&mut self, users: &HashMap<u64, JoinedUser<'_>>, names: &BTreeMap<u64, &str>) {
        let (mut sums, mut contents) = (Sums::default(), HashMap::<u64, u64>::new());
        for user in users.values() {
            let mut live = 0_u64;
            for stream in user
                .streams
                .values()
                .filter(|stream| stream.is_live(self.at))
            {
                live += 1;
                if let Some(of_kind) = self.by_kind.get_mut(stream.kind as usize) {
                    *of_kind += self.one_in;
                }
                if let Some(content) = stream.content {
                    *contents.entry(content).or_default() += self.one_in;
                }
            }
            if live == 0 {
                continue;
            }
            let plan = user.plan.unwrap_or_default().to_owned();
            *self.by_plan.entry(plan).or_default() += live * self.one_in;
            sums.users.0 += 1;
            sums.users.1 += u64::from(live >= u64::from(user.limit.1));
            sums.streams += live;
            sums.squares += live * live;
        }
        self.streams = Estimate::of(sums.streams, sums.squares, self.one_in);
        self.users = Estimate::of(sums.users.0, sums.users.0, self.one_in);
        self.users_at_limit = Estimate::of(sums.users.1, sums.users.1, self.one_in);
        let named = contents.into_iter();
        let named = named.filter_map(|(digest, streams)| Some((names.get(&digest)?, streams)));
        let mut top: Vec<_> = named
            .map(|(name, streams)| ((*name).to_owned(), streams))
            .collect();
        top.sort_unstable_by(|(name, streams), (other, others)| {
            (others, name).cmp(&(streams, other))
        });
        top.truncate(TOP_CONTENTS);
        self.top_content = top;
    }
}

// === impl Estimate ===

impl Estimate {
    /// The estimate from a sample that has one in so many users. `squares` is the sum of the squares
    /// of what each user adds to the number.
    #[expect(clippy::cast_precision_loss, reason = "an error needs no 53 bits")]
    fn of(sampled: u64, squares: u64, one_in: u64) -> Self {
        let left_out = 1.0 - 1.0 / one_in as f64;
        let error = match sampled {
            0 => 0.0,
            _ => (left_out * squares as f64).sqrt() / sampled as f64,
        };
        Self {
            number: sampled.saturating_mul(one_in),
            error,
        }
    }
}

// === impl Happened ===

impl Happened {
    /// These counts.
    const fn of(counts: &MinuteCounts) -> Self {
        Self {
            starts: counts.starts,
            refusals: counts.refusals,
            displacements: counts.displacements,
            releases: counts.releases,
        }
    }
}

// === impl JoinedUser ===

impl JoinedUser<'_> {
    /// Adds what one instance knows about a stream.
    fn add(&mut self, stream: &ReportedStream, content: Option<u64>) {
        let joined = self.streams.entry(stream.key).or_insert(JoinedStream {
            kind: stream.kind,
            content,
            seen_at: stream.seen_at,
            until: stream.until,
            ended_at: stream.ended_at,
        });
        if stream.seen_at > joined.seen_at {
            joined.content = content.or(joined.content);
        } else {
            joined.content = joined.content.or(content);
        }
        joined.seen_at = joined.seen_at.max(stream.seen_at);
        joined.until = joined.until.max(stream.until);
        joined.ended_at = joined.ended_at.max(stream.ended_at);
    }
}

// === impl JoinedStream ===

impl JoinedStream {
    /// Whether the store counts it at that time: its lease runs, and no instance has seen it end
    /// after it was last confirmed.
    fn is_live(&self, now: Timestamp) -> bool {
        let is_over = |ended_at: Timestamp| ended_at.after(CLOCKS_APART) >= self.seen_at;
        self.until > now && !self.ended_at.is_some_and(is_over)
    }
}
