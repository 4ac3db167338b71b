//! streamgate itself is stopped, killed, or one of several: viewers don't notice, and no access log
//! entry of Envoy's is lost.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use streamgate::clock::Stopwatch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use testkit::gateway::Setup;
use testkit::origin::Origin;
use testkit::redis::RedisServer;
use testkit::streamgate::{Setting, Streamgate};
use testkit::viewers::{Answer, Playing, Viewers};
use testkit::watch::{measured, measured_many};

/// The settings of a streamgate on this Redis, and these others. Redis gets more time to answer
/// than shipped (50 ms), because the processor may be busy with other tests; a slow store is not
/// what these scenarios are about.
fn on_redis<'a>(url: &'a str, others: &[Setting<'a>]) -> Vec<Setting<'a>> {
    let redis = [
        ("store.backend", "redis"),
        ("store.redis.urls", url),
        ("store.timeout", "5s"),
    ];
    redis.iter().chain(others).copied().collect()
}

#[tokio::test]
async fn two_streamgates_on_one_redis_count_together_and_changing_channel_is_never_refused() {
    let (origin, redis) = (Origin::start().await, RedisServer::start());
    let url = redis.url();
    let one = Streamgate::start(&on_redis(&url, &[])).await;
    let other = Streamgate::start(&on_redis(&url, &[])).await;
    let setup = Setup::demo(&[one.grpc, other.grpc], origin.address);
    let gateway = setup.start().await;
    let viewers = &Viewers::of(gateway.address);
    let first = viewers.watch(viewers.http1("alice", "/live/1")).await;
    let second = viewers.watch(viewers.http2("alice", "/live/2")).await;
    let mut watched = viewers.watch(viewers.http1("alice", "/live/3")).await;
    let mut times = Vec::new();
    for change in 0..100 {
        drop(watched);
        let changing = Stopwatch::start();
        let channel = format!("/live/{change}");
        watched = viewers.let_in(viewers.http1("alice", &channel)).await;
        times.push(changing.elapsed());
    }
    measured_many("change of channel (two streamgates on one Redis)", times);
    for _ in 0..4 {
        viewers
            .assert_full("alice", &[&first, &second, &watched])
            .await;
    }
    for streamgate in [&one, &other] {
        assert!(streamgate.checks("started").await > 10.0, "both were asked");
    }
}

/// One stream each of so many users.
async fn watch(viewers: &Viewers, user: &str, count: usize) -> Vec<Playing> {
    let mut playing = Vec::new();
    for number in 0..count {
        let request = viewers.http1(&format!("{user}-{number}"), "/live/1");
        playing.push(viewers.watch(request).await);
    }
    playing
}

#[tokio::test]
async fn a_streamgate_that_is_killed_and_restarted_forgets_no_running_stream_and_learns_of_every_ended_one()
 {
    const STAYING: usize = 20;
    const LEAVING: usize = 60;
    const UNNOTICED: usize = 10;
    const LEASE: Duration = Duration::from_secs(30);
    // Envoy reports a running stream every 5 s: so long after that no lease has ended yet.
    const BEFORE_ANY_LEASE_ENDS: Duration = Duration::from_secs(24);
    let (origin, redis) = (Origin::start().await, RedisServer::start());
    let url = redis.url();
    let limits = [
        ("limits.default", "1"),
        ("limits.grace", "0s"),
        ("leases.request", "30s"),
    ];
    let mut streamgate = Streamgate::start_to_restart(&on_redis(&url, &limits)).await;
    let setup = Setup::demo(&[streamgate.grpc], origin.address);
    let gateway = setup.start().await;
    let viewers = &Viewers::of(gateway.address);
    let mut staying = watch(viewers, "stays", STAYING).await;
    let leaving = watch(viewers, "leaves", LEAVING).await;
    let unnoticed = watch(viewers, "leaves-unnoticed", UNNOTICED).await;
    streamgate.kill().await;
    let killed = Stopwatch::start();
    // Envoy loses entries that it sends before it notices the loss, and doesn't know: the lease
    // ends those streams.
    drop(unnoticed);
    gateway.sees(0).await;
    measured(
        "Envoy has noticed that streamgate was killed",
        killed.elapsed(),
    );
    // From here on everything has to be kept, over a second.
    for stream in leaving {
        drop(stream);
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    let streamgate = streamgate.start_again().await;
    let restarted = Stopwatch::start();
    gateway.sees(1).await;

    for (number, stream) in staying.iter_mut().enumerate() {
        stream.plays().await;
        let refusal = viewers.refused(viewers.http1(&format!("stays-{number}"), "/live/2"));
        refusal.await.assert_full(&[stream]);
    }
    let bound = Duration::from_secs(3);
    for number in 0..LEAVING {
        let next = || viewers.http1(&format!("leaves-{number}"), "/live/2");
        viewers.let_in_within(bound, next).await;
    }
    measured(
        "all slots of streams that ended meanwhile free after a restart",
        restarted.elapsed(),
    );
    assert!(killed.elapsed() < BEFORE_ANY_LEASE_ENDS);
    let mut late = 0;
    for number in 0..UNNOTICED {
        let next = || viewers.http1(&format!("leaves-unnoticed-{number}"), "/live/2");
        let (_next, took) = viewers.let_in_within(LEASE + bound, next).await;
        late += usize::from(took > bound);
    }
    println!(
        "{late} of {UNNOTICED} that ended before Envoy had noticed were free only when their lease ended"
    );
    assert_eq!(streamgate.checks("outage").await, 0.0);
}

/// Asks for segment after segment, and opens and closes streams, until stopped; returns how often,
/// and what went wrong.
async fn watch_a_lot(
    gateway: SocketAddr,
    number: usize,
    stop: CancellationToken,
) -> (usize, Vec<String>) {
    let viewers = Viewers::of(gateway);
    let user = format!("user-{number}");
    let (mut asked, mut wrong) = (0, Vec::new());
    while !stop.is_cancelled() {
        asked += 1;
        let request = match asked % 3 {
            0 => viewers.http2(&user, "/live/1"),
            _ => viewers
                .http1(&user, &format!("/vod/demo/180p/{:03}.ts", asked % 10))
                .header("x-playback-session-id", format!("{user}-tv")),
        };
        match viewers.ask(request).await {
            Answer::LetIn(playing) if playing.session.is_empty() => {
                wrong.push("uncounted".to_owned());
            }
            Answer::LetIn(playing) if asked % 3 == 0 => drop(playing),
            Answer::LetIn(playing) => drop(playing.rest().await),
            Answer::Refused(refusal) => wrong.push(refusal.to_string()),
        }
    }
    (asked, wrong)
}

/// Many who do that.
struct Crowd {
    stop: CancellationToken,
    watching: JoinSet<(usize, Vec<String>)>,
}

impl Crowd {
    /// Begins, and returns when that streamgate has been asked a lot.
    async fn begin(gateway: SocketAddr, asked: &Streamgate) -> Self {
        const AT_ONCE: usize = 6;
        let (stop, mut watching) = (CancellationToken::new(), JoinSet::new());
        for number in 0..AT_ONCE {
            watching.spawn(watch_a_lot(gateway, number, stop.clone()));
        }
        asks_on(asked).await;
        Self { stop, watching }
    }

    /// Ends. Nothing must have gone wrong.
    async fn end(self) {
        self.stop.cancel();
        let (mut asked, mut wrong) = (0, Vec::new());
        for (times, failures) in self.watching.join_all().await {
            asked += times;
            wrong.extend(failures);
        }
        println!("{asked} requests");
        let failed = wrong.len();
        assert!(wrong.is_empty(), "{failed} of {asked} failed: {wrong:?}");
    }
}

/// Waits until a streamgate has been asked 50 times more.
async fn asks_on(streamgate: &Streamgate) {
    let checks = "streamgate_checks_total";
    let before = streamgate.metric(checks, &[]).await;
    let goes_on = |checks: f64| checks > before + 50.0;
    streamgate.metric_becomes(checks, &[], goes_on).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_one_of_two_streamgates_is_asked_to_stop() {
    let (origin, redis) = (Origin::start().await, RedisServer::start());
    let url = redis.url();
    let mut stopping = Streamgate::start(&on_redis(&url, &[])).await;
    let staying = Streamgate::start(&on_redis(&url, &[])).await;
    let setup = Setup::demo(&[stopping.grpc, staying.grpc], origin.address);
    let gateway = setup.start().await;
    let crowd = Crowd::begin(gateway.address, &stopping).await;

    stopping.sigterm().await;
    let asked = Stopwatch::start();
    let status = stopping.stopped().await;
    measured(
        "a streamgate under load stops after SIGTERM, of which 2 s are grace,",
        asked.elapsed(),
    );
    assert_eq!(status.code(), Some(0));
    assert!(stopping.log().contains("stopped: everything was delivered"));
    asks_on(&staying).await;
    crowd.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_when_one_of_two_streamgates_is_killed_where_the_other_is_asked_again() {
    let (origin, redis) = (Origin::start().await, RedisServer::start());
    let url = redis.url();
    // Ends that are lost with the killed one aren't the point here.
    let settings = on_redis(&url, &[("limits.default", "1000")]);
    let mut killed = Streamgate::start(&settings).await;
    let staying = Streamgate::start(&settings).await;
    let compose = Setup::file("deploy/compose/envoy.yaml");
    let (check, cluster) = (compose.the_check(), compose.the_cluster("streamgate"));
    let again = json!({"grpc_service": {
        "retry_policy": check["grpc_service"]["retry_policy"],
    }});
    let ways = json!({
        "circuit_breakers": cluster["circuit_breakers"],
        "health_checks": cluster["health_checks"],
    });
    let setup = Setup::demo(&[killed.grpc, staying.grpc], origin.address)
        .check(again)
        .ways(&ways);
    let gateway = setup.start().await;
    let crowd = Crowd::begin(gateway.address, &killed).await;

    killed.kill().await;
    gateway.sees(1).await;
    asks_on(&staying).await;
    crowd.end().await;
    assert!(
        gateway.stat("cluster.streamgate.upstream_rq_retry").await > Some(0.0),
        "the other one was asked again"
    );
}
