//! Redis Cluster: sends each call to the master that owns its key's slot.
//!
//! A call has one deadline and may be sent again only after an answer that proves that nothing was
//! done: a redirect, or that the slot is moving. After a timeout or a broken connection nothing is
//! sent again, because the call may have been executed.
//!
//! - `slot` computes slots; `map` says who owns them, read from a node's answers.
//! - `nodes` has one connection for each node, which maintains itself as a single server's does.
//! - `topology` is the task that keeps the map.
//! - `page` lists all users, slot by slot; `page_by_scan` does where that is forbidden.

mod map;
mod nodes;
pub(super) mod page;
mod page_by_scan;
pub(super) mod slot;
mod topology;

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{ConnectionInfo, ErrorKind, RedisError, ServerErrorKind};
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use self::map::Address;
pub(super) use self::map::Map;
pub(super) use self::nodes::ClusterNode;
use self::nodes::Nodes;
use self::topology::{ClusterTopology, Knowledge};
use super::codec::script::Scripts;
use super::route::CallLink;
use crate::clock::Stopwatch;
use crate::store::{Shard, StoreError};

/// How often a call is sent again at most.
const HOPS: usize = 4;

/// How long a call waits whose slot is just moving.
const MOVING: Duration = Duration::from_millis(5);

/// A cluster.
#[derive(Debug)]
pub(super) struct Cluster {
    /// The map, and the nodes.
    topology: Arc<ClusterTopology>,
    /// The task that keeps the map.
    _keeper: AbortOnDropHandle<()>,
}

/// Where a call goes next.
struct Turn {
    /// The node.
    node: Arc<ClusterNode>,
    /// Whether the node must be told that a redirect sent us: it doesn't own the slot yet.
    asking: bool,
}

