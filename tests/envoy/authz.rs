//! The `ext_authz` door over real gRPC: which streams are let in, what a refusal says, and what an
//! abandoned call leaves behind.

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::data::accesslog::v3::AccessLogType;
use envoy_types::pb::envoy::service::auth::v3::CheckRequest;
use prost::Message;
use streamgate::clock::{ManualClock, Timestamp};
use streamgate::config::OutageRule;
use streamgate::store::StoreError;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use streamgate::store::faulty::{Fault, FaultyStore};
use testkit::app::TestApp;
use testkit::gateway_client::{Answer, Check, Gateway, entry};
use testkit::watch::eventually;

/// Lets in as many requests, `r1` and so on.
async fn fill(gateway: &Gateway, user: &str, streams: usize) -> Vec<Answer> {
    let mut answers = Vec::new();
    for n in 1..=streams {
        let answer = gateway.check(Check::of(user, &format!("r{n}"))).await;
        assert!(answer.is_allowed(), "{answer:?}");
        answers.push(answer);
    }
    answers
}

#[tokio::test]
async fn a_user_gets_in_up_to_the_limit_and_nobody_else_is_affected() {
    let app = TestApp::plan().start().await;
    let gateway = app.gateway().await;
    for answer in fill(&gateway, "anna", 3).await {
        let session = answer.metadata["session"].as_str();
        assert_eq!(answer.header("x-streamgate-session"), Some(session));
        assert_eq!(answer.metadata["user"], "anna");
        assert_eq!(answer.metadata["kind"], "request");
    }
    let refused = gateway.check(Check::of("anna", "r4")).await;
    assert_eq!(
        (refused.kind, refused.http, refused.code),
        ("denied", 429, 8)
    );
    assert_eq!(refused.reason(), "full");
    assert_eq!(refused.metadata["decision"], "deny");
    assert_eq!(
        refused.header("content-type"),
        Some("application/problem+json")
    );
    assert_eq!(refused.header("ratelimit"), Some("\"streams\";r=0"));
    assert_eq!(
        refused.header("ratelimit-policy"),
        Some("\"streams\";q=3;qu=\"concurrent-requests\"")
    );
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=5).contains(&wait), "{wait} s, with leases of 15 s");
    let body = &refused.body;
    let told = (
        &body["status"],
        &body["reason"],
        &body["limit"],
        &body["active"],
    );
    assert_eq!(told, (&429.into(), &"full".into(), &3.into(), &3.into()));
    let holders = body["sessions"].as_array().unwrap();
    let ids: Vec<_> = holders.iter().map(|holder| &holder["session"]).collect();
    assert_eq!(ids, ["r1", "r2", "r3"]);
    assert!(gateway.check(Check::of("ben", "r4")).await.is_allowed());
    assert_eq!(app.checks("allow", "started").await, 4);
    assert_eq!(app.checks("deny", "full").await, 1);
    app.stop().await;
}

#[tokio::test]
async fn a_check_that_is_repeated_holds_one_slot() {
    let app = TestApp::plan().limit(1).start().await;
    let gateway = app.gateway().await;
    let first = gateway.check(Check::of("anna", "r1")).await;
    for _ in 0..5 {
        assert_eq!(gateway.check(Check::of("anna", "r1")).await, first);
        assert!(
            gateway
                .check(Check::of_playback("ben", "p1"))
                .await
                .is_allowed()
        );
    }
    assert_eq!(
        gateway.check(Check::of("anna", "r2")).await.reason(),
        "full"
    );
    assert_eq!(
        gateway
            .check(Check::of_playback("ben", "p2"))
            .await
            .reason(),
        "full"
    );
    assert_eq!(app.checks("allow", "renewed").await, 9);
}

