//! A scene in which everything happens that the dashboard shows: viewers of all kinds, an API's
//! clients, mistakes, an outage of Redis, a Redis that forgets, and in the end no streamgate at
//! all.

use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder};
use serde_json::json;
use tempfile::TempDir;

use testkit::gateway::{Gateway, Setup, context};
use testkit::origin::Origin;
use testkit::pki::{Authority, Folder};
use testkit::prometheus::Prometheus;
use testkit::redis::RedisServer;
use testkit::streamgate::{Setting, Streamgate};
use testkit::viewers::{Playing, Viewers};
use testkit::watch::SLOWLY;

/// Longer than anything here takes.
const BOUND: Duration = Duration::from_secs(30);

/// The configuration file, which is reloaded during the scene.
const CONFIG: &str = "limits: {default: 3, plans: {basic: 1}}\n";

/// Everybody who plays along.
pub(super) struct Scene {
    pub(super) prometheus: Prometheus,
    pub(super) streamgates: [Streamgate; 2],
    /// One that no gateway asks, with TLS.
    encrypted: Streamgate,
    pub(super) gateway: Gateway,
    viewers: Viewers,
    redis: RedisServer,
    client: Client,
    config: TempDir,
    _certificate: Folder,
    _origin: Origin,
}

impl Scene {
    /// Two streamgates on one Redis, a gateway before them, a third with TLS for itself, and
    /// Prometheus, which has asked all of them once before anybody watches.
    pub(super) async fn start() -> Self {
        let (origin, redis) = (Origin::start().await, RedisServer::start());
        let config = tempfile::tempdir().unwrap();
        std::fs::write(config.path().join("streamgate.yaml"), CONFIG).unwrap();
        let streamgates = [
            streamgate(&redis, &config, &[]).await,
            streamgate(&redis, &config, &[]).await,
        ];
        let authority = Authority::new("ours");
        let certificate = Folder::with(&authority.issue(), &authority);
        let (cert, key) = (certificate.path("cert"), certificate.path("key"));
        let tls = [
            ("grpc.tls.cert", cert.to_str().unwrap()),
            ("grpc.tls.key", key.to_str().unwrap()),
        ];
        let encrypted = streamgate(&redis, &config, &tls).await;
        let addresses = [streamgates[0].grpc, streamgates[1].grpc];
        let tried_out = json!({
            "match": {"path_separated_prefix": "/tried-out"},
            "route": {"cluster": "backend", "timeout": "0s", "prefix_rewrite": "/live"},
            "typed_per_filter_config": context(json!({"streamgate.session": "request", "streamgate.enforce": "false"})),
        });
        let setup = Setup::demo(&addresses, origin.address)
            .flush_interval("0.5s")
            .route(tried_out);
        let gateway = setup.start().await;
        let ours = [streamgates[0].http, streamgates[1].http, encrypted.http];
        let prometheus = Prometheus::start(&ours, gateway.admin).await;
        Self {
            prometheus,
            streamgates,
            encrypted,
            viewers: Viewers::of(gateway.address),
            gateway,
            redis,
            client: Client::builder().no_proxy().build().unwrap(),
            config,
            _certificate: certificate,
            _origin: origin,
        }
    }

    /// Plays the scene up to its end.
    pub(super) async fn plays(&self) -> Vec<Playing> {
        let streams = self.viewers_come().await;
        self.api_is_used().await;
        self.mistakes_are_made().await;
        self.redis_stands_still().await;
        self.redis_forgets().await;
        self.files_change().await;
        streams
    }

    /// Lasting streams of both kinds, one more of each, requests that name nothing, and mistakes.
    async fn viewers_come(&self) -> Vec<Playing> {
        let viewers = &self.viewers;
        let mut streams = Vec::new();
        for channel in ["/live/1", "/live/2", "/live/3"] {
            streams.push(viewers.watch(viewers.http1("alice", channel)).await);
        }
        viewers.refused(viewers.http1("alice", "/live/4")).await;
        let tried = viewers.let_in(viewers.http1("alice", "/tried-out/4")).await;
        // She changes channel: the start waits until the end has come.
        let (old, new) = (streams.remove(0), || viewers.http1("alice", "/live/4"));
        let ((new, _), ()) = tokio::join!(viewers.let_in_within(BOUND, new), async { drop(old) });
        drop(tried);
        streams.push(new);
        for _ in 0..3 {
            viewers.let_in(self.segment("bob")).await;
        }
        let planned = viewers.http1("carol", "/live/1").header("x-plan", "gold");
        streams.push(viewers.watch(planned).await);
        streams
    }

