//! `GET /v1/stats`: its numbers against what the clients saw, for one instance and for several.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use streamgate::config::FullRule;
use streamgate::store::faulty::{Fault, FaultyStore};
use testkit::api::{Api, on_both};
use testkit::app::{Plan, TestApp};
use testkit::cluster::RedisCluster;
use testkit::redis::RedisServer;
use testkit::watch::{eventually, eventually_within};

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(3600);

/// The deadline of calls to Redis, which these tests are not about.
const DEADLINE: Duration = Duration::from_secs(10);

/// What the clients saw.
#[derive(Debug, Default)]
struct Seen {
    /// The live sessions of each user, with what they play.
    live: BTreeMap<String, BTreeMap<String, String>>,
    /// How many steps were made.
    steps: usize,
    /// How often each happened.
    starts: u64,
    refusals: u64,
    displacements: u64,
    releases: u64,
    /// How many streams each start found.
    found: BTreeMap<usize, u64>,
    /// The most that a start of each user found.
    most: BTreeMap<String, usize>,
}

/// The number at a path of an answer.
fn number(stats: &Value, path: &str) -> u64 {
    let number = stats.pointer(path).and_then(Value::as_u64);
    number.unwrap_or_else(|| panic!("{path} in {stats}"))
}

/// The plan of a user.
fn plan_of(user: &str) -> &'static str {
    if user.ends_with(['1', '3', '5']) {
        "basic"
    } else {
        "premium"
    }
}

/// The limit of a user.
fn limit_of(user: &str) -> usize {
    if plan_of(user) == "basic" { 2 } else { 3 }
}

impl Seen {
    /// Records a start that found so many.
    fn start(&mut self, user: &str, found: usize) {
        *self.found.entry(found).or_default() += 1;
        let most = self.most.entry(user.to_owned()).or_default();
        *most = (*most).max(found);
    }

