//! Carries reports between instances, through the store.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;
use tracing::warn;

use super::Statistics;
use super::concurrency::{Concurrency, LimitEffects, NONCE_BYTES};
use super::installation::Numbers;
use super::periods::{Periods, SHELVES, Shelf};
use super::report::{ClockOffset, InstanceReport};
use crate::clock::Timestamp;
use crate::store::{Notes, Register, StoreError};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::InstallationGauges;
use crate::util::{Throttle, lock};

/// How often an instance reports, and joins the reports of all, if there are few instances.
const INTERVAL: Duration = Duration::from_secs(5);

/// The interval is that much longer for each so many instances. All of them read the reports of all,
/// so the store would else have to answer with the square of their number.
const INSTANCES_AN_INTERVAL: usize = 100;

/// How long a report is kept: the hour of its minutes, and some more.
const REPORT_KEPT: Duration = Duration::from_secs(65 * 60);

/// An instance that hasn't reported for so many intervals is late.
const LATE_INTERVALS: u32 = 3;

/// How many users the reports of all instances together should have at most. Their levels rise
/// until that is so, so what an instance reads doesn't grow with the number of instances.
const ROOM_TOGETHER: usize = 8192;

/// How many values are read at once.
const AT_A_TIME: usize = 16;

/// How often the log repeats that statistics can't be shared.
const REMINDER: Duration = Duration::from_secs(60);

/// What an instance knows of the others.
#[derive(Debug)]
pub(super) struct Sharing {
    /// A random id, new at each start.
    id: String,
    /// Whether there are others.
    is_shared: bool,
    /// What it knows.
    known: Mutex<KnownInstances>,
    /// The buckets, as last read.
    buckets: tokio::sync::Mutex<Buckets>,
    /// Counts the rounds that have ended.
    rounds: watch::Sender<u64>,
    /// Bounds the lines about failures.
    failures: Throttle,
}

/// What an instance knows of the others.
#[derive(Debug, Default)]
struct KnownInstances {
    /// Their last reports.
    others: BTreeMap<String, Other>,
    /// Whether the last round has succeeded.
    is_up: bool,
    /// Whether nobody was late in the last successful round.
    is_complete: bool,
    /// The numbers that were shown last while the store answered.
    last: Option<Numbers>,
    /// How many instances have reported lately, with this one.
    instances: usize,
    /// The least level of our report.
    least_level: u32,
    /// Whether the store's time is known.
    has_offset: bool,
}

/// Another instance's last report.
#[derive(Debug)]
struct Other {
    /// When it entered itself in the register with that report.
    entered_at: Timestamp,
    /// The report; `None` if it was gone, or of another version.
    report: Option<Arc<InstanceReport>>,
}

/// Buckets that were read from the store.
#[derive(Debug, Default)]
struct Buckets {
    /// The buckets.
    periods: Periods,
    /// When they were read.
    read_at: Option<Timestamp>,
}

/// What limits would do in the last hour, day and week.
#[derive(Debug, Clone, Default)]
pub struct PeriodEffects {
    /// For all users, by period.
    pub all: BTreeMap<&'static str, LimitEffects>,
    /// For the users of each plan, by plan and period.
    pub plans: BTreeMap<String, BTreeMap<&'static str, LimitEffects>>,
    /// Whether the store has answered.
    pub is_complete: bool,
}

/// The numbers, and whose they are.
#[derive(Debug, Clone)]
pub struct Overview {
    /// The numbers.
    pub numbers: Numbers,
    /// Whether they are those of all instances that share the store, and not of this one only.
    pub is_shared: bool,
    /// How many instances have reported lately.
    pub instances: usize,
    /// How often instances report.
    pub interval: Duration,
    /// Whether all instances' reports are in the numbers.
    pub is_complete: bool,
}

// === impl Overview ===

impl Overview {
    /// The part that is in metrics.
    fn gauges(&self) -> InstallationGauges {
        let numbers = &self.numbers;
        InstallationGauges {
            streams: numbers.by_kind,
            users: numbers.users.number,
            users_at_limit: numbers.users_at_limit.number,
            instances: self.instances,
            is_complete: self.is_complete,
        }
    }
}

