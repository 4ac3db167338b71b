//! A Redis that forgets all sessions.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::stream::StreamExt;
use futures_util::{future, stream};
use streamgate::clock::Stopwatch;
use streamgate::identity::{Kind, SessionKey};
use streamgate::store::Store;
use streamgate::store::redis::RedisStore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use testkit::gateway_client::{Answer, Check, Gateway, LogStream, answered, periodic};
use testkit::redis::RedisServer;
use testkit::streamgate::Streamgate;
use testkit::streams::{key, playback, user};
use testkit::watch::{PATIENCE, eventually, measured};

use super::{AT_ONCE, ENTRIES, PART, Pace, TURN, ask, counted, on_redis};

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
