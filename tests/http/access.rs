//! Permissions in the HTTP API: each role, each call, one's own user and another one, over real
//! HTTP; that a tokens file is followed; and that no token is ever shown.

use reqwest::Method;
use serde_json::{Value, json};
use streamgate::config::OutageRule;

use streamgate::store::faulty::{Fault, FaultyStore};
use testkit::api::{Api, Told};
use testkit::app::{TestApp, TokensFile};
use testkit::gateway_client::Check;
use testkit::streamgate::Streamgate;
use testkit::watch::eventually;

pub(super) const TOKENS: &str = "\
# who may ask
back-end-token    client
operator-token    operator
annas-token       client anna
annas-operator    operator anna
gateway-token     client
";

/// A caller: its name, and the headers that it sends.
pub(super) type Who = (&'static str, &'static [(&'static str, &'static str)]);

const NOBODY: Who = ("nobody", &[]);
const WRONG: Who = ("wrong", &[("authorization", "Bearer back-end-toke")]);
const BASIC: Who = (
    "basic",
    &[("authorization", "Basic YW5uYTpiYWNrLWVuZC10b2tlbg==")],
);
const BACK_END: Who = ("back-end", &[("authorization", "bearer back-end-token")]);
const OPERATOR: Who = ("operator", &[("authorization", "Bearer operator-token")]);
const ANNA: Who = ("anna", &[("authorization", "Bearer annas-token")]);
const ANNAS_OPERATOR: Who = (
    "annas-operator",
    &[("authorization", "Bearer annas-operator")],
);
const VIEWER: Who = (
    "viewer",
    &[
        ("authorization", "Bearer gateway-token"),
        ("x-streamgate-user", "anna"),
    ],
);
const VIEWER_OF_AN_OPERATOR: Who = (
    "viewer-of-an-operator",
    &[
        ("authorization", "Bearer operator-token"),
        ("x-streamgate-user", "anna"),
    ],
);

/// All of them.
pub(super) const CALLERS: [Who; 9] = [
    NOBODY,
    WRONG,
    BASIC,
    BACK_END,
    OPERATOR,
    ANNA,
    ANNAS_OPERATOR,
    VIEWER,
    VIEWER_OF_AN_OPERATOR,
];

/// What each call is answered to who may make it; in this order they can follow each other.
const CALLS: [(&str, u16); 19] = [
    ("start", 201),
    ("heartbeat with a plan", 200),
    ("start with an id made here", 201),
    ("takeover", 200),
    ("see all", 200),
    ("see one", 200),
    ("release one", 204),
    ("release a request", 204),
    ("release hook", 204),
    ("release hook, a request", 204),
    ("release hook, a list with another user", 204),
    ("see everybody", 200),
    ("see the instance", 200),
    ("set a limit", 201),
    ("see the limit", 200),
    ("remove the limit", 204),
    ("see the numbers", 200),
    ("end all", 200),
    ("end all once more", 200),
];

/// Makes that call about a user.
async fn make(call: &str, api: &Api<'_>, user: &str, id: &str) -> Told {
    let all = format!("/v1/users/{user}/sessions");
    let (one, request) = (format!("{all}/{id}"), format!("{all}/{id}?kind=request"));
    let limit = format!("/v1/users/{user}/limit");
    let release = json!({"user": user, "session": id});
    let (method, path, body): (Method, &str, Option<Value>) = match call {
        "start" => (Method::PUT, &one, None),
        "heartbeat with a plan" => (Method::PUT, &one, Some(json!({"plan": "gold"}))),
        "start with an id made here" => (Method::POST, &all, Some(json!({}))),
        "takeover" => (Method::PUT, &one, Some(json!({"takeover": "oldest"}))),
        "see all" => (Method::GET, &all, None),
        "see one" => (Method::GET, &one, None),
        "release one" => (Method::DELETE, &one, None),
        "release a request" => (Method::DELETE, &request, None),
        "release hook" => (Method::POST, "/v1/release", Some(release)),
        "release hook, a request" => {
            let request = json!({"user": user, "session": id, "kind": "request"});
            (Method::POST, "/v1/release", Some(request))
        }
        "release hook, a list with another user" => {
            let list = json!([release, {"user": "carl", "session": id}]);
            (Method::POST, "/v1/release", Some(list))
        }
        "see everybody" => (Method::GET, "/v1/sessions", None),
        "see the instance" => (Method::GET, "/v1/instance", None),
        "set a limit" => (Method::PUT, &limit, Some(json!({"limit": 9}))),
        "see the limit" => (Method::GET, &limit, None),
        "remove the limit" => (Method::DELETE, &limit, None),
        "see the numbers" => (Method::GET, "/v1/stats", None),
        _ => (Method::DELETE, &all, None),
    };
    api.call(method, path, body).await
}

