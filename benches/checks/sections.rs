//! What is measured: each function has some kinds of checks take turns, and makes tables of what
//! they have shown.

use std::process::Command;
use std::time::Duration;

use hdrhistogram::Histogram;
use streamgate::clock::Stopwatch;
use testkit::streamgate::Streamgate;
use testkit::tools::{streamgate_program, tool};
use testkit::watch::as_many;

use super::client::{Load, times};
use super::parties::{AT_ONE_TIME, Kind, Parties, Sample, Who};
use super::report::{Report, Row, Section, median};

/// What the empty server is called.
const EMPTY: &str = "an ext_authz server that admits everybody";

/// A row of a table: its name, its case, the case to compare it with, and the most that the ratio
/// should be.
type Line = (&'static str, usize, usize, Option<f64>);

/// The pace of 20,000 checks a second, and that of the requests to Envoy.
const PACES: (Duration, Duration) = (Duration::from_micros(50), Duration::from_millis(1));

/// One kind of check that takes its turn: who is asked what, and at what pace.
type Case = (Who, Kind, Option<Duration>);

/// What the cases have shown, round by round.
struct Rounds(Vec<Vec<Sample>>);

impl Rounds {
    /// Has the cases take turns: so many rounds, and in each so many checks of each case.
    async fn of(parties: &mut Parties, rounds: usize, checks: usize, cases: &[Case]) -> Self {
        let mut shown = Self(cases.iter().map(|_| Vec::new()).collect());
        let count = as_many(checks).max(AT_ONE_TIME);
        for _ in 0..as_many(rounds) {
            for ((who, kind, pace), shown) in cases.iter().zip(&mut shown.0) {
                let load = pace.map_or_else(
                    || Load::in_turn(count, AT_ONE_TIME),
                    |pace| Load::paced(count, pace),
                );
                shown.push(parties.sample(*who, *kind, &load).await);
            }
        }
        shown
    }

    /// What each round of a case has shown.
    fn each(&self, case: usize, figure: impl Fn(&Sample) -> f64) -> Vec<f64> {
        self.0[case].iter().map(figure).collect()
    }

    /// The processor time of a check, in microseconds.
    fn processor(&self, case: usize) -> Vec<f64> {
        self.each(case, |sample| sample.processor)
    }

    /// All times of a case.
    fn took(&self, case: usize) -> Histogram<u64> {
        let mut all = times();
        for sample in &self.0[case] {
            all.add(&sample.took).unwrap();
        }
        all
    }
}

/// The median of a round's times, in microseconds.
fn middle(sample: &Sample) -> f64 {
    sample.took.value_at_quantile(0.5) as f64 / 1e3
}

/// What each round of one case has more than that of another.
fn added(values: Vec<f64>, without: &[f64]) -> Vec<f64> {
    let pairs = values.into_iter().zip(without);
    pairs.map(|(value, without)| value - without).collect()
}

/// A table of what each round of the cases has shown. Its heading has three parts.
fn section(
    name: &'static str,
    head: [&'static str; 3],
    values: impl Fn(usize) -> Vec<f64>,
    lines: &[Line],
) -> Section {
    let rows = lines.iter();
    let rows =
        rows.map(|(name, case, base, goal)| Row::of(name, &values(*case), &values(*base), *goal));
    Section {
        name,
        head,
        rows: rows.collect(),
    }
}

/// The processor time under load.
pub(crate) async fn under_load(parties: &mut Parties, report: &mut Report) {
    let cases = [
        (Who::Empty, Kind::Start, None),
        (Who::Textbook, Kind::Start, None),
        (Who::OnRedis, Kind::Held, None),
        (Who::OnRedis, Kind::Start, None),
        (Who::OnRedis, Kind::Refused, None),
        (Who::OnRedis, Kind::Entry, None),
        (Who::OnCluster, Kind::Held, None),
        (Who::OnCluster, Kind::Start, None),
        (Who::Embedded, Kind::Held, None),
        (Who::Embedded, Kind::Start, None),
        (Who::Embedded, Kind::Refused, None),
        (Who::Empty, Kind::Entry, None),
        (Who::Limitador, Kind::Start, None),
    ];
    let rounds = Rounds::of(parties, 20, 5_000, &cases).await;
    let processor = |case| rounds.processor(case);
    let what = "64 checks at a time";
    let lines: [Line; 13] = [
        (EMPTY, 0, 0, None),
        ("the same with a textbook count in Redis", 1, 0, None),
        (
            "Redis: a playback's next request (from memory)",
            2,
            0,
            Some(0.70),
        ),
        ("Redis: start", 3, 0, Some(1.8)),
        ("Redis: refused, with three holders", 4, 0, Some(2.2)),
        ("an entry of the access log", 5, 0, Some(0.3)),
        ("Redis Cluster: a playback's next request", 6, 0, None),
        ("Redis Cluster: start", 7, 0, None),
        ("embedded store: a playback's next request", 8, 0, None),
        ("embedded store: start", 9, 0, None),
        ("embedded store: refused, with three holders", 10, 0, None),
        ("an entry, read by tonic and dropped", 11, 0, None),
        ("Limitador's library, in memory", 12, 0, None),
    ];
    let head = [what, "processor a check", "of the empty server"];
    let mut load = section("load", head, processor, &lines);
    for (case, row) in load.rows.iter_mut().enumerate() {
        row.redis = Some(median(&rounds.each(case, |sample| sample.redis)));
    }
    let head = [what, "processor a check", "of the textbook count"];
    let start = [("Redis: start", 3, 1, Some(1.05))];
    let floor = section("floor", head, processor, &start);
    let head = [what, "processor a check", "of a start on one Redis"];
    let start = [("Redis Cluster: start", 7, 3, Some(1.2))];
    let cluster = section("cluster", head, processor, &start);
    report.sections.extend([load, floor, cluster]);
}

/// At 20,000 checks a second, and at half of what the servers can do.
pub(crate) async fn at_a_pace(parties: &mut Parties, report: &mut Report) {
    let most = [
        (Who::Empty, Kind::Start, None),
        (Who::OnRedis, Kind::Start, None),
    ];
    let most = Rounds::of(parties, 10, 5_000, &most).await;
    let [of_empty, of_start] = [0, 1].map(|case| {
        let cost = median(&most.processor(case));
        Some(Duration::from_secs_f64(2.0 * cost / 1e6))
    });
    let cases = [
        (Who::Empty, Kind::Start, Some(PACES.0)),
        (Who::OnRedis, Kind::Held, Some(PACES.0)),
        (Who::Empty, Kind::Start, of_empty),
        (Who::OnRedis, Kind::Held, of_empty),
        (Who::Empty, Kind::Start, of_start),
        (Who::OnRedis, Kind::Start, of_start),
        (Who::Textbook, Kind::Start, of_start),
    ];
    let rounds = Rounds::of(parties, 10, 10_000, &cases).await;
    let head = [
        "20,000 checks a second",
        "processor a check",
        "of the empty server",
    ];
    let lines = [
        (EMPTY, 0, 0, None),
        ("a playback's next request", 1, 0, Some(1.0)),
    ];
    let pace = section("pace", head, |case| rounds.processor(case), &lines);
    let what = "half of the most checks a second";
    let head = [what, "half of the answers within", "of the empty server"];
    let lines: [Line; 5] = [
        (EMPTY, 2, 2, None),
        ("a playback's next request", 3, 2, Some(1.0)),
        (
            "an ext_authz server that admits everybody, as many as starts",
            4,
            4,
            None,
        ),
        ("Redis: start", 5, 4, Some(2.0)),
        ("the same with a textbook count in Redis", 6, 4, None),
    ];
    let half = section("half", head, |case| rounds.each(case, middle), &lines);
    let took = lines.map(|(name, case, ..)| (name, rounds.took(case)));
    report.times.push((what, took.into()));
    report.sections.extend([pace, half]);
}

/// Through a real Envoy, at 1,000 requests a second: what the check adds.
pub(crate) async fn through_envoy(parties: &mut Parties, report: &mut Report) {
    let cases = [
        (Who::Envoy, Kind::Start, Some(PACES.1)),
        (Who::EnvoyEmpty, Kind::Start, Some(PACES.1)),
        (Who::EnvoyOnRedis, Kind::Held, Some(PACES.1)),
        (Who::EnvoyOnRedis, Kind::Start, Some(PACES.1)),
    ];
    let rounds = Rounds::of(parties, 15, 1_000, &cases).await;
    let what = "through Envoy, 1,000 requests a second";
    let lines = |goals: [f64; 2]| -> [Line; 3] {
        [
            (EMPTY, 1, 1, None),
            ("a playback's next request", 2, 1, Some(goals[0])),
            ("Redis: start", 3, 1, Some(goals[1])),
        ]
    };
    let head = [
        what,
        "processor added, Envoy's and the server's",
        "of the empty server",
    ];
    let processor = |case| added(rounds.processor(case), &rounds.processor(0));
    let processor = section("Envoy, processor", head, processor, &lines([1.05, 1.5]));
    let head = [
        what,
        "half of the answers within, added",
        "of the empty server",
    ];
    let half = |case| added(rounds.each(case, middle), &rounds.each(0, middle));
    let half = section("Envoy, half", head, half, &lines([1.05, 1.5]));
    report.sections.extend([processor, half]);
    let all = [
        "no check",
        EMPTY,
        "a playback's next request",
        "Redis: start",
    ];
    let took = all.into_iter().enumerate();
    let took = took.map(|(case, name)| (name, rounds.took(case)));
    report.times.push((what, took.collect()));
}

/// With two threads, and with many viewers.
pub(crate) async fn with_many(parties: &mut Parties, report: &mut Report) {
    let cases = [
        (Who::Embedded, Kind::Held, None),
        (Who::OnTwoCores, Kind::Held, None),
        (Who::Few, Kind::Held, None),
        (Who::Many, Kind::Held, None),
        (Who::Empty, Kind::Start, None),
        (Who::EmptyOnTwoCores, Kind::Start, None),
    ];
    let rounds = Rounds::of(parties, 20, 5_000, &cases).await;
    let cases = [
        (Who::Few, Kind::Start, None),
        (Who::Many, Kind::Start, None),
    ];
    let starts = Rounds::of(parties, 30, 500, &cases).await;
    let processor = |case: usize| match case {
        0..6 => rounds.processor(case),
        _ => starts.processor(case - 6),
    };
    let lines: [Line; 8] = [
        ("one thread: a playback's next request", 0, 0, None),
        ("two threads on two cores", 1, 0, Some(2.0 / 1.8)),
        (EMPTY, 4, 4, None),
        ("that one: two threads on two cores", 5, 4, None),
        ("1,000 viewers: a playback's next request", 2, 2, None),
        (
            "950,000 viewers: a playback's next request",
            3,
            2,
            Some(1.1),
        ),
        ("1,000 viewers: start", 6, 6, None),
        ("950,000 viewers: start", 7, 6, Some(1.1)),
    ];
    let head = [
        "embedded store, 64 checks at a time",
        "processor a check",
        "of the one above",
    ];
    let many = section("many", head, processor, &lines);
    report.sections.push(many);
}

/// With a limit of a hundred.
pub(crate) fn with_a_high_limit(parties: &mut Parties, report: &mut Report) {
    let mut fill = |who| -> Vec<_> {
        let rounds = 0..as_many(5);
        rounds.map(|_| parties.fill_hundred(who)).collect()
    };
    let (in_memory, on_redis) = (fill(Who::Hundred), fill(Who::HundredOnRedis));
    let lines = |goal| -> [Line; 2] {
        [
            ("a viewer's first five starts", 0, 0, None),
            ("a viewer's last five of a hundred starts", 1, 0, goal),
        ]
    };
    let ratio = "of the first five";
    let head = ["embedded store, a limit of 100", "processor a check", ratio];
    let processor = |case: usize| in_memory.iter().map(|costs| costs[case][0]).collect();
    let in_memory = section("hundred", head, processor, &lines(Some(2.0)));
    let head = ["Redis, a limit of 100", "Redis's processor a check", ratio];
    let processor = |case: usize| on_redis.iter().map(|costs| costs[case][1]).collect();
    let on_redis = section("hundred on Redis", head, processor, &lines(None));
    report.sections.extend([in_memory, on_redis]);
}

/// What the limits of other proxies cost, which count what one proxy has open.
pub(crate) async fn others(parties: &mut Parties, report: &mut Report) {
    let cases = [
        Who::Nginx,
        Who::NginxLimited,
        Who::Haproxy,
        Who::HaproxyLimited,
    ];
    let cases = cases.map(|who| (who, Kind::Start, None));
    let rounds = Rounds::of(parties, 10, 5_000, &cases).await;
    let lines: [Line; 4] = [
        ("nginx 1.22", 0, 0, None),
        ("the same with `limit_conn`", 1, 0, None),
        ("HAProxy 2.6", 2, 2, None),
        ("the same with a stick table of requests", 3, 2, None),
    ];
    let head = [
        "other proxies, 64 requests at a time",
        "processor a request",
        "of the one without a limit",
    ];
    let processor = |case| rounds.processor(case);
    let others = section("others", head, processor, &lines);
    report.sections.push(others);
}

/// How long it takes from its start until it serves, and its size without symbols.
pub(crate) async fn the_program(report: &mut Report) {
    let mut ready = Vec::new();
    for _ in 0..as_many(20) {
        let began = Stopwatch::start();
        let _program = Streamgate::start(&[]).await;
        ready.push(began.elapsed().as_secs_f64() * 1e3);
    }
    let folder = tempfile::tempdir().unwrap();
    let stripped = folder.path().join("streamgate");
    let mut strip = Command::new(tool("strip", "binutils"));
    strip.arg("-o").arg(&stripped).arg(streamgate_program());
    assert!(strip.status().unwrap().success());
    let size = std::fs::metadata(stripped).unwrap().len() as f64 / 1e6;
    let fact = |what: &str, figure, goal: &str| [what.to_owned(), figure, goal.to_owned()];
    report.facts = vec![
        fact(
            "from its start until it serves, median",
            format!("{:.0} ms", median(&ready)),
            "50 ms",
        ),
        fact("its size without symbols", format!("{size:.1} MB"), "20 MB"),
    ];
}
