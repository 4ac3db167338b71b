//! The viewers: devices that start, watch and stop, each through one of two gateways; and some
//! that do so through a real Envoy.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use envoy_types::pb::envoy::data::accesslog::v3::HttpAccessLogEntry;
use envoy_types::pb::envoy::service::accesslog::v3::access_log_service_client::AccessLogServiceClient;
use http::StatusCode;
use rand::Rng;
use reqwest::Response;
use serde_json::{Value, json};
use streamgate::clock::Stopwatch;
use testkit::gateway_client::{Answer, Check, Gateway, answered, end, message, periodic};
use testkit::streamgate::Streamgate;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::truth::{Truth, Verdict};

/// How many users watch through gateways of ours where the count is measured.
pub(crate) const USERS: usize = 2_000;

/// How many watch through the real Envoy.
const ENVOY_USERS: usize = 20;

/// How many devices each user has: one more than the limit.
const DEVICES: usize = 4;

/// When a device comes, in milliseconds: from, to.
const COMES: (u64, u64) = (0, 4_000);

/// How long a device watches, and how long it then rests, in milliseconds: from, to.
const WATCHES: (u64, u64) = (2_000, 5_000);
const RESTS: (u64, u64) = (1_000, 6_000);

/// How long after a refusal a device tries again, at least.
const TRIES_AGAIN: u64 = 2_000;

/// How often a running stream shows a sign of life.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// How long a gateway waits for an answer: the `timeout` of `envoy/envoy.yaml`.
const GATEWAY_WAITS: Duration = Duration::from_millis(500);

/// How long a player waits for an answer.
const PLAYER_WAITS: Duration = Duration::from_secs(5);

/// How long a connection to a streamgate may take.
const CONNECTS_WITHIN: Duration = Duration::from_millis(250);

/// How long a gateway leaves a streamgate alone that did not answer.
const EJECTED: Duration = Duration::from_secs(1);

/// How many entries of the access log wait for a streamgate that reads slowly.
const LOG_WAITS: usize = 40_000;

/// A gateway's way to one streamgate.
struct Way {
    gateway: Gateway,
    log: mpsc::Sender<HttpAccessLogEntry>,
    release: String,
    /// Until when it is left alone, in milliseconds.
    ejected: AtomicU64,
}

/// A user's name.
fn name(user: usize) -> String {
    format!("user-{user:05}")
}

/// The user of that name.
fn number(name: &str) -> Option<usize> {
    name.strip_prefix("user-")?.parse().ok()
}

/// All that the viewers share.
pub(crate) struct Audience {
    /// How many watch through gateways of ours.
    users: usize,
    pub(crate) truth: Truth,
    ways: Vec<Way>,
    http: reqwest::Client,
    list: [String; 2],
    is_over: watch::Sender<bool>,
    /// Whether Envoy was killed, or is about to be: its streams break then.
    pub(crate) envoy_is_killed: AtomicBool,
    logs: tokio::sync::Mutex<JoinSet<()>>,
}

impl Audience {
    /// The audience of those two streamgates: so many users, and some that watch through Envoy.
    pub(crate) fn of(streamgates: [&Streamgate; 2], users: usize, clock: Stopwatch) -> Arc<Self> {
        let mut logs = JoinSet::new();
        let ways = streamgates.map(|streamgate| {
            let gateway = || Gateway::lazily(streamgate.grpc, CONNECTS_WITHIN);
            let (log, entries) = mpsc::channel(LOG_WAITS);
            logs.spawn(write_log(streamgate.grpc, gateway().channel(), entries));
            Way {
                gateway: gateway(),
                log,
                release: format!("http://{}/v1/release", streamgate.http),
                ejected: AtomicU64::new(0),
            }
        });
        Arc::new(Self {
            users,
            truth: Truth::about(users + ENVOY_USERS, clock),
            ways: ways.into(),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            list: streamgates.map(|streamgate| format!("http://{}/v1/sessions", streamgate.http)),
            is_over: watch::Sender::new(false),
            envoy_is_killed: AtomicBool::new(false),
            logs: tokio::sync::Mutex::new(logs),
        })
    }

    /// Has all devices watch until [`Self::end`].
    pub(crate) fn watch(self: &Arc<Self>, envoy: SocketAddr) -> JoinSet<()> {
        let mut devices = JoinSet::new();
        for user in 0..self.users {
            for device in 0..DEVICES {
                devices.spawn(Arc::clone(self).device(user, device));
            }
        }
        for user in self.users..self.users + ENVOY_USERS {
            devices.spawn(Arc::clone(self).through_envoy(user, envoy));
        }
        devices
    }

    /// Has all devices stop after what they do now.
    pub(crate) fn end(&self) {
        self.is_over.send_replace(true);
    }

    /// Closes the access logs.
    pub(crate) async fn leave(&self) {
        self.logs.lock().await.shutdown().await;
    }

    fn goes_on(&self) -> bool {
        !*self.is_over.borrow()
    }