/// The status of the caller's call about their own user (anna), or about another one.
fn expected(who: Who, call: &str, is_own: bool, ok: u16) -> u16 {
    let about_all = ["see everybody", "see the instance", "see the numbers"];
    let of_limits = ["set a limit", "see the limit", "remove the limit"];
    let operators = ["end all", "end all once more"];
    let back_ends = ["release a request", "release hook, a request"];
    let (is_operator, is_bound) = match who.0 {
        "nobody" | "wrong" | "basic" => return 401,
        "back-end" => (false, false),
        "operator" => (true, false),
        "annas-operator" => (true, true),
        // A viewer is not an operator, even if their gateway is.
        _ => (false, true),
    };
    // A token for one user must not raise that user's limit.
    let is_about_all = about_all.contains(&call) || of_limits.contains(&call);
    let is_about_others = call.ends_with("another user");
    if is_bound && (is_about_all || is_about_others || !is_own) {
        return 403;
    }
    if (is_about_all || operators.contains(&call)) && !is_operator {
        return 403;
    }
    match call {
        "heartbeat with a plan" if is_bound => 403,
        call if back_ends.contains(&call) && is_bound => 409,
        _ => ok,
    }
}

#[tokio::test]
async fn each_role_may_do_what_it_may_and_nothing_else() {
    let file = TokensFile::of(TOKENS);
    let plan = TestApp::plan().limit(100).limit_of_plan("gold", 100);
    let app = plan.tokens(&file).start().await;
    let open = Api::of(&app);
    for who in CALLERS {
        let headers = who.1.iter();
        let api = headers.fold(open.clone(), |api, (name, value)| api.with(name, *value));
        for (user, is_own) in [("anna", true), ("ben", false)] {
            let id = format!("{}-{user}", who.0);
            for (call, ok) in CALLS {
                let told = make(call, &api, user, &id).await;
                let expected = expected(who, call, is_own, ok);
                let cell = format!("{} {call} of {user}", who.0);
                assert_eq!(told.status, expected, "{cell}: {told:?}");
                match expected {
                    401 => {
                        told.is_problem(401, "unauthorized");
                        let challenge = if who.0 == "nobody" {
                            r#"Bearer realm="streamgate""#
                        } else {
                            r#"Bearer realm="streamgate", error="invalid_token""#
                        };
                        assert_eq!(told.header("www-authenticate"), challenge, "{cell}");
                    }
                    403 => told.is_problem(403, "forbidden"),
                    409 => told.is_problem(409, "not_stoppable"),
                    _ => {}
                }
            }
        }
    }
    app.stop().await;
}

#[tokio::test]
async fn a_refused_caller_has_changed_nothing() {
    let file = TokensFile::of(TOKENS);
    let store = FaultyStore::new();
    let app = TestApp::plan()
        .tokens(&file)
        .store(store.clone())
        .start()
        .await;
    let api = Api::of(&app).with_token("annas-token");
    for (call, _) in CALLS {
        let told = make(call, &api, "ben", "p1").await;
        assert_eq!(told.status, 403, "{call}");
    }
    let plan = api.put("anna", "p1", json!({"plan": "gold"})).await;
    plan.is_problem(403, "forbidden");
    for operation in [
        "admit",
        "renew",
        "release",
        "list",
        "page",
        "override_limit",
    ] {
        assert_eq!(store.calls(operation), 0, "{operation}");
    }
    app.stop().await;
}

