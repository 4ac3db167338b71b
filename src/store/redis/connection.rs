//! The connection: made in the background, watched, and made again by itself.
//!
//! One keeper task owns it. It makes one attempt at a time, with backoff and jitter, so that neither a restart of Redis nor a thousand
//! waiting calls become a storm. A call is made on the connection that is there, or not at all, with the reason why.
//!
//! Servers close connections in good health, so the end of one is no outage. The keeper sees it when it comes, and makes the next at
//! once; calls wait for that within their deadlines, as they do for the very first. Once an attempt has failed, or connections are lost so
//! quickly that the keeper waits long before the next, calls fail at once, and [`Connection::outage`] tells the ledger, without any call.
//!
//! A Redis that keeps its connections and does not answer is noticed too: after a call that got no answer, and every second without
//! one, the keeper asks for a sign of life, and until one comes calls aren't made, instead of costing a deadline each. After some seconds
//! of silence it gives the connection up, which is an outage. Nor is a call made when too many wait for their answers already.
//!
//! Whoever is told that a call was [not made](StoreError::NotAsked) has nothing to undo. So that is said only where it is certain: before a
//! call is handed to the client library.
//!
//! Where it leads, a [`Source`] decides: to one server, or to the master that sentinels name, at each attempt anew.

use std::future;
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

use super::eviction;
use super::failure::{self, Peer};
use super::queue::{self, Queue};
use super::script::Scripts;
use super::sentinel::Told;
use super::source::{Found, Link, Server, Source, ping};
use crate::clock::Stopwatch;
use crate::store::StoreError;
use crate::util::Throttle;

/// How long one attempt to connect may take, everything included.
const ATTEMPT: Duration = Duration::from_secs(2);

/// The longest wait after the first attempt that failed, or before the second connection in a row that is lost at once; later waits are doubled.
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

/// How often it is said that Redis still can't be reached, or keeps no connection.
const REMINDER: Duration = Duration::from_secs(30);

/// How long a connection must have lasted for the next to be tried without a wait: one that is lost at once, again and again, is as much
/// trouble as none.
const LASTING: Duration = LONGEST_WAIT;

/// How things stand between us and Redis.
#[derive(Debug, Clone)]
enum State {
    /// A connection is being made, and no attempt has failed: calls wait for it.
    Opening,
    /// Calls can be made, until the line ends.
    Up(Line),
    /// The server keeps the connection and doesn't answer: calls end with that.
    Silent(StoreError),
    /// There is no connection, and none can be made: calls end with that.
    Down(StoreError),
}

impl State {
    /// What a call has to do with, unless it has to wait.
    fn settled(&self) -> Option<Result<Line, StoreError>> {
        match self {
            Self::Opening => None,
            // The keeper is about to make the next.
            Self::Up(line) if line.link.ended.is_cancelled() => None,
            Self::Up(line) => Some(Ok(line.clone())),
            Self::Silent(failure) | Self::Down(failure) => Some(Err(failure.clone())),
        }
    }
}

/// One connection, who waits for answers on it, and what they say of it.
#[derive(Debug, Clone)]
struct Line {
    /// The connection.
    link: Link,
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
            eviction: eviction::Watch::default(),
            told: Told::default(),
            wait: Duration::ZERO,
            flaps: false,
            trouble: Throttle::every(REMINDER),
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
            State::Opening | State::Silent(_) | State::Down(_) => None,
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

    /// Resolves with the reason once a connection attempt has failed; immediately while that lasts.
    pub(super) async fn outage(&self) -> StoreError {
        let mut state = self.state.clone();
        let is_down = |state: &State| matches!(state, State::Down(_));
        match state.wait_for(is_down).await.as_deref() {
            Ok(State::Down(failure)) => failure.clone(),
            _ => closed(),
        }
    }

