//! The dry run (`limits.enforce: false`, or a route's `streamgate.enforce`): no stream is refused,
//! and those that would have been are counted.

use serde_json::{Value, json};
use streamgate::config::OutageRule;

use streamgate::store::faulty::{Fault, FaultyStore};
use testkit::api::{Api, on_both};
use testkit::app::{Plan, TestApp};
use testkit::gateway_client::{Answer, Check, Gateway, end, periodic};
use testkit::streamgate::Streamgate;

/// What all the traffic of a test came to.
#[derive(Debug, PartialEq, Eq)]
struct Tally {
    let_in: u64,
    refused: u64,
    /// The ids that hold slots in the end.
    live: Vec<String>,
}

/// One evening of one household with two slots: playbacks, requests, a channel change, a retry, a
/// takeover, ends.
async fn evening(gateway: &Gateway, api: &Api<'_>) {
    let mut log = gateway.access_log().await;
    let plays = async |id: &str| gateway.check(Check::of_playback("anna", id)).await;
    let request = async |id: &str| gateway.check(Check::of("anna", id)).await;
    for id in ["p1", "p1", "p2", "p1", "p2", "p3", "p3"] {
        plays(id).await;
    }
    // A request that finds no slot, but continues in a dry run; Envoy reports it while it runs and
    // when it ends.
    let third = request("r1").await;
    let seen = vec![periodic("r1", &third), end("r1", &third)];
    log.send(seen);
    assert_eq!(api.delete("/v1/users/anna/sessions/p1").await.status, 204);
    // Somebody left, and so the next one gets in, and the one behind it doesn't.
    let fourth = request("r2").await;
    log.send(vec![periodic("r2", &fourth)]);
    for id in ["p3", "p2", "p1"] {
        plays(id).await;
    }
    let takes = Check::of_playback("anna", "p4").header("x-streamgate-takeover", "p2");
    gateway.check(takes).await;
    for id in ["p4", "p2", "p4"] {
        plays(id).await;
    }
    log.flush().await;
}

async fn tally(app: &TestApp, refusals: &[(&str, &str)]) -> Tally {
    let mut refused = 0;
    for (decision, reason) in refusals {
        refused += app.checks(decision, reason).await;
    }
    let mut let_in = 0;
    for reason in ["started", "renewed", "held"] {
        let_in += app.checks("allow", reason).await;
    }
    Tally {
        let_in,
        refused,
        live: Api::of(app).live("anna").await,
    }
}

const REFUSALS: [(&str, &str); 4] = [
    ("deny", "full"),
    ("deny", "ended"),
    ("deny", "displaced"),
    ("deny", "operator"),
];

#[tokio::test]
async fn the_same_traffic_would_be_refused_as_often_as_it_is() {
    let run = async |plan: Plan, refusals: &[(&str, &str)]| {
        let app = plan.limit(2).start().await;
        evening(&app.gateway().await, &Api::of(&app)).await;
        let tally = tally(&app, refusals).await;
        app.stop().await;
        tally
    };
    let enforced = run(TestApp::plan(), &REFUSALS).await;
    let dry = run(TestApp::plan().dry_run(), &[("allow", "would_refuse")]).await;
    assert_eq!(dry, enforced);
    assert_eq!(
        (enforced.refused, &*enforced.live),
        (6, &["r2".to_owned(), "p4".to_owned()][..])
    );
}

#[tokio::test]
async fn a_dry_run_refuses_nobody_and_a_would_be_refusal_holds_no_slot() {
    on_both(async |plan| {
        let app = plan.limit(1).dry_run().start().await;
        let (api, gateway) = (Api::of(&app), app.gateway().await);
        let plays = async |id: &str| gateway.check(Check::of_playback("anna", id)).await;
        assert!(plays("p1").await.is_allowed());
        let over: Answer = plays("p2").await;
        assert!(over.is_allowed(), "{over:?}");
        assert_eq!(
            over.metadata.get("session"),
            None,
            "an entry of it is nobody's"
        );
        let started = api.put("anna", "p3", json!({"device": "tv"})).await;
        assert_eq!(
            (started.status.as_u16(), &started.body["active"]),
            (201, &json!(1))
        );
        assert_eq!(started.body["session"], "p3");
        assert_eq!(started.header("ratelimit"), "\"streams\";r=0");
        assert_eq!(api.live("anna").await, ["p1"]);
        let series = "streamgate_http_requests_total{call=\"start\",outcome=\"would_refuse\"}";
        assert_eq!(app.metric(series).await, 1);
        assert_eq!(app.checks("allow", "would_refuse").await, 1);
        assert_eq!(app.metric("streamgate_enforces").await, 0);
        // A stream without an identifiable user plays on too.
        for check in [
            Check::default(),
            Check::of_playback("anna", &"x".repeat(300)),
        ] {
            assert!(gateway.check(check).await.is_allowed());
        }
        assert_eq!(app.checks("allow", "would_refuse").await, 3);
        app.stop().await;
    })
    .await;
}

#[tokio::test]
async fn an_outage_refuses_nobody_either() {
    let store = FaultyStore::new();
    let plan = TestApp::plan()
        .dry_run()
        .outage(OutageRule::Deny)
        .store(store.clone());
    let app = plan.start().await;
    store.fails(&Fault::LosesCalls);
    let gateway = app.gateway().await;
    assert!(
        gateway
            .check(Check::of_playback("anna", "p1"))
            .await
            .is_allowed()
    );
    assert_eq!(Api::of(&app).put("anna", "p2", json!({})).await.status, 201);
    store.fails(&Fault::None);
    app.stop().await;
}

