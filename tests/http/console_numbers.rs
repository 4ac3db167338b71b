//! What the console makes of an installation's numbers and of events, with both made up: each
//! number, the plot, and each event at its place.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio::task::JoinSet;

use testkit::api::Api;
use testkit::app::TestApp;
use testkit::chromium::{Chromium, Tab};
use testkit::console::{click, count, is_gone, row, shows, types};

/// A server in front of an app that answers for the installation.
struct Front {
    address: SocketAddr,
    said: Arc<Said>,
    _serving: JoinSet<()>,
}

/// What it says, and where the app is.
struct Said {
    app: String,
    events: broadcast::Sender<String>,
    stats: Value,
    client: reqwest::Client,
}

impl Front {
    async fn of(app: &TestApp, stats: Value) -> Self {
        let said = Arc::new(Said {
            app: app.url(""),
            events: broadcast::Sender::new(16),
            stats,
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
        });
        let routes = Router::new()
            .route("/v1/stats", get(stats_of))
            .route("/v1/events", get(events_of))
            .fallback(forwarded)
            .with_state(Arc::clone(&said));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            axum::serve(listener, routes).await.unwrap();
        });
        Self {
            address,
            said,
            _serving: serving,
        }
    }

    /// Tells the page of an event. In three pieces, as a network may cut it.
    fn tell(&self, id: u32, event: &Value) {
        let kind = event["type"].as_str().unwrap();
        let pieces = [
            format!("id: {id}\nevent: {}", &kind[..1]),
            format!("{}\r\ndata: {event}\n", &kind[1..]),
            "\n:\n\n".to_owned(),
        ];
        for piece in pieces {
            self.said.events.send(piece).unwrap();
        }
    }
}

async fn stats_of(State(said): State<Arc<Said>>) -> Response {
    axum::Json(said.stats.clone()).into_response()
}

async fn events_of(State(said): State<Arc<Said>>) -> Response {
    let listener = said.events.subscribe();
    let events = futures_util::stream::unfold(
        listener,
        |mut listener: broadcast::Receiver<String>| async move {
            let piece = listener.recv().await.ok()?;
            Some((Ok::<_, std::io::Error>(Bytes::from(piece)), listener))
        },
    );
    let kind = [("content-type", "text/event-stream")];
    (kind, Body::from_stream(events)).into_response()
}

/// Passes everything else on, and the answer back.
async fn forwarded(State(said): State<Arc<Said>>, request: Request) -> Response {
    let url = format!("{}{}", said.app, request.uri().path_and_query().unwrap());
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 16).await.unwrap();
    let asked = said.client.request(head.method, url).body(body);
    let Ok(answer) = asked.send().await else {
        // The app has stopped before the page.
        return StatusCode::BAD_GATEWAY.into_response();
    };
    let kept: HeaderMap = answer
        .headers()
        .iter()
        .filter(|(name, _)| !["content-length", "transfer-encoding"].contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let status = answer.status();
    (status, kept, answer.bytes().await.unwrap_or_default()).into_response()
}

/// The numbers of an installation.
fn stats() -> Value {
    let minutes: Vec<Value> = (0..60)
        .map(|minute| json!({"at": format!("2026-11-30T20:{minute:02}:00Z"), "starts": 10 + minute, "refusals": minute / 20}))
        .collect();
    json!({
        "at": "2026-11-30T21:00:05Z", "scope": "installation", "instances": 2, "interval_seconds": 5,
        "complete": true, "streams": 1234, "users": 1100, "users_at_limit": 40, "approximate": {"users": 0.02},
        "by_kind": {"playback": 1200, "request": 34}, "by_plan": {"premium": 800, "": 434},
        "top_content": [{"content": "film-7", "streams": 99}],
        "last_minute": {"starts": 69, "refusals": 3, "displacements": 1, "releases": 55},
        "minutes": minutes, "refusals_last_hour": {"full": 57, "displaced": 4},
        "would_refuse": {"hour": [{"limit": 4, "starts_refused": 0.007, "users_refused": 0.031, "lower_bound": true}], "day": [], "week": []},
    })
}

#[tokio::test]
async fn numbers_and_events_appear_where_they_belong() {
    let lease = Duration::from_secs(300);
    let app = TestApp::plan().leases(lease, lease).start().await;
    Api::of(&app)
        .put("anna", "p1", json!({"content": "film-7"}))
        .await;
    let front = Front::of(&app, stats()).await;
    let chromium = Chromium::start().await;
    let page = format!("http://{}/console", front.address);
    let tab = chromium.open(&page, "").await;
    shows(&tab, "#connection", "Live").await;
    row(&tab, "p1").await;
    for (number, shown) in [
        ("streams", "1,234"),
        ("users", "≈ 1,100"),
        ("at-limit", "40"),
        ("starts", "69"),
        ("refusals", "3"),
        ("displacements", "1"),
        ("releases", "55"),
    ] {
        shows(&tab, &format!("[data-number={number}]"), shown).await;
    }
    assert_eq!(count(&tab, "#plot rect").await, 2 * 60);
    let sums = "2,370 starts and 60 refusals in the last hour; at most 71 in one minute.";
    let label = "document.querySelector('#plot svg').getAttribute('aria-label')";
    assert_eq!(tab.evaluate(label).await.unwrap(), sums);
    shows(&tab, "#reasons", "full57").await;
    shows(&tab, "#shares-body", "without a plan434").await;
    shows(&tab, "#what-if-body", "≥ 0.7 %").await;

    types(&tab, "#look-up-user", "ben").await;
    click(&tab, "#look-up-form button").await;
    events_appear(&front, &tab).await;
    tab.close().await;
    app.stop().await;
}

/// Events of ben, and of an outage, change what is shown.
async fn events_appear(front: &Front, tab: &Tab<'_>) {
    let at = "2026-11-30T21:00:06.000Z";
    let of_ben = json!({"at": at, "user": "ben", "session": "b1", "kind": "playback", "content": "cup-final"});
    let with = |more: Value| {
        let mut event = of_ben.clone();
        let more = more.as_object().unwrap().clone();
        event.as_object_mut().unwrap().extend(more);
        event
    };
    front.tell(1, &with(json!({"type": "started", "gateway": "gw-7"})));
    row(tab, "b1").await;
    shows(tab, "#sessions [data-session=b1]", "gw-7").await;
    front.tell(
        2,
        &with(json!({"type": "refused", "session": "b2", "reason": "full"})),
    );
    shows(tab, "#feed", "ben was refused cup-final (full)").await;
    shows(tab, "#user .feed", "was refused").await;
    front.tell(3, &with(json!({"type": "displaced", "by": "b3"})));
    is_gone(tab, "#sessions [data-session=b1]").await;
    shows(tab, "#user .feed", "was displaced cup-final by b3").await;
    front.tell(
        4,
        &json!({"at": at, "type": "outage_begun", "detail": "It does not answer."}),
    );
    shows(
        tab,
        "#feed",
        "An outage of the store began: It does not answer.",
    )
    .await;
}