    /// Starts, signs of life, ends and lists over HTTP, and the small API.
    async fn api_is_used(&self) {
        let sessions = "/v1/users/dave/sessions";
        for id in ["a", "b", "c", "d"] {
            self.call(Method::PUT, &format!("{sessions}/{id}")).await;
        }
        self.call(Method::PUT, &format!("{sessions}/a")).await;
        self.call(Method::GET, sessions).await;
        self.call(Method::DELETE, &format!("{sessions}/a")).await;
        self.call(Method::DELETE, sessions).await;
        self.call(Method::GET, "/v1/sessions").await;
        for method in [Method::GET, Method::POST, Method::PATCH, Method::DELETE] {
            let request = self
                .request(method, "/?id=film")
                .basic_auth("erin", Some(""));
            request.send().await.unwrap();
        }
    }

    /// Requests that don't say whose they are, or which.
    async fn mistakes_are_made(&self) {
        let viewers = &self.viewers;
        viewers.refused(viewers.anonymous("/live/1")).await;
        viewers
            .refused(viewers.http1("frank", "/vod/demo/index.m3u8"))
            .await;
    }

    /// Redis doesn't answer for a while: the outage rule lets a stream in, and another's end has to
    /// wait.
    async fn redis_stands_still(&self) {
        let viewers = &self.viewers;
        let ending = viewers.watch(viewers.http1("grace", "/live/1")).await;
        self.redis.pause();
        let mut asked = Vec::new();
        for user in ["heidi", "ivan", "judy", "mallory", "niaj", "olivia"] {
            asked.push(viewers.ask(viewers.http1(user, "/live/1")).await);
        }
        drop(ending);
        self.becomes_so("sum(streamgate_checks_total{reason=\"outage_allowed\"}) > 0")
            .await;
        self.becomes_so("max(streamgate_outage_rule) == 1").await;
        self.becomes_so("max(streamgate_sessions_owed) > 0").await;
        self.becomes_so("max(streamgate_releaser_pending) > 0")
            .await;
        self.redis.resume();
        self.becomes_so("min(streamgate_store_up) == 1").await;
    }

    /// Redis has lost all data, and the running streams are announced to it again.
    async fn redis_forgets(&self) {
        // So many that each instance has some of them to ask about.
        for fan in 0..6 {
            for _ in 0..4 {
                let user = format!("fan-{fan}");
                self.viewers.let_in(self.segment(&user)).await;
            }
        }
        self.viewers.let_in(self.segment("bob")).await;
        self.redis.run::<()>(&["FLUSHALL"]);
        self.becomes_so("sum(streamgate_leases_lapsed_total) > 0")
            .await;
        self.becomes_so("sum(streamgate_store_forgot_total) > 0")
            .await;
    }

    /// A good change of the configuration, and a bad one.
    async fn files_change(&self) {
        let file = self.config.path().join("streamgate.yaml");
        std::fs::write(&file, CONFIG.replace("basic: 1", "basic: 2")).unwrap();
        self.becomes_so("min(streamgate_reloads_total{file=\"config\",outcome=\"ok\"}) == 1")
            .await;
        std::fs::write(&file, "limits: {defautl: 3}\n").unwrap();
        self.becomes_so("min(streamgate_files_unusable{file=\"config\"}) == 1")
            .await;
    }

    /// All streamgates are killed, and the viewers leave.
    pub(super) async fn ends(&mut self, streams: Vec<Playing>) {
        let all = self.streamgates.iter_mut().chain([&mut self.encrypted]);
        for streamgate in all {
            streamgate.kill().await;
        }
        let viewers = &self.viewers;
        let refusal = viewers.refused(viewers.http1("peggy", "/live/1")).await;
        assert_eq!(refusal.status.as_u16(), 503);
        // Until Envoy has noticed, it sends entries into the void instead of dropping them.
        self.gateway.sees(0).await;
        drop(streams);
        self.becomes_so("sum(envoy_access_logs_grpc_access_log_logs_dropped) > 0")
            .await;
        self.becomes_so("count(up == 0) == 3").await;
    }

    /// Waits until Prometheus has seen that.
    async fn becomes_so(&self, expr: &str) {
        testkit::watch::eventually_within(SLOWLY, expr, async || {
            !self.prometheus.instant(expr).await.is_empty()
        })
        .await;
    }

    fn segment(&self, user: &str) -> RequestBuilder {
        let request = self.viewers.http1(user, "/vod/demo/180p/000.ts");
        request.header("x-playback-session-id", "tv")
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("http://{}{path}", self.streamgates[0].http);
        self.client.request(method, url)
    }

    async fn call(&self, method: Method, path: &str) {
        self.request(method, path).send().await.unwrap();
    }
}

async fn streamgate(redis: &RedisServer, config: &TempDir, more: &[Setting<'_>]) -> Streamgate {
    let file = config.path().join("streamgate.yaml");
    let url = redis.url();
    let mut settings = vec![
        ("config", file.to_str().unwrap()),
        ("store.backend", "redis"),
        ("store.redis.urls", &url),
        ("identity.plan", "header:x-plan"),
        ("leases.playback", "9s"),
    ];
    settings.extend(more);
    Streamgate::start(&settings).await
}
