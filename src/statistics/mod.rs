//! The numbers of a whole installation: streams, users, starts, refusals, and what another limit
//! would refuse.
//!
//! Each instance counts what passes through it: the store's answers and its own decisions, never a
//! check that a held lease answers. Every few seconds it puts a small report into the store, and
//! joins the reports of all instances. No key is written more often than once an instance and
//! interval, and nothing is scanned.
//!
//! - `sample` holds the users and streams, everybody in a small installation.
//! - `minutes` counts starts, refusals, displacements and releases.
//! - `concurrency` and `periods` say what a limit would do.
//! - `report` is what instances tell each other, `installation` joins it, `sharing` carries it.

mod concurrency;
mod installation;
mod minutes;
mod periods;
mod report;
mod retries;
mod sample;
mod sharing;
mod wire;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::clock::{Clock, Timestamp};
use crate::identity::{Claim, Facts, PlanName, SessionKey, UserId};
use crate::session::{AdmissionKind, Admitted, EndCause, Refusal};
use crate::util::lock;
use concurrency::Concurrency;
pub use concurrency::{LimitEffect, LimitEffects};
pub use installation::{Estimate, Happened, Numbers};
pub use minutes::RefusedFor;
use minutes::{MinuteCounts, Minutes};
use periods::Periods;
use report::{ClockOffset, InstanceReport};
use retries::Retries;
use sample::{Confirmation, Sample, digest_of_user};
use sharing::Sharing;
pub use sharing::{Overview, PeriodEffects};

/// How many users an instance samples whose numbers are joined with others': with all of them in
/// reports, the numbers are within some 2 %.
const ROOM_SHARED: usize = 4096;

/// How many users an instance samples that counts alone: its numbers are exact up to here.
const ROOM_ALONE: usize = 16_384;

/// What one instance counts, and what it knows of the others.
#[derive(Debug)]
pub struct Statistics {
    /// The clock.
    clock: std::sync::Arc<dyn Clock>,
    /// The longest lease: after it, each live stream has been confirmed again.
    longest_lease: Duration,
    /// The level of the sample, so that most users are left out without a lock.
    level: AtomicU32,
    /// What this instance counts.
    tally: Mutex<InstanceTally>,
    /// What it knows of the others.
    sharing: Sharing,
}

/// What one instance counts.
#[derive(Debug)]
struct InstanceTally {
    /// Users and streams.
    sample: Sample,
    /// Starts, refusals, displacements and releases.
    minutes: Minutes,
    /// What starts found, and is not in `periods` or the store yet.
    found: Concurrency,
    /// The same for each shelf of buckets in the store, if it could not be added yet.
    unsaved: [Concurrency; 3],
    /// What starts found, if this instance counts alone.
    periods: Periods,
    /// Which refused streams ask again.
    retries: Retries,
    /// The difference of the store's clock.
    offset: ClockOffset,
}

// === impl Statistics ===

impl Statistics {
    /// Statistics without anything counted. `is_shared` says whether they are joined with those of
    /// other instances.
    #[must_use]
    pub fn new(clock: std::sync::Arc<dyn Clock>, longest_lease: Duration, is_shared: bool) -> Self {
        let room = if is_shared { ROOM_SHARED } else { ROOM_ALONE };
        Self {
            clock,
            longest_lease,
            level: AtomicU32::default(),
            tally: Mutex::new(InstanceTally {
                sample: Sample::new(room),
                minutes: Minutes::default(),
                found: Concurrency::default(),
                unsaved: Default::default(),
                periods: Periods::default(),
                retries: Retries::default(),
                offset: ClockOffset::default(),
            }),
            sharing: Sharing::new(is_shared),
        }
    }

    /// Counts a claim that was admitted. `plan` is the user's plan, if the policy has it.
    pub fn admitted(
        &self,
        claim: &Claim,
        plan: Option<&PlanName>,
        admitted: &Admitted,
        limit: u32,
    ) {
        let (now, user) = (self.clock.now(), digest_of_user(&claim.user));
        let is_start = admitted.entry == AdmissionKind::Started;
        let confirmed = Confirmation {
            user,
            key: &claim.key,
            content: admitted.session.facts.content.as_ref(),
            plan,
            limit,
            lease: Some(admitted.session.expires_at.since(admitted.decided_at)),
        };
        if !is_start && !self.is_sampled(user) {
            return;
        }
        let mut tally = lock(&self.tally);
        tally.sample.confirm(&confirmed, self.longest_lease, now);
        for displaced in &admitted.displaced {
            tally.sample.end(user, &displaced.key, now);
        }
        if is_start {
            let displaced = admitted.displaced.len();
            let counts = MinuteCounts {
                starts: 1,
                displacements: u64::try_from(displaced).unwrap_or_default(),
                ..MinuteCounts::default()
            };
            let at = tally.offset.to_store(now);
            tally.minutes.count(&counts, at);
            let found = (admitted.active + displaced).saturating_sub(1);
            let plan = plan.map(PlanName::as_str).unwrap_or_default();
            tally.found.count(user, plan, found, displaced > 0);
        }
        self.level.store(tally.sample.level(), Ordering::Relaxed);
    }