// === impl Sharing ===

impl Sharing {
    /// Nothing known.
    pub(super) fn new(is_shared: bool) -> Self {
        Self {
            id: format!("{:016x}", rand::random::<u64>()),
            is_shared,
            known: Mutex::default(),
            buckets: tokio::sync::Mutex::default(),
            rounds: watch::Sender::new(0),
            failures: Throttle::every(REMINDER),
        }
    }

    /// Reads the reports that have changed, and takes over the register.
    async fn read(&self, notes: &dyn Notes, register: &Register) -> Result<(), StoreError> {
        let changed: Vec<_> = {
            let mut known = lock(&self.known);
            let entered = |id: &String| register.instances.iter().any(|(name, _)| name == id);
            known.others.retain(|id, _| entered(id));
            let is_news = |(id, at): &&(String, Timestamp)| {
                *id != self.id
                    && known
                        .others
                        .get(id)
                        .is_none_or(|other| other.entered_at != *at)
            };
            register.instances.iter().filter(is_news).cloned().collect()
        };
        for some in changed.chunks(AT_A_TIME) {
            let reports = join_all(some.iter().map(|(id, _)| notes.report(id))).await;
            for ((id, entered_at), report) in some.iter().zip(reports) {
                let report = report?.and_then(|report| InstanceReport::decode(&report));
                let other = Other {
                    entered_at: *entered_at,
                    report: report.map(Arc::new),
                };
                lock(&self.known).others.insert(id.clone(), other);
            }
        }
        Ok(())
    }
}

// === impl KnownInstances ===

impl KnownInstances {
    /// Joins our report with those of the others.
    fn join(&self, ours: &InstanceReport, now: Timestamp) -> Numbers {
        let others = self
            .others
            .values()
            .filter_map(|other| other.report.as_deref());
        let reports: Vec<_> = std::iter::once(ours).chain(others).collect();
        Numbers::join(&reports, now)
    }

    /// How often instances report.
    fn interval(&self) -> Duration {
        let longer = u32::try_from(self.instances / INSTANCES_AN_INTERVAL).unwrap_or_default();
        INTERVAL * longer.saturating_add(1)
    }

    /// Takes note of a successful round.
    fn note(&mut self, numbers: &Numbers, longest_lease: Duration) {
        let late = self.interval() * LATE_INTERVALS;
        let now = numbers.at;
        let (mut instances, mut is_complete) = (1, true);
        for other in self.others.values() {
            let age = now.since(other.entered_at);
            match &other.report {
                Some(report) if report.is_last => {}
                Some(_) if age <= late => instances += 1,
                // Its streams go on elsewhere by then, or their leases have run out.
                _ if age > late + longest_lease => {}
                _ => is_complete = false,
            }
        }
        let joint = numbers.one_in.trailing_zeros();
        if numbers.sampled > ROOM_TOGETHER {
            self.least_level = joint + 1;
        } else if numbers.sampled < ROOM_TOGETHER / 4 {
            self.least_level = self.least_level.saturating_sub(1);
        }
        (self.instances, self.is_complete, self.is_up) = (instances, is_complete, true);
    }
}

// === impl Statistics ===

impl Statistics {
    /// Reports, and joins the reports of all instances, until dropped.
    pub async fn run(&self, notes: Option<&dyn Notes>, metrics: &Metrics) {
        loop {
            self.round(notes).await;
            let overview = self.overview();
            metrics.installation(&overview.gauges());
            self.sharing.rounds.send_modify(|rounds| *rounds += 1);
            tokio::time::sleep(overview.interval).await;
        }
    }

    /// Counts the rounds that have ended.
    #[must_use]
    pub fn rounds(&self) -> watch::Receiver<u64> {
        self.sharing.rounds.subscribe()
    }

