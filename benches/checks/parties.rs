//! Everybody who is asked, and the checks that each kind of load consists of.

use std::net::SocketAddr;
use std::time::Duration;

use envoy_types::pb::envoy::data::accesslog::v3::HttpAccessLogEntry;
use envoy_types::pb::google::protobuf::{Duration as ProtoDuration, Timestamp, UInt32Value};
use hdrhistogram::Histogram;
use testkit::cluster::{RedisCluster, in_cluster};
use testkit::gateway::Gateway;
use testkit::gateway_client::{Answer, Check, Gateway as GatewayClient, LogStream, answered};
use testkit::process::processor_time;
use testkit::redis::RedisServer;
use testkit::streamgate::Streamgate;
use testkit::watch::as_many;

use super::bare::BareServer;
use super::client::{Client, Load, times};
use super::proxies::{LimitingProxy, Software};
use super::request::{Sender, Template, names};
use super::{gateways, pin};

/// The core of the servers, the one of everything else, and both.
pub(crate) const CORES: [&str; 3] = ["0", "1", "0,1"];

/// How many checks are under way at one time: those of a busy gateway.
pub(crate) const AT_ONE_TIME: usize = 64;

/// Over so many connections: Envoy has one for each of its workers.
const CONNECTIONS: usize = 4;

/// How many viewers have three streams each before anything is measured.
const VIEWERS: usize = 5_000;

/// How many viewers have one stream each at the crowded one, and at the one to compare it with.
/// The embedded store has room for about a million, but a shard is full before all of it is.
const CROWDS: (usize, usize) = (950_000, 1_000);

/// The numbers of viewers that have no stream begin here.
const NEW: usize = 1_000_000_000;

/// Who is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    /// The server that lets everybody in.
    Empty,
    /// The same with two threads on two cores.
    EmptyOnTwoCores,
    /// The one that asks Redis by the textbook script.
    Textbook,
    /// The one that counts requests with Limitador's library.
    Limitador,
    /// streamgate on Redis.
    OnRedis,
    /// streamgate on a Redis Cluster of three masters.
    OnCluster,
    /// streamgate on the embedded store.
    Embedded,
    /// The same with two threads on two cores.
    OnTwoCores,
    /// The same with a thousand viewers, and with nearly a million.
    Few,
    Many,
    /// The same with a limit of a hundred; and that on Redis.
    Hundred,
    HundredOnRedis,
    /// An Envoy that asks nobody, and those in front of the empty server and of streamgate on
    /// Redis.
    Envoy,
    EnvoyEmpty,
    EnvoyOnRedis,
    /// Proxies that answer players themselves, without a limit and with one of their own.
    Nginx,
    NginxLimited,
    Haproxy,
    HaproxyLimited,
}

/// Those whose viewers get their streams before anything is measured.
const FILLED: [Who; 6] = [
    Who::OnRedis,
    Who::OnCluster,
    Who::Embedded,
    Who::OnTwoCores,
    Who::Few,
    Who::Many,
];

/// Which check is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The next request of a playback that is counted.
    Held,
    /// The first request of a playback with an id that was never used before, by a new viewer.
    Start,
    /// The same by a viewer who has as many as allowed.
    Refused,
    /// No check: an entry of Envoy's access log about a request of a playback that is counted.
    Entry,
}

/// One who is asked.
struct Party {
    who: Who,
    address: SocketAddr,
    sender: Sender,
    /// The processes whose processor time counts.
    processes: Vec<u32>,
    /// How many viewers have streams, and how many each.
    streams: (usize, usize),
}

/// What a load has shown.
pub(crate) struct Sample {
    /// The processor time of one check, in microseconds.
    pub(crate) processor: f64,
    /// Of it Redis's.
    pub(crate) redis: f64,
    /// How many nanoseconds the checks took.
    pub(crate) took: Histogram<u64>,
}