    /// Makes a call, within the deadline, and has the keeper look after the connection if it is to blame for a failure. Where a connection is being
    /// made, the call waits for it for three quarters of the deadline: what is left has to be enough for an answer, since whether a call that got
    /// none took place is unknown.
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
        let line = timeout(self.deadline * 3 / 4, self.line())
            .await
            .map_err(unopened)??;
        let Some(place) = line.queue.join() else {
            let reason = format!("{} calls wait for an answer already", queue::MOST);
            return Err(StoreError::NotAsked(reason));
        };
        let left = self.deadline.saturating_sub(waited.elapsed());
        let outcome = match timeout(left, act(line.link.calls)).await {
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

    /// The connection. Waits for one that is being made, unless an attempt has failed.
    async fn line(&self) -> Result<Line, StoreError> {
        if let Some(settled) = self.state.borrow().settled() {
            return settled;
        }
        let mut state = self.state.clone();
        loop {
            if state.changed().await.is_err() {
                return Err(closed());
            }
            if let Some(settled) = state.borrow_and_update().settled() {
                return settled;
            }
        }
    }
}

/// What ends a wait for the connection when nobody makes one any more.
fn closed() -> StoreError {
    StoreError::NotAsked("it is closed".to_owned())
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
    /// How long a sign of life may take before calls are no longer made: two of their deadlines, and at most [`LONGEST_PATIENCE`].
    patience: Duration,
    /// What was said of the server's eviction policy.
    eviction: eviction::Watch,
    /// What was said of sentinels.
    told: Told,
    /// How long the next wait before an attempt is at most.
    wait: Duration,
    /// Whether the last connection was lost at once.
    flaps: bool,
    /// Bounds how often trouble is logged, until a connection has lasted.
    trouble: Throttle,
}

impl Keeper {
    /// Connects and watches, for ever: even if one round ends in a panic, which would otherwise leave the store without a connection until the
    /// process is restarted.
    async fn run(mut self) {
        loop {
            let round = AssertUnwindSafe(self.round()).catch_unwind().await;
            let lost = round.unwrap_or_else(|_| {
                let bug = "a bug in what looks after the connection".to_owned();
                let bug = StoreError::Disconnected(bug);
                self.tell_lost(&bug);
                bug
            });
            self.address = self.source.place();
            self.reopen(lost);
            self.pause().await;
        }
    }

    /// Connects, and watches the connection until it is lost; why it is.
    async fn round(&mut self) -> StoreError {
        let line = self.connect().await;
        if !self.flaps {
            self.tell_connected(&line);
        }
        self.state.send_replace(State::Up(line.clone()));
        let age = Stopwatch::start();
        let mut told = std::mem::take(&mut self.told);
        let lost = tokio::select! {
            biased;
            () = line.link.ended.cancelled() => failure::of_an_end(),
            lost = self.watch(&line, &age) => lost,
            other = self.source.other_than(&line.server, &mut told) => other,
            never = self.tell_if_it_lasts(&line) => never,
        };
        self.told = told;
        let has_lasted = age.elapsed() >= LASTING;
        if has_lasted {
            (self.wait, self.trouble) = (Duration::ZERO, Throttle::every(REMINDER));
        }
        // One that was told of is told to be lost.
        if has_lasted || !self.flaps || self.trouble.is_due() {
            self.tell_lost(&lost);
        }
        self.flaps = !has_lasted;
        lost
    }

    /// Logs that there is a connection.
    fn tell_connected(&self, line: &Line) {
        let sentinels = self.source.sentinels();
        tracing::info!(address = %line.server.place, sentinels, "connected to Redis");
    }

    /// Logs that the connection is lost, and why.
    fn tell_lost(&self, lost: &StoreError) {
        tracing::warn!(address = %self.address, reason = %lost, "lost the connection to Redis");
    }

    /// Logs that there is a connection once it has lasted, where the one before did not. Never resolves.
    async fn tell_if_it_lasts(&self, line: &Line) -> StoreError {
        if self.flaps {
            sleep(LASTING).await;
            self.tell_connected(line);
        }
        future::pending().await
    }

    /// Has no more calls made, for that reason.
    fn stop(&self, reason: StoreError) {
        let answer = failure::of_no_call(reason);
        self.state.send_replace(State::Down(answer));
    }

    /// The connection is lost, for that reason. Calls wait for the next unless there was trouble before, or the wait before the next attempt may
    /// take more than half of their deadlines.
    fn reopen(&self, lost: StoreError) {
        let is_soon = self.wait * 4 <= self.patience;
        self.state.send_modify(|state| {
            *state = match state {
                State::Up(_) if is_soon => State::Opening,
                _ => State::Down(failure::of_no_call(lost)),
            }
        });
    }

