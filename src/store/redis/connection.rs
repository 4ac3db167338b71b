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
//! Where it leads, a [`Source`] decides: to one server, or to the master that sentinels name, at each attempt anew.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use redis::RedisError;
use redis::aio::MultiplexedConnection;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::failure::{self, Peer};
use super::policy;
use super::queue::{self, Queue};
use super::script::Scripts;
use super::sentinel::Told;
use super::source::{Found, Server, Source, ping};
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

/// How long a connection must have lasted for the next to be tried without the waits that led to it: one that is lost at once, again and again, is as
/// much trouble as none.
const LASTING: Duration = Duration::from_secs(5);

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

/// One connection, who waits for answers on it, and what they say of it.
#[derive(Debug, Clone)]
struct Line {
    /// The connection.
    link: MultiplexedConnection,
    /// Where it leads.
    server: Arc<Server>,
    /// The calls that it has been handed.
    queue: Arc<Queue>,
    /// What callers have to say about it.
    doubts: Arc<Doubts>,
}

/// What callers have to say about one connection.
#[derive(Debug, Default)]
struct Doubts {
    /// Wakes the keeper: somebody got no answer, or a strange one.
    raised: Notify,
    /// Whether somebody was told that the server is a replica.
    replica: AtomicBool,
}

impl Doubts {
    /// Takes note of how a call has failed, so that the keeper looks after the connection if it is to blame.
    fn note(&self, failure: &StoreError) {
        match failure {
            StoreError::Timeout(_) | StoreError::Disconnected(_) => self.raised.notify_one(),
            StoreError::Rejected(_) if failure::tells_of_a_replica(failure) => {
                self.replica.store(true, Ordering::Relaxed);
                self.raised.notify_one();
            }
            StoreError::NotAsked(_)
            | StoreError::Full(_)
            | StoreError::Rejected(_)
            | StoreError::Protocol(_) => {}
        }
    }
}

/// A connection that keeps itself. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Connection {
    /// How things stand.
    state: watch::Receiver<State>,
    /// How long a call may take.
    deadline: Duration,
    /// Whom calls are made to.
    peer: Peer,
    /// The number of the database.
    database: i64,
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
        let (peer, database) = (source.peer(), source.database());
        let keeper = Keeper {
            address: source.place(),
            source,
            scripts,
            state: sender,
            patience: (deadline * 2).min(LONGEST_PATIENCE),
            eviction: policy::Watch::default(),
            told: Told::default(),
            wait: SHORTEST_WAIT,
        };
        Self {
            state,
            deadline,
            peer,
            database,
            _keeper: AbortOnDropHandle::new(tokio::spawn(keeper.run())),
        }
    }

    /// The server that calls are made to now, for people; none while there is no connection.
    pub(super) fn server(&self) -> Option<String> {
        match &*self.state.borrow() {
            State::Up(line) => Some(line.server.place.clone()),
            State::Opening | State::Down(_) => None,
        }
    }

    /// The number of the database that calls are about.
    pub(super) const fn database(&self) -> i64 {
        self.database
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
        let outcome = match timeout(left, act(line.link)).await {
            Ok(answer) => {
                line.queue.answered(place);
                answer.map_err(|error| failure::of_call(&error, self.peer))
            }
            // The answer may still come, and until then the place is taken.
            Err(_) => Err(StoreError::Timeout(self.deadline)),
        };
        if let Err(failure) = &outcome {
            line.doubts.note(failure);
        }
        outcome
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
}

/// The task that makes the connection and watches it.
#[derive(Debug)]
struct Keeper {
    /// Where connections come from.
    source: Source,
    /// Where the connection leads, or is to lead, for people; without secrets.
    address: String,
    /// What a server has to know.
    scripts: Arc<Scripts>,
    /// Where it is told how things stand.
    state: watch::Sender<State>,
    /// How long a sign of life may take before calls are no longer made.
    patience: Duration,
    /// What was said of the server's eviction policy.
    eviction: policy::Watch,
    /// What was said of sentinels.
    told: Told,
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
            self.address = self.source.place();
            self.stop(lost);
            self.pause().await;
        }
    }

    /// Connects, and watches the connection until it is lost; why it is.
    async fn round(&mut self) -> StoreError {
        let line = self.connect().await;
        self.state.send_replace(State::Up(line.clone()));
        let age = Stopwatch::start();
        let mut told = std::mem::take(&mut self.told);
        let lost = tokio::select! {
            lost = self.watch(&line, &age) => lost,
            other = self.source.other_than(&line.server, &mut told) => other,
        };
        self.told = told;
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
                Ok(Ok(line)) => {
                    let sentinels = self.source.sentinels();
                    tracing::info!(address = %line.server.place, sentinels, "connected to Redis");
                    self.address.clone_from(&line.server.place);
                    return line;
                }
                Ok(Err(failure)) => failure,
                Err(_) => self.source.silence(ATTEMPT),
            };
            if said.is_none_or(|said| said.elapsed() >= REMINDER) {
                let sentinels = self.source.sentinels();
                tracing::warn!(address = %self.address, sentinels, reason = %failure, "can't connect to Redis; trying on");
                said = Some(Stopwatch::start());
            }
            self.stop(failure);
            self.pause().await;
        }
    }

    /// Tries once, and prepares what it gets. What the server does not let us prepare is no reason not to use it: the calls will tell.
    async fn attempt(&mut self) -> Result<Line, StoreError> {
        let Found { mut link, server } = self.source.connect().await?;
        match self.scripts.load(&mut link).await {
            Err(error) if error.is_unrecoverable_error() => {
                return Err(failure::of_connecting(&error, self.source.peer()));
            }
            Err(error) => {
                tracing::debug!(address = %server.place, %error, "could not load the scripts beforehand");
            }
            Ok(()) => {}
        }
        self.eviction.look(&mut link, &server.place).await;
        Ok(Line {
            link,
            server: Arc::new(server),
            queue: Arc::default(),
            doubts: Arc::default(),
        })
    }

    /// Watches a connection until it is lost; why it is.
    async fn watch(&self, line: &Line, age: &Stopwatch) -> StoreError {
        loop {
            let doubted = timeout(HEARTBEAT, line.doubts.raised.notified())
                .await
                .is_ok();
            if line.doubts.replica.swap(false, Ordering::Relaxed)
                && age.elapsed() >= self.source.replaceable_after()
            {
                return failure::of_a_replica(self.source.peer());
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
            answer.map_err(|error| failure::of_connecting(&error, self.source.peer()))
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