    /// Waits for that long, or until all is over.
    async fn rest(&self, long: Duration) {
        let mut is_over = self.is_over.subscribe();
        let _ = timeout(long, is_over.wait_for(|is_over| *is_over)).await;
    }

    /// A device that watches and rests. Even ones watch endless responses, odd ones play playlists.
    async fn device(self: Arc<Self>, user: usize, device: usize) {
        self.rest(between(COMES)).await;
        let mut turn = 0;
        while self.goes_on() {
            turn += 1;
            let id = format!("{user:05}-{device}-{turn:04}-{:08x}", rand::random::<u32>());
            let is_let_in = if device.is_multiple_of(2) {
                self.endless(user, device / 2, &id).await
            } else {
                self.playlist(user, device / 2, &id).await
            };
            let rest = if is_let_in {
                RESTS
            } else {
                (TRIES_AGAIN, RESTS.1)
            };
            self.rest(between(rest)).await;
        }
    }

    /// Watches an endless response.
    async fn endless(&self, user: usize, gateway: usize, id: &str) -> bool {
        let sent = self.truth.starts(user, id);
        let (verdict, way, answer) = self.ask(gateway, &Check::of(&name(user), id)).await;
        self.truth.started(user, id, sent, verdict);
        let Some(answer) = answer.filter(|_| verdict == Verdict::Allowed) else {
            return false;
        };
        let began = Stopwatch::start();
        let watches = between(WATCHES);
        while began.elapsed() < watches && self.goes_on() {
            sleep(SIGN_OF_LIFE).await;
            self.log(way, periodic(id, &answer));
        }
        self.truth.ended(user, id);
        self.log(way, end(id, &answer));
        true
    }

    /// Plays a playlist: a request every second, each with the same id.
    async fn playlist(&self, user: usize, gateway: usize, id: &str) -> bool {
        let check = Check::of_playback(&name(user), id);
        let sent = self.truth.starts(user, id);
        let (verdict, way, answer) = self.ask(gateway, &check).await;
        self.truth.started(user, id, sent, verdict);
        let Some(answer) = answer.filter(|_| verdict == Verdict::Allowed) else {
            if verdict == Verdict::Failed {
                // It may have been let in, and its other requests could rely on that: a player
                // that gives up says so.
                self.release(way, &name(user), id).await;
            }
            return false;
        };
        self.log(way, answered("any", &answer, 200));
        let began = Stopwatch::start();
        let watches = between(WATCHES);
        while began.elapsed() < watches && self.goes_on() {
            sleep(SIGN_OF_LIFE).await;
            let sent = self.truth.clock.elapsed();
            let (verdict, way, answer) = self.ask(gateway, &check).await;
            if !self.truth.renewed(user, id, sent, verdict) {
                return false;
            }
            if let Some(answer) = answer.filter(|_| verdict == Verdict::Allowed) {
                self.log(way, answered("any", &answer, 200));
            }
        }
        self.truth.ended(user, id);
        self.release(way, &name(user), id).await;
        true
    }

    /// Asks the streamgate of that gateway, or the other one while it is ejected.
    async fn ask(&self, gateway: usize, check: &Check) -> (Verdict, usize, Option<Answer>) {
        let now = || u64::try_from(self.truth.clock.elapsed().as_millis()).unwrap();
        let is_ejected = |way: usize| self.ways[way].ejected.load(Ordering::Relaxed) > now();
        let way = if is_ejected(gateway) && !is_ejected(1 - gateway) {
            1 - gateway
        } else {
            gateway
        };
        let asking = self.ways[way].gateway.try_check(check.clone());
        match timeout(GATEWAY_WAITS, asking).await {
            Ok(Ok(answer)) if answer.is_allowed() => (Verdict::Allowed, way, Some(answer)),
            Ok(Ok(answer)) if answer.http == 429 => (Verdict::Full, way, Some(answer)),
            Ok(Ok(answer)) => (Verdict::Failed, way, Some(answer)),
            Ok(Err(_)) | Err(_) => {
                let until = now() + u64::try_from(EJECTED.as_millis()).unwrap();
                self.ways[way].ejected.store(until, Ordering::Relaxed);
                (Verdict::Failed, way, None)
            }
        }
    }

    /// Writes an entry of the access log. A log that is full loses it, as Envoy's does.
    fn log(&self, way: usize, entry: HttpAccessLogEntry) {
        let _ = self.ways[way].log.try_send(entry);
    }

