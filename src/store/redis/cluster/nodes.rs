//! The nodes of a cluster, each with one connection that maintains itself.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use redis::{ConnectionInfo, RedisError};

use super::map::Address;
use crate::clock::Stopwatch;
use crate::store::redis::codec::script::Scripts;
use crate::store::redis::connection::{ConnectionSource, RedisConnection, target};
use crate::store::redis::error::{self, ServerRole};
use crate::store::{Shard, StoreError};
use crate::util::lock;

/// How long a node stays that a redirect named and the map doesn't.
const REDIRECTED: Duration = Duration::from_secs(10);

/// One node.
pub(in crate::store::redis) struct ClusterNode {
    /// Where it is.
    pub(super) address: Address,
    /// What it owns, as long as it owns anything.
    pub(super) shard: Shard,
    /// Its connection.
    pub(in crate::store::redis) connection: RedisConnection,
}

impl ClusterNode {
    /// Whether this is that node, and not an earlier one at the same address.
    pub(super) fn is(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }

    /// The error of a call here, with the node's address: others of the cluster may be well.
    pub(super) fn failed(&self, failure: StoreError) -> StoreError {
        error::named(&self.address.to_string(), failure)
    }

    /// The error that this node answered with.
    pub(super) fn refused(&self, error: &RedisError) -> StoreError {
        self.failed(error::of_call(error, ServerRole::Node))
    }
}

impl fmt::Debug for ClusterNode {
    /// Shows the address alone: the log lists masters so.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

/// The nodes in use. A node lives as long as a map or a call holds it, and is shared by its
/// address, so that an unchanged master keeps its connection.
#[derive(Debug)]
pub(super) struct Nodes {
    /// How to connect to any node: TLS, user and password.
    like: ConnectionInfo,
    /// The scripts to load into each.
    scripts: Arc<Scripts>,
    /// The time limit of a call.
    pub(super) deadline: Duration,
    /// The nodes by address.
    open: Mutex<HashMap<Address, Weak<ClusterNode>>>,
    /// The nodes that redirects named, and when.
    redirected: Mutex<HashMap<Address, (Stopwatch, Arc<ClusterNode>)>>,
}

impl Nodes {
    /// No nodes yet.
    pub(super) fn new(like: ConnectionInfo, scripts: Arc<Scripts>, deadline: Duration) -> Self {
        Self {
            like,
            scripts,
            deadline,
            open: Mutex::default(),
            redirected: Mutex::default(),
        }
    }

    /// How to connect to the server at that address.
    pub(super) fn server(&self, Address { host, port }: &Address) -> ConnectionInfo {
        target::at(&self.like, host.clone(), *port)
    }

    /// The node at that address; begins to connect if it is new.
    pub(super) fn at(&self, address: &Address) -> Arc<ClusterNode> {
        let mut open = lock(&self.open);
        if let Some(node) = open.get(address).and_then(Weak::upgrade) {
            return node;
        }
        let source = ConnectionSource::Server(self.server(address), ServerRole::Node);
        let scripts = Arc::clone(&self.scripts);
        let node = Arc::new(ClusterNode {
            address: address.clone(),
            shard: Shard::master(&address.to_string()),
            connection: RedisConnection::open(source, scripts, self.deadline),
        });
        open.retain(|_, node| node.strong_count() > 0);
        open.insert(address.clone(), Arc::downgrade(&node));
        node
    }

    /// The node that a redirect named. It stays for a while although the map may not have it.
    pub(super) fn redirected_to(&self, address: Address) -> Arc<ClusterNode> {
        let node = self.at(&address);
        let kept = (Stopwatch::start(), Arc::clone(&node));
        lock(&self.redirected).insert(address, kept);
        node
    }

    /// Drops the nodes that no redirect has named for a while.
    pub(super) fn forget(&self) {
        let mut redirected = lock(&self.redirected);
        redirected.retain(|_, (named, _)| named.elapsed() < REDIRECTED);
    }
}