#[tokio::test]
async fn a_small_client_s_password_is_a_token_that_is_good_for_its_user() {
    let file = TokensFile::of(TOKENS);
    let app = TestApp::plan().tokens(&file).start().await;
    let api = Api::of(&app);
    let path = "/?id=film";
    for (user, password, is_good) in [
        ("anna", Some("annas-token"), true),
        ("anna", Some("annas-operator"), true),
        ("anna", Some("back-end-token"), true),
        ("ben", Some("back-end-token"), true),
        ("ben", Some("annas-token"), false),
        ("anna", Some("annas-toke"), false),
        ("anna", Some(""), false),
        ("anna", None, false),
        ("", Some("back-end-token"), false),
    ] {
        for (method, ok) in [
            (Method::POST, 201),
            (Method::PATCH, 200),
            (Method::GET, 200),
            (Method::DELETE, 204),
        ] {
            let request = api.request(method.clone(), path).basic_auth(user, password);
            let told = Told::by(request).await;
            let cell = format!("{method} {user} {password:?}");
            if is_good {
                assert_eq!(told.status, ok, "{cell}: {told:?}");
            } else {
                told.is_problem(401, "unauthorized");
                let challenge = r#"Basic realm="streamgate", charset="UTF-8""#;
                assert_eq!(told.header("www-authenticate"), challenge, "{cell}");
            }
        }
    }
    // A token alone says nothing of a user here, and a gateway's viewer is who the gateway says.
    let bearer = api.with_token("back-end-token").get(path).await;
    bearer.is_problem(401, "unauthorized");
    let viewer = api.with("x-streamgate-user", "anna");
    let request = viewer.request(Method::GET, path);
    let told = Told::by(request.basic_auth("ben", Some("back-end-token"))).await;
    told.is_problem(403, "forbidden");
    let nameless = api.with("x-streamgate-user", "");
    let request = nameless.request(Method::GET, path);
    let told = Told::by(request.basic_auth("ben", Some("back-end-token"))).await;
    told.is_problem(401, "unauthorized");
    assert!(told.header("www-authenticate").starts_with("Basic "));
    app.stop().await;
}

#[tokio::test]
async fn without_a_tokens_file_everybody_may_do_everything_but_a_gateway_s_viewer() {
    let app = TestApp::plan().start().await;
    let api = Api::of(&app);
    for user in ["anna", "ben"] {
        assert_eq!(api.put(user, "p1", json!({"plan": "x"})).await.status, 201);
    }
    assert_eq!(api.get("/v1/sessions").await.status, 200);
    let viewer = api.with("x-streamgate-user", "anna");
    assert_eq!(viewer.put("anna", "p1", json!({})).await.status, 200);
    for told in [
        viewer.put("ben", "p1", json!({})).await,
        viewer.put("anna", "p1", json!({"plan": "x"})).await,
        viewer.get("/v1/sessions").await,
        viewer.delete("/v1/users/anna/sessions").await,
    ] {
        told.is_problem(403, "forbidden");
    }
    let request = viewer.delete("/v1/users/anna/sessions/r1?kind=request");
    request.await.is_problem(409, "not_stoppable");
    // A gateway that doesn't name the user lets no call through, and two names are none.
    let nameless = api.with("x-streamgate-user", "");
    let told = nameless.get("/v1/users/anna/sessions").await;
    told.is_problem(401, "unauthorized");
    let two = viewer.with("x-streamgate-user", "ben");
    let told = two.get("/v1/users/anna/sessions").await;
    told.is_problem(400, "bad_request");
    assert_eq!(api.delete("/v1/users/anna/sessions").await.status, 200);
    app.stop().await;
}