    /// Plays at random through these instances. No id is used twice.
    async fn play(&mut self, apis: &[Api<'_>], steps: usize, users: usize, random: &mut StdRng) {
        for _ in 0..steps {
            self.steps += 1;
            let api = &apis[random.random_range(0..apis.len())];
            let user = format!("user-{}", random.random_range(0..users));
            let live = self.live.entry(user.clone()).or_default();
            let nth = random.random_range(0..8_usize);
            let some = live.keys().nth(nth).cloned();
            match (some, random.random_range(0..10)) {
                (Some(session), 0..3) => {
                    let told = api
                        .delete(&format!("/v1/users/{user}/sessions/{session}"))
                        .await;
                    assert_eq!(told.status, 204, "{told:?}");
                    live.remove(&session);
                    self.releases += 1;
                }
                (Some(session), 3..5) => {
                    let plan = json!({"plan": plan_of(&user)});
                    let told = api.put(&user, &session, plan).await;
                    assert_eq!(told.status, 200, "{told:?}");
                }
                (_, kind) => {
                    let content = format!("film-{}", random.random_range(0..30_u32).isqrt());
                    let mut body = json!({"content": content, "plan": plan_of(&user)});
                    if kind == 9 {
                        body["takeover"] = json!("oldest");
                        body["device"] = json!("tv");
                    }
                    let session = format!("p{}", self.steps);
                    let told = api.put(&user, &session, body).await;
                    let found = live.len();
                    match told.status.as_u16() {
                        201 => {
                            self.starts += 1;
                            let before = live.len();
                            live.insert(session, content);
                            let active = told.body["active"].as_u64().expect("a number");
                            if usize::try_from(active).unwrap() == before {
                                // The oldest has the lowest number.
                                let number = |id: &String| id[1..].parse::<usize>().unwrap();
                                let oldest =
                                    live.keys().min_by_key(|id| number(id)).unwrap().clone();
                                live.remove(&oldest);
                                self.displacements += 1;
                            }
                        }
                        429 => {
                            assert_eq!(live.len(), limit_of(&user));
                            self.refusals += 1;
                        }
                        _ => panic!("{told:?}"),
                    }
                    self.start(&user, found);
                }
            }
        }
    }

    /// What an answer should say about who watches, if it is exact.
    fn streams(&self) -> Value {
        let users = self.live.iter().filter(|(_, live)| !live.is_empty());
        let at_limit = users
            .clone()
            .filter(|(user, live)| live.len() >= limit_of(user));
        let (mut plans, mut contents) = (BTreeMap::new(), BTreeMap::<_, u64>::new());
        for (user, live) in users.clone() {
            *plans.entry(plan_of(user)).or_insert(0) += live.len();
            for content in live.values() {
                *contents.entry(content.clone()).or_default() += 1;
            }
        }
        let mut top: Vec<_> = contents.into_iter().collect();
        top.sort_by_key(|(content, streams)| (u64::MAX - streams, content.clone()));
        let top = top.into_iter();
        let top = top.map(|(content, streams)| json!({"content": content, "streams": streams}));
        json!({
            "streams": self.live.values().map(BTreeMap::len).sum::<usize>(),
            "users": users.count(),
            "users_at_limit": at_limit.count(),
            "by_plan": plans,
            "top_content": top.collect::<Vec<_>>(),
            "approximate": {},
            "complete": true,
        })
    }

    /// Checks all counts of an answer.
    fn check_counts(&self, stats: &Value) {
        // The run may have begun in another minute.
        let minutes = stats["minutes"].as_array().unwrap();
        assert_eq!(minutes.len(), 60);
        assert_eq!(
            number(stats, "/would_refuse/counted/hour/starts"),
            self.starts + self.refusals
        );
        assert_eq!(
            number(stats, "/would_refuse/counted/week/users"),
            self.most.len() as u64
        );
        if self.refusals > 0 {
            assert_eq!(stats["refusals_last_hour"], json!({"full": self.refusals}));
        }
        let (all, users) = ((self.starts + self.refusals) as f64, self.most.len() as f64);
        for row in stats["would_refuse"]["day"].as_array().unwrap() {
            let limit = usize::try_from(row["limit"].as_u64().unwrap()).unwrap();
            let starts = self
                .found
                .range(limit..)
                .map(|(_, starts)| *starts)
                .sum::<u64>() as f64;
            let refused = self.most.values().filter(|most| **most >= limit).count() as f64;
            let told = |name: &str| row[name].as_f64().unwrap();
            assert!(
                (told("starts_refused") - starts / all).abs() < 1e-5,
                "{row}: {self:?}"
            );
            assert!(
                (told("users_refused") - refused / users).abs() < 1e-5,
                "{row}: {self:?}"
            );
            assert_eq!(row["lower_bound"], json!(limit > 2), "{row}");
        }
    }
}

/// The part of an answer that [`Seen::streams`] has.
fn streams(stats: &Value) -> Value {
    let names = [
        "streams",
        "users",
        "users_at_limit",
        "by_plan",
        "top_content",
        "approximate",
        "complete",
    ];
    names
        .iter()
        .map(|name| ((*name).to_owned(), stats[*name].clone()))
        .collect()
}

/// The numbers of an instance.
async fn stats(api: &Api<'_>) -> Value {
    let told = api.get("/v1/stats").await;
    assert_eq!(told.status, 200, "{told:?}");
    assert_eq!(told.header("cache-control"), "no-store");
    told.body
}

/// Waits until the instance's numbers are what the clients saw.
async fn becomes(api: &Api<'_>, seen: &Seen) -> Value {
    let expected = seen.streams();
    eventually("the numbers are what the clients saw", async || {
        let stats = stats(api).await;
        (streams(&stats) == expected).then_some(stats)
    })
    .await
}

/// Waits until the instance's numbers have all that the clients saw happen. Instances save each
/// period by itself.
async fn all_counted(api: &Api<'_>, seen: &Seen) -> Value {
    eventually("all starts and refusals are counted", async || {
        let stats = stats(api).await;
        let counted = ["hour", "day", "week"]
            .map(|period| number(&stats, &format!("/would_refuse/counted/{period}/starts")));
        let refused = stats["refusals_last_hour"]["full"]
            .as_u64()
            .unwrap_or_default();
        let all = ([seen.starts + seen.refusals; 3], seen.refusals);
        ((counted, refused) == all).then_some(stats)
    })
    .await
}

/// An installation with two plans.
fn installation(plan: Plan) -> Plan {
    plan.leases(LONG, LONG)
        .limit_of_plan("basic", 2)
        .limit_of_plan("premium", 3)
        .when_full(FullRule::Refuse)
}

#[tokio::test]
async fn the_numbers_of_a_random_run_are_what_the_clients_saw() {
    on_both(async |plan| {
        let app = installation(plan).start().await;
        let api = Api::of(&app);
        let (mut seen, mut random) = (Seen::default(), StdRng::seed_from_u64(7));
        seen.play(std::slice::from_ref(&api), 1500, 60, &mut random)
            .await;
        becomes(&api, &seen).await;
        let told = all_counted(&api, &seen).await;
        seen.check_counts(&told);
        assert!(seen.displacements > 0 && seen.refusals > 0 && seen.releases > 0);
        assert_eq!(
            number(&told, "/by_kind/playback"),
            number(&told, "/streams")
        );
        app.stop().await;
    })
    .await;
}

/// Two instances that share a store: their numbers are joined, a killed one's viewers go on at the
/// other, and their streams count once.
async fn two_share(plan: impl Fn() -> Plan) {
    let (one, other) = (
        installation(plan()).start().await,
        installation(plan()).start().await,
    );
    let (mut seen, mut random) = (Seen::default(), StdRng::seed_from_u64(8));
    {
        let apis = [Api::of(&one), Api::of(&other)];
        seen.play(&apis, 600, 40, &mut random).await;
        for api in &apis {
            let told = becomes(api, &seen).await;
            assert_eq!(
                (&told["scope"], number(&told, "/instances")),
                (&json!("installation"), 2)
            );
        }
        let told = all_counted(&apis[0], &seen).await;
        seen.check_counts(&told);
    }
    // Killed: it says nothing any more.
    drop(other);
    let api = Api::of(&one);
    seen.play(std::slice::from_ref(&api), 200, 40, &mut random)
        .await;
    let expected = seen.streams();
    let at_once = stats(&api).await;
    assert_eq!(
        at_once["streams"], expected["streams"],
        "what the other held still counts"
    );
    eventually_within(
        Duration::from_secs(60),
        "the numbers are right, and the other instance is missed",
        async || {
            let mut told = stats(&api).await;
            let is_missed = told["complete"] == json!(false);
            told["complete"] = json!(true);
            is_missed && streams(&told) == expected && number(&told, "/instances") == 1
        },
    )
    .await;
    one.stop().await;
}

#[tokio::test]
async fn two_instances_on_one_redis_have_the_numbers_of_both() {
    let redis = RedisServer::start();
    two_share(|| TestApp::plan().redis(&redis.url(), DEADLINE)).await;
    // Each of them expires, and no user has more than the roster.
    let keys: Vec<String> = redis.run(&["KEYS", "streamgate:stats:*"]);
    assert!((5..=8).contains(&keys.len()), "{keys:?}");
    for key in keys {
        let left: i64 = redis.run(&["PTTL", &key]);
        assert!(left > 0, "{key}: {left}");
    }
}

#[tokio::test]
async fn two_instances_on_a_cluster_have_the_numbers_of_both() {
    let cluster = RedisCluster::start();
    two_share(|| TestApp::plan().cluster(&cluster.urls(), DEADLINE)).await;
}

#[tokio::test]
async fn an_instance_that_stops_in_good_order_is_not_missed() {
    let redis = RedisServer::start();
    let plan = || installation(TestApp::plan().redis(&redis.url(), DEADLINE));
    let (one, other) = (plan().start().await, plan().start().await);
    let api = Api::of(&one);
    let told = Api::of(&other).put("anna", "p1", json!({})).await;
    assert_eq!(told.status, 201);
    other.stop().await;
    eventually("its last report is read", async || {
        let told = stats(&api).await;
        number(&told, "/streams") == 1
            && number(&told, "/instances") == 1
            && told["complete"] == json!(true)
    })
    .await;
    one.stop().await;
}

#[tokio::test]
async fn an_outage_leaves_the_last_numbers_marked_incomplete() {
    let redis = RedisServer::start();
    let app = installation(TestApp::plan().redis(&redis.url(), Duration::from_millis(500)));
    let app = app.start().await;
    let api = Api::of(&app);
    assert_eq!(api.put("anna", "p1", json!({})).await.status, 201);
    eventually("it is counted", async || {
        let told = stats(&api).await;
        told["complete"] == json!(true) && number(&told, "/streams") == 1
    })
    .await;
    eventually("the gauges have it", async || {
        app.metric("streamgate_installation_streams{kind=\"playback\"}")
            .await
            == 1
    })
    .await;
    redis.stop();
    eventually("the outage is noticed", async || {
        app.metric("streamgate_installation_complete").await == 0
    })
    .await;
    let told = stats(&api).await;
    assert_eq!(
        (&told["complete"], number(&told, "/streams")),
        (&json!(false), 1)
    );
    app.stop().await;
}

#[tokio::test]
async fn a_dry_run_says_what_would_be_refused() {
    let app = TestApp::plan().limit(1).dry_run().start().await;
    let api = Api::of(&app);
    for _ in 0..3 {
        for session in ["p1", "p2", "p3"] {
            let status = api.put("anna", session, json!({})).await.status.as_u16();
            assert!([200, 201].contains(&status), "{status}");
        }
    }
    let told = stats(&api).await;
    // p2 and p3 would not play, and each start counts once however often it asks.
    assert_eq!(number(&told, "/streams"), 1);
    assert_eq!(number(&told, "/would_refuse/counted/hour/starts"), 3);
    let rows = told["would_refuse"]["hour"].as_array().unwrap();
    let shown: Vec<_> = rows
        .iter()
        .map(|row| (&row["limit"], &row["lower_bound"]))
        .collect();
    assert_eq!(shown[0], (&json!(1), &json!(false)));
    assert_eq!(shown[1], (&json!(2), &json!(true)));
    assert_eq!(rows[0]["starts_refused"], json!(0.666667));
    assert_eq!(told["refusals_last_hour"], json!({"full": 6}));
    app.stop().await;
}

#[tokio::test]
async fn bad_input_is_refused_and_a_store_of_one_process_never_fails() {
    let store = FaultyStore::new();
    let app = TestApp::plan().store(store.clone()).start().await;
    let api = Api::of(&app);
    for query in ["?plan=gold", "?%", "?a=1&a=2"] {
        let told = api.get(&format!("/v1/stats{query}")).await;
        told.is_problem(400, "bad_request");
    }
    let told = api.call(reqwest::Method::POST, "/v1/stats", None).await;
    told.is_problem(405, "method_not_allowed");
    store.fails(&Fault::LosesCalls);
    let told = stats(&api).await;
    assert_eq!(
        (&told["scope"], &told["complete"]),
        (&json!("instance"), &json!(true))
    );
    app.stop().await;
}

/// Twenty thousand sessions, and more users than are sampled. Also measures what two instances cost
/// Redis for a minute in which nothing else happens.
#[tokio::test]
#[ignore = "takes minutes: the nightly run"]
async fn the_numbers_of_many_are_within_their_errors() {
    let redis = RedisServer::start();
    let app = installation(TestApp::plan().redis(&redis.url(), DEADLINE))
        .start()
        .await;
    let api = Api::of(&app);
    let (mut seen, mut random) = (Seen::default(), StdRng::seed_from_u64(9));
    seen.play(std::slice::from_ref(&api), 40_000, 12_000, &mut random)
        .await;
    let expected = seen.streams();
    let told = eventually("the numbers are complete", async || {
        let told = stats(&api).await;
        (told["complete"] == json!(true) && number(&told, "/sampled_one_in") > 1).then_some(told)
    })
    .await;
    for name in ["streams", "users", "users_at_limit"] {
        let (told_one, truth) = (
            told[name].as_f64().unwrap(),
            expected[name].as_f64().unwrap(),
        );
        let error = told["approximate"][name].as_f64().expect("it is estimated");
        let off = (told_one - truth).abs() / truth;
        println!(
            "measured {name}: {told_one}, in truth {truth}, off by {off:.4}, error {error:.4}"
        );
        assert!(
            off < 4.0 * error,
            "{name} {told_one}, in truth {truth}: {error}"
        );
    }
    let other = installation(TestApp::plan().redis(&redis.url(), DEADLINE))
        .start()
        .await;
    redis.run::<()>(&["CONFIG", "RESETSTAT"]);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let told: String = redis.run(&["INFO", "commandstats"]);
    for line in told.lines().filter(|line| line.starts_with("cmdstat_")) {
        println!("measured in a minute: {line}");
    }
    let usec = |line: &str| {
        line.split("usec=")
            .nth(1)?
            .split(',')
            .next()?
            .parse::<f64>()
            .ok()
    };
    // A script's time includes that of the commands that it calls.
    let outer = ["evalsha", "eval", "set", "get"].map(|name| format!("cmdstat_{name}:"));
    let lines = told
        .lines()
        .filter(|line| outer.iter().any(|name| line.starts_with(name)));
    let busy: f64 = lines.filter_map(usec).sum();
    println!(
        "measured Redis busy for two instances: at most {:.1} us a second",
        busy / 60.0
    );
    other.stop().await;
    app.stop().await;
}
