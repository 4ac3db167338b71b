//! The connection: made in the background, watched, and made again by itself.
//!
//! One keeper task owns it. It makes one attempt at a time, with backoff and jitter, so that neither a restart of Redis nor a thousand
//! waiting calls become a storm. A call is made on the connection that is there, or not at all, with the reason why; only the very first
//! attempt is waited for, within the call's deadline. A Redis that accepts connections but does not answer is noticed too: after a
//! call that got no answer the keeper asks for a sign of life, and until one comes calls aren't made, instead of costing a
//! deadline each. Nor is a call made when too many wait for their answers already.
//!
//! Whoever is told that a call was [not made](StoreError::NotAsked) has nothing to undo. So that is said only where it is certain: before a
//! call is handed to the client library.
//!
//! Sentinel and Cluster are to become further cases of [`Source`] and, where their connections have another type, of what is handed out.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ConnectionAddr, RedisError};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::failure;
use super::policy;
use super::queue::{self, Queue};
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

/// How many calls the client library may hold that it has not written out yet. More than there can be, since a call may ask twice and the keeper
/// asks too: handing one over must not be what a call waits for.
const UNWRITTEN: usize = 2 * queue::MOST;

/// How long a connection must have lasted for the next to be tried without the waits that led to it: one that is lost at once, again and again, is as
/// much trouble as none.
const LASTING: Duration = Duration::from_secs(5);

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
    Up(Line),
    /// They can't, and end with that.
    Down(StoreError),
}

impl State {
    /// What a call has to do with, unless it has to wait.
    fn settled(&self) -> Option<Result<Line, StoreError>> {
        match self {
            Self::Opening => None,
            Self::Up(line) => Some(Ok(line.clone())),
            Self::Down(failure) => Some(Err(failure.clone())),
        }
    }
}

/// One connection, and who waits for answers on it.
#[derive(Debug, Clone)]
struct Line {
    /// The connection.
    link: MultiplexedConnection,
    /// The calls that it has been handed.
    queue: Arc<Queue>,
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
    /// How long a call may take.
    deadline: Duration,
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
            wait: SHORTEST_WAIT,
        };
        Self {
            state,
            doubts,
            deadline,
            _keeper: AbortOnDropHandle::new(tokio::spawn(keeper.run())),
        }
    }

    /// How long a call may take.
    pub(super) const fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Makes a call, within the deadline, and has the keeper look after the connection if it is to blame for a failure.
    ///
    /// # Errors
    /// It was not made, for that reason; or it was, and has failed.
    pub(super) async fn call<T, A>(
        &self,
        act: impl FnOnce(MultiplexedConnection) -> A,
    ) -> Result<T, StoreError>
    where
        A: Future<Output = Result<T, RedisError>>,
    {
        let outcome = self.try_call(act).await;
        if let Err(failure) = &outcome {
            self.report(failure);
        }
        outcome
    }

    /// Makes a call, within the deadline.
    async fn try_call<T, A>(
        &self,
        act: impl FnOnce(MultiplexedConnection) -> A,
    ) -> Result<T, StoreError>
    where
        A: Future<Output = Result<T, RedisError>>,
    {
        let waited = Stopwatch::start();
        let unopened = |_| StoreError::NotAsked("it is still being connected to".to_owned());
        let line = timeout(self.deadline, self.line())
            .await
            .map_err(unopened)??;
        let Some(place) = line.queue.join() else {
            let reason = format!("{} calls wait for an answer already", queue::MOST);
            return Err(StoreError::NotAsked(reason));
        };
        let left = self.deadline.saturating_sub(waited.elapsed());
        match timeout(left, act(line.link)).await {
            Ok(answer) => {
                line.queue.answered(place);
                answer.map_err(|error| failure::of_call(&error))
            }
            // The answer may still come, and until then the place is taken.
            Err(_) => Err(StoreError::Timeout(self.deadline)),
        }
    }

    /// The connection. Waits only for the first attempt.
    async fn line(&self) -> Result<Line, StoreError> {
        if let Some(settled) = self.state.borrow().settled() {
            return settled;
        }
        let mut state = self.state.clone();
        let settled = state
            .wait_for(|state| !matches!(state, State::Opening))
            .await;
        let settled = settled.ok().and_then(|state| state.settled());
        settled.unwrap_or_else(|| Err(StoreError::NotAsked("it is closed".to_owned())))
    }

    /// Tells how a call has failed, so that the keeper looks after the connection if it is to blame.
    fn report(&self, failure: &StoreError) {
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
    /// How long the next wait before an attempt is at most.
    wait: Duration,
}