    /// Ends a playback over HTTP, at the other streamgate if that one does not answer.
    async fn release(&self, way: usize, user: &str, session: &str) {
        let body = json!({"user": user, "session": session});
        for way in [way, 1 - way] {
            let request = self.http.post(&self.ways[way].release).json(&body);
            let answer = request.timeout(GATEWAY_WAITS).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return;
            }
        }
    }

    /// Watches one stream all the time and another one again and again, through Envoy.
    async fn through_envoy(self: Arc<Self>, user: usize, envoy: SocketAddr) {
        let mut running = JoinSet::new();
        let mut turn = 0;
        while self.goes_on() {
            turn += 1;
            let id = format!("envoy-{turn}");
            let sent = self.truth.starts(user, &id);
            let (verdict, response) = self.ask_envoy(user, envoy).await;
            if self.envoy_is_gone() {
                return;
            }
            self.truth.started(user, &id, sent, verdict);
            if let Some(response) = response {
                let session = response.headers().get("x-streamgate-session");
                let session = session.map_or("", |it| it.to_str().unwrap()).to_owned();
                self.truth.is_called(user, &id, &session);
                if running.is_empty() {
                    running.spawn(Arc::clone(&self).until_it_breaks(user, session, response));
                } else {
                    sleep(SIGN_OF_LIFE).await;
                    drop(response);
                    self.truth.ended(user, &session);
                }
            }
            sleep(between((500, 1_500))).await;
        }
        running.shutdown().await;
        self.truth.all_ended(user);
    }

    /// Asks Envoy for a live stream.
    async fn ask_envoy(&self, user: usize, envoy: SocketAddr) -> (Verdict, Option<Response>) {
        let request = self.http.get(format!("http://{envoy}/live/1"));
        let request = request.header("x-user-id", name(user));
        match timeout(PLAYER_WAITS, request.send()).await {
            Ok(Ok(answer)) if answer.status().is_success() => (Verdict::Allowed, Some(answer)),
            Ok(Ok(answer)) if answer.status() == StatusCode::TOO_MANY_REQUESTS => {
                (Verdict::Full, None)
            }
            _ => (Verdict::Failed, None),
        }
    }

    /// Reads a response that has no end until it ends all the same.
    async fn until_it_breaks(self: Arc<Self>, user: usize, session: String, mut stream: Response) {
        while let Ok(Some(_)) = stream.chunk().await {}
        if !self.envoy_is_gone() {
            self.truth.broke();
        }
        self.truth.ended(user, &session);
    }

    fn envoy_is_gone(&self) -> bool {
        self.envoy_is_killed.load(Ordering::Relaxed)
    }

    /// Asks the store once a second which sessions count, until that is over. What can't be asked
    /// is left out: nobody gets those slots then.
    pub(crate) async fn look_for_leaks(self: Arc<Self>) {
        let mut since = self.truth.clock.elapsed();
        loop {
            sleep(Duration::from_secs(1)).await;
            let asked = self.truth.clock.elapsed();
            let Some(listed) = self.listed().await else {
                continue;
            };
            self.truth.listed(&listed, since, asked);
            since = asked;
        }
    }

    /// The sessions that count, by either streamgate.
    async fn listed(&self) -> Option<Vec<(usize, String)>> {
        for list in &self.list {
            if let Some(listed) = self.listed_by(list).await {
                return Some(listed);
            }
        }
        None
    }

    async fn listed_by(&self, list: &str) -> Option<Vec<(usize, String)>> {
        let (mut all, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let from = cursor.map_or(String::new(), |cursor| format!("&cursor={cursor}"));
            let page = self.http.get(format!("{list}?limit=1000{from}"));
            let answer = page.timeout(Duration::from_secs(2)).send().await.ok()?;
            if !answer.status().is_success() {
                return None;
            }
            let page: Value = answer.json().await.ok()?;
            for session in page["sessions"].as_array()? {
                let user = number(session["user"].as_str()?)?;
                all.push((user, session["session"].as_str()?.to_owned()));
            }
            cursor = page["next"].as_str().map(str::to_owned);
            if cursor.is_none() {
                return Some(all);
            }
        }
    }

    /// Waits until no session counts any more, for that long at most; how many still do, if
    /// anybody can tell. Nobody watches any more.
    pub(crate) async fn until_all_is_free(&self, at_most: Duration) -> Option<usize> {
        let waiting = Stopwatch::start();
        loop {
            sleep(Duration::from_secs(1)).await;
            let left_over = self.listed().await.map(|listed| listed.len());
            if left_over == Some(0) || waiting.elapsed() > at_most {
                return left_over;
            }
        }
    }
}

/// Sends entries as they come. Where the stream is broken, entries wait until the streamgate is back,
/// as with the durable logger of Envoy; what was under way is lost.
async fn write_log(
    streamgate: SocketAddr,
    channel: Channel,
    mut entries: mpsc::Receiver<HttpAccessLogEntry>,
) {
    loop {
        while TcpStream::connect(streamgate).await.is_err() {
            sleep(Duration::from_millis(100)).await;
        }
        let (send, stream) = mpsc::channel(16);
        let mut client = AccessLogServiceClient::new(channel.clone());
        let mut call = Box::pin(client.stream_access_logs(ReceiverStream::new(stream)));
        loop {
            tokio::select! {
                biased;
                _ = &mut call => break,
                entry = entries.recv() => {
                    let Some(entry) = entry else { return };
                    let mut batch = vec![entry];
                    while let Ok(more) = entries.try_recv() {
                        batch.push(more);
                    }
                    if send.send(message(batch)).await.is_err() {
                        break;
                    }
                }
            }
        }
    }
}

/// A random time between these milliseconds.
fn between((from, to): (u64, u64)) -> Duration {
    Duration::from_millis(rand::rng().random_range(from..=to))
}
