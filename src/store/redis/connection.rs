//! The connection: made in the background, watched, and made again by itself.
//!
//! One keeper task owns it. It makes one attempt at a time, with backoff and jitter, so that neither a restart of Redis nor a thousand
//! waiting calls become a storm. Whoever calls gets the connection, or at once the reason why there is none; only the very first
//! attempt is waited for, within the caller's deadline. A Redis that accepts connections but does not answer is noticed too: after a
//! call that got no answer the keeper asks for a sign of life, and until one comes calls fail at once instead of costing a
//! deadline each.
//!
//! Sentinel and Cluster are to become further cases of [`Source`] and, where their connections have another type, of what is handed out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ConnectionAddr, ErrorKind, RedisError, ServerErrorKind};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::failure;
use super::policy;
use super::script::Scripts;
use crate::clock::Stopwatch;
use crate::store::StoreError;

/// How long one attempt to connect may take, everything included.
const ATTEMPT: Duration = Duration::from_secs(2);

/// The longest wait before the first attempt after a loss, and what later waits are doubled from.
const SHORTEST_WAIT: Duration = Duration::from_millis(50);

/// The longest wait between two attempts: what a restarted Redis costs beyond its own start.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// How often a connection that nobody doubts is asked for a sign of life.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// How long a sign of life may take at most before calls are no longer made, however long their own deadline is.
const LONGEST_PATIENCE: Duration = Duration::from_secs(1);

/// How long the keeper rests after a doubt, so that callers that all run into their deadlines don't have it ask without a pause.
const REST: Duration = Duration::from_millis(100);

/// How long a connection may be silent before it is given up for a new one.
const SILENCE: Duration = Duration::from_secs(3);

/// How often it is said that Redis still can't be reached.
const REMINDER: Duration = Duration::from_secs(30);

/// How many calls may wait to be written out; what waits behind them does so within its deadline.
const QUEUE: usize = 1024;

/// How old a connection must be to be replaced because its server has become a replica: a name may lead to the new master by now, but need not.
const REPLACEABLE_AFTER: Duration = Duration::from_secs(5);

/// Where connections come from.
#[derive(Debug)]
pub(super) enum Source {
    /// One server.
    Standalone(redis::Client),
}

/// How things stand between us and Redis.
#[derive(Debug, Clone)]
enum State {
    /// The first attempt is under way.
    Opening,
    /// Calls can be made.
    Up(MultiplexedConnection),
    /// They can't, for that reason.
    Down(StoreError),
}

/// What callers and the keeper share beside the state.
#[derive(Debug, Default)]
struct Doubts {
    /// Wakes the keeper: somebody got no answer, or a strange one.
    raised: Notify,
    /// Whether somebody was told that the server is a replica.
    replica: AtomicBool,
}

/// A connection that keeps itself. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Connection {
    /// How things stand.
    state: watch::Receiver<State>,
    /// What callers have to say about it.
    doubts: Arc<Doubts>,
    /// The task that keeps it.
    _keeper: AbortOnDropHandle<()>,
}

impl Connection {
    /// Begins to connect, and returns at once. Has to be called within a Tokio runtime.
    #[expect(
        clippy::disallowed_methods,
        reason = "the task is owned by what it serves, and is aborted with it"
    )]
    pub(super) fn open(source: Source, scripts: Arc<Scripts>, deadline: Duration) -> Self {
        let (sender, state) = watch::channel(State::Opening);
        let doubts = Arc::new(Doubts::default());
        let keeper = Keeper {
            address: source.address(),
            source,
            scripts,
            state: sender,
            doubts: Arc::clone(&doubts),
            patience: (deadline * 2).min(LONGEST_PATIENCE),
            eviction: policy::Watch::default(),
        };
        Self {
            state,
            doubts,
            _keeper: AbortOnDropHandle::new(tokio::spawn(keeper.run())),
        }
    }

    /// The connection. Waits only for the first attempt; the caller sets the deadline.
    ///
    /// # Errors
    /// There is none, and it is being worked on.
    pub(super) async fn link(&self) -> Result<MultiplexedConnection, StoreError> {
        let mut state = self.state.clone();
        let settled = state
            .wait_for(|state| !matches!(state, State::Opening))
            .await
            .map(|state| state.clone());
        match settled {
            Ok(State::Up(link)) => Ok(link),
            Ok(State::Down(error)) => Err(error),
            Ok(State::Opening) | Err(_) => Err(StoreError::Disconnected("it is closed".to_owned())),
        }
    }

    /// Tells how a call has failed, so that the keeper looks after the connection if it is to blame.
    pub(super) fn report(&self, failure: &StoreError) {
        match failure {
            StoreError::Timeout(_) | StoreError::Disconnected(_) => self.doubts.raised.notify_one(),
            StoreError::Rejected(_) if failure::tells_of_a_replica(failure) => {
                self.doubts.replica.store(true, Ordering::Relaxed);
                self.doubts.raised.notify_one();
            }
            StoreError::NotAsked(_)
            | StoreError::Full(_)
            | StoreError::Rejected(_)
            | StoreError::Protocol(_) => {}
        }
    }
}