#[tokio::test]
async fn a_tokens_file_is_followed_and_a_broken_one_changes_nothing() {
    let file = TokensFile::of("first-token client\n");
    let app = TestApp::plan().tokens(&file).start().await;
    let api = Api::of(&app);
    let path = "/v1/users/anna/sessions";
    let status = async |token: &str| api.with_token(token).get(path).await.status.as_u16();
    assert_eq!(
        (status("first-token").await, status("second-token").await),
        (200, 401)
    );
    file.write("second-token client\n");
    eventually("the new token is good", async || {
        status("second-token").await == 200
    })
    .await;
    assert_eq!(status("first-token").await, 401);
    let reloads = |outcome: &str| {
        format!("streamgate_reloads_total{{file=\"tokens\",outcome=\"{outcome}\"}}")
    };
    assert_eq!(app.metric(&reloads("ok")).await, 1);
    file.write("third-token chief\n");
    let failed = reloads("failed");
    eventually("it is noticed", async || app.metric(&failed).await == 1).await;
    assert_eq!(
        (status("second-token").await, status("third-token").await),
        (200, 401)
    );
    app.stop().await;
}

#[tokio::test]
async fn no_token_is_ever_told() {
    let file = TokensFile::of("hunter2-token client\nhunter3-token client anna\n");
    let path = file.path();
    let settings = [
        ("http.tokens_file", path.to_str().expect("a text")),
        ("telemetry.log_level", "trace"),
        ("limits.default", "1"),
        ("limits.grace", "0s"),
    ];
    let mut streamgate = Streamgate::start(&settings).await;
    let client = reqwest::Client::new();
    let url = format!("http://{}/v1/users/anna/sessions", streamgate.http);
    let mut told = String::new();
    for (token, query) in [
        ("hunter2-token", ""),
        ("hunter3-token", ""),
        ("hunter4-token", ""),
        ("hunter2-token", "?token=hunter5-token"),
    ] {
        for id in ["/p1", "/p2", "", "/x/y"] {
            let request = client.put(format!("{url}{id}{query}")).bearer_auth(token);
            let answer = request.send().await.expect("an answer");
            told.push_str(&format!("{:?}", answer.headers()));
            told.push_str(&answer.text().await.expect("a text"));
        }
        let basic = client.get(format!("http://{}/?id=x", streamgate.http));
        let answer = basic.basic_auth("anna", Some(token)).send().await;
        told.push_str(&answer.expect("an answer").text().await.expect("a text"));
    }
    let metrics = client
        .get(format!("http://{}/metrics", streamgate.http))
        .send()
        .await;
    told.push_str(&metrics.expect("an answer").text().await.expect("a text"));
    file.write("hunter6-token chief\n");
    let failed = [("file", "tokens"), ("outcome", "failed")];
    streamgate
        .metric_becomes("streamgate_reloads_total", &failed, |value| value == 1.0)
        .await;
    streamgate.sigterm().await;
    assert!(streamgate.stopped().await.success());
    let log = streamgate.log();
    assert!(log.contains("a stream was refused"), "{log}");
    for text in [&told, &log] {
        // An address is no secret, but no answer and no line repeats it either.
        let at = text
            .find("-token")
            .map(|at| &text[at.saturating_sub(60)..at + 20]);
        assert_eq!(at, None);
    }
}

#[tokio::test]
async fn the_caller_is_checked_before_the_request() {
    let file = TokensFile::of(TOKENS);
    let store = FaultyStore::new();
    let plan = TestApp::plan().tokens(&file).outage(OutageRule::Deny);
    let app = plan.store(store.clone()).start().await;
    store.fails(&Fault::LosesCalls);
    let api = Api::of(&app);
    for (method, path) in [
        (Method::PUT, "/v1/users/anna/sessions/p1?kind=film"),
        (Method::PUT, "/v1/users/anna/sessions/%00"),
        (Method::POST, "/v1/release"),
        (Method::GET, "/v1/sessions?cursor=x"),
    ] {
        let told = api.call(method, path, Some(json!("no object"))).await;
        told.is_problem(401, "unauthorized");
    }
    // What everybody may see needs no token, and the gateway's own door has none.
    for path in ["/livez", "/readyz", "/metrics", "/openapi.json"] {
        assert_eq!(app.get(path).await.status(), 200, "{path}");
    }
    store.fails(&Fault::None);
    let gateway = app.gateway().await;
    let check = gateway.check(Check::of_playback("anna", "p1")).await;
    assert!(check.is_allowed());
    app.stop().await;
}
