//! The connection: made in the background, watched, and remade automatically.
//!
//! One [`Keeper`] task owns it. A call uses the current connection, or fails immediately with the
//! reason why there is none. The first call, and calls that meet the end of a healthy connection,
//! wait for the next one within their deadlines. After a failed attempt, or if connections end so
//! quickly that the keeper waits long before the next, calls fail immediately.
//! [`RedisConnection::outage`] then tells the ledger without a call.
//!
//! A caller that gets [not made](StoreError::NotAsked) has nothing to undo. We report it only if it
//! is certain: before the call is handed to the client library.
//!
//! - `keeper` makes the connection, watches it and makes it again.
//! - `in_flight` counts the calls without an answer.
//! - `target` knows where the connection leads: to one server, or to the master that sentinels name
//!   (`sentinel`).
//! - `master_election` decides which of the named masters to use.
//! - `probe` checks whether the operations would succeed now.
//! - `server_info` asks the server about itself; `eviction` warns about one that evicts keys.

mod eviction;
mod in_flight;
mod keeper;
pub(super) mod link;
mod master_election;
pub(super) mod probe;
mod sentinel;
pub(super) mod server_info;
pub(super) mod target;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::RedisError;
use redis::aio::MultiplexedConnection;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use self::in_flight::InFlight;
use self::keeper::Keeper;
use self::link::Link;
pub use self::sentinel::Sentinels;
pub(super) use self::target::ConnectionSource;
use self::target::RedisServer;
use super::codec::script::Scripts;
use super::error::{self, ServerRole};
use crate::clock::Stopwatch;
use crate::store::StoreError;

/// The state of the connection to Redis.
#[derive(Debug, Clone)]
enum ConnectionState {
    /// A connection is being made and no attempt has failed: calls wait for it.
    Opening,
    /// Calls can be made until the connection ends.
    Up(OpenConnection),
    /// The server keeps the connection open but doesn't answer: calls fail with this error.
    Silent(StoreError),
    /// There is no connection and none can be made: calls fail with this error.
    Down(StoreError),
}

impl ConnectionState {
    /// The connection or error for a call, or `None` if the call must wait.
    fn settled(&self) -> Option<Result<OpenConnection, StoreError>> {
        match self {
            Self::Opening => None,
            // The keeper is about to make the next.
            Self::Up(line) if line.link.ended.is_cancelled() => None,
            Self::Up(line) => Some(Ok(line.clone())),
            Self::Silent(failure) | Self::Down(failure) => Some(Err(failure.clone())),
        }
    }
}

/// One connection, the calls that wait on it, and their complaints.
#[derive(Debug, Clone)]
struct OpenConnection {
    /// The connection.
    link: Link,
    /// The server it leads to.
    server: Arc<RedisServer>,
    /// The calls handed to it.
    queue: Arc<InFlight>,
    /// Callers' complaints about it.
    doubts: Arc<Doubts>,
}

/// Callers' complaints about one connection.
#[derive(Debug, Default)]
struct Doubts {
    /// Wakes the keeper: a caller got no answer, or an unexpected one.
    raised: Notify,
    /// Whether an answer said that the server is a replica.
    replica: AtomicBool,
}

