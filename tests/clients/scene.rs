//! The service that the examples call: alice has a token of her own, and the test sees the effects.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

use testkit::app::TokensFile;
use testkit::streamgate::{Setting, Streamgate};
use testkit::watch::{SLOWLY, eventually_within};

/// A token that is good for alice alone.
pub(super) const TOKEN: &str = "alices-token";

/// The token of an operator.
pub(super) const OPERATOR: &str = "operators-token";
/// A token of a back end, or of a gateway.
pub(super) const BACK_END: &str = "back-ends-token";

/// Long enough that a busy machine doesn't miss a heartbeat, which is due after a third of it.
const LEASE: Duration = Duration::from_secs(9);

/// A running service.
pub(super) struct Scene {
    streamgate: Streamgate,
    client: reqwest::Client,
    _tokens: TokensFile,
}

impl Scene {
    /// Starts it with these settings.
    pub(super) async fn start(settings: &[Setting<'_>]) -> Self {
        let tokens = TokensFile::of(&format!(
            "{TOKEN} client alice\n{BACK_END} client\n{OPERATOR} operator\n"
        ));
        let path = tokens.path();
        let lease = format!("{}s", LEASE.as_secs());
        let mut all = vec![
            ("http.tokens_file", path.to_str().unwrap()),
            ("leases.playback", &lease),
        ];
        all.extend_from_slice(settings);
        Self {
            streamgate: Streamgate::start(&all).await,
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            _tokens: tokens,
        }
    }

    pub(super) fn http(&self) -> SocketAddr {
        self.streamgate.http
    }

    pub(super) fn grpc(&self) -> SocketAddr {
        self.streamgate.grpc
    }

    /// The API's base address.
    pub(super) fn api(&self) -> String {
        format!("http://{}", self.http())
    }

    /// Alice's live sessions.
    pub(super) async fn sessions(&self) -> Vec<Value> {
        let all = self.client.get(self.sessions_url()).bearer_auth(BACK_END);
        let mut told: Value = all.send().await.unwrap().json().await.unwrap();
        let sessions = told["sessions"].take();
        serde_json::from_value(sessions).unwrap()
    }

    /// That session, if it is live.
    pub(super) async fn session(&self, id: &str) -> Option<Value> {
        let sessions = self.sessions().await;
        sessions.into_iter().find(|it| it["session"] == id)
    }

    /// Waits until these, and no others, are alice's live sessions.
    pub(super) async fn becomes(&self, expected: &[&str]) {
        let expected: BTreeSet<&str> = expected.iter().copied().collect();
        eventually_within(SLOWLY, &format!("only {expected:?} are live"), async || {
            let sessions = self.sessions().await;
            let ids = sessions.iter().map(|it| it["session"].as_str().unwrap());
            (ids.collect::<BTreeSet<_>>() == expected).then_some(())
        })
        .await;
    }

    /// Waits until a live session's lease has been renewed so often.
    pub(super) async fn is_renewed(&self, id: &str, times: usize) {
        let mut until = self.lease(id).await;
        for _ in 0..times {
            let what = format!("{id} is renewed");
            until = eventually_within(SLOWLY, &what, async || {
                // A lease that had run out would begin again.
                let later = self.lease(id).await;
                (later > until).then_some(later)
            })
            .await;
        }
    }

    /// Until when a live session counts. Times are written so that later ones are greater.
    async fn lease(&self, id: &str) -> String {
        let session = self.session(id).await;
        let session = session.unwrap_or_else(|| panic!("{id} is not live"));
        session["expires_at"].as_str().unwrap().to_owned()
    }

    /// Starts or renews a playback, as any client would; returns the status and the body.
    pub(super) async fn put(&self, id: &str, body: &Value) -> (u16, Value) {
        let url = format!("{}/{id}", self.sessions_url());
        let put = self.client.put(url).bearer_auth(TOKEN).json(body);
        let answer = put.send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// It has ended, was released, and can't be used again.
    pub(super) async fn has_ended(&self, id: &str) {
        let (status, told) = self.put(id, &serde_json::json!({})).await;
        assert_eq!((status, &told["reason"]), (410, &"ended".into()), "{told}");
    }

    /// Waits until it has been asked for so many releases.
    pub(super) async fn has_released(&self, times: u32) {
        let (name, labels) = ("streamgate_http_requests_total", [("call", "release")]);
        let enough = |count| count >= f64::from(times);
        self.streamgate.metric_becomes(name, &labels, enough).await;
    }

    fn sessions_url(&self) -> String {
        format!("{}/v1/users/alice/sessions", self.api())
    }
}
