//! All metrics, in one struct. Labels are enums; never a user, a session or a path.
//!
//! The handles are made once, at startup, so that counting is an addition, and every series exists
//! from the first scrape on, at zero. Each [`Metrics`] has its own recorder: two instances in one
//! process count separately.

mod durations;
mod named;
mod webhooks;

use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::{Counter, Gauge, Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use durations::Durations;
use named::Named;

use super::log;
use crate::config::OutageRule;
use crate::identity::{Fact, FactLoss, Kind};
use crate::session::Ending;

pub use super::labels::{
    Call, CallOutcome, ClosedFor, DropReason, EntryOutcome, EntryType, EventLoss, GraceOutcome,
    Http2Error, LabelValue, Lapse, LogDrop, Operation, Outcome, Port, PostFailure, ReleaseCause,
    ReloadOutcome, ReloadedFile, RenewalOutcome, Verdict, WebhookOutcome,
};

/// Counters for each value of a label.
struct Counters<L>(Vec<Counter>, PhantomData<L>);

impl<L: LabelValue> Counters<L> {
    /// Increments the counter of that value.
    fn increment(&self, label: L) {
        if let Some(counter) = self.0.get(label.index()) {
            counter.increment(1);
        }
    }

    /// Takes over totals that are counted elsewhere.
    fn catch_up(&self, total: impl Fn(L) -> u64) {
        for (label, counter) in L::ALL.iter().zip(&self.0) {
            counter.absolute(total(*label));
        }
    }
}

/// The numbers of the whole installation.
#[derive(Debug, Clone, Copy, Default)]
pub struct InstallationGauges {
    /// The live streams by kind, in the order of [`Kind::ALL`].
    pub streams: [u64; 3],
    /// The users who watch something.
    pub users: u64,
    /// The users who watch as many streams as they may.
    pub users_at_limit: u64,
    /// The instances that have reported lately.
    pub instances: usize,
    /// Whether the numbers are those of all instances.
    pub is_complete: bool,
}

/// All metrics of one instance.
pub struct Metrics {
    /// Renders all of them.
    handle: PrometheusHandle,
    /// `streamgate_checks_total`
    checks: Counters<Verdict>,
    /// `streamgate_check_duration_seconds`
    check_duration: Durations,
    /// `streamgate_grace_total`
    grace: Counters<GraceOutcome>,
    /// `streamgate_starts_total`
    starts: Counters<Kind>,
    /// `streamgate_renewals_total`
    renewals: Counters<RenewalOutcome>,
    /// `streamgate_leases_lapsed_total`
    lapses: Counters<Lapse>,
    /// `streamgate_releases_total`
    releases: Counters<ReleaseCause>,
    /// `streamgate_store_requests_total`, by operation and outcome
    store_requests: Vec<Counters<Outcome>>,
    /// `streamgate_store_duration_seconds`, by operation
    store_duration: Durations,
    /// `streamgate_store_up`
    store_up: Gauge,
    /// `streamgate_store_shards`
    store_shards: Gauge,
    /// `streamgate_store_shards_out`
    store_shards_out: Gauge,
    /// `streamgate_enforces`
    enforces: Gauge,
    /// `streamgate_store_forgot_total`
    store_forgot: Counter,
    /// `streamgate_outage_rule`, by rule
    outage_rule: Vec<Gauge>,
    /// `streamgate_sessions_held`
    sessions_held: Gauge,
    /// `streamgate_sessions_owed`
    sessions_owed: Gauge,
    /// `streamgate_access_log_entries_total`, by type and outcome
    entries: Vec<Counters<EntryOutcome>>,
    /// `streamgate_http_requests_total`, by call and outcome
    http_requests: Vec<Counters<CallOutcome>>,
    /// `streamgate_http_request_duration_seconds`, by call
    http_duration: Durations,
    /// `streamgate_event_listeners`
    event_listeners: Gauge,
    /// `streamgate_event_listeners_dropped_total`
    event_listeners_dropped: Counter,
    /// `streamgate_events_lost_total`
    events_lost: Counters<EventLoss>,
    /// `streamgate_access_log_missing`
    access_log_missing: Gauge,
    /// `streamgate_releaser_pending`
    releaser_pending: Gauge,
    /// `streamgate_releaser_dropped_total`
    releaser_dropped: Counters<DropReason>,
    /// `streamgate_unknown_plan_total`
    unknown_plans: Counter,
    /// `streamgate_missing_plan_total`
    missing_plans: Counter,
    /// `streamgate_facts_lost_total`, by fact and loss
    facts_lost: Vec<Counters<FactLoss>>,
    /// `streamgate_log_lines_dropped_total`
    log_lines_dropped: Counters<LogDrop>,
    /// `streamgate_connections`, by port
    connections: Vec<Gauge>,
    /// `streamgate_connections_closed_total`, by port and cause
    connections_closed: Vec<Counters<ClosedFor>>,
    /// `streamgate_http2_errors_total`, by port and error
    http2_errors: Vec<Counters<Http2Error>>,
    /// `streamgate_reloads_total`, by file and outcome
    reloads: Vec<Counters<ReloadOutcome>>,
    /// `streamgate_files_unusable`, by file
    files_unusable: Vec<Gauge>,
    /// When the first of a port's certificates expires, in seconds since 1970, by port: a gauge
    /// can't be read.
    certificates_end: Vec<AtomicU64>,
    /// `streamgate_certificate_expires_timestamp_seconds`, by port
    certificates_expire: Vec<Gauge>,
    /// `streamgate_certificate_valid_from_timestamp_seconds`, by port
    certificates_begin: Vec<Gauge>,
    /// `streamgate_installation_streams`, by kind
    installation_streams: Vec<Gauge>,
    /// `streamgate_installation_users`
    installation_users: Gauge,
    /// `streamgate_installation_users_at_limit`
    installation_users_at_limit: Gauge,
    /// `streamgate_installation_instances`
    installation_instances: Gauge,
    /// `streamgate_installation_complete`
    installation_complete: Gauge,
    /// `streamgate_webhook_events_total`
    webhook_events: Counters<WebhookOutcome>,
    /// `streamgate_webhook_events_queued`
    webhook_queued: Gauge,
    /// `streamgate_webhook_posts_failed_total`
    webhook_posts_failed: Counters<PostFailure>,
}

impl Metrics {
    /// All metrics, at zero.
    #[must_use]
    pub fn new() -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        let make = Make(&recorder);
        make.gauge(named::BUILD_INFO, &[("version", env!("CARGO_PKG_VERSION"))])
            .set(1.0);
        Self {
            checks: make.counters(named::CHECKS, |verdict: Verdict| {
                vec![
                    ("decision", verdict.decision()),
                    ("reason", verdict.as_str()),
                ]
            }),
            check_duration: Durations::new(named::CHECK_DURATION, []),
            grace: make.counters(named::GRACE, one("outcome")),
            starts: make.counters(named::STARTS, one("kind")),
            renewals: make.counters(named::RENEWALS, one("outcome")),
            lapses: make.counters(named::LAPSES, one("noticed_by")),
            releases: make.counters(named::RELEASES, one("cause")),
            store_requests: make
                .tables::<Operation, _>(named::STORE_REQUESTS, ["operation", "outcome"]),
            store_duration: Durations::new(named::STORE_DURATION, labels::<Operation>("operation")),
            store_up: make.gauge(named::STORE_UP, &[]),
            store_shards: make.gauge(named::STORE_SHARDS, &[]),
            store_shards_out: make.gauge(named::STORE_SHARDS_OUT, &[]),
            enforces: make.gauge(named::ENFORCES, &[]),
            store_forgot: make.counter(named::STORE_FORGOT, &[]),
            outage_rule: make.gauges::<OutageRule>(named::OUTAGE_RULE, "rule"),
            sessions_held: make.gauge(named::SESSIONS_HELD, &[]),
            sessions_owed: make.gauge(named::SESSIONS_OWED, &[]),
            entries: make.tables::<EntryType, _>(named::ENTRIES, ["type", "outcome"]),
            event_listeners: make.gauge(named::EVENT_LISTENERS, &[]),
            event_listeners_dropped: make.counter(named::EVENT_LISTENERS_DROPPED, &[]),
            events_lost: make.counters(named::EVENTS_LOST, one("at")),
            access_log_missing: make.gauge(named::ACCESS_LOG_MISSING, &[]),
            http_requests: make.tables::<Call, _>(named::HTTP_REQUESTS, ["call", "outcome"]),
            http_duration: Durations::new(named::HTTP_DURATION, labels::<Call>("call")),
            releaser_pending: make.gauge(named::RELEASER_PENDING, &[]),
            releaser_dropped: make.counters(named::RELEASER_DROPPED, one("reason")),
            unknown_plans: make.counter(named::UNKNOWN_PLANS, &[]),
            missing_plans: make.counter(named::MISSING_PLANS, &[]),
            facts_lost: make.tables::<Fact, _>(named::FACTS_LOST, ["fact", "loss"]),
            log_lines_dropped: make.counters(named::LOG_LINES_DROPPED, one("cause")),
            connections: make.gauges::<Port>(named::CONNECTIONS, "port"),
            connections_closed: make
                .tables::<Port, _>(named::CONNECTIONS_CLOSED, ["port", "cause"]),
            http2_errors: make.tables::<Port, _>(named::HTTP2_ERRORS, ["port", "error"]),
            reloads: make.tables::<ReloadedFile, _>(named::RELOADS, ["file", "outcome"]),
            files_unusable: make.gauges::<ReloadedFile>(named::FILES_UNUSABLE, "file"),
            certificates_end: Port::ALL.iter().map(|_| AtomicU64::new(0)).collect(),
            certificates_expire: make.gauges::<Port>(named::CERTIFICATES_EXPIRE, "port"),
            certificates_begin: make.gauges::<Port>(named::CERTIFICATES_BEGIN, "port"),
            installation_streams: make.gauges::<Kind>(named::INSTALLATION_STREAMS, "kind"),
            installation_users: make.gauge(named::INSTALLATION_USERS, &[]),
            installation_users_at_limit: make.gauge(named::INSTALLATION_USERS_AT_LIMIT, &[]),
            installation_instances: make.gauge(named::INSTALLATION_INSTANCES, &[]),
            installation_complete: make.gauge(named::INSTALLATION_COMPLETE, &[]),
            webhook_events: make.counters(named::WEBHOOK_EVENTS, one("outcome")),
            webhook_queued: make.gauge(named::WEBHOOK_QUEUED, &[]),
            webhook_posts_failed: make.counters(named::WEBHOOK_POSTS_FAILED, one("cause")),
            handle: recorder.handle(),
        }
    }

    /// Counts a check, and records how long it took if it was answered, without the grace that it
    /// waited.
    pub fn check(&self, verdict: Verdict, took: Option<Duration>) {
        self.checks.increment(verdict);
        if let Some(took) = took {
            self.check_duration.record(0, took);
        }
    }

    /// Counts a start that waited for a slot, or should have.
    pub fn grace(&self, outcome: GraceOutcome) {
        self.grace.increment(outcome);
    }

    /// Counts a session that has started.
    pub fn start(&self, kind: Kind) {
        self.starts.increment(kind);
    }

    /// Counts a stream that was seen running.
    pub fn renewal(&self, outcome: RenewalOutcome) {
        self.renewals.increment(outcome);
    }

    /// Counts a stream that has outlived its lease.
    pub fn lapse(&self, noticed_by: Lapse) {
        self.lapses.increment(noticed_by);
    }

    /// Counts a slot that was freed before its lease expired.
    pub fn release(&self, ending: Ending) {
        if let Some(cause) = ReleaseCause::of(ending) {
            self.releases.increment(cause);
        }
    }

    /// Counts a call to the store and records how long it took.
    pub fn store(&self, operation: Operation, outcome: Outcome, took: Duration) {
        if let Some(requests) = self.store_requests.get(operation.index()) {
            requests.increment(outcome);
        }
        if outcome != Outcome::NotAsked {
            self.store_duration.record(operation.index(), took);
        }
    }

    /// Records how many shards the store has, and how many of them are known not to answer.
    #[expect(clippy::cast_precision_loss, reason = "nobody has 2^52 shards")]
    pub fn store_shards(&self, known: usize, out: usize) {
        self.store_shards.set(known as f64);
        self.store_shards_out.set(out as f64);
    }

    /// Records whether the store, or any shard of it, answers.
    pub fn store_up(&self, up: bool) {
        self.store_up.set(if up { 1.0 } else { 0.0 });
    }

    /// Records whether refusals are enforced.
    pub fn enforces(&self, enforces: bool) {
        self.enforces.set(if enforces { 1.0 } else { 0.0 });
    }

    /// Counts that the store was found to have lost sessions.
    pub fn store_forgot(&self) {
        self.store_forgot.increment(1);
    }

    /// Records which rule decides instead of the store, if one does.
    pub fn outage_rule(&self, in_force: Option<OutageRule>) {
        for (rule, gauge) in OutageRule::ALL.iter().zip(&self.outage_rule) {
            gauge.set(if Some(*rule) == in_force { 1.0 } else { 0.0 });
        }
    }

    /// Records how many sessions are held, and how many of them are unsynced.
    #[expect(clippy::cast_precision_loss, reason = "nobody holds 2^52 sessions")]
    pub fn sessions(&self, held: usize, unsynced: usize) {
        self.sessions_held.set(held as f64);
        self.sessions_owed.set(unsynced as f64);
    }

    /// Records whether Envoy's access log was found not to arrive.
    pub fn access_log_missing(&self, missing: bool) {
        self.access_log_missing.set(if missing { 1.0 } else { 0.0 });
    }

    /// Counts an access log entry.
    pub fn entry(&self, entry: EntryType, outcome: EntryOutcome) {
        if let Some(entries) = self.entries.get(entry.index()) {
            entries.increment(outcome);
        }
    }

    /// Counts an HTTP request and records how long it took, including the wait for a slot.
    pub fn call(&self, call: Call, outcome: CallOutcome, took: Duration) {
        if let Some(requests) = self.http_requests.get(call.index()) {
            requests.increment(outcome);
        }
        self.http_duration.record(call.index(), took);
    }

    /// Records how many renewals and releases wait to be delivered.
    #[expect(clippy::cast_precision_loss, reason = "no queue is 2^52 long")]
    pub fn releaser_pending(&self, pending: usize) {
        self.releaser_pending.set(pending as f64);
    }

    /// Counts a renewal or release that was given up.
    pub fn releaser_dropped(&self, reason: DropReason) {
        self.releaser_dropped.increment(reason);
    }

    /// Records how many clients listen to events.
    #[expect(clippy::cast_precision_loss, reason = "nobody has 2^52 listeners")]
    pub fn event_listeners(&self, count: usize) {
        self.event_listeners.set(count as f64);
    }

    /// Counts a listener that was too slow.
    pub fn event_listener_dropped(&self) {
        self.event_listeners_dropped.increment(1);
    }

    /// Counts events that some listeners don't get.
    pub fn events_lost(&self, at: EventLoss, count: usize) {
        if let Some(lost) = self.events_lost.0.get(at.index()) {
            lost.increment(count as u64);
        }
    }

    /// Counts a request with a plan that the policy doesn't have.
    pub fn unknown_plan(&self) {
        self.unknown_plans.increment(1);
    }

    /// Counts a request without a plan although the policy has some, and whose user got the
    /// default.
    pub fn missing_plan(&self) {
        self.missing_plans.increment(1);
    }

    /// Counts a fact that could not be kept unchanged.
    pub fn fact_lost(&self, fact: Fact, loss: FactLoss) {
        if let Some(facts) = self.facts_lost.get(fact.index()) {
            facts.increment(loss);
        }
    }

    /// Counts an accepted connection.
    pub fn connection_opened(&self, port: Port) {
        if let Some(connections) = self.connections.get(port.index()) {
            connections.increment(1.0);
        }
    }

    /// Counts the connection as closed.
    pub fn connection_closed(&self, port: Port) {
        if let Some(connections) = self.connections.get(port.index()) {
            connections.decrement(1.0);
        }
    }

    /// Counts a connection that streamgate closed to protect others.
    pub fn connection_closed_for(&self, port: Port, cause: ClosedFor) {
        if let Some(closed) = self.connections_closed.get(port.index()) {
            closed.increment(cause);
        }
    }

    /// Counts an HTTP/2 error that we sent.
    pub fn http2_error(&self, port: Port, error: Http2Error) {
        if let Some(errors) = self.http2_errors.get(port.index()) {
            errors.increment(error);
        }
    }

    /// Counts changed files.
    pub fn reload(&self, file: ReloadedFile, outcome: ReloadOutcome) {
        if let Some(reloads) = self.reloads.get(file.index()) {
            reloads.increment(outcome);
        }
        self.file_unusable(file, outcome == ReloadOutcome::Failed);
    }

    /// Records whether files currently can't be used.
    pub fn file_unusable(&self, file: ReloadedFile, unusable: bool) {
        if let Some(gauge) = self.files_unusable.get(file.index()) {
            gauge.set(if unusable { 1.0 } else { 0.0 });
        }
    }

    /// When the first of a port's certificates expires, as a time since 1970; `None` if it has none.
    #[must_use]
    pub fn certificate_expires(&self, port: Port) -> Option<Duration> {
        let seconds = self.certificates_end.get(port.index())?;
        let seconds = seconds.load(Ordering::Relaxed);
        (seconds > 0).then_some(Duration::from_secs(seconds))
    }

    /// Records the validity period of a port's certificate, as times since 1970.
    pub fn certificate(&self, port: Port, from: Duration, until: Duration) {
        for (gauges, time) in [
            (&self.certificates_begin, from),
            (&self.certificates_expire, until),
        ] {
            if let Some(gauge) = gauges.get(port.index()) {
                gauge.set(time.as_secs_f64());
            }
        }
        if let Some(end) = self.certificates_end.get(port.index()) {
            end.store(until.as_secs(), Ordering::Relaxed);
        }
    }

    /// Records the numbers of the whole installation.
    #[expect(clippy::cast_precision_loss, reason = "nobody has 2^52 users")]
    pub fn installation(&self, known: &InstallationGauges) {
        for (gauge, streams) in self.installation_streams.iter().zip(known.streams) {
            gauge.set(streams as f64);
        }
        self.installation_users.set(known.users as f64);
        self.installation_users_at_limit
            .set(known.users_at_limit as f64);
        self.installation_instances.set(known.instances as f64);
        self.installation_complete
            .set(if known.is_complete { 1.0 } else { 0.0 });
    }

    /// All metrics in Prometheus's text format.
    #[must_use]
    pub fn render(&self) -> String {
        self.log_lines_dropped.catch_up(log::dropped);
        let mut text = self.handle.render();
        for durations in [
            &self.check_duration,
            &self.store_duration,
            &self.http_duration,
        ] {
            durations.render(&mut text);
        }
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// The origin of a metric, which the recorder requires and doesn't use.
static METADATA: Metadata<'_> = Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

/// A label's name and value.
type LabelPair = (&'static str, &'static str);

/// Makes metrics, with their help.
struct Make<'a>(&'a PrometheusRecorder);

impl Make<'_> {
    /// A counter for each value of a label, with the labels that `of` returns.
    fn counters<L: LabelValue>(
        &self,
        named: Named,
        of: impl Fn(L) -> Vec<LabelPair>,
    ) -> Counters<L> {
        Counters(by(|label| self.counter(named, &of(label))), PhantomData)
    }

    /// The same for each value of another label.
    fn tables<K: LabelValue, L: LabelValue>(
        &self,
        named: Named,
        [first, second]: [&'static str; 2],
    ) -> Vec<Counters<L>> {
        by(|value: K| self.counters(named, two(first, value, second)))
    }

    /// A gauge for each value of a label.
    fn gauges<L: LabelValue>(&self, named: Named, label: &'static str) -> Vec<Gauge> {
        by(|value: L| self.gauge(named, &[(label, value.as_str())]))
    }

    /// A counter.
    fn counter(&self, named: Named, labels: &[LabelPair]) -> Counter {
        self.0
            .describe_counter(named.0.into(), None, named.1.into());
        self.0.register_counter(&key(named.0, labels), &METADATA)
    }

    /// A gauge.
    fn gauge(&self, named: Named, labels: &[LabelPair]) -> Gauge {
        self.0.describe_gauge(named.0.into(), None, named.1.into());
        self.0.register_gauge(&key(named.0, labels), &METADATA)
    }
}

/// One item for each value of a label.
fn by<L: LabelValue, T>(make: impl FnMut(L) -> T) -> Vec<T> {
    L::ALL.iter().copied().map(make).collect()
}

/// A label with each of its values.
fn labels<L: LabelValue>(name: &'static str) -> Vec<LabelPair> {
    by(|value: L| (name, value.as_str()))
}

/// One label.
fn one<L: LabelValue>(name: &'static str) -> impl Fn(L) -> Vec<LabelPair> {
    move |label| vec![(name, label.as_str())]
}

/// Two labels, the first with a fixed value.
fn two<L: LabelValue>(
    first: &'static str,
    value: impl LabelValue,
    second: &'static str,
) -> impl Fn(L) -> Vec<LabelPair> {
    move |label| vec![(first, value.as_str()), (second, label.as_str())]
}

/// The key of a series.
fn key(name: &'static str, labels: &[LabelPair]) -> Key {
    let labels: Vec<Label> = labels
        .iter()
        .map(|(name, value)| Label::from_static_parts(name, value))
        .collect();
    Key::from_parts(name, labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_is_there_from_the_start_and_counts() {
        let metrics = Metrics::new();
        let before = metrics.render();
        for verdict in Verdict::ALL {
            let series = format!(
                "streamgate_checks_total{{decision=\"{}\",reason=\"{}\"}} 0\n",
                verdict.decision(),
                verdict.as_str()
            );
            assert!(before.contains(&series), "no {series} in {before}");
        }
        metrics.check(Verdict::Full, Some(Duration::from_micros(80)));
        metrics.store(
            Operation::Admit,
            Outcome::Timeout,
            Duration::from_millis(50),
        );
        let after = metrics.render();
        for line in [
            "streamgate_checks_total{decision=\"deny\",reason=\"full\"} 1\n",
            "streamgate_store_requests_total{operation=\"admit\",outcome=\"timeout\"} 1\n",
            "streamgate_check_duration_seconds_bucket{le=\"0.0001\"} 1\n",
            "# HELP streamgate_store_up 1 while the store, or any shard of it, answers, 0 while none does\n",
        ] {
            assert!(after.contains(line), "no {line} in {after}");
        }
    }

    #[test]
    fn the_documents_say_how_many_series_there_are() {
        let text = Metrics::new().render();
        let series = text.lines();
        let series = series.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let said = format!("{} series", series.count());
        for document in [
            include_str!("../../../docs/metrics.md"),
            include_str!("../../../docs/operations.md"),
            include_str!("../../../docs/sizing.md"),
        ] {
            let told = document.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(told.contains(&said), "{said}");
        }
    }

    #[test]
    fn two_instances_count_apart() {
        let (one, other) = (Metrics::new(), Metrics::new());
        one.check(Verdict::Started, None);
        assert!(one.render().contains("reason=\"started\"} 1\n"));
        assert!(other.render().contains("reason=\"started\"} 0\n"));
    }
}