/// The task that makes the connection and watches it.
#[derive(Debug)]
struct Keeper {
    /// Where connections come from.
    source: Source,
    /// Where that is, for people; without secrets.
    address: String,
    /// What a server has to know.
    scripts: Arc<Scripts>,
    /// Where it is told how things stand.
    state: watch::Sender<State>,
    /// What callers have to say.
    doubts: Arc<Doubts>,
    /// How long a sign of life may take before calls are no longer made.
    patience: Duration,
    /// What was said of the server's eviction policy.
    eviction: policy::Watch,
}

impl Keeper {
    /// Connects and watches, for ever.
    async fn run(mut self) {
        loop {
            let mut link = self.connect().await;
            let lost = self.watch(&mut link).await;
            tracing::warn!(address = %self.address, reason = %lost, "lost the connection to Redis");
            self.state.send_replace(State::Down(lost));
            sleep(SHORTEST_WAIT.mul_f64(rand::random())).await;
        }
    }

    /// Tries until there is a connection.
    async fn connect(&mut self) -> MultiplexedConnection {
        let mut wait = SHORTEST_WAIT;
        let mut said: Option<Stopwatch> = None;
        loop {
            let failure = match timeout(ATTEMPT, self.source.connect()).await {
                Ok(Ok(link)) => return self.greet(link).await,
                Ok(Err(error)) => failure::of_connecting(&error),
                Err(_) => StoreError::Disconnected(format!("no answer within {ATTEMPT:?}")),
            };
            if said.is_none_or(|said| said.elapsed() >= REMINDER) {
                tracing::warn!(address = %self.address, reason = %failure, "can't connect to Redis; trying on");
                said = Some(Stopwatch::start());
            }
            self.state.send_replace(State::Down(failure));
            sleep(wait.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    /// Prepares a new connection and hands it out. What fails here is no reason not to use it: its calls will tell.
    async fn greet(&mut self, mut link: MultiplexedConnection) -> MultiplexedConnection {
        let loaded = timeout(ATTEMPT, self.scripts.load(&mut link)).await;
        if let Ok(Err(error)) = loaded {
            tracing::debug!(address = %self.address, %error, "could not load the scripts beforehand");
        }
        tracing::info!(address = %self.address, "connected to Redis");
        self.state.send_replace(State::Up(link.clone()));
        self.eviction.look(&mut link, &self.address).await;
        link
    }

    /// Watches a connection until it is lost; why it is.
    async fn watch(&mut self, link: &mut MultiplexedConnection) -> StoreError {
        let age = Stopwatch::start();
        loop {
            let doubted = timeout(HEARTBEAT, self.doubts.raised.notified())
                .await
                .is_ok();
            if self.doubts.replica.swap(false, Ordering::Relaxed)
                && age.elapsed() >= REPLACEABLE_AFTER
            {
                return StoreError::Rejected("READONLY it has become a replica".to_owned());
            }
            if let Err(error) = self.ask_for_life(link).await {
                return error;
            }
            if doubted {
                sleep(REST).await;
            }
        }
    }

    /// Asks for a sign of life, and has calls fail at once while none comes.
    async fn ask_for_life(&self, link: &mut MultiplexedConnection) -> Result<(), StoreError> {
        let handed_out = link.clone();
        let ping = ping(link);
        tokio::pin!(ping);
        if let Ok(answer) = timeout(self.patience, &mut ping).await {
            return answer.map_err(|error| failure::of_connecting(&error));
        }
        let silent = StoreError::Disconnected("it does not answer".to_owned());
        tracing::warn!(address = %self.address, "Redis does not answer");
        self.state.send_replace(State::Down(silent.clone()));
        match timeout(SILENCE, &mut ping).await {
            Ok(Ok(())) => {
                tracing::info!(address = %self.address, "Redis answers again");
                self.state.send_replace(State::Up(handed_out));
                Ok(())
            }
            Ok(Err(error)) => Err(failure::of_connecting(&error)),
            Err(_) => Err(silent),
        }
    }
}

impl Source {
    /// That one server.
    ///
    /// # Errors
    /// Its address can't be used at all.
    pub(super) fn standalone(server: redis::ConnectionInfo) -> Result<Self, StoreError> {
        if matches!(server.addr(), ConnectionAddr::TcpTls { .. }) {
            // The client library leaves this choice to the process, and panics where none was made. That somebody has made it is as good.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let client = redis::Client::open(server);
        let client = client.map_err(|error| failure::of_connecting(&error))?;
        Ok(Self::Standalone(client))
    }

    /// Where this leads, without secrets.
    fn address(&self) -> String {
        match self {
            Self::Standalone(client) => client.get_connection_info().addr().to_string(),
        }
    }

    /// Makes a connection to a server that is ready to serve us.
    async fn connect(&self) -> Result<MultiplexedConnection, RedisError> {
        // Deadlines are the callers' and the keeper's own.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_pipeline_buffer_size(QUEUE);
        match self {
            Self::Standalone(client) => {
                let mut link = client
                    .get_multiplexed_async_connection_with_config(&config)
                    .await?;
                ping(&mut link).await?;
                Ok(link)
            }
        }
    }
}

/// Asks for a sign of life. That we may not ask is one too: what we need may be allowed all the same.
///
/// # Errors
/// None came, or the server is not ready: it is loading, or wants a password.
pub(super) async fn ping(link: &mut MultiplexedConnection) -> Result<(), RedisError> {
    match redis::cmd("PING").query_async(link).await {
        Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm) => Ok(()),
        answer => answer,
    }
}
