//! The task that keeps the map: asks the cluster who owns which slots, and puts the answer in the
//! place of the last one.
//!
//! It asks every few seconds, and at once when a call was redirected or refused, or a master's
//! connection was lost. While nothing changes, the pauses between two rounds grow, however many
//! calls complain. Nothing waits for a round: calls go by the map that there is, and follow
//! redirects.
//!
//! A round asks up to three masters that are connected. They may disagree, so the best view counts:
//! one of a node that sees a serving cluster, and of those the newest. If none answers, we ask all
//! nodes that the map knew and the configured ones, whose names may lead elsewhere by now.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{join_all, select_all};
use futures_util::try_join;
use rand::seq::SliceRandom;
use redis::aio::MultiplexedConnection;
use redis::{ConnectionAddr, ConnectionInfo, FromRedisValue, RedisError};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use super::map::{Map, View};
use super::nodes::Nodes;
use crate::store::StoreError;
use crate::store::redis::connection::{link, target};
use crate::store::redis::error::{self, ServerRole};
use crate::util::Throttle;

/// The time between two rounds while all is well, give or take a fifth.
const CALM: Duration = Duration::from_secs(5);

/// The shortest pause between two rounds.
const SHORTEST_PAUSE: Duration = Duration::from_millis(25);

/// The longest pause between two rounds that are asked for; also the time between two rounds while
/// a master has no connection.
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// The time limit of one node's answer, a new connection included.
const ANSWER: Duration = Duration::from_millis(250);

/// How many connected masters are asked.
const ASKED: usize = 3;

/// How often the log repeats that nobody tells us the slots.
const REMINDER: Duration = Duration::from_secs(30);

/// What is known of the cluster.
#[derive(Debug, Clone)]
pub(super) enum Knowledge {
    /// The first round is under way: calls wait for it.
    Asking,
    /// Nobody has told us the slots yet: calls fail with this error.
    Nothing(StoreError),
    /// Somebody has told us.
    Known(Arc<Map>),
}

/// The current map, and who can be asked for the next.
pub(super) struct ClusterTopology {
    /// The nodes.
    pub(super) nodes: Nodes,
    /// The configured nodes.
    seeds: Vec<ConnectionInfo>,
    /// The current map.
    known: watch::Sender<Knowledge>,
    /// Asks for a round.
    doubted: Notify,
}

/// A node to be asked.
struct Candidate {
    /// How to connect to it.
    server: ConnectionInfo,
    /// Its connection, if it has one.
    link: Option<MultiplexedConnection>,
}

impl ClusterTopology {
    /// A cluster of which nothing is known but those nodes.
    pub(super) fn new(seeds: Vec<ConnectionInfo>, nodes: Nodes) -> Self {
        Self {
            nodes,
            seeds,
            known: watch::Sender::new(Knowledge::Asking),
            doubted: Notify::new(),
        }
    }

    /// The current map, if there is one.
    pub(super) fn map(&self) -> Option<Arc<Map>> {
        match &*self.known.borrow() {
            Knowledge::Known(map) => Some(Arc::clone(map)),
            Knowledge::Asking | Knowledge::Nothing(_) => None,
        }
    }

    /// Follows what is known.
    pub(super) fn watch(&self) -> watch::Receiver<Knowledge> {
        self.known.subscribe()
    }

    /// The current map; waits for the first one, unless a round has failed.
    ///
    /// # Errors
    /// Nobody has told us the slots, or not in time.
    pub(super) async fn map_within(&self, patience: Duration) -> Result<Arc<Map>, StoreError> {
        if let Some(map) = self.map() {
            return Ok(map);
        }
        let mut known = self.watch();
        let answered = known.wait_for(|known| !matches!(known, Knowledge::Asking));
        let known = match timeout(patience, answered).await {
            Ok(Ok(known)) => known.clone(),
            Ok(Err(_)) | Err(_) => Knowledge::Asking,
        };
        match known {
            Knowledge::Known(map) => Ok(map),
            Knowledge::Nothing(failure) => Err(failure),
            Knowledge::Asking => {
                let reason = "still asking the cluster for its slots".to_owned();
                Err(StoreError::NotAsked(reason))
            }
        }
    }

    /// Asks for a round: the map may be old.
    pub(super) fn doubt(&self) {
        self.doubted.notify_one();
    }

    /// Makes rounds forever, even if one panics.
    pub(super) async fn keep(&self) {
        let (mut pause, trouble) = (SHORTEST_PAUSE, Throttle::every(REMINDER));
        loop {
            let round = AssertUnwindSafe(self.round(&trouble)).catch_unwind().await;
            pause = if round.unwrap_or(false) {
                SHORTEST_PAUSE
            } else {
                (pause * 2).min(LONGEST_PAUSE)
            };
            sleep(pause).await;
            if !self.is_doubted().await {
                pause = SHORTEST_PAUSE / 2;
            }
        }
    }

    /// Waits until the next round is due; whether somebody asked for it.
    async fn is_doubted(&self) -> bool {
        let map = self.map();
        let masters = map.as_ref().map_or(&[][..], |map| map.masters());
        let (up, down): (Vec<_>, Vec<_>) = masters
            .iter()
            .partition(|node| node.connection.link().is_some());
        let is_calm = down.is_empty() && !up.is_empty();
        let due = match is_calm {
            true => CALM.mul_f64(0.8 + 0.4 * rand::random::<f64>()),
            false => LONGEST_PAUSE,
        };
        let lost = async {
            if !is_calm {
                std::future::pending::<()>().await;
            }
            let each = up.iter().map(|node| Box::pin(node.connection.lost()));
            select_all(each).await;
        };
        tokio::select! {
            () = self.doubted.notified() => true,
            () = lost => true,
            () = sleep(due) => !is_calm,
        }
    }