    /// One round.
    async fn round(&self, notes: Option<&dyn Notes>) {
        let Some(notes) = notes else {
            self.shelve();
            return;
        };
        if let Err(error) = self.share(notes, false).await {
            lock(&self.sharing.known).is_up = false;
            if self.sharing.failures.is_due() {
                warn!("failed to share statistics with other instances: {error}");
            }
        }
    }

    /// Puts this instance's last report into the store.
    pub async fn close(&self, notes: Option<&dyn Notes>) {
        if let Some(notes) = notes {
            // Whatever goes wrong, the report expires.
            let _ = self.share(notes, true).await;
        }
    }

    /// The numbers of the installation now; the last known ones if the store has not answered.
    #[must_use]
    pub fn overview(&self) -> Overview {
        let least_level = lock(&self.sharing.known).least_level;
        let (report, _) = self.report(least_level);
        let is_shared = self.sharing.is_shared;
        let mut known = lock(&self.sharing.known);
        if !is_shared {
            return Overview {
                numbers: Numbers::join(&[&report], report.at),
                is_shared,
                instances: 1,
                interval: INTERVAL,
                is_complete: true,
            };
        }
        let numbers = match &known.last {
            Some(last) if !known.is_up => last.clone(),
            _ => {
                let numbers = known.join(&report, report.at);
                if known.is_up {
                    known.last = Some(numbers.clone());
                }
                numbers
            }
        };
        Overview {
            numbers,
            is_shared,
            instances: known.instances.max(1),
            interval: known.interval(),
            is_complete: known.is_up && known.is_complete,
        }
    }

    /// Puts our report and what starts have found into the store, and reads the others' reports.
    async fn share(&self, notes: &dyn Notes, is_last: bool) -> Result<(), StoreError> {
        let (least_level, has_offset) = {
            let known = lock(&self.sharing.known);
            (known.least_level, known.has_offset)
        };
        if !has_offset {
            self.register(notes, None).await?;
        }
        let (mut report, _) = self.report(least_level);
        report.is_last = is_last;
        let id = &self.sharing.id;
        notes.put_report(id, &report.encode(), REPORT_KEPT).await?;
        let register = self.register(notes, Some(id)).await?;
        let flushed = self.flush(notes, register.at).await;
        self.sharing.read(notes, &register).await?;
        flushed?;
        let mut known = lock(&self.sharing.known);
        let numbers = known.join(&report, register.at);
        known.note(&numbers, self.longest_lease);
        Ok(())
    }

    /// Enters an instance in the register, and learns the store's time: that of the middle of the
    /// call.
    async fn register(
        &self,
        notes: &dyn Notes,
        instance: Option<&str>,
    ) -> Result<Register, StoreError> {
        let asked_at = self.clock.now();
        let register = notes.register(instance, REPORT_KEPT).await?;
        let middle = asked_at.after(self.clock.now().since(asked_at) / 2);
        lock(&self.tally).offset = ClockOffset::between(middle, register.at);
        lock(&self.sharing.known).has_offset = true;
        Ok(register)
    }

    /// Adds what starts have found to the store's buckets. What can't be added now is kept.
    async fn flush(&self, notes: &dyn Notes, now: Timestamp) -> Result<(), StoreError> {
        let mut failed = None;
        for (place, shelf) in SHELVES.into_iter().enumerate() {
            let found = {
                let mut tally = lock(&self.tally);
                if place == 0 {
                    let news = std::mem::take(&mut tally.found);
                    tally
                        .unsaved
                        .iter_mut()
                        .for_each(|unsaved| unsaved.merge(&news));
                }
                tally
                    .unsaved
                    .get_mut(place)
                    .map(std::mem::take)
                    .unwrap_or_default()
            };
            if found.is_empty() {
                continue;
            }
            let saved = add_to_bucket(notes, shelf, &found, now).await;
            if !matches!(saved, Ok(true)) {
                let mut tally = lock(&self.tally);
                if let Some(unsaved) = tally.unsaved.get_mut(place) {
                    unsaved.merge(&found);
                }
            }
            failed = failed.or(saved.err());
        }
        failed.map_or(Ok(()), Err)
    }