    /// Waits before the next attempt, each time longer; not at all before the first.
    async fn pause(&mut self) {
        if !self.wait.is_zero() {
            sleep(self.wait.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
        }
        self.wait = (self.wait * 2).clamp(SHORTEST_WAIT, LONGEST_WAIT);
    }

    /// Tries until there is a connection.
    async fn connect(&mut self) -> Line {
        loop {
            let failure = match timeout(ATTEMPT, self.attempt()).await {
                Ok(Ok(line)) => {
                    self.address.clone_from(&line.server.place);
                    return line;
                }
                Ok(Err(failure)) => failure,
                Err(_) => self.source.silence(ATTEMPT),
            };
            if self.trouble.is_due() {
                let sentinels = self.source.sentinels();
                tracing::warn!(address = %self.address, sentinels, reason = %failure, "can't connect to Redis; trying on");
            }
            self.stop(failure);
            self.wait = self.wait.max(SHORTEST_WAIT);
            self.pause().await;
        }
    }

    /// Tries once, and prepares what it gets. What the server does not let us prepare is no reason not to use it: the calls will tell.
    async fn attempt(&mut self) -> Result<Line, StoreError> {
        let Found { mut link, server } = self.source.connect().await?;
        let lost = |error: RedisError| failure::of_connecting(&error, self.source.peer());
        match self.scripts.load(&mut link.calls).await {
            Err(error) if error.is_unrecoverable_error() => return Err(lost(error)),
            Err(error) => {
                tracing::debug!(address = %server.place, %error, "could not load the scripts beforehand");
            }
            Ok(()) => {}
        }
        let looked = self.eviction.look(&mut link.calls, &server.place).await;
        looked.map_err(lost)?;
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
        let mut calls = line.link.calls.clone();
        let alive = async {
            let before = line.queue.end();
            let answer = ping(&mut calls).await;
            line.queue.answered(before);
            answer.map_err(|error| failure::of_connecting(&error, self.source.peer()))
        };
        tokio::pin!(alive);
        if let Ok(answer) = timeout(self.patience, &mut alive).await {
            return answer;
        }
        let silent = StoreError::Disconnected("it does not answer".to_owned());
        tracing::warn!(address = %self.address, "Redis does not answer");
        let unmade = failure::of_no_call(silent.clone());
        self.state.send_replace(State::Silent(unmade));
        let answer = timeout(SILENCE, &mut alive).await;
        answer.unwrap_or(Err(silent))?;
        tracing::info!(address = %self.address, "Redis answers again");
        self.state.send_replace(State::Up(line.clone()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use redis::ConnectionAddr;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::session::Terms;
    use crate::store::redis::source::tests::connection;

    const DEADLINE: Duration = Duration::from_millis(200);

    /// A connection that leads to nobody who says more than `OK`.
    async fn line() -> Line {
        Line {
            link: Link {
                calls: connection(Some(b"+OK\r\n")).await,
                ended: CancellationToken::new(),
            },
            server: Arc::new(Server::new(ConnectionAddr::Tcp("a".to_owned(), 1), 0)),
            queue: Arc::default(),
            doubts: Arc::default(),
        }
    }

    /// A keeper that has done nothing yet.
    fn keeper() -> Keeper {
        let source = Source::Standalone("redis://a".parse().unwrap());
        let terms = Terms::new(Duration::from_secs(30), DEADLINE);
        Keeper {
            address: source.place(),
            source,
            scripts: Arc::new(Scripts::new(&terms)),
            state: watch::channel(State::Opening).0,
            patience: DEADLINE * 2,
            eviction: eviction::Watch::default(),
            told: Told::default(),
            wait: Duration::ZERO,
            flaps: false,
            trouble: Throttle::every(REMINDER),
        }
    }

    #[tokio::test]
    async fn calls_wait_for_the_next_connection_only_if_that_is_made_soon() {
        let lost = || StoreError::Disconnected("closed".to_owned());
        for (wait, is_down) in [
            (Duration::ZERO, false),
            (DEADLINE / 2, false),
            (DEADLINE, true),
        ] {
            let mut keeper = keeper();
            keeper.wait = wait;
            keeper.state.send_replace(State::Up(line().await));
            keeper.reopen(lost());
            let state = keeper.state.borrow().clone();
            assert_eq!(matches!(state, State::Down(_)), is_down, "{state:?}");
            // What is lost before it was up is trouble.
            keeper.state.send_replace(State::Opening);
            keeper.reopen(lost());
            assert!(matches!(*keeper.state.borrow(), State::Down(_)));
        }
    }

    #[tokio::test(start_paused = true)]
    #[expect(
        clippy::disallowed_methods,
        reason = "the task is aborted with the connection"
    )]
    async fn a_call_is_not_made_that_has_no_time_left_for_an_answer() {
        let line = line().await;
        for (opens_after, is_made) in [(DEADLINE / 2, true), (DEADLINE * 4 / 5, false)] {
            let (sender, state) = watch::channel(State::Opening);
            let connection = Connection {
                state,
                deadline: DEADLINE,
                peer: Peer::Standalone,
                database: 0,
                _keeper: AbortOnDropHandle::new(tokio::task::spawn(future::pending())),
            };
            let made = Cell::new(false);
            let call = connection.call(async |_| {
                made.set(true);
                Ok(())
            });
            let opening = async {
                sleep(opens_after).await;
                sender.send_replace(State::Up(line.clone()));
            };
            let (answer, ()) = tokio::join!(call, opening);
            assert_eq!((answer.is_ok(), made.get()), (is_made, is_made));
            if let Err(failure) = answer {
                assert!(matches!(failure, StoreError::NotAsked(_)), "{failure}");
            }
        }
    }
}