/// Everybody who is asked, and Redis.
pub(crate) struct Parties {
    redis: RedisServer,
    cluster: RedisCluster,
    all: Vec<Party>,
    /// The next number that no check has used.
    unused: usize,
    /// What lives as long as this.
    _bare: [BareServer; 4],
    _streamgates: Vec<Streamgate>,
    _gateways: Vec<Gateway>,
    _proxies: Vec<LimitingProxy>,
}

impl Parties {
    /// Starts all of them. The servers share a core.
    pub(crate) async fn start() -> Self {
        pin(CORES[1]);
        let (redis, cluster) = (RedisServer::start(), RedisCluster::start());
        pin(CORES[0]);
        let [empty, textbook] = [None, Some(redis.url())].map(|redis| BareServer::start(1, redis));
        let limitador = BareServer::limitador();
        pin(CORES[2]);
        let bare = [empty, textbook, limitador, BareServer::start(2, None)];
        let servers = [
            Who::Empty,
            Who::Textbook,
            Who::Limitador,
            Who::EmptyOnTwoCores,
        ];
        let servers = servers.into_iter().zip(&bare);
        let servers = servers
            .map(|(who, server)| Party::new(who, server.address, &[server.id()], (VIEWERS, 3)));
        let mut all: Vec<Party> = servers.collect();
        let streamgates = streamgates(&redis, &cluster, &mut all).await;
        let gateways = gateways(&mut all).await;
        let proxies = proxies(&mut all).await;
        pin(CORES[1]);
        let mut parties = Self {
            redis,
            cluster,
            all,
            unused: NEW,
            _bare: bare,
            _streamgates: streamgates,
            _gateways: gateways,
            _proxies: proxies,
        };
        for who in FILLED {
            parties.fill(who);
        }
        parties
    }

    /// Gives each viewer of that one their streams, one after the other, so that few wait for each
    /// other.
    fn fill(&mut self, who: Who) {
        let (viewers, each) = party(&self.all, who).streams;
        for slot in 0..each {
            let load = Load::in_turn(viewers, AT_ONE_TIME);
            let check = |n: usize| (n % viewers, slot * viewers + n % viewers);
            let told = self.client(who).run(&load, check);
            assert_eq!(told.allowed, viewers, "{who:?}");
        }
    }

    /// The processor time of one start of a viewer's first five and last five of a hundred streams,
    /// and Redis's.
    pub(crate) fn fill_hundred(&mut self, who: Who) -> [[f64; 2]; 2] {
        let (viewers, each) = party(&self.all, who).streams;
        let first = self.unused;
        self.unused += viewers * each;
        let slots = |all: &mut Self, slots: std::ops::Range<usize>| {
            let count = viewers * slots.len();
            let before = [all.processor(who), all.redis(who)];
            let load = Load::in_turn(count, AT_ONE_TIME);
            let check = |n: usize| {
                let n = n + slots.start * viewers;
                (first + n % viewers, first + n)
            };
            let told = all.client(who).run(&load, check);
            assert_eq!(told.allowed, count);
            let after = [all.processor(who), all.redis(who)];
            [0, 1].map(|of| (after[of] - before[of]).as_secs_f64() * 1e6 / count as f64)
        };
        let few = slots(self, 0..5);
        slots(self, 5..each - 5);
        [few, slots(self, each - 5..each)]
    }

    fn client(&self, who: Who) -> Client {
        let party = party(&self.all, who);
        Client::connect(party.address, CONNECTIONS, Template::of(party.sender))
    }

    /// The processor time that one has used.
    fn processor(&self, who: Who) -> Duration {
        let processes = party(&self.all, who).processes.iter();
        processes.map(|process| processor_time(*process, "")).sum()
    }

    /// The processor time that the Redis of one has used: of a cluster, the masters.
    fn redis(&self, who: Who) -> Duration {
        let servers = match who {
            Who::OnCluster => {
                let masters = self.cluster.masters().iter();
                masters.map(|node| node.server.id()).collect()
            }
            _ => vec![self.redis.id()],
        };
        let times = servers.into_iter().map(|server| processor_time(server, ""));
        times.sum()
    }