#[tokio::test]
async fn facts_that_are_only_shown_stop_no_stream_and_are_counted() {
    let app = TestApp::plan().limit(3).start().await;
    let gateway = app.gateway().await;
    let long = "x".repeat(310);
    let twice = "/a?CMCD=cid%3D%22film%22%2Csid%3D%22p3%22&CMCD=bl%3D1%2Csid%3D%22p3%22";
    for (check, session) in [
        (
            Check::of_playback("anna", "p1").header("x-device-id", &long),
            "p1",
        ),
        (
            Check::of("anna", "r1").path("/a?CMCD=cid%3D%22%22-977%22%22%2Csid%3D%22p2%22"),
            "p2",
        ),
        (Check::of("anna", "r2").path(twice), "p3"),
    ] {
        let answer = gateway.check(check).await;
        assert!(answer.is_allowed(), "{answer:?}");
        assert_eq!(answer.metadata["session"], session);
    }
    let refused = gateway.check(Check::of_playback("anna", "p4")).await;
    assert_eq!(refused.reason(), "full");
    let holders = refused.body["sessions"].as_array().unwrap().iter();
    let shown: Vec<_> = holders
        .map(|holder| (holder["device"].as_str(), holder["content"].as_str()))
        .collect();
    let cut = format!("{}…", "x".repeat(253));
    assert_eq!(
        shown,
        [(Some(&*cut), None), (None, None), (None, Some("film"))]
    );
    assert_eq!(lost(&app, "device", "shortened").await, 1);
    assert_eq!(lost(&app, "content", "left_out").await, 1);
    assert_eq!(lost(&app, "device", "left_out").await, 0);
    assert_eq!(app.checks("deny", "malformed").await, 0);

    // A running stream's own reports are counted too.
    let mut log = gateway.access_log().await;
    let ben = gateway.check(Check::of("ben", "r1")).await;
    let mut entry = entry(AccessLogType::DownstreamPeriodic, "r1", Some(&ben));
    let request = entry.request.get_or_insert_default();
    request
        .request_headers
        .insert("x-device-id".to_owned(), "a\tb".to_owned());
    log.send(vec![entry]);
    assert_eq!(log.finish().await, 0);
    assert_eq!(app.entries("periodic", "renewal").await, 1);
    assert_eq!(lost(&app, "device", "left_out").await, 1);
    app.stop().await;
}

/// How often that fact could not be kept as it came.
async fn lost(app: &TestApp, fact: &str, loss: &str) -> u64 {
    let labels = format!("{{fact=\"{fact}\",loss=\"{loss}\"}}");
    app.metric(&format!("streamgate_facts_lost_total{labels}"))
        .await
}

#[tokio::test]
async fn bad_input_is_answered_and_takes_no_slot() {
    let store = FaultyStore::new();
    let app = TestApp::plan().store(store.clone()).start().await;
    let gateway = app.gateway().await;
    let check = || Check::of("anna", "r1");
    let playback = |id: &str| Check::of_playback("anna", id);
    let long = "x".repeat(257);
    for (check, http, reason) in [
        (check().without("x-user-id"), 401, "no_user"),
        (check().header("x-user-id", ""), 401, "no_user"),
        (check().header("x-user-id", &long), 400, "malformed"),
        (check().header("x-user-id", "a\tb"), 400, "malformed"),
        (check().without("x-request-id"), 400, "no_session"),
        (playback(&long), 400, "malformed"),
        (check().path("/a?session=%ff"), 400, "malformed"),
        (check().path("/a?CMCD=sid%3D%22open"), 400, "malformed"),
        (
            check().header("cmcd-session", "sid=\"a\"b"),
            400,
            "malformed",
        ),
        (
            check().route("streamgate.session", "cookies:a"),
            500,
            "misconfigured",
        ),
        (
            check().route("streamgate.session", ""),
            500,
            "misconfigured",
        ),
        (
            check().route("streamgate.session", "cmcd:sid"),
            400,
            "no_session",
        ),
    ] {
        let answer = gateway.check(check.clone()).await;
        let got = (answer.kind, answer.http, answer.reason());
        assert_eq!(got, ("denied", http, reason), "{check:?}");
        assert_ne!(answer.code, 0, "Envoy would let it through");
    }
    let empty = gateway.send(CheckRequest::default()).await.unwrap();
    assert_eq!((empty.http, empty.reason()), (500, "misconfigured"));
    let huge = format!("/{}?session=p1", "a/".repeat(20_000));
    let allowed = gateway.check(check().path(&huge)).await;
    assert_eq!(allowed.metadata["session"], "p1");
    assert_eq!(store.live("anna").await, ["p1"]);
    app.stop().await;
}