impl Cluster {
    /// A cluster with those nodes, of which the first says how to connect to all others. Begins to
    /// connect and returns immediately. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// There are no nodes.
    #[expect(
        clippy::disallowed_methods,
        reason = "the task is owned by what it serves, and is aborted with it"
    )]
    pub(super) fn open(
        seeds: Vec<ConnectionInfo>,
        scripts: Arc<Scripts>,
        deadline: Duration,
    ) -> Result<Self, StoreError> {
        let Some(like) = seeds.first().cloned() else {
            let reason = "store.redis.urls names no node of the cluster".to_owned();
            return Err(StoreError::Rejected(reason));
        };
        let nodes = Nodes::new(like, scripts, deadline);
        let topology = Arc::new(ClusterTopology::new(seeds, nodes));
        let keeper = tokio::spawn({
            let topology = Arc::clone(&topology);
            async move { topology.keep().await }
        });
        Ok(Self {
            topology,
            _keeper: AbortOnDropHandle::new(keeper),
        })
    }

    /// The time limit of a call.
    pub(super) fn deadline(&self) -> Duration {
        self.topology.nodes.deadline
    }

    /// Who owns which slots now.
    ///
    /// # Errors
    /// Nobody has told us yet.
    pub(super) async fn map(&self) -> Result<Arc<Map>, StoreError> {
        self.topology.map_within(self.deadline() * 3 / 4).await
    }

    /// Makes a call about a key, within the deadline, at the master that owns the key's slot, or
    /// where that sends us.
    ///
    /// # Errors
    /// The call was not made, for the given reason; or it was made and failed.
    pub(super) async fn call<T, A>(
        &self,
        key: &str,
        act: impl Fn(CallLink) -> A,
    ) -> Result<T, StoreError>
    where
        A: Future<Output = Result<T, RedisError>>,
    {
        let waited = Stopwatch::start();
        let outcome = self.follow(&waited, slot::of(key.as_bytes()), act).await;
        if outcome.as_ref().is_err_and(tells_of_change) {
            self.topology.doubt();
        }
        outcome
    }

    /// Makes a call, and makes it again wherever a redirect leads.
    async fn follow<T, A>(
        &self,
        waited: &Stopwatch,
        slot: u16,
        act: impl Fn(CallLink) -> A,
    ) -> Result<T, StoreError>
    where
        A: Future<Output = Result<T, RedisError>>,
    {
        let map = self.map().await?;
        let owner = map.owner(slot).ok_or_else(|| unowned(slot))?;
        let mut turn = Turn {
            node: Arc::clone(owner),
            asking: false,
        };
        for hop in 0..=HOPS {
            let Turn { node, asking } = turn;
            let make = |link| act(CallLink { link, asking });
            let answer = node.connection.attempt(waited, make).await;
            let error = match answer.map_err(|failure| node.failed(failure))? {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let next = self.next(
                &error,
                Turn {
                    node: Arc::clone(&node),
                    asking,
                },
            );
            turn = match next.await {
                Some(next) if hop < HOPS => next,
                _ => return Err(node.refused(&error)),
            };
        }
        Err(unowned(slot))
    }

    /// Where a call goes after that answer, which proves that nothing was done; none if that is the
    /// answer.
    async fn next(&self, error: &RedisError, turn: Turn) -> Option<Turn> {
        let ErrorKind::Server(kind) = error.kind() else {
            return None;
        };
        let asking = match kind {
            ServerErrorKind::TryAgain => {
                sleep(MOVING).await;
                return Some(turn);
            }
            ServerErrorKind::Moved => {
                self.topology.doubt();
                false
            }
            ServerErrorKind::Ask => true,
            _ => return None,
        };
        let (target, _) = error.redirect_node()?;
        let target = Address::of_redirect(target, &turn.node.address)?;
        let node = self.topology.nodes.redirected_to(target);
        Some(Turn { node, asking })
    }

    /// The node that owns a key's slot now.
    ///
    /// # Errors
    /// No node does, as far as is known.
    pub(super) async fn server_of(&self, key: &str) -> Result<ConnectionInfo, StoreError> {
        let (map, slot) = (self.map().await?, slot::of(key.as_bytes()));
        let owner = map.owner(slot).ok_or_else(|| unowned(slot))?;
        Ok(self.topology.nodes.server(&owner.address))
    }

    /// The shard of a key.
    pub(super) fn shard_of(&self, key: &str) -> Shard {
        let map = self.topology.map();
        let owner = map
            .as_ref()
            .and_then(|map| map.owner(slot::of(key.as_bytes())));
        owner.map_or_else(Shard::unowned, |node| node.shard.clone())
    }

    /// The shards that have slots now.
    pub(super) fn shards(&self) -> Vec<Shard> {
        let Some(map) = self.topology.map() else {
            return vec![Shard::unowned()];
        };
        let masters = map.masters().iter().map(|node| node.shard.clone());
        let unowned = (map.unowned() > 0).then(Shard::unowned);
        masters.chain(unowned).collect()
    }

    /// The master of a shard, and a slot of it.
    ///
    /// # Errors
    /// The shard has no master now.
    pub(super) async fn master(
        &self,
        shard: &Shard,
    ) -> Result<(Arc<ClusterNode>, u16), StoreError> {
        let map = self.map().await?;
        let master = map.masters().iter().find(|node| node.shard == *shard);
        let found = master.and_then(|node| Some((Arc::clone(node), map.first_slot(node)?)));
        found.ok_or_else(|| match shard.address() {
            None => unowned_of(&map),
            Some(address) => {
                StoreError::NotAsked(format!("{address} owns no slots of the cluster any more"))
            }
        })
    }

    /// Makes a call to that node, wherever keys are.
    ///
    /// # Errors
    /// The call was not made, for the given reason; or it was made and failed.
    pub(super) async fn call_node<T, A>(
        &self,
        node: &ClusterNode,
        act: impl FnOnce(MultiplexedConnection) -> A,
    ) -> Result<T, StoreError>
    where
        A: Future<Output = Result<T, RedisError>>,
    {
        let outcome = node.connection.call(act).await;
        let outcome = outcome.map_err(|failure| node.failed(failure));
        if outcome.as_ref().is_err_and(tells_of_change) {
            self.topology.doubt();
        }
        outcome
    }

    /// Resolves with the reason while no connection to the shard's master can be made. While
    /// nothing is known of the cluster, that is the shard without a master.
    pub(super) async fn outage(&self, shard: &Shard) -> StoreError {
        let mut known = self.topology.watch();
        loop {
            let current = known.borrow_and_update().clone();
            let outage = async {
                match current {
                    Knowledge::Asking => std::future::pending().await,
                    Knowledge::Nothing(failure) => failure,
                    Knowledge::Known(map) => outage_in(&map, shard).await,
                }
            };
            tokio::select! {
                failure = outage => return failure,
                changed = known.changed() => if changed.is_err() {
                    return StoreError::NotAsked("it is closed".to_owned());
                },
            }
        }
    }

    /// The shard's master, for display; none while it has no connection.
    pub(super) fn server(&self, shard: &Shard) -> Option<String> {
        let map = self.topology.map()?;
        let mut masters = map.masters().iter();
        masters
            .find(|node| node.shard == *shard)?
            .connection
            .server()
    }
}

/// Resolves with the reason while no connection to that shard's master can be made.
async fn outage_in(map: &Map, shard: &Shard) -> StoreError {
    let master = map.masters().iter().find(|node| node.shard == *shard);
    match master {
        Some(node) => node.failed(node.connection.outage().await),
        None if *shard == Shard::unowned() && map.unowned() > 0 => unowned_of(map),
        None => std::future::pending().await,
    }
}

/// Whether a failure may mean that slots have other masters now.
const fn tells_of_change(failure: &StoreError) -> bool {
    match failure {
        StoreError::Timeout(_)
        | StoreError::Disconnected(_)
        | StoreError::NotAsked(_)
        | StoreError::Rejected(_) => true,
        StoreError::Full(_) | StoreError::Protocol(_) => false,
    }
}

/// The error of a call whose slot has no master.
fn unowned(slot: u16) -> StoreError {
    StoreError::NotAsked(format!(
        "no master of the cluster owns slot {slot} (see CLUSTER INFO and CLUSTER NODES)"
    ))
}

/// The error while some slots have no master.
fn unowned_of(map: &Map) -> StoreError {
    match map.unowned() {
        0 => StoreError::NotAsked("all slots of the cluster have a master again".to_owned()),
        slots => StoreError::NotAsked(format!(
            "no master of the cluster owns {slots} of its slots (see CLUSTER INFO and CLUSTER NODES)"
        )),
    }
}