    /// Counts a claim that was refused. `by_rule` says that the outage rule refused it.
    pub fn refused(
        &self,
        claim: &Claim,
        plan: Option<&PlanName>,
        refusal: &Refusal,
        by_rule: bool,
    ) {
        let (now, user) = (self.clock.now(), digest_of_user(&claim.user));
        let mut tally = lock(&self.tally);
        let at = tally.offset.to_store(now);
        let reason = match refusal {
            Refusal::Full { .. } if by_rule => RefusedFor::FullLocal,
            Refusal::Full { .. } => RefusedFor::Full,
            Refusal::Ended(EndCause::Displaced { .. }, ..) => RefusedFor::Displaced,
            Refusal::Ended(EndCause::Operator, ..) => RefusedFor::Operator,
            Refusal::Ended(EndCause::Released, ..) => RefusedFor::Ended,
            Refusal::NotStoppable => RefusedFor::NotStoppable,
        };
        tally.minutes.refuse(reason, at);
        match refusal {
            // No limit on concurrency would let in somebody who may watch nothing.
            Refusal::Full { limit, holders, .. } if *limit > 0 => {
                if tally
                    .retries
                    .is_first(sample::digest_of_key(user, &claim.key), now)
                {
                    let plan = plan.map(PlanName::as_str).unwrap_or_default();
                    tally.found.count(user, plan, holders.len(), true);
                }
            }
            // It has ended, whichever instance still believes in it.
            Refusal::Ended(..) => tally.sample.end(user, &claim.key, now),
            Refusal::Full { .. } | Refusal::NotStoppable => {}
        }
    }

    /// Counts a claim that nobody could decide.
    pub fn undecided(&self) {
        let now = self.clock.now();
        let mut tally = lock(&self.tally);
        let at = tally.offset.to_store(now);
        tally.minutes.refuse(RefusedFor::Outage, at);
    }

    /// Records that the store counts a stream that was seen running, for that much longer; `None`
    /// if its lease hasn't grown.
    pub fn running(
        &self,
        user: &UserId,
        key: &SessionKey,
        facts: &Facts,
        limit: u32,
        lease: Option<Duration>,
    ) {
        let user = digest_of_user(user);
        if !self.is_sampled(user) {
            return;
        }
        let confirmed = Confirmation {
            user,
            key,
            content: facts.content.as_ref(),
            plan: None,
            limit,
            lease,
        };
        let now = self.clock.now();
        let mut tally = lock(&self.tally);
        tally.sample.confirm(&confirmed, self.longest_lease, now);
        self.level.store(tally.sample.level(), Ordering::Relaxed);
    }

    /// Records that a session is over.
    pub fn ended(&self, user: &UserId, key: &SessionKey) {
        let user = digest_of_user(user);
        if self.is_sampled(user) {
            let now = self.clock.now();
            lock(&self.tally).sample.end(user, key, now);
        }
    }

    /// Counts a slot that was freed before its lease expired.
    pub fn released(&self) {
        let now = self.clock.now();
        let mut tally = lock(&self.tally);
        let at = tally.offset.to_store(now);
        let released = MinuteCounts {
            releases: 1,
            ..MinuteCounts::default()
        };
        tally.minutes.count(&released, at);
    }

    /// Whether a user is in the sample.
    fn is_sampled(&self, user: u64) -> bool {
        user.leading_zeros() >= self.level.load(Ordering::Relaxed)
    }

    /// This instance's report, now.
    fn report(&self, least_level: u32) -> (InstanceReport, Timestamp) {
        let now = self.clock.now();
        let mut tally = lock(&self.tally);
        tally.sample.sweep(self.longest_lease, now);
        self.level.store(tally.sample.level(), Ordering::Relaxed);
        let InstanceTally {
            sample,
            minutes,
            offset,
            ..
        } = &*tally;
        (
            InstanceReport::of(sample, minutes, least_level, now, *offset),
            now,
        )
    }
}
