//! Many viewers on the real binary, while Redis forgets everything, stands still, or is simply to be left in peace. No Envoy: the checks
//! are spoken as it speaks them, and offered at a steady rate, whatever the answers take.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::future;
use futures_util::stream::{self, StreamExt};
use streamgate::clock::Stopwatch;
use streamgate::identity::{Kind, SessionKey};
use streamgate::store::Store;
use streamgate::store::redis::RedisStore;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use testkit::gateway_client::{Answer, Check, Gateway, LogStream, answered, periodic};
use testkit::redis::RedisServer;
use testkit::streamgate::{Setting, Streamgate};
use testkit::streams::{key, playback, user};
use testkit::watch::{PATIENCE, eventually, measured};

/// Two loads at once on a small machine would show nothing but that it is small.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// What is published is measured with an optimised build. One that isn't can't do so much beside other tests: it is offered the n-th part.
const PART: usize = if cfg!(debug_assertions) { 5 } else { 1 };

/// How many calls are under way at a time where none has a time of its own.
const AT_ONCE: usize = 64;

/// How many entries Envoy sends in one message. After one of 1,000 streamgate would end the stream.
const ENTRIES: usize = 500;

/// The settings of a streamgate that counts in this Redis, and these besides.
fn on_redis<'a>(url: &'a str, others: &[Setting<'a>]) -> Vec<Setting<'a>> {
    let redis = [
        ("store.backend", "redis"),
        ("store.redis.urls", url),
        ("limits.grace", "0s"),
    ];
    redis.iter().chain(others).copied().collect()
}

/// A steady rate.
struct Pace {
    begun: Stopwatch,
    per_second: usize,
    given: usize,
}

impl Pace {
    /// So many a second, from now on.
    fn of(per_second: usize) -> Self {
        Self {
            begun: Stopwatch::start(),
            per_second,
            given: 0,
        }
    }

    /// The numbers of those that have come due, after a moment in which some may.
    async fn due(&mut self) -> std::ops::Range<usize> {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let elapsed = usize::try_from(self.begun.elapsed().as_micros()).unwrap();
        let by_now = elapsed * self.per_second / 1_000_000;
        std::mem::replace(&mut self.given, by_now)..by_now
    }
}

/// Asks, and does not wait for ever; `None` if no answer came.
async fn ask(gateway: &Gateway, check: Check) -> Option<Answer> {
    let asking = Box::pin(gateway.try_check(check));
    let asked = tokio::time::timeout(PATIENCE, asking).await;
    asked.ok()?.ok()
}

/// What Redis counts of some users' sessions.
async fn counted(
    store: &RedisStore,
    users: impl IntoIterator<Item = String>,
) -> Vec<(String, HashSet<SessionKey>)> {
    let looks = users.into_iter().map(async |name| {
        let listing = store.list(&user(&name)).await.unwrap();
        let keys = listing.sessions.into_iter().map(|session| session.key);
        (name, keys.collect())
    });
    stream::iter(looks)
        .buffer_unordered(AT_ONCE)
        .collect()
        .await
}

// === A Redis that forgets ===

/// A stream that runs.
#[derive(Debug, Clone)]
struct Running {
    user: String,
    key: SessionKey,
    /// Which streamgate it goes through.
    door: usize,
}

/// The start of a stream for which there was no slot.
#[derive(Debug)]
struct Extra {
    asked_at: Duration,
    answered_at: Duration,
    let_in: bool,
}

/// What the test knows. A stream that was let in runs until the test is over.
#[derive(Debug, Default)]
struct Truth {
    playbacks: Vec<Running>,
    /// The answers to the first requests of the playbacks that had a slot, each from its streamgate.
    first_answers: [Vec<Answer>; 2],
    /// With the answers to their checks.
    requests: Vec<(Running, Answer)>,
    extras: Vec<Extra>,
    /// What was not as it should be.
    wrong: Vec<String>,
}

/// The users of two streamgates with one Redis behind them.
struct Crowd {
    gateways: [Gateway; 2],
    truth: Mutex<Truth>,
    /// How many segments were asked for.
    segments: AtomicUsize,
    begun: Stopwatch,
}

impl Crowd {
    const USERS: usize = 2000 / PART;
    const LIMIT: usize = 3;
    const LEASE: Duration = Duration::from_secs(12);
    /// How many segments are asked for in a second. A playback's come every 6 s: a busy machine may be late by as much again.
    const SEGMENTS_PER_SECOND: usize = 833 / PART;
    /// How many users without a slot left try to start a stream in a second.
    const EXTRAS_PER_SECOND: usize = 25;
    /// How often Envoy sends entries, and how many times until each stream has had its own.
    const LOG: (Duration, usize) = (Duration::from_millis(250), 16);

    /// Of four users one has two playbacks, two have three, and one has two and a stream that is one request. One user's sessions
    /// go through both doors.
    fn plan() -> Vec<Running> {
        let sessions = |number: usize| {
            let kinds: &[Kind] = match number % 4 {
                0 => &[Kind::Playback, Kind::Playback],
                1 => &[Kind::Playback, Kind::Request, Kind::Playback],
                _ => &[Kind::Playback; Self::LIMIT],
            };
            kinds
                .iter()
                .enumerate()
                .map(move |(session, kind)| Running {
                    user: format!("user-{number}"),
                    key: key(*kind, &format!("{number}-{session}")),
                    door: (number + session) % 2,
                })
        };
        (0..Self::USERS).flat_map(sessions).collect()
    }

    /// The n-th try of somebody whose slots are all taken.
    fn one_too_many(nth: usize) -> Running {
        let number = nth * 7 % Self::USERS;
        let number = number + usize::from(number.is_multiple_of(4));
        Running {
            user: format!("user-{number}"),
            key: playback(&format!("extra-{nth}")),
            door: nth / 2 % 2,
        }
    }

    fn users() -> impl Iterator<Item = String> {
        (0..Self::USERS).map(|number| format!("user-{number}"))
    }

    /// All of them with their streams started, and the logs in which Envoy tells of those.
    async fn gathered(
        streamgates: &[Streamgate; 2],
        store: &RedisStore,
    ) -> (Arc<Self>, [LogStream; 2]) {
        let gateways = [
            Gateway::connect(streamgates[0].grpc).await,
            Gateway::connect(streamgates[1].grpc).await,
        ];
        let mut logs = [
            gateways[0].access_log().await,
            gateways[1].access_log().await,
        ];
        let crowd = Arc::new(Self {
            gateways,
            truth: Mutex::default(),
            segments: AtomicUsize::new(0),
            begun: Stopwatch::start(),
        });
        stream::iter(Self::plan())
            .for_each_concurrent(AT_ONCE, |stream| crowd.start(stream))
            .await;
        // As Envoy does once a first segment has reached its viewer. What hasn't played isn't put back above the limit.
        for (log, answers) in logs.iter_mut().zip(&crowd.truth().first_answers) {
            for answers in answers.chunks(ENTRIES) {
                let entries = answers.iter().map(|it| answered("first", it, 200));
                log.send(entries.collect());
            }
        }
        eventually("Redis knows what plays", async || {
            crowd.unplayed(store).await.is_empty()
        })
        .await;
        (crowd, logs)
    }

    /// The users of whom Redis counts a session that has not played.
    async fn unplayed(&self, store: &RedisStore) -> Vec<String> {
        let looks = Self::users().map(async |name| {
            let listing = store.list(&user(&name)).await.unwrap();
            let mut sessions = listing.sessions.iter();
            sessions.any(|it| !it.flags.played).then_some(name)
        });
        let looks = stream::iter(looks).buffer_unordered(AT_ONCE);
        looks.filter_map(future::ready).collect().await
    }

    fn truth(&self) -> MutexGuard<'_, Truth> {
        self.truth.lock().unwrap()
    }

    /// What names the sessions of each user.
    fn running(&self) -> HashMap<String, HashSet<SessionKey>> {
        let mut running = HashMap::<_, HashSet<_>>::new();
        let truth = self.truth();
        let requests = truth.requests.iter().map(|(request, _)| request);
        for stream in truth.playbacks.iter().chain(requests) {
            let of_user = running.entry(stream.user.clone()).or_default();
            of_user.insert(stream.key.clone());
        }
        running
    }

    async fn ask(&self, stream: &Running) -> Option<Answer> {
        let id = stream.key.id.as_str();
        let check = match stream.key.kind {
            Kind::Request => Check::of(&stream.user, id),
            Kind::Playback | Kind::Video => Check::of_playback(&stream.user, id),
        };
        ask(&self.gateways[stream.door], check).await
    }

    /// Starts a stream for which there is a slot.
    async fn start(&self, stream: Running) {
        let answer = self.ask(&stream).await;
        let mut truth = self.truth();
        match answer {
            Some(answer) if answer.is_allowed() => match stream.key.kind {
                Kind::Request => truth.requests.push((stream, answer)),
                Kind::Playback | Kind::Video => {
                    truth.first_answers[stream.door].push(answer);
                    truth.playbacks.push(stream);
                }
            },
            other => truth.wrong.push(format!("{stream:?}: {other:?}")),
        }
    }

    /// Asks for the next segment of a playback that runs.
    async fn go_on(&self, nth: usize) {
        let stream = {
            let truth = self.truth();
            truth.playbacks[nth % truth.playbacks.len()].clone()
        };
        let answer = self.ask(&stream).await;
        if !answer.as_ref().is_some_and(Answer::is_allowed) {
            let wrong = format!("{stream:?}: {answer:?}");
            self.truth().wrong.push(wrong);
        }
        self.segments.fetch_add(1, Ordering::Relaxed);
    }

    /// Tries to start a stream for which there is no slot. Should it be let in, it runs.
    async fn try_one_too_many(&self, nth: usize) {
        let stream = Self::one_too_many(nth);
        let asked_at = self.begun.elapsed();
        let answer = self.ask(&stream).await;
        let answered_at = self.begun.elapsed();
        let let_in = answer.as_ref().is_some_and(Answer::is_allowed);
        let mut truth = self.truth();
        match answer {
            Some(_) if let_in => truth.playbacks.push(stream),
            Some(answer) if answer.reason() == "full" => {}
            other => truth.wrong.push(format!("{stream:?}: {other:?}")),
        }
        truth.extras.push(Extra {
            asked_at,
            answered_at,
            let_in,
        });
    }

    /// Has every playback ask again and again, and some users try to start one stream too many, until told to stop.
    async fn watch(self: Arc<Self>, stop: CancellationToken) {
        let mut segments = Pace::of(Self::SEGMENTS_PER_SECOND);
        let mut extras = Pace::of(Self::EXTRAS_PER_SECOND);
        let mut asking = JoinSet::new();
        while !stop.is_cancelled() {
            for nth in segments.due().await {
                let crowd = Arc::clone(&self);
                asking.spawn(async move { crowd.go_on(nth).await });
            }
            for nth in extras.due().await {
                let crowd = Arc::clone(&self);
                asking.spawn(async move { crowd.try_one_too_many(nth).await });
            }
            while asking.try_join_next().is_some() {}
        }
        asking.join_all().await;
    }

    /// Tells of the streams that are one request, as Envoy does, until told to stop.
    async fn log(self: Arc<Self>, mut logs: [LogStream; 2], stop: CancellationToken) {
        let (pause, parts) = Self::LOG;
        let mut next = tokio::time::interval(pause);
        for part in (0..parts).cycle() {
            next.tick().await;
            if stop.is_cancelled() {
                return;
            }
            for (door, log) in logs.iter_mut().enumerate() {
                let truth = self.truth();
                let requests = truth.requests.iter().skip(part).step_by(parts);
                let here = requests.filter(|(stream, _)| stream.door == door);
                let entries = here.map(|(stream, answer)| periodic(stream.key.id.as_str(), answer));
                log.send(entries.collect());
            }
        }
    }

    /// The users of these of whose sessions Redis doesn't count all, or others.
    async fn miscounted(
        &self,
        store: &RedisStore,
        users: impl IntoIterator<Item = String>,
    ) -> Vec<String> {
        let counted = counted(store, users).await;
        let running = self.running();
        let wrong = counted
            .into_iter()
            .filter(|(user, counted)| running.get(user) != Some(counted));
        wrong.map(|(user, _)| user).collect()
    }

    /// What runs of these users, and what Redis counts, with its leases.
    async fn compared(&self, store: &RedisStore, users: Vec<String>) -> String {
        let running = self.running();
        let mut lines = Vec::new();
        for name in users {
            let counted = store.list(&user(&name)).await.unwrap();
            let running = running.get(&name);
            lines.push(format!("{name}: {running:?} run, Redis has {counted:?}"));
        }
        lines.push(format!("wrong: {:?}", self.truth().wrong));
        lines.join("\n")
    }

    /// Nobody without a slot was let in before Redis forgot, nor once all was counted again; how many were in between.
    fn judge_extras(&self, forgetting_at: Duration, healed_at: Duration) {
        let (mut tried, mut let_in) = (0, 0);
        let truth = self.truth();
        for extra in &truth.extras {
            let before = extra.answered_at < forgetting_at;
            let after = extra.asked_at > healed_at;
            assert!(!extra.let_in || !(before || after), "{extra:?}");
            tried += usize::from(!before && !after);
            let_in += usize::from(extra.let_in);
        }
        let all = truth.extras.len();
        println!(
            "{let_in} of {tried} starts without a slot were let in before all was counted again; none of the other {}",
            all - tried
        );
        assert!(all > tried, "somebody tried before and after");
    }

    /// Waits until so many more segments were asked for.
    async fn segments(&self, more: usize) {
        let enough = self.segments.load(Ordering::Relaxed) + more;
        eventually("the playbacks go on", async || {
            self.segments.load(Ordering::Relaxed) >= enough
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_running_stream_of_a_crowd_is_refused_when_redis_forgets_all_of_them() {
    let _turn = TURN.lock().await;
    let redis = RedisServer::start();
    let (url, lease) = (redis.url(), format!("{}s", Crowd::LEASE.as_secs()));
    // What a slow store leads to is not what is shown.
    let settings = on_redis(
        &url,
        &[
            ("store.timeout", "2s"),
            ("store.outage", "deny"),
            ("leases.request", &lease),
            ("leases.playback", &lease),
        ],
    );
    let streamgates = [
        Streamgate::start(&settings).await,
        Streamgate::start(&settings).await,
    ];
    let store = redis.store();
    let (crowd, logs) = Crowd::gathered(&streamgates, &store).await;
    let miscounted = crowd.miscounted(&store, Crowd::users()).await;
    assert_eq!(miscounted, [] as [String; 0], "{:?}", crowd.truth().wrong);

    let stop = CancellationToken::new();
    let mut watching = JoinSet::new();
    watching.spawn(Arc::clone(&crowd).watch(stop.clone()));
    watching.spawn(Arc::clone(&crowd).log(logs, stop.clone()));
    let playbacks = crowd.truth().playbacks.len();
    crowd.segments(playbacks / 2).await;
    let forgetting_at = crowd.begun.elapsed();
    let _: String = redis.run(&["FLUSHALL"]);
    let forgotten = Stopwatch::start();
    let mut miscounted: Vec<String> = Crowd::users().collect();
    while !miscounted.is_empty() {
        assert!(
            forgotten.elapsed() < PATIENCE,
            "{}",
            crowd.compared(&store, miscounted).await
        );
        miscounted = crowd.miscounted(&store, miscounted).await;
    }
    let healed_after = forgotten.elapsed();
    let healed_at = crowd.begun.elapsed();
    // Then every stream goes on for a lease, as it would if nothing had happened.
    crowd.segments(2 * playbacks).await;
    stop.cancel();
    watching.join_all().await;

    let (users, rate) = (Crowd::USERS, Crowd::SEGMENTS_PER_SECOND);
    let what = "all counted again after a FLUSHALL";
    let what = format!("{what} under {rate} segments a second of {users} users");
    measured(&what, healed_after);
    let miscounted = crowd.miscounted(&store, Crowd::users()).await;
    assert_eq!(miscounted, [] as [String; 0]);
    assert_eq!(crowd.truth().wrong, [] as [String; 0]);
    crowd.judge_extras(forgetting_at, healed_at);
}

// === A Redis that stands still ===

/// A check under a load, and what came of it.
#[derive(Debug)]
struct Asked {
    user: String,
    asked_at: Duration,
    answered_at: Duration,
    answer: Option<Answer>,
}

/// A streamgate at which playbacks go on and new ones start, in equal parts.
struct Load {
    streamgate: Streamgate,
    gateway: Gateway,
    begun: Stopwatch,
    asked: AtomicUsize,
}

impl Load {
    /// How many checks are offered in a second.
    const RATE: usize = 1000 / PART;
    /// How many playbacks go on.
    const HELD: usize = 250 / PART;
    /// For how long Redis stands still.
    const PAUSE: Duration = Duration::from_secs(5);

    /// A streamgate with its held playbacks, which Redis counts.
    async fn with_held(settings: &[Setting<'_>]) -> Arc<Self> {
        let streamgate = Streamgate::start(settings).await;
        let load = Self {
            gateway: Gateway::connect(streamgate.grpc).await,
            streamgate,
            begun: Stopwatch::start(),
            asked: AtomicUsize::new(0),
        };
        for number in 0..Self::HELD {
            let user = format!("held-{number}");
            // On a busy machine Redis may seem to be out before it is.
            eventually("a playback starts", async || {
                let answer = ask(&load.gateway, Check::of_playback(&user, "tv")).await;
                answer.is_some_and(|answer| answer.is_allowed())
            })
            .await;
        }
        load.owes_nothing().await;
        Arc::new(load)
    }

    /// Waits until Redis has been told all.
    async fn owes_nothing(&self) -> Duration {
        let owed = "streamgate_sessions_owed";
        self.streamgate
            .metric_becomes(owed, &[], |owed| owed == 0.0)
            .await
    }

    async fn check(self: Arc<Self>, nth: usize) -> Asked {
        let user = match nth % 2 {
            0 => format!("held-{}", nth / 2 % Self::HELD),
            _ => format!("new-{nth}"),
        };
        let asked_at = self.begun.elapsed();
        let answer = ask(&self.gateway, Check::of_playback(&user, "tv")).await;
        Asked {
            user,
            asked_at,
            answered_at: self.begun.elapsed(),
            answer,
        }
    }

    /// Offers checks until told to stop; all of them, answered or not.
    async fn run(self: Arc<Self>, stop: CancellationToken) -> Vec<Asked> {
        let (mut pace, mut asking) = (Pace::of(Self::RATE), JoinSet::new());
        while !stop.is_cancelled() {
            for nth in pace.due().await {
                asking.spawn(Arc::clone(&self).check(nth));
                self.asked.fetch_add(1, Ordering::Relaxed);
            }
        }
        asking.join_all().await
    }

    /// Waits until so many more seconds' checks have been offered.
    async fn seconds(&self, seconds: usize) {
        let enough = self.asked.load(Ordering::Relaxed) + seconds * Self::RATE;
        eventually("checks are offered", async || {
            self.asked.load(Ordering::Relaxed) >= enough
        })
        .await;
    }
}

/// Has Redis stand still under the load, with that rule: what was asked, and from when until when it surely was by the rule.
async fn pause_under_load(rule: &str, redis: &RedisServer) -> (Vec<Asked>, Duration, Duration) {
    let url = redis.url();
    // Longer than all this takes: no lease of those that ask only once has ended when they are counted.
    let settings = [("store.outage", rule), ("leases.playback", "120s")];
    let load = Load::with_held(&on_redis(&url, &settings)).await;
    let stop = CancellationToken::new();
    let mut running = JoinSet::new();
    running.spawn(Arc::clone(&load).run(stop.clone()));
    load.seconds(1).await;
    let (before, _) = load.streamgate.memory();

    redis.pause();
    let paused = Stopwatch::start();
    let (up, started) = ("streamgate_store_up", [("reason", "started")]);
    let checks = "streamgate_checks_total";
    let noticed = load.streamgate.metric_becomes(up, &[], |up| up == 0.0);
    measured(
        &format!("outage rule ({rule}) in place after Redis has stopped answering"),
        noticed.await,
    );
    let from = load.begun.elapsed();
    tokio::time::sleep(Load::PAUSE.saturating_sub(paused.elapsed())).await;
    let before_it_goes_on = load.streamgate.metric(checks, &started).await;
    let until = load.begun.elapsed();
    redis.resume();
    let more = |now: f64| now > before_it_goes_on;
    let decides = load.streamgate.metric_becomes(checks, &started, more);
    measured(
        &format!("first start decided by Redis ({rule}) after a pause of 5 s"),
        decides.await,
    );
    load.seconds(2).await;
    stop.cancel();
    let asked = running.join_next().await.unwrap().unwrap();
    load.owes_nothing().await;

    let (_, most) = load.streamgate.memory();
    let grown = most.saturating_sub(before) / 1024;
    let slowest = asked
        .iter()
        .map(|asked| asked.answered_at - asked.asked_at)
        .max();
    measured(
        &format!(
            "slowest of {} checks ({rule}) at {} a second",
            asked.len(),
            Load::RATE
        ),
        slowest.unwrap(),
    );
    println!(
        "memory has grown by {grown} MiB, from {} MiB",
        before / 1024
    );
    assert!(grown < 100, "{grown} MiB");
    (asked, from, until)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_check_is_answered_by_the_rule_while_redis_stands_still_and_memory_stays_bounded() {
    let _turn = TURN.lock().await;
    for rule in ["allow", "deny"] {
        let redis = RedisServer::start();
        let (asked, from, until) = pause_under_load(rule, &redis).await;
        let mut by_rule = 0;
        // What Redis has to count in the end of each new user: the one session that was let in, or none.
        let mut expected = HashMap::new();
        for check in &asked {
            let answer = check.answer.as_ref();
            let answer = answer.unwrap_or_else(|| panic!("no answer: {check:?}"));
            let is_new = check.user.starts_with("new");
            if is_new {
                expected.insert(check.user.clone(), answer.is_allowed());
            }
            if answer.is_allowed() {
                let sure = from < check.asked_at && check.answered_at < until;
                assert!(!(sure && is_new && rule == "deny"), "{check:?}");
                by_rule += usize::from(sure && is_new);
                continue;
            }
            assert!(is_new && rule == "deny", "{check:?}");
            let said = (answer.kind, answer.code, answer.http);
            assert_eq!(said, ("error", 14, 503), "{check:?}");
            by_rule += 1;
        }
        println!("{by_rule} starts were decided by the rule ({rule})");
        assert!(by_rule > 0);
        let store = redis.store();
        let mut miscounted: Vec<String> = expected.keys().cloned().collect();
        let begun = Stopwatch::start();
        while !miscounted.is_empty() {
            assert!(begun.elapsed() < PATIENCE, "{rule}: {miscounted:?}");
            let counted = counted(&store, miscounted).await;
            let wrong = counted
                .into_iter()
                .filter(|(user, counted)| counted.len() != usize::from(expected[user]));
            miscounted = wrong.map(|(user, _)| user).collect();
        }
    }
}

// === A Redis that is to be left in peace ===

/// Asks for segment after segment of a playback, each at its time unless the one before was late; how many times it was let in.
async fn play(gateway: Gateway, user: String, segments: usize, length: Duration) -> usize {
    let mut next = tokio::time::interval(length);
    next.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut let_in = 0;
    for _ in 0..segments {
        next.tick().await;
        let answer = ask(&gateway, Check::of_playback(&user, "tv")).await;
        let Some(answer) = answer.filter(Answer::is_allowed) else {
            continue;
        };
        if let_in == 0 {
            gateway.report_success(&answer).await;
        }
        let_in += 1;
    }
    let_in
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn playbacks_cost_at_most_one_redis_command_for_ten_checks() {
    // As with the lease of 30 s that is shipped and segments of 2 s, but five times as fast.
    const SEGMENT: Duration = Duration::from_millis(400);
    const SEGMENTS: usize = 40;
    const USERS: usize = 400 / PART;
    let _turn = TURN.lock().await;
    let redis = RedisServer::start();
    let url = redis.url();
    let settings = [("leases.playback", "6s"), ("store.timeout", "2s")];
    let streamgate = Streamgate::start(&on_redis(&url, &settings)).await;
    let gateway = Gateway::connect(streamgate.grpc).await;
    redis.run::<()>(&["CONFIG", "RESETSTAT"]);
    let mut playing = JoinSet::new();
    for number in 0..USERS {
        // They begin one after the other, as viewers do, and not all at once.
        tokio::time::sleep(SEGMENT / u32::try_from(USERS).unwrap()).await;
        let user = format!("user-{number}");
        playing.spawn(play(gateway.clone(), user, SEGMENTS, SEGMENT));
    }
    let let_in: usize = playing.join_all().await.into_iter().sum();
    assert_eq!(let_in, USERS * SEGMENTS);
    let report: String = redis.run(&["INFO", "commandstats"]);
    let calls = |command: &str| -> u32 {
        let start = format!("cmdstat_{command}:calls=");
        let found = report.lines().find_map(|line| line.strip_prefix(&start));
        found.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
    };
    let calls = calls("evalsha") + calls("eval");
    let ratio = f64::from(calls) / f64::from(u32::try_from(let_in).unwrap());
    println!("{calls} Redis commands for {let_in} checks of {USERS} playbacks: {ratio:.3} a check");
    assert!(calls > 0 && ratio <= 0.1, "{ratio}");
}