#[tokio::test]
async fn options_and_head_take_no_slot() {
    let store = FaultyStore::new();
    let app = TestApp::plan().limit(0).store(store.clone()).start().await;
    let gateway = app.gateway().await;
    let preflight = Check::of("anna", "r1")
        .without("x-user-id")
        .method("OPTIONS");
    let head = Check::of("anna", "r1").method("HEAD");
    for check in [preflight, head.clone()] {
        let answer = gateway.check(check).await;
        assert!(
            answer.is_allowed() && !answer.metadata.contains_key("session"),
            "{answer:?}"
        );
    }
    let nobody = gateway.check(head.without("x-user-id")).await;
    assert_eq!(nobody.http, 401);
    assert_eq!(store.calls("admit"), 0);
}

#[tokio::test]
async fn a_slot_that_comes_free_during_the_grace_lets_the_next_stream_in() {
    let app = TestApp::plan()
        .grace(Duration::from_secs(5))
        .limit(1)
        .start()
        .await;
    let gateway = app.gateway().await;
    let first = gateway.check(Check::of("anna", "r1")).await;
    let mut log = gateway.access_log().await;
    let (next, ()) = tokio::join!(gateway.check(Check::of("anna", "r2")), async {
        let waits = "streamgate_store_requests_total{operation=\"admit\",outcome=\"ok\"}";
        eventually("the second start waits", async || {
            app.metric(waits).await == 2
        })
        .await;
        log.send(vec![testkit::gateway_client::end("r1", &first)]);
    });
    assert!(next.is_allowed(), "{next:?}");
    assert_eq!(
        app.metric("streamgate_grace_total{outcome=\"admitted\"}")
            .await,
        1
    );
}

#[tokio::test]
async fn a_check_that_is_cancelled_leaves_no_slot_for_its_request() {
    let store = FaultyStore::new();
    let app = TestApp::plan().store(store.clone()).start().await;
    let gateway = app.gateway().await;
    store.hold();
    tokio::select! {
        answer = gateway.check(Check::of("anna", "r1")) => panic!("{answer:?}"),
        () = store.asked("admit", 1) => {}
    }
    gateway.catch_up().await;
    store.let_go();
    app.start_is_undone().await;
    assert_eq!(store.live("anna").await, [""; 0]);
    assert_eq!(app.checks("error", "cancelled").await, 1);
    let again = gateway.check(Check::of("anna", "r1")).await;
    assert!(
        again.is_allowed(),
        "an undone start leaves no tombstone: {again:?}"
    );
    app.stop().await;
}

#[tokio::test]
async fn a_start_whose_connection_breaks_in_the_store_call_is_done_and_undone() {
    let store = FaultyStore::new();
    let app = TestApp::plan().store(store.clone()).start().await;
    let socket = TcpStream::connect(app.grpc()).await.unwrap();
    let (mut client, connection) = h2::client::handshake(socket).await.unwrap();
    let mut driving = JoinSet::new();
    driving.spawn(connection);
    store.hold();
    let call = http::Request::post("http://streamgate/envoy.service.auth.v3.Authorization/Check");
    let call = call.header("content-type", "application/grpc").body(());
    let (_answer, mut body) = client.send_request(call.unwrap(), false).unwrap();
    let message = Check::of("anna", "r1").request().encode_to_vec();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let message = [&[0], &length[..], &message].concat();
    body.send_data(message.into(), true).unwrap();
    store.asked("admit", 1).await;
    // The socket is closed, and no stream is reset before.
    driving.shutdown().await;
    eventually("the connection is gone", async || {
        app.metric("streamgate_connections{port=\"grpc\"}").await == 0
    })
    .await;
    assert_eq!(app.checks("error", "cancelled").await, 0, "it goes on");
    store.let_go();
    app.start_is_undone().await;
    assert_eq!(store.live("anna").await, [""; 0]);
    assert_eq!(app.checks("error", "cancelled").await, 1);
    app.stop().await;
}

