//! Where calls go: to the one server, or to the master of the cluster that owns their key.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{Cmd, ConnectionInfo, FromRedisValue, RedisError, Value};

use super::cluster::{Cluster, slot};
use super::codec::script::Scripts;
use super::connection::{ConnectionSource, RedisConnection, Sentinels, target};
use super::error::ServerRole;
use crate::store::{Shard, StoreError};

/// Where Redis is.
#[derive(Debug, Clone)]
pub enum RedisTarget {
    /// One server, from its URL.
    Standalone(ConnectionInfo),
    /// The master that these sentinels name.
    Sentinel(Sentinels),
    /// The cluster that these nodes belong to, from their URLs. The first says how to connect to
    /// all nodes: TLS, user and password.
    Cluster(Vec<ConnectionInfo>),
}

/// Where calls go.
#[derive(Debug)]
pub(super) enum RedisRoute {
    /// To one server, for all keys.
    One(Box<RedisConnection>),
    /// To the master that owns the key.
    Cluster(Cluster),
}

/// The connection for one call.
#[derive(Clone)]
pub(super) struct CallLink {
    /// The connection.
    pub(super) link: MultiplexedConnection,
    /// Whether the server must be told that a redirect sent us.
    pub(super) asking: bool,
}

impl CallLink {
    /// Sends a command. `ASKING` goes with it in one piece: it holds for the next command on the
    /// connection, which others use too.
    ///
    /// # Errors
    /// The connection broke, or the server answers with an error.
    pub(super) async fn query<T: FromRedisValue>(
        &mut self,
        command: &Cmd,
    ) -> Result<T, RedisError> {
        if !self.asking {
            return command.query_async(&mut self.link).await;
        }
        let mut both = redis::pipe();
        both.cmd("ASKING").add_command(command.clone());
        let answers = self.link.req_packed_commands(&both, 0, 2).await?;
        // An ACL may forbid ASKING; then the other answer is just another redirect.
        let answers: Result<Vec<_>, _> = answers.into_iter().map(Value::extract_error).collect();
        let answer = answers?.pop().unwrap_or(Value::Nil);
        Ok(redis::from_redis_value(answer)?)
    }
}

impl RedisTarget {
    /// Ensures that connections can be made.
    ///
    /// # Errors
    /// An address can't be used at all.
    fn prepare(&self) -> Result<(), StoreError> {
        match self {
            Self::Standalone(server) => target::prepare(server),
            Self::Sentinel(sentinels) => sentinels.peers().try_for_each(target::prepare),
            Self::Cluster(seeds) => seeds.iter().try_for_each(target::prepare),
        }
    }

    /// The destination, for display and without secrets.
    pub(super) fn place(&self) -> String {
        match self {
            Self::Standalone(server) => target::place(server.addr()),
            Self::Sentinel(sentinels) => sentinels.place(),
            Self::Cluster(seeds) => {
                let seeds: Vec<_> = seeds
                    .iter()
                    .map(|seed| target::place(seed.addr()))
                    .collect();
                format!("the cluster of {}", seeds.join(", "))
            }
        }
    }
}

impl RedisRoute {
    /// Begins to connect and returns immediately. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// An address can't be used at all.
    pub(super) fn open(
        target: RedisTarget,
        scripts: Arc<Scripts>,
        deadline: Duration,
    ) -> Result<Self, StoreError> {
        target.prepare()?;
        let source = match target {
            RedisTarget::Standalone(server) => {
                ConnectionSource::Server(server, ServerRole::Standalone)
            }
            RedisTarget::Sentinel(sentinels) => ConnectionSource::Sentinel(sentinels),
            RedisTarget::Cluster(seeds) => {
                return Cluster::open(seeds, scripts, deadline).map(Self::Cluster);
            }
        };
        let connection = RedisConnection::open(source, scripts, deadline);
        Ok(Self::One(Box::new(connection)))
    }

    /// Makes a call about a key within the deadline. A redirect may make it at several servers one
    /// after the other; one at most executes it.
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
        match self {
            Self::One(connection) => {
                let make = |link| {
                    act(CallLink {
                        link,
                        asking: false,
                    })
                };
                connection.call(make).await
            }
            Self::Cluster(cluster) => cluster.call(key, act).await,
        }
    }

    /// The shard that has that key.
    pub(super) fn shard_of(&self, key: impl FnOnce() -> String) -> Shard {
        match self {
            Self::One(_) => Shard::whole(),
            Self::Cluster(cluster) => cluster.shard_of(&key()),
        }
    }

    /// The shards that have keys now.
    pub(super) fn shards(&self) -> Vec<Shard> {
        match self {
            Self::One(_) => vec![Shard::whole()],
            Self::Cluster(cluster) => cluster.shards(),
        }
    }

    /// Makes a call to the server that has a shard now. In a cluster, `act` gets a hash tag for keys
    /// that this server owns.
    ///
    /// # Errors
    /// The call was not made, for the given reason; or it was made and failed.
    pub(super) async fn call_at<T, A>(
        &self,
        shard: &Shard,
        act: impl FnOnce(MultiplexedConnection, Option<u32>) -> A,
    ) -> Result<T, StoreError>
    where
        A: Future<Output = Result<T, RedisError>>,
    {
        match self {
            Self::One(connection) => connection.call(|link| act(link, None)).await,
            Self::Cluster(cluster) => {
                let (node, slot) = cluster.master(shard).await?;
                let make = |link| act(link, Some(slot::tag_of(slot)));
                cluster.call_node(&node, make).await
            }
        }
    }

    /// The number of the database; a cluster has only one.
    pub(super) fn database(&self) -> i64 {
        match self {
            Self::One(connection) => connection.database(),
            Self::Cluster(_) => 0,
        }
    }

    /// Resolves with the reason while no connection to the shard's server can be made.
    pub(super) async fn outage(&self, shard: &Shard) -> StoreError {
        match self {
            Self::One(connection) => connection.outage().await,
            Self::Cluster(cluster) => cluster.outage(shard).await,
        }
    }

    /// The server that calls about a shard are made to now, for display.
    pub(super) fn server(&self, shard: &Shard) -> Option<String> {
        match self {
            Self::One(connection) => connection.server(),
            Self::Cluster(cluster) => cluster.server(shard),
        }
    }
}
