//! Says things to all other instances, by Redis's publish and subscribe: sharded in a cluster that
//! has it (Redis 7), so that only the node that owns the channel's slot has work with it. An older
//! cluster is asked at the same node, but passes each message on to all others.
//!
//! A subscription has a connection of its own, which lasts as long as it does.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use redis::aio::{AsyncPushSender, SendError};
use redis::{Cmd, ConnectionInfo, FromRedisValue, PushInfo, PushKind, RedisError};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::connection::link;
use super::error::{self, ServerRole};
use super::route::RedisRoute;
use super::{RedisStore, RedisTarget};
use crate::store::{Broadcast, StoreError, Subscription};
use crate::util::lock;

/// How long it may take to subscribe.
const ATTEMPT: Duration = Duration::from_secs(2);

/// How many messages wait for their reader. Any more end the subscription, because something would
/// be missing.
const UNREAD: usize = 256;

/// Where things are said.
#[derive(Debug)]
pub(super) struct Channel {
    /// Its name.
    pub(super) name: String,
    /// Whether the server is known to have no sharded publish and subscribe.
    pub(super) is_plain: AtomicBool,
}

/// Passes on what the server pushes.
struct Pushed(Mutex<Option<mpsc::Sender<Vec<u8>>>>);

impl AsyncPushSender for Pushed {
    fn send(&self, push: PushInfo) -> Result<(), SendError> {
        let mut reader = lock(&self.0);
        match push.kind {
            PushKind::Message | PushKind::SMessage => {
                let message = push
                    .data
                    .into_iter()
                    .nth(1)
                    .map(Vec::<u8>::from_redis_value);
                if let (Some(open), Some(Ok(message))) = (&*reader, message)
                    && open.try_send(message).is_err()
                {
                    *reader = None;
                }
            }
            // The channel's slot has moved to another node, or the connection is lost.
            PushKind::Unsubscribe | PushKind::SUnsubscribe | PushKind::Disconnection => {
                *reader = None;
            }
            _ => {}
        }
        Ok(())
    }
}

impl RedisStore {
    /// Whether to use sharded publish and subscribe.
    fn is_sharded(&self) -> bool {
        let is_cluster = matches!(self.route, RedisRoute::Cluster(_));
        is_cluster && !self.channel.is_plain.load(Ordering::Relaxed)
    }

    /// Sends one of two commands to the server of the channel: the sharded one if it may know it.
    async fn ask_channel<T: FromRedisValue>(
        &self,
        sharded: &Cmd,
        plain: &Cmd,
    ) -> Result<T, StoreError> {
        let name = &*self.channel.name;
        if self.is_sharded() {
            let answer = self.route.call(name, |mut link| async move {
                match link.query(sharded).await {
                    Err(error) if is_unknown(&error) => Ok(None),
                    answer => answer.map(Some),
                }
            });
            if let Some(answer) = answer.await? {
                return Ok(answer);
            }
            self.channel.is_plain.store(true, Ordering::Relaxed);
        }
        let ask = |mut link: super::CallLink| async move { link.query(plain).await };
        self.route.call(name, ask).await
    }

    /// The server that has the channel now.
    async fn server_of_channel(&self) -> Result<ConnectionInfo, StoreError> {
        match (&self.target, &self.route) {
            (RedisTarget::Standalone(server), _) => Ok(server.clone()),
            (RedisTarget::Sentinel(sentinels), _) => sentinels.find_master().await,
            (RedisTarget::Cluster(_), RedisRoute::Cluster(cluster)) => {
                cluster.server_of(&self.channel.name).await
            }
            (RedisTarget::Cluster(_), RedisRoute::One(_)) => {
                Err(StoreError::NotAsked("it is no cluster".to_owned()))
            }
        }
    }

    /// Subscribes at that server.
    async fn subscribe_at(&self, server: ConnectionInfo) -> Result<Subscription, RedisError> {
        let (reader, messages) = mpsc::channel(UNREAD);
        let pushed = Pushed(Mutex::new(Some(reader)));
        let mut link = link::with_pushes(server, pushed).await?;
        let name = &self.channel.name;
        if self.is_sharded() {
            let asked = redis::cmd("SSUBSCRIBE")
                .arg(name)
                .exec_async(&mut link)
                .await;
            match asked {
                Err(error) if is_unknown(&error) => {
                    self.channel.is_plain.store(true, Ordering::Relaxed);
                }
                asked => return asked.map(|()| Subscription::new(messages, link)),
            }
        }
        redis::cmd("SUBSCRIBE")
            .arg(name)
            .exec_async(&mut link)
            .await?;
        Ok(Subscription::new(messages, link))
    }
}

/// Whether a server answered that it doesn't know the command.
fn is_unknown(error: &RedisError) -> bool {
    let detail = error.detail().unwrap_or_default();
    detail.to_ascii_lowercase().starts_with("unknown ")
}

#[async_trait]
impl Broadcast for RedisStore {
    async fn count_subscribers(&self) -> Result<usize, StoreError> {
        let ask = |what| {
            let mut ask = redis::cmd("PUBSUB");
            ask.arg(what).arg(&self.channel.name);
            ask
        };
        let (sharded, plain) = (ask("SHARDNUMSUB"), ask("NUMSUB"));
        let counts: Vec<(String, usize)> = self.ask_channel(&sharded, &plain).await?;
        Ok(counts.first().map_or(0, |(_, count)| *count))
    }

    async fn publish(&self, message: &[u8]) -> Result<(), StoreError> {
        let say = |word| {
            let mut say = redis::cmd(word);
            say.arg(&self.channel.name).arg(message);
            say
        };
        let heard: Result<usize, _> = self.ask_channel(&say("SPUBLISH"), &say("PUBLISH")).await;
        heard.map(drop)
    }

    async fn subscribe(&self) -> Result<Subscription, StoreError> {
        let server = self.server_of_channel().await?;
        let subscribed = timeout(ATTEMPT, self.subscribe_at(server)).await;
        let role = match &self.target {
            RedisTarget::Standalone(_) => ServerRole::Standalone,
            RedisTarget::Sentinel(_) => ServerRole::Master,
            RedisTarget::Cluster(_) => ServerRole::Node,
        };
        match subscribed {
            Ok(subscribed) => subscribed.map_err(|error| error::of_connecting(&error, role)),
            Err(_) => Err(StoreError::Timeout(ATTEMPT)),
        }
    }
}