#[tokio::test]
async fn a_check_that_is_cancelled_never_undoes_a_playback() {
    let store = FaultyStore::new();
    let app = TestApp::plan().store(store.clone()).start().await;
    let gateway = app.gateway().await;
    store.hold();
    tokio::select! {
        answer = gateway.check(Check::of_playback("anna", "p1")) => panic!("{answer:?}"),
        () = store.asked("admit", 1) => {}
    }
    gateway.catch_up().await;
    store.let_go();
    eventually("the check counts as cancelled", async || {
        app.checks("error", "cancelled").await == 1
    })
    .await;
    app.stop().await;
    assert_eq!(store.live("anna").await, ["p1"]);
    assert_eq!(store.calls("release"), 0);
}

#[tokio::test]
async fn the_session_of_a_retried_check_survives_the_undoing_of_the_first() {
    let store = FaultyStore::new();
    let app = TestApp::plan().store(store.clone()).start().await;
    let (impatient, patient) = (app.gateway().await, app.gateway().await);
    store.hold();
    tokio::select! {
        answer = impatient.check(Check::of("anna", "r1")) => panic!("{answer:?}"),
        () = store.asked("admit", 1) => {}
    }
    impatient.catch_up().await;
    let retry = async {
        let answer = patient.check(Check::of("anna", "r1")).await;
        assert!(answer.is_allowed(), "{answer:?}");
    };
    let (_, ()) = tokio::join!(retry, async {
        store.asked("admit", 2).await;
        store.let_go();
    });
    eventually("the first counts as cancelled", async || {
        app.checks("error", "cancelled").await == 1
    })
    .await;
    app.stop().await;
    assert_eq!(store.live("anna").await, ["r1"]);
}

#[tokio::test]
async fn a_start_whose_outcome_is_unknown_leaves_no_ghost() {
    // The clock stands still: no lease runs out.
    let store = FaultyStore::at(Arc::new(ManualClock::default()));
    let plan = TestApp::plan().outage(OutageRule::Deny);
    let app = plan.store(store.clone()).start().await;
    let gateway = app.gateway().await;
    for check in [Check::of("anna", "r1"), Check::of_playback("anna", "p1")] {
        store.fails(&Fault::LosesAnswers);
        let answer = gateway.check(check).await;
        assert_eq!((answer.kind, answer.http), ("error", 503));
        store.fails(&Fault::None);
    }
    eventually("both are taken back", async || {
        store.live("anna").await.is_empty()
    })
    .await;
    assert_eq!(app.checks("error", "outage").await, 2);
    app.stop().await;
}