    /// Makes that load of one kind of check.
    pub(crate) async fn sample(&mut self, who: Who, kind: Kind, load: &Load) -> Sample {
        let entries = match kind {
            Kind::Entry => Some(self.entries(who, load.count).await),
            _ => None,
        };
        let before = (self.processor(who), self.redis(who));
        let took = match entries {
            Some((log, entries)) => {
                send(log, entries).await;
                times()
            }
            None => self.checks(who, kind, load),
        };
        let processor = self.processor(who) - before.0;
        let redis = self.redis(who) - before.1;
        let each = |time: Duration| time.as_secs_f64() * 1e6 / load.count as f64;
        Sample {
            processor: each(processor),
            redis: each(redis),
            took,
        }
    }

    fn checks(&mut self, who: Who, kind: Kind, load: &Load) -> Histogram<u64> {
        let (viewers, each) = party(&self.all, who).streams;
        let (count, first) = (load.count, self.unused);
        let any = |n: usize| n.wrapping_mul(7_919) % (viewers * each);
        let told = self.client(who).run(load, |n| match kind {
            Kind::Held | Kind::Entry => (any(n) % viewers, any(n)),
            Kind::Start => (first + n, first + n),
            Kind::Refused => (n % viewers, first + n),
        });
        if kind != Kind::Held {
            self.unused += count;
        }
        let expected = if kind == Kind::Refused { 0 } else { count };
        assert_eq!(told.allowed, expected, "{who:?}: {kind:?}");
        told.took
    }

    /// A log stream, and so many entries.
    async fn entries(&self, who: Who, count: usize) -> (LogStream, Vec<HttpAccessLogEntry>) {
        let (viewers, each) = party(&self.all, who).streams;
        // The server that lets everybody in has nothing to say about a playback.
        let ours = GatewayClient::connect(party(&self.all, Who::OnRedis).address).await;
        let [(_, user), (_, playback)] = names((0, 0));
        let answer = ours.check(Check::of_playback(&user, &playback)).await;
        let entries = (0..count).map(|n| {
            let n = n.wrapping_mul(7_919) % (viewers * each);
            entry(&answer, (n % viewers, n))
        });
        let asked = GatewayClient::connect(party(&self.all, who).address).await;
        (asked.access_log().await, entries.collect())
    }
}

/// Starts each streamgate.
async fn streamgates(
    redis: &RedisServer,
    cluster: &RedisCluster,
    all: &mut Vec<Party>,
) -> Vec<Streamgate> {
    let of_three = (VIEWERS, 3);
    let hundred = Some(("limits.default", "100"));
    let two = Some(("runtime.workers", "2"));
    let mut streamgates = Vec::new();
    pin(CORES[0]);
    let urls = cluster.urls().join(",");
    let on_cluster = Streamgate::start_for_crowds_on(&in_cluster(&urls)).await;
    let process = on_cluster.id();
    all.push(Party::new(
        Who::OnCluster,
        on_cluster.grpc,
        &[process],
        of_three,
    ));
    streamgates.push(on_cluster);
    for (who, cores, redis, setting, streams) in [
        (Who::OnRedis, CORES[0], Some(redis), None, of_three),
        (Who::Embedded, CORES[0], None, None, of_three),
        (Who::Few, CORES[0], None, None, (CROWDS.1, 1)),
        (Who::Many, CORES[0], None, None, (as_many(CROWDS.0), 1)),
        (Who::Hundred, CORES[0], None, hundred, (1_000, 100)),
        (
            Who::HundredOnRedis,
            CORES[0],
            Some(redis),
            hundred,
            (1_000, 100),
        ),
        (Who::OnTwoCores, CORES[2], None, two, of_three),
    ] {
        pin(cores);
        let settings: Vec<_> = setting.into_iter().collect();
        let started = Streamgate::start_for_crowds_with(redis, &settings).await;
        all.push(Party::new(who, started.grpc, &[started.id()], streams));
        streamgates.push(started);
    }
    streamgates
}

