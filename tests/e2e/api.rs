//! The HTTP API through the shipped gateway: with its JWT, a viewer's script reaches only its own
//! user's sessions, and the sessions it starts are those it plays.

use http::HeaderMap;
use reqwest::{Client, Method};
use serde_json::{Value, json};

use super::shipped_files::token;
use testkit::app::TokensFile;
use testkit::envoy_files::{CONNECTION_MANAGER, at_mut};
use testkit::gateway::{Gateway, Setup};
use testkit::origin::Origin;
use testkit::streamgate::{Setting, Streamgate};
use testkit::viewers::Viewers;

/// What the gateway and streamgate are in a scenario.
struct Scene {
    gateway: Gateway,
    streamgate: Streamgate,
    origin: Origin,
    _tokens: TokensFile,
}

/// The answer to a script.
#[derive(Debug)]
struct Told {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

impl Scene {
    /// The shipped gateway, with a token of its own for a streamgate that wants one.
    async fn start(settings: &[Setting<'_>]) -> Self {
        let tokens = TokensFile::of("gateways-token client\nsupport-token operator\n");
        let path = tokens.path();
        let path = path.to_str().unwrap();
        let settings: Vec<_> = settings
            .iter()
            .copied()
            .chain([("http.tokens_file", path)])
            .collect();
        let streamgate = Streamgate::start(&settings).await;
        let origin = Origin::start().await;
        let setup = Setup::file("envoy/envoy.yaml")
            .streamgates(&[streamgate.grpc])
            .cluster("origin", &[origin.address])
            .cluster("streamgate_http", &[streamgate.http])
            .edit(show_token);
        Self {
            gateway: setup.start().await,
            streamgate,
            origin,
            _tokens: tokens,
        }
    }

    /// A script's request through the gateway, with that example JWT.
    async fn asks(&self, jwt: &str, method: Method, path: &str, body: Option<Value>) -> Told {
        let url = format!("http://{}{path}", self.gateway.address);
        let request = Client::new().request(method, url);
        let request = if jwt.is_empty() {
            request
        } else {
            request.bearer_auth(token(jwt))
        };
        // Clients can't set this header themselves.
        let request = request
            .header("x-streamgate-user", "bob")
            .header("x-user-id", "bob");
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        let answer = request.send().await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let text = answer.text().await.unwrap();
        Told {
            status,
            headers,
            body: serde_json::from_str(&text).unwrap_or_default(),
        }
    }
}

/// The line that the shipped file has as a comment.
fn show_token(envoy: &mut Value) {
    let routes = format!("{CONNECTION_MANAGER}/route_config/virtual_hosts/0/routes");
    let routes = at_mut(envoy, &routes).as_array_mut().unwrap();
    let route = routes
        .iter_mut()
        .find(|route| route["match"]["path_separated_prefix"] == "/v1/users");
    let headers = at_mut(route.unwrap(), "/request_headers_to_add")
        .as_array_mut()
        .unwrap();
    headers.push(json!({
        "header": {"key": "authorization", "value": "Bearer gateways-token"},
        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
    }));
}

/// Whose JWT, what it asks for, and the answer.
type Reach = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    u16,
    &'static str,
);

const OWN: &str = "/v1/users/alice/sessions/p1";
const REACHES: [Reach; 14] = [
    ("alice", "GET", OWN, "", 200, ""),
    ("alice", "GET", "/v1/users/alice/sessions", "", 200, ""),
    ("bob", "GET", OWN, "", 403, "forbidden"),
    ("bob", "PUT", OWN, "", 403, "forbidden"),
    ("bob", "DELETE", OWN, "", 403, "forbidden"),
    (
        "alice",
        "PUT",
        "/v1/users/bob/sessions/p1",
        "",
        403,
        "forbidden",
    ),
    (
        "alice",
        "PUT",
        "/v1/users/alice/../bob/sessions/p1",
        "",
        403,
        "forbidden",
    ),
    ("alice", "PUT", "/v1/users/%61lice/sessions/p1", "", 200, ""),
    ("alice", "PUT", OWN, r#"{"plan": "gold"}"#, 403, "forbidden"),
    (
        "alice",
        "DELETE",
        "/v1/users/alice/sessions",
        "",
        403,
        "forbidden",
    ),
    (
        "alice",
        "DELETE",
        "/v1/users/alice/sessions/r?kind=request",
        "",
        409,
        "not_stoppable",
    ),
    ("no_subject", "GET", OWN, "", 401, "unauthorized"),
    ("expired", "GET", OWN, "", 401, ""),
    ("", "GET", OWN, "", 401, ""),
];

#[tokio::test]
async fn a_viewer_reaches_their_own_sessions_and_nobody_elses() {
    let scene = Scene::start(&[("limits.plans", "gold=100")]).await;
    let started = scene
        .asks("alice", Method::PUT, OWN, Some(json!({"device": "tab"})))
        .await;
    assert_eq!(started.status, 201, "{started:?}");
    for (jwt, method, path, body, status, reason) in REACHES {
        let body = (!body.is_empty()).then(|| serde_json::from_str(body).unwrap());
        let told = scene.asks(jwt, method.parse().unwrap(), path, body).await;
        let case = format!("{jwt} {method} {path}: {told:?}");
        assert_eq!(told.status, status, "{case}");
        assert_eq!(
            told.body
                .get("reason")
                .and_then(Value::as_str)
                .unwrap_or_default(),
            reason,
            "{case}"
        );
    }
    // Calls that aren't a viewer's own are not available there.
    for path in [
        "/v1/sessions",
        "/v1/instance",
        "/v1/events",
        "/v1/stats",
        "/v1/release",
        "/metrics",
        "/openapi.json",
    ] {
        let told = scene.asks("alice", Method::GET, path, None).await;
        assert_eq!(told.status, 404, "{path}: {told:?}");
    }
    // None of it was a stream to be asked about, nor did a log entry tell of one.
    assert_eq!(
        scene
            .streamgate
            .metric("streamgate_checks_total", &[])
            .await,
        0.0
    );
    let released = scene.asks("alice", Method::DELETE, OWN, None).await;
    assert_eq!(released.status, 204, "{released:?}");
    drop(scene.origin);
}

#[tokio::test]
async fn what_a_script_has_started_and_what_its_player_plays_is_one_stream() {
    let scene = Scene::start(&[("limits.default", "1"), ("limits.grace", "0s")]).await;
    let viewers = &Viewers::of(scene.gateway.address);
    let own = "/v1/users/alice/sessions/tv";
    let told = scene
        .asks("alice", Method::PUT, own, Some(json!({"content": "demo"})))
        .await;
    assert_eq!(told.status, 201, "{told:?}");
    for file in [
        "index.m3u8",
        "180p/index.m3u8",
        "180p/000.ts",
        "180p/001.ts",
    ] {
        let request = viewers.anonymous(&format!("/vod/demo/{file}?session=tv"));
        let playing = viewers.let_in(request.bearer_auth(token("alice"))).await;
        assert_eq!(playing.session, "tv");
    }
    let all = scene
        .asks("alice", Method::GET, "/v1/users/alice/sessions", None)
        .await;
    assert_eq!(
        (&all.body["active"], &all.body["sessions"][0]["content"]),
        (&json!(1), &json!("demo"))
    );
    let other = viewers.anonymous("/vod/demo/index.m3u8?session=phone");
    let refusal = viewers.refused(other.bearer_auth(token("alice"))).await;
    assert_eq!(refusal.reason(), "full");
    // Watch here instead: the other one hears of it at its next segment, and who it was.
    let taken = scene
        .asks(
            "alice",
            Method::PUT,
            "/v1/users/alice/sessions/phone",
            Some(json!({"takeover": "tv"})),
        )
        .await;
    assert_eq!(taken.status, 201, "{taken:?}");
    let lost = viewers.anonymous("/vod/demo/180p/002.ts?session=tv");
    let refusal = viewers.refused(lost.bearer_auth(token("alice"))).await;
    assert_eq!(refusal.reason(), "displaced");
    assert_eq!(refusal.problem["displaced_by"]["session"], "phone");
    let gone = scene.asks("alice", Method::PUT, own, None).await;
    assert_eq!(
        (gone.status, &gone.body["displaced_by"]["session"]),
        (410, &json!("phone"))
    );
}

#[tokio::test]
async fn a_browser_may_ask_from_the_player_s_origin_and_from_no_other() {
    let scene = Scene::start(&[("limits.default", "0")]).await;
    let url = format!(
        "http://{}/v1/users/alice/sessions/p1",
        scene.gateway.address
    );
    for (origin, is_allowed) in [
        ("https://player.example", true),
        ("https://evil.example", false),
    ] {
        let preflight = Client::new()
            .request(Method::OPTIONS, &url)
            .header("origin", origin)
            .header("access-control-request-method", "PUT")
            .header(
                "access-control-request-headers",
                "authorization,content-type",
            );
        let told = preflight.send().await.unwrap();
        let allowed = told.headers().get("access-control-allow-methods");
        assert_eq!(
            allowed.is_some_and(|it| it.to_str().unwrap().contains("PUT")),
            is_allowed,
            "{told:?}"
        );
        let put = Client::new()
            .put(&url)
            .bearer_auth(token("alice"))
            .header("origin", origin);
        let told = put.send().await.unwrap();
        assert_eq!(told.status(), 429, "there is no stream for her");
        let readable = told.headers().get("access-control-allow-origin");
        assert_eq!(readable.is_some_and(|it| it == origin), is_allowed);
    }
    let told = scene
        .asks("alice", Method::GET, "/v1/users/alice/sessions", None)
        .await;
    assert_eq!(told.headers["cache-control"], "no-store");
    assert_eq!(
        told.headers["x-request-id"].len(),
        36,
        "the gateway's own id"
    );
}

#[tokio::test]
async fn a_player_takes_a_slot_over_by_a_header_or_in_its_address() {
    let scene = Scene::start(&[("limits.default", "1"), ("limits.grace", "0s")]).await;
    let viewers = &Viewers::of(scene.gateway.address);
    let asks = |file: &str| {
        let request = viewers.anonymous(&format!("/vod/demo/{file}"));
        request.bearer_auth(token("alice"))
    };
    viewers.let_in(asks("index.m3u8?session=tv")).await;
    let refusal = viewers.refused(asks("index.m3u8?session=tab")).await;
    assert_eq!(refusal.reason(), "full");
    let taking = asks("index.m3u8?session=tab").header("x-streamgate-takeover", "tv");
    viewers.let_in(taking).await;
    let lost = viewers.refused(asks("180p/000.ts?session=tv")).await;
    assert_eq!((lost.status.as_u16(), lost.reason()), (429, "displaced"));
    assert_eq!(lost.problem["displaced_by"]["session"], "tab");
    // A script that can't set headers passes the token in the address; repeating it with each
    // segment does no harm.
    for file in ["index.m3u8", "180p/000.ts", "180p/001.ts"] {
        let taking = format!("{file}?session=phone&x-streamgate-takeover=oldest");
        viewers.let_in(asks(&taking)).await;
    }
    let lost = viewers.refused(asks("180p/000.ts?session=tab")).await;
    assert_eq!(lost.problem["displaced_by"]["session"], "phone");
    // What runs inside the gateway does not give way.
    let released = scene
        .asks(
            "alice",
            Method::DELETE,
            "/v1/users/alice/sessions/phone",
            None,
        )
        .await;
    assert_eq!(released.status, 204, "{released:?}");
    let live = viewers
        .watch(viewers.anonymous("/live/1").bearer_auth(token("alice")))
        .await;
    let taking = asks("index.m3u8?session=pad").header("x-streamgate-takeover", &live.session);
    let refusal = viewers.refused(taking).await;
    assert_eq!(
        (refusal.status.as_u16(), refusal.reason()),
        (409, "not_stoppable")
    );
}

#[tokio::test]
async fn a_name_with_spaces_around_it_is_another_user_s_on_the_way_too() {
    for verified in ["alice ", " alice"] {
        let streamgate = Streamgate::start(&[]).await;
        let origin = Origin::start().await;
        // As if the login service had such a user, and had let them in.
        let rename = |envoy: &mut Value| {
            let routes = format!("{CONNECTION_MANAGER}/route_config/virtual_hosts/0/routes");
            let routes = at_mut(envoy, &routes).as_array_mut().unwrap();
            let api = routes
                .iter_mut()
                .find(|route| route["match"]["path_separated_prefix"] == "/v1/users");
            let header = at_mut(api.unwrap(), "/request_headers_to_add/0/header/value");
            *header = verified.into();
        };
        let setup = Setup::file("envoy/envoy.yaml")
            .streamgates(&[streamgate.grpc])
            .cluster("origin", &[origin.address])
            .cluster("streamgate_http", &[streamgate.http])
            .edit(rename);
        let gateway = setup.start().await;
        let asks = async |path: &str| {
            let url = format!("http://{}{path}", gateway.address);
            let request = Client::new().get(url).bearer_auth(token("alice"));
            request.send().await.unwrap().status().as_u16()
        };
        assert_eq!(asks("/v1/users/alice/sessions").await, 403, "{verified:?}");
    }
}
