//! The rule under attack, for unlucky viewers, and between instances that differ: one test for each
//! fault that was found at 5b0f713.
//!
//! Time is real where Redis tells it, and moved by hand where a test needs minutes.

// Whose slot a start gets at a full limit.
mod displacement;
// The attacker's list: what a viewer may try for a stream more, or for another's slot, and what it
// gets.
mod attackers;
// The dry run: no stream is refused, and those that would have been are counted.
mod dry_run;
// How often a user may displace others, at each door.
mod budget;
// A title that can't be played costs no slot.
mod failed_titles;
// Ends of ids that never were push out nothing that matters.
mod junk;
// Two instances, each a ledger with its cache and its outbox, on one store: random histories
// against the pure rule.
mod ledger_model;
// What all tests that need a ledger with its background tasks start.
mod instance;
// Instances with different leases on one Redis.
mod leases;
// A response that runs on in Envoy after its playback has ended.
mod long_response;
// What proves that Redis has lost everybody's sessions.
mod loss;
// What an outage let in above the limit.
mod outage;
// Rosters that another version of streamgate wrote.
mod records;
// Instances whose settings differ, each with each.
mod settings;
// Hours of viewers, outages and restarts, in seconds, against the truth that the viewers keep.
mod simulation;
// Ids that a player does not make for each playback.
mod zapping;

use std::sync::Arc;

use envoy_types::pb::envoy::data::accesslog::v3::{HttpAccessLogEntry, HttpResponseProperties};
use envoy_types::pb::google::protobuf::UInt32Value;
use streamgate::clock::ManualClock;
use streamgate::clock::Timestamp;

use testkit::app::{Plan, TestApp};
use testkit::gateway_client::{Answer, LogStream, end};
use testkit::redis::{RedisServer, lasting_store};
use testkit::streams::{LONG, PATIENT, lasting, lasting_terms};
use testkit::watch::eventually;

/// A tokens file with each role.
const TOKENS: &str =
    "back-end-token client\nmallorys-token client mallory\noperators-token operator\n";

/// Two instances that count in one Redis.
struct Pair {
    _redis: RedisServer,
    apps: [TestApp; 2],
}

impl Pair {
    /// Starts both of them with the same settings.
    async fn start(change: impl Fn(Plan) -> Plan) -> Self {
        let redis = RedisServer::start();
        let plan = || change(TestApp::plan().redis(&redis.url(), PATIENT));
        let apps = [plan().start().await, plan().start().await];
        Self {
            _redis: redis,
            apps,
        }
    }

    /// Stops both.
    async fn stop(self) {
        for app in self.apps {
            app.stop().await;
        }
    }
}

/// A clock that starts at a fixed time.
fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(Timestamp::from_millis(1_000_000)))
}

/// Runs a scene by a clock of its own, on the embedded store and on a Redis.
async fn by_the_clock(play: impl AsyncFn(Plan, &ManualClock)) {
    let time = clock();
    play(TestApp::plan().clock(time.clone()), &time).await;
    let (redis, time) = (RedisServer::start(), clock());
    let store = redis.store().with_clock(time.clone());
    let plan = TestApp::plan().store(Arc::new(store)).clock(time.clone());
    play(plan, &time).await;
}

/// The end of one request of a playback, which was answered with that status.
fn answered(status: u32, answer: &Answer) -> HttpAccessLogEntry {
    let mut entry = end("any", answer);
    entry.response = Some(HttpResponseProperties {
        response_code: Some(UInt32Value { value: status }),
        ..HttpResponseProperties::default()
    });
    entry
}

/// Tells an app what Envoy has logged, and waits until the store knows.
async fn logged(app: &TestApp, entries: Vec<HttpAccessLogEntry>) {
    let mut log = LogStream::open(app.grpc()).await;
    log.send(entries);
    assert_eq!(log.finish().await, 0);
    eventually("all is told", async || {
        app.metric("streamgate_releaser_pending").await == 0
    })
    .await;
}