/// Starts each Envoy.
async fn gateways(all: &mut Vec<Party>) -> Vec<Gateway> {
    pin(CORES[0]);
    let mut gateways = Vec::new();
    for (who, behind) in [
        (Who::Envoy, None),
        (Who::EnvoyEmpty, Some(Who::Empty)),
        (Who::EnvoyOnRedis, Some(Who::OnRedis)),
    ] {
        let behind = behind.map(|behind| party(all, behind));
        let gateway = gateways::start(behind.map(|behind| behind.address)).await;
        let mut processes = behind.map_or_else(Vec::new, |behind| behind.processes.clone());
        processes.push(gateway.id());
        all.push(Party {
            sender: Sender::Player,
            ..Party::new(who, gateway.address, &processes, (VIEWERS, 3))
        });
        gateways.push(gateway);
    }
    gateways
}

/// Starts each proxy that has a limit of its own, and the same without.
async fn proxies(all: &mut Vec<Party>) -> Vec<LimitingProxy> {
    pin(CORES[0]);
    let mut proxies = Vec::new();
    for (who, software, is_limited) in [
        (Who::Nginx, Software::Nginx, false),
        (Who::NginxLimited, Software::Nginx, true),
        (Who::Haproxy, Software::Haproxy, false),
        (Who::HaproxyLimited, Software::Haproxy, true),
    ] {
        let proxy = LimitingProxy::start(software, is_limited).await;
        all.push(Party {
            sender: Sender::Player,
            ..Party::new(who, proxy.address, &[proxy.id()], (VIEWERS, 3))
        });
        proxies.push(proxy);
    }
    proxies
}

/// The one who is asked.
fn party(all: &[Party], who: Who) -> &Party {
    all.iter().find(|party| party.who == who).unwrap()
}

impl Party {
    /// One that Envoy asks.
    fn new(who: Who, address: SocketAddr, processes: &[u32], streams: (usize, usize)) -> Self {
        Self {
            who,
            address,
            sender: Sender::Envoy,
            processes: processes.to_vec(),
            streams,
        }
    }
}

/// The entry about a request that was let in and answered, with what Envoy tells about each.
pub(crate) fn entry(answer: &Answer, of: (usize, usize)) -> HttpAccessLogEntry {
    let [(user_header, user), (playback_header, playback)] = names(of);
    let mut answer = answer.clone();
    answer.metadata.insert("user".to_owned(), user.clone());
    answer
        .metadata
        .insert("session".to_owned(), playback.clone());
    let mut entry = answered("6f9c1b1e-7d2f-4b0e-9b1a-1c2d3e4f5a6b", &answer, 200);
    let took = |nanos| Some(ProtoDuration { seconds: 0, nanos });
    if let Some(common) = &mut entry.common_properties {
        common.start_time = Some(Timestamp {
            seconds: 1_800_000_000,
            nanos: 123_456_000,
        });
        common.time_to_last_rx_byte = took(10_000);
        common.time_to_first_upstream_rx_byte = took(900_000);
        common.time_to_last_downstream_tx_byte = took(2_000_000);
        common.duration = took(2_100_000);
        common.upstream_cluster = "backend".to_owned();
        common.route_name = "vod".to_owned();
        common.stream_id = "6f9c1b1e-7d2f-4b0e-9b1a-1c2d3e4f5a6b".to_owned();
    }
    if let Some(request) = &mut entry.request {
        request.scheme = "https".to_owned();
        request.authority = "video.example.com".to_owned();
        request.port = Some(UInt32Value { value: 443 });
        request.user_agent = "Mozilla/5.0 (X11; Linux x86_64)".to_owned();
        let headers = [(user_header, user), (playback_header, playback)];
        let headers = headers.map(|(name, value)| (name.to_owned(), value));
        request.request_headers.extend(headers);
    }
    entry
}

/// Sends the entries as Envoy's fast logger does, a message each, and waits until all are read.
async fn send(mut log: LogStream, entries: Vec<HttpAccessLogEntry>) {
    for (n, entry) in entries.into_iter().enumerate() {
        log.send(vec![entry]);
        if n % AT_ONE_TIME == 0 {
            log.flush().await;
        }
    }
    assert_eq!(log.finish().await, 0);
}