#[tokio::test]
async fn a_route_can_be_left_out_of_it_or_be_the_only_one_in_it() {
    for (plan, route, is_refused) in [
        (TestApp::plan().dry_run(), Some("true"), true),
        (TestApp::plan().dry_run(), None, false),
        (TestApp::plan(), Some("false"), false),
        (TestApp::plan(), None, true),
    ] {
        let app = plan.limit(0).start().await;
        let gateway = app.gateway().await;
        let check = Check::of_playback("anna", "p1");
        let check = match route {
            Some(said) => check.route("streamgate.enforce", said),
            None => check,
        };
        let answer = gateway.check(check).await;
        assert_eq!(answer.is_allowed(), !is_refused, "{route:?}: {answer:?}");
        app.stop().await;
    }
    let app = TestApp::plan().start().await;
    let gateway = app.gateway().await;
    let wrong = Check::of_playback("anna", "p1").route("streamgate.enforce", "no");
    let answer = gateway.check(wrong).await;
    assert_eq!((answer.http, answer.reason()), (500, "misconfigured"));
    app.stop().await;
}

#[tokio::test]
async fn a_dry_run_is_logged_at_startup_and_for_each_would_be_refusal() {
    let settings = [
        ("STREAMGATE_LIMITS__ENFORCE", "false"),
        ("STREAMGATE_LIMITS__DEFAULT", "0"),
    ];
    let service = Streamgate::start(&settings).await;
    let gateway = service.gateway().await;
    gateway.check(Check::of("anna", "r1")).await;
    let line = service.line("a stream would have been refused").await;
    assert_eq!(
        (&line["reason"], &line["request.id"]),
        (&"full".into(), &"r1".into())
    );
    let warning = "limits.enforce: false is a dry run: nothing is refused, except on routes with streamgate.enforce: true; refusals are counted and logged instead";
    service.line(warning).await;
    assert_eq!(service.lines(warning).len(), 1);
    assert!(service.lines("a stream was refused").is_empty());
}

/// What the lines say of who would have been refused.
const STREAM: &str = "a stream would have been refused";
const NO_USER: &str =
    "a request would have been refused: nothing in the request says which user it is from";
const NO_SESSION: &str =
    "a request would have been refused: nothing in the request says which playback it belongs to";
const MALFORMED: &str = "a request would have been refused: the session id (header:x-playback-session-id) has 300 bytes; at most 256 are allowed";

#[tokio::test]
async fn whatever_it_would_have_been_refused_for_it_is_a_line_and_counted() {
    let settings = [("STREAMGATE_LIMITS__ENFORCE", "false")];
    let service = Streamgate::start(&settings).await;
    let gateway = service.gateway().await;
    let plays = |user: &str, request: &str| {
        let check = Check::of(user, request);
        check.header("x-playback-session-id", "p1")
    };
    for user in ["anna", "bob"] {
        assert!(gateway.check(plays(user, "first")).await.is_allowed());
    }
    let http = service.http;
    let ended = reqwest::Client::new().delete(format!("http://{http}/v1/users/bob/sessions/p1"));
    assert_eq!(ended.send().await.unwrap().status(), 204);
    let (set, instead) = (
        format!("http://{http}/v1/users/anna/sessions"),
        json!({"takeover": "p1"}),
    );
    for id in ["p2", "p3", "p4"] {
        let start = reqwest::Client::new().put(format!("{set}/{id}"));
        assert_eq!(start.json(&instead).send().await.unwrap().status(), 201);
    }
    let nobody = Check::of("anna", "nobody").without("x-user-id");
    let which = Check::of("carol", "which").route("streamgate.session", "query:session");
    let long = "x".repeat(300);
    let malformed = Check::of("dave", "malformed").header("x-playback-session-id", &long);
    let refused = [
        (plays("anna", "displaced"), "anna", "displaced", STREAM),
        (plays("bob", "ended"), "bob", "ended", STREAM),
        (nobody, "", "no_user", NO_USER),
        (which, "carol", "no_session", NO_SESSION),
        (malformed, "dave", "malformed", MALFORMED),
    ];
    for (check, user, reason, message) in refused {
        // A second time it is only counted.
        for _ in 0..2 {
            let answer = gateway.check(check.clone()).await;
            assert!(answer.is_allowed(), "{reason}: {answer:?}");
        }
        let is_it = |line: &Value| line["reason"] == reason;
        let line = service.line_with(message, is_it).await;
        let about = (
            line["user.id"].as_str().unwrap_or_default(),
            line["request.id"].as_str().unwrap(),
        );
        let request = check.request().attributes.unwrap().request.unwrap();
        let id = &request.http.unwrap().headers["x-request-id"];
        assert_eq!(about, (user, &**id), "{reason}");
        let lines = service.lines(message);
        assert_eq!(lines.iter().filter(|line| is_it(line)).count(), 1);
    }
    let metrics = service.get("/metrics").await.text().await.unwrap();
    let counted = "streamgate_checks_total{decision=\"allow\",reason=\"would_refuse\"} 10\n";
    assert!(metrics.contains(counted), "{metrics}");
    let denied = "streamgate_checks_total{decision=\"deny\"";
    let mut denials = metrics.lines().filter(|line| line.starts_with(denied));
    assert!(denials.all(|line| line.ends_with(" 0")), "{metrics}");
}