    /// Asks for the slots; whether any has another master than before.
    async fn round(&self, trouble: &Throttle) -> bool {
        self.nodes.forget();
        let before = self.map();
        let view = match self.best_view(before.as_deref()).await {
            Ok(view) => view,
            Err(failure) => {
                if trouble.is_due() {
                    tracing::warn!(reason = %failure, "nobody tells which Redis owns which slots; asking again");
                }
                self.known.send_if_modified(|known| match known {
                    Knowledge::Known(_) => false,
                    Knowledge::Asking | Knowledge::Nothing(_) => {
                        *known = Knowledge::Nothing(error::of_no_call(failure));
                        true
                    }
                });
                return false;
            }
        };
        let map = Map::of(view, |address| self.nodes.at(address));
        let is_new = before.is_none_or(|before| !before.is_as(&map));
        if is_new {
            tracing::info!(masters = ?map.masters(), unowned_slots = map.unowned(), "the slots of the Redis cluster have these masters");
        }
        self.known.send_replace(Knowledge::Known(Arc::new(map)));
        is_new
    }

    /// The best view of the cluster that somebody has.
    async fn best_view(&self, map: Option<&Map>) -> Result<View, StoreError> {
        let best = |views: Vec<View>| views.into_iter().max_by_key(View::merit);
        let (views, _) = self.ask(self.connected(map)).await;
        if let Some(view) = best(views) {
            return Ok(view);
        }
        let (views, failures) = self.ask(self.all(map)).await;
        best(views).ok_or_else(|| nobody(&failures))
    }

    /// Some masters that are connected.
    fn connected(&self, map: Option<&Map>) -> Vec<Candidate> {
        let masters = map.map_or(&[][..], Map::masters).iter();
        let mut connected: Vec<_> = masters
            .filter_map(|node| {
                Some(Candidate {
                    link: Some(node.connection.link()?),
                    server: self.nodes.server(&node.address),
                })
            })
            .collect();
        connected.shuffle(&mut rand::rng());
        connected.truncate(ASKED);
        connected
    }

    /// All nodes that we ever heard of.
    fn all(&self, map: Option<&Map>) -> Vec<Candidate> {
        let known = map.into_iter().flat_map(Map::known);
        let known = known.map(|address| self.nodes.server(address));
        let servers = known.chain(self.seeds.iter().cloned());
        servers
            .map(|server| Candidate { server, link: None })
            .collect()
    }

    /// Asks all of them at once: their views, and why the others have none.
    async fn ask(&self, nodes: Vec<Candidate>) -> (Vec<View>, Vec<StoreError>) {
        let asked = nodes.into_iter().map(async |node| {
            let place = target::place(node.server.addr());
            let silence = error::of_silence(ANSWER, &node.server);
            let answer = timeout(ANSWER, node.ask()).await;
            let answer = answer.unwrap_or(Err(silence));
            answer.map_err(|failure| error::at(&place, failure))
        });
        let (mut views, mut failures) = (Vec::new(), Vec::new());
        for answer in join_all(asked).await {
            match answer {
                Ok(view) => views.push(view),
                Err(failure) => failures.push(failure),
            }
        }
        (views, failures)
    }
}

impl Candidate {
    /// Asks this node for its view.
    async fn ask(self) -> Result<View, StoreError> {
        let failed = |error: RedisError| error::of_connecting(&error, ServerRole::Node);
        let (ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. }) =
            self.server.addr().clone()
        else {
            let reason = "a node of a cluster has a host and a port".to_owned();
            return Err(StoreError::Rejected(reason));
        };
        let link = match self.link {
            Some(link) => link,
            None => link::link(self.server).await.map_err(failed)?.calls,
        };
        let (info, slots): (String, _) =
            try_join!(cluster(&link, "INFO"), cluster(&link, "SLOTS")).map_err(failed)?;
        let view = View::of(&info, slots, &host).ok_or_else(|| {
            let reason = "its CLUSTER INFO or CLUSTER SLOTS can't be read".to_owned();
            StoreError::Rejected(reason)
        })?;
        if view.has_masters() {
            return Ok(view);
        }
        let reason = "it belongs to no cluster yet, or knows no master (see CLUSTER NODES)";
        Err(StoreError::Rejected(reason.to_owned()))
    }
}

/// Asks a node about the cluster.
async fn cluster<T: FromRedisValue>(
    link: &MultiplexedConnection,
    what: &str,
) -> Result<T, RedisError> {
    let mut ask = redis::cmd("CLUSTER");
    ask.arg(what).query_async(&mut link.clone()).await
}

/// The error if no node has a view. If one refused us, that may need you.
fn nobody(failures: &[StoreError]) -> StoreError {
    let mut refused = failures.iter();
    if let Some(refused) = refused.find(|failure| matches!(failure, StoreError::Rejected(_))) {
        return refused.clone();
    }
    let each: Vec<_> = failures.iter().map(ToString::to_string).collect();
    let reason = format!("no node tells the cluster's slots: {}", each.join("; "));
    StoreError::Disconnected(reason)
}

impl fmt::Debug for ClusterTopology {
    /// Shows what is known.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterTopology")
            .field("known", &*self.known.borrow())
            .finish_non_exhaustive()
    }
}