    /// Adds what starts have found to the buckets in memory.
    fn shelve(&self) {
        let now = self.clock.now();
        let mut tally = lock(&self.tally);
        let found = std::mem::take(&mut tally.found);
        if !found.is_empty() {
            tally.periods.add(&found, now);
        }
    }

    /// What limits would do, by all instances' starts in the last hour, day and week.
    pub async fn limit_effects(&self, notes: Option<&dyn Notes>) -> PeriodEffects {
        let Some(notes) = notes else {
            self.shelve();
            let now = self.clock.now();
            return PeriodEffects::of(&lock(&self.tally).periods.sums(now), true);
        };
        let now = {
            let tally = lock(&self.tally);
            tally.offset.to_store(self.clock.now())
        };
        let mut buckets = self.sharing.buckets.lock().await;
        let is_fresh = |read_at: Timestamp| now.since(read_at) < INTERVAL && now >= read_at;
        let read = match buckets.read_at {
            Some(read_at) if is_fresh(read_at) => Ok(()),
            _ => buckets.read(notes, now).await,
        };
        PeriodEffects::of(&buckets.periods.sums(now), read.is_ok())
    }
}

// === impl Buckets ===

impl Buckets {
    /// Reads the buckets that may have changed since they were read.
    async fn read(&mut self, notes: &dyn Notes, now: Timestamp) -> Result<(), StoreError> {
        // Another instance may add to a bucket some intervals after its end.
        let settled = self
            .read_at
            .map(|read_at| read_at.before(INTERVAL * LATE_INTERVALS * 8));
        for shelf in SHELVES {
            let wanted: Vec<u64> = (shelf.first(now)..=shelf.bucket(now))
                .filter(|bucket| {
                    let is_settled = settled.is_some_and(|settled| *bucket < shelf.bucket(settled));
                    !is_settled || !self.periods.has(shelf, *bucket)
                })
                .collect();
            for some in wanted.chunks(AT_A_TIME) {
                let names: Vec<_> = some.iter().map(|bucket| name(shelf, *bucket)).collect();
                let read = join_all(names.iter().map(|name| notes.bucket(name))).await;
                for (bucket, read) in some.iter().zip(read) {
                    let found = read?.and_then(|bytes| Concurrency::decode(&bytes));
                    self.periods
                        .put(shelf, *bucket, found.unwrap_or_default(), now);
                }
            }
        }
        self.read_at = Some(now);
        Ok(())
    }
}

// === impl PeriodEffects ===

impl PeriodEffects {
    /// The effects according to these sums.
    fn of(sums: &[(&'static str, Concurrency)], is_complete: bool) -> Self {
        let mut effects = Self {
            is_complete,
            ..Self::default()
        };
        for (period, sum) in sums {
            effects.all.insert(period, sum.effects(None));
            for plan in sum.plans().filter(|plan| !plan.is_empty()) {
                let of_plan = effects.plans.entry(plan.to_owned()).or_default();
                of_plan.insert(period, sum.effects(Some(plan)));
            }
        }
        effects
    }
}

/// The name of a bucket in the store.
fn name(shelf: Shelf, bucket: u64) -> String {
    format!("{}:{bucket}", shelf.name)
}

/// Adds to the bucket of now; returns whether nobody else has changed it meanwhile. A bucket of
/// another version is replaced.
async fn add_to_bucket(
    notes: &dyn Notes,
    shelf: Shelf,
    found: &Concurrency,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let name = name(shelf, shelf.bucket(now));
    let before = notes.bucket(&name).await?.unwrap_or_default();
    let mut sum = Concurrency::decode(&before).unwrap_or_default();
    sum.merge(found);
    let nonce = before.get(..NONCE_BYTES).unwrap_or(&before);
    let kept = Duration::from_millis(shelf.kept_millis());
    let after = sum.encode(rand::random());
    notes.swap_bucket(&name, nonce, &after, kept).await
}