impl Keeper {
    /// Connects and watches, for ever: even if one round ends in a panic, which would otherwise leave the store without a connection until the
    /// process is restarted.
    async fn run(mut self) {
        loop {
            let round = AssertUnwindSafe(self.round()).catch_unwind().await;
            let lost = round.unwrap_or_else(|_| {
                let bug = "a bug in what looks after the connection".to_owned();
                StoreError::Disconnected(bug)
            });
            tracing::warn!(address = %self.address, reason = %lost, "lost the connection to Redis");
            self.stop(lost);
            self.pause().await;
        }
    }

    /// Connects, and watches the connection until it is lost; why it is.
    async fn round(&mut self) -> StoreError {
        let line = self.connect().await;
        self.state.send_replace(State::Up(line.clone()));
        let age = Stopwatch::start();
        let lost = self.watch(&line, &age).await;
        if age.elapsed() >= LASTING {
            self.wait = SHORTEST_WAIT;
        }
        lost
    }

    /// Has no more calls made, for that reason.
    fn stop(&self, reason: StoreError) {
        let answer = failure::of_no_call(reason);
        self.state.send_replace(State::Down(answer));
    }

    /// Waits before the next attempt, each time longer.
    async fn pause(&mut self) {
        sleep(self.wait.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
        self.wait = (self.wait * 2).min(LONGEST_WAIT);
    }

    /// Tries until there is a connection.
    async fn connect(&mut self) -> Line {
        let mut said: Option<Stopwatch> = None;
        loop {
            let failure = match timeout(ATTEMPT, self.attempt()).await {
                Ok(Ok(link)) => {
                    tracing::info!(address = %self.address, "connected to Redis");
                    let queue = Arc::default();
                    return Line { link, queue };
                }
                Ok(Err(error)) => failure::of_connecting(&error),
                Err(_) => StoreError::Disconnected(format!("no answer within {ATTEMPT:?}")),
            };
            if said.is_none_or(|said| said.elapsed() >= REMINDER) {
                tracing::warn!(address = %self.address, reason = %failure, "can't connect to Redis; trying on");
                said = Some(Stopwatch::start());
            }
            self.stop(failure);
            self.pause().await;
        }
    }

    /// Tries once, and prepares what it gets. What the server does not let us prepare is no reason not to use it: the calls will tell.
    async fn attempt(&mut self) -> Result<MultiplexedConnection, RedisError> {
        let mut link = self.source.connect().await?;
        match self.scripts.load(&mut link).await {
            Err(error) if error.is_unrecoverable_error() => return Err(error),
            Err(error) => {
                tracing::debug!(address = %self.address, %error, "could not load the scripts beforehand");
            }
            Ok(()) => {}
        }
        self.eviction.look(&mut link, &self.address).await;
        Ok(link)
    }

    /// Watches a connection until it is lost; why it is.
    async fn watch(&self, line: &Line, age: &Stopwatch) -> StoreError {
        loop {
            let doubted = timeout(HEARTBEAT, self.doubts.raised.notified())
                .await
                .is_ok();
            if self.doubts.replica.swap(false, Ordering::Relaxed)
                && age.elapsed() >= REPLACEABLE_AFTER
            {
                return failure::of_a_replica();
            }
            if let Err(error) = self.ask_for_life(line).await {
                return error;
            }
            if doubted {
                sleep(REST).await;
            }
        }
    }

    /// Asks for a sign of life, and has no calls made while none comes.
    async fn ask_for_life(&self, line: &Line) -> Result<(), StoreError> {
        let mut link = line.link.clone();
        let alive = async {
            let before = line.queue.end();
            let answer = ping(&mut link).await;
            line.queue.answered(before);
            answer.map_err(|error| failure::of_connecting(&error))
        };
        tokio::pin!(alive);
        if let Ok(answer) = timeout(self.patience, &mut alive).await {
            return answer;
        }
        let silent = StoreError::Disconnected("it does not answer".to_owned());
        tracing::warn!(address = %self.address, "Redis does not answer");
        self.stop(silent.clone());
        let answer = timeout(SILENCE, &mut alive).await;
        answer.unwrap_or(Err(silent))?;
        tracing::info!(address = %self.address, "Redis answers again");
        self.state.send_replace(State::Up(line.clone()));
        Ok(())
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
            .set_pipeline_buffer_size(UNWRITTEN);
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

/// Asks for a sign of life. That we may not ask is one too: what we need may be allowed all the same. So is that the server takes no writes: to
/// connect anew would not change that, and what it is asked meanwhile tells so itself.
///
/// # Errors
/// None came, or the server is not ready: it is loading, or wants a password.
async fn ping(link: &mut MultiplexedConnection) -> Result<(), RedisError> {
    match redis::cmd("PING").query_async(link).await {
        Err(error) if matches!(error.code(), Some("NOPERM" | "MISCONF")) => Ok(()),
        answer => answer,
    }
}