#[tokio::test]
async fn two_starts_of_one_session_with_unknown_outcomes_leave_no_ghost() {
    // The clock stands still: no lease runs out.
    let store = FaultyStore::at(Arc::new(ManualClock::default()));
    let plan = TestApp::plan().outage(OutageRule::Deny);
    let app = plan.store(store.clone()).start().await;
    let gateway = app.gateway().await;
    // The first call is done but its answer is lost; its retry is lost entirely, before the first
    // could be undone.
    store.fails_at("release", Fault::LosesCalls);
    store.fails_at("admit", Fault::LosesAnswers);
    assert_eq!(gateway.check(Check::of("anna", "r1")).await.http, 503);
    store.fails_at("admit", Fault::LosesCalls);
    assert_eq!(gateway.check(Check::of("anna", "r1")).await.http, 503);
    assert_eq!(store.live("anna").await, ["r1"]);
    store.fails(&Fault::None);
    eventually("it is taken back", async || {
        store.live("anna").await.is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_start_that_is_answered_after_its_release_is_not_remembered_as_running() {
    let store = FaultyStore::new();
    let plan = TestApp::plan().store(store.clone());
    let app = plan.start().await;
    let gateway = app.gateway().await;
    let late = Fault::AnswersLate(Duration::from_millis(300));
    store.fails_at("admit", late);
    let (answer, released) = tokio::join!(gateway.check(Check::of_playback("anna", "p1")), async {
        store.asked("admit", 1).await;
        let body = r#"{"user": "anna", "session": "p1"}"#;
        let hook = reqwest::Client::new().post(app.url("/v1/release"));
        hook.body(body).send().await.map(|sent| sent.status())
    });
    assert!(answer.is_allowed(), "the store had let it in");
    assert_eq!(released.ok(), Some(reqwest::StatusCode::NO_CONTENT));
    let again = gateway.check(Check::of_playback("anna", "p1")).await;
    assert_eq!(again.reason(), "ended");
    app.stop().await;
}

#[tokio::test]
async fn an_outage_is_an_error_that_envoy_does_not_let_through() {
    let store = FaultyStore::new();
    let plan = TestApp::plan().outage(OutageRule::Deny);
    let app = plan.store(store.clone()).start().await;
    let gateway = app.gateway().await;
    for error in [
        StoreError::Disconnected("refused".to_owned()),
        StoreError::Full("no room".to_owned()),
        StoreError::Rejected("loading".to_owned()),
        StoreError::Protocol("what?".to_owned()),
        StoreError::Timeout(Duration::from_millis(50)),
    ] {
        store.fails(&Fault::Errs(error));
        let answer = gateway.check(Check::of("anna", "r1")).await;
        assert_eq!((answer.kind, answer.http, answer.code), ("error", 503, 14));
        assert_eq!(answer.header("retry-after"), Some("1"));
        assert_eq!(answer.body["reason"], "outage");
        assert!(answer.metadata.is_empty(), "no slot is to be read from it");
    }
    for _ in 0..5 {
        assert_eq!(gateway.check(Check::of("anna", "r1")).await.http, 503);
    }
    let ready = app.get("/readyz").await;
    assert_eq!(
        ready.status(),
        200,
        "readiness does not depend on the store"
    );
    let told: serde_json::Value = ready.json().await.unwrap();
    assert_eq!(told["store"]["up"], false, "{told}");
    store.fails(&Fault::None);
    eventually("it is counted again", async || {
        gateway.check(Check::of("anna", "r1")).await.is_allowed()
    })
    .await;
    app.stop().await;
}

#[tokio::test]
async fn a_lease_that_runs_out_frees_its_slot() {
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_000_000)));
    let store = FaultyStore::at(clock.clone());
    let plan = TestApp::plan().limit(1).store(store).clock(clock.clone());
    let app = plan.start().await;
    let gateway = app.gateway().await;
    assert!(gateway.check(Check::of("anna", "r1")).await.is_allowed());
    clock.advance(Duration::from_millis(14_999));
    assert_eq!(
        gateway.check(Check::of("anna", "r2")).await.reason(),
        "full"
    );
    clock.advance(Duration::from_millis(1));
    assert!(gateway.check(Check::of("anna", "r2")).await.is_allowed());
}

#[tokio::test]
async fn the_true_fourth_is_refused_in_time_though_the_store_is_slow() {
    let store = FaultyStore::new();
    let app = TestApp::plan()
        .store(Arc::<FaultyStore>::clone(&store))
        .grace(Duration::from_millis(250))
        .start()
        .await;
    let gateway = app.gateway().await;
    for number in 0..3 {
        let check = Check::of("anna", &format!("r{number}"));
        assert!(gateway.check(check).await.is_allowed());
    }
    store.fails(&Fault::Takes(Duration::from_millis(300)));
    // Six times what Envoy waits by default, and a store six times as slow as it may be.
    let mut fourth = tonic::Request::new(Check::of("anna", "r4").request());
    fourth.set_timeout(Duration::from_millis(1200));
    let answer = gateway.send(fourth).await.expect("an answer in time");
    assert_eq!(answer.reason(), "full");
    app.stop().await;
}