impl Doubts {
    /// Records a failed call, so that the keeper checks the connection if it is to blame.
    fn note(&self, failure: &StoreError) {
        match failure {
            StoreError::Timeout(_) | StoreError::Disconnected(_) => self.raised.notify_one(),
            StoreError::Rejected(_) if error::tells_of_a_replica(failure) => {
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

/// A connection that maintains itself. Dropping it closes it.
#[derive(Debug)]
pub(in crate::store::redis) struct RedisConnection {
    /// The current state.
    state: watch::Receiver<ConnectionState>,
    /// The time limit of a call.
    deadline: Duration,
    /// The role of the server that calls are made to.
    peer: ServerRole,
    /// The number of the database.
    database: i64,
    /// The keeper's task.
    _keeper: AbortOnDropHandle<()>,
}

impl RedisConnection {
    /// Starts connecting and returns immediately. Must be called within a Tokio runtime.
    #[expect(
        clippy::disallowed_methods,
        reason = "the task is owned by what it serves, and is aborted with it"
    )]
    pub(in crate::store::redis) fn open(
        source: ConnectionSource,
        scripts: Arc<Scripts>,
        deadline: Duration,
    ) -> Self {
        let (sender, state) = watch::channel(ConnectionState::Opening);
        let (peer, database) = (source.peer(), source.database());
        let keeper = Keeper::new(source, scripts, deadline, sender);
        Self {
            state,
            deadline,
            peer,
            database,
            _keeper: AbortOnDropHandle::new(tokio::spawn(keeper.run())),
        }
    }

    /// The server that calls are made to now, for display; none while there is no connection.
    pub(in crate::store::redis) fn server(&self) -> Option<String> {
        match &*self.state.borrow() {
            ConnectionState::Up(line) => Some(line.server.place.clone()),
            ConnectionState::Opening | ConnectionState::Silent(_) | ConnectionState::Down(_) => {
                None
            }
        }
    }

    /// The number of the database that calls use.
    pub(in crate::store::redis) const fn database(&self) -> i64 {
        self.database
    }

    /// The time limit of a call.
    pub(in crate::store::redis) const fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Resolves with the reason once a connection attempt has failed; immediately while that lasts.
    pub(in crate::store::redis) async fn outage(&self) -> StoreError {
        let mut state = self.state.clone();
        let is_down = |state: &ConnectionState| matches!(state, ConnectionState::Down(_));
        match state.wait_for(is_down).await.as_deref() {
            Ok(ConnectionState::Down(failure)) => failure.clone(),
            _ => closed(),
        }
    }

    /// Resolves once no calls can be made, or none could be made from the beginning.
    pub(in crate::store::redis) async fn lost(&self) {
        let mut state = self.state.clone();
        let is_up = |state: &ConnectionState| matches!(state, ConnectionState::Up(_));
        // An error means that the keeper no longer runs, and then no calls can be made either.
        let _ = state.wait_for(|state| !is_up(state)).await;
    }

    /// The connection itself, while calls can be made.
    pub(in crate::store::redis) fn link(&self) -> Option<MultiplexedConnection> {
        let settled = self.state.borrow().settled();
        settled?.ok().map(|line| line.link.calls)
    }

    /// Makes a call within the deadline.
    ///
    /// # Errors
    /// The call was not made, for the given reason; or it was made and failed.
    pub(in crate::store::redis) async fn call<T, A>(
        &self,
        act: impl FnOnce(MultiplexedConnection) -> A,
    ) -> Result<T, StoreError>
    where
        A: Future<Output = Result<T, RedisError>>,
    {
        let answer = self.attempt(&Stopwatch::start(), act).await?;
        answer.map_err(|error| error::of_call(&error, self.peer))
    }

    /// Makes a call within what `waited` has left of the deadline, and has the keeper check the
    /// connection if it is to blame for a failure. If a connection is being made, the call waits
    /// for it until three quarters of the deadline are over. The rest must be enough for an answer,
    /// because nobody knows whether an unanswered call took place.
    ///
    /// # Errors
    /// The call was not made, for the given reason; or no answer came in time. An error of the
    /// inner result is the server's answer, or that the connection broke.
    pub(in crate::store::redis) async fn attempt<T, A>(
        &self,
        waited: &Stopwatch,
        act: impl FnOnce(MultiplexedConnection) -> A,
    ) -> Result<Result<T, RedisError>, StoreError>
    where
        A: Future<Output = Result<T, RedisError>>,
    {
        let unopened = |_| StoreError::NotAsked("still connecting".to_owned());
        let patience = (self.deadline * 3 / 4).saturating_sub(waited.elapsed());
        let line = timeout(patience, self.line()).await.map_err(unopened)??;
        let left = self.deadline.saturating_sub(waited.elapsed());
        if left.is_zero() {
            return Err(StoreError::NotAsked("no time was left".to_owned()));
        }
        let Some(place) = line.queue.join() else {
            let reason = format!("{} calls are already waiting for answers", in_flight::MOST);
            return Err(StoreError::NotAsked(reason));
        };
        // An answer may still come after that; until then the call keeps its place.
        let Ok(answer) = timeout(left, act(line.link.calls)).await else {
            let late = StoreError::Timeout(self.deadline);
            line.doubts.note(&late);
            return Err(late);
        };
        line.queue.answered(place);
        if let Err(error) = &answer {
            line.doubts.note(&error::of_call(error, self.peer));
        }
        Ok(answer)
    }

    /// The connection. Waits for one that is being made, unless an attempt has failed.
    async fn line(&self) -> Result<OpenConnection, StoreError> {
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

/// The error when the keeper no longer runs.
fn closed() -> StoreError {
    StoreError::NotAsked("it is closed".to_owned())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future;

    use redis::ConnectionAddr;
    use tokio::time::sleep;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::store::redis::connection::link::tests::connection;

    pub(super) const DEADLINE: Duration = Duration::from_millis(200);

    /// A connection to a server that answers only `OK`.
    pub(super) async fn line() -> OpenConnection {
        OpenConnection {
            link: Link {
                calls: connection(Some(b"+OK\r\n")).await,
                ended: CancellationToken::new(),
            },
            server: Arc::new(RedisServer::new(ConnectionAddr::Tcp("a".to_owned(), 1), 0)),
            queue: Arc::default(),
            doubts: Arc::default(),
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
            let (sender, state) = watch::channel(ConnectionState::Opening);
            let connection = RedisConnection {
                state,
                deadline: DEADLINE,
                peer: ServerRole::Standalone,
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
                sender.send_replace(ConnectionState::Up(line.clone()));
            };
            let (answer, ()) = tokio::join!(call, opening);
            assert_eq!((answer.is_ok(), made.get()), (is_made, is_made));
            if let Err(failure) = answer {
                assert!(matches!(failure, StoreError::NotAsked(_)), "{failure}");
            }
        }
    }
}
