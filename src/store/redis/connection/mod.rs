//! The connection: made in the background, watched, and made again by itself.
//!
//! One [`Keeper`] task owns it. A call uses the connection that is there, or fails at once with the reason why there is none. The first
//! call, and those that meet the end of a connection that was fine, wait for the next one within their deadlines. Once an attempt has
//! failed, or connections end so quickly that the keeper waits long before the next, calls fail at once, and [`RedisConnection::outage`] tells
//! the ledger so without a call.
//!
//! A caller who reads that a call was [not made](StoreError::NotAsked) has nothing to undo. We say so only where it is certain: before the
//! call is handed to the client library.
//!
//! | file | does |
//! |---|---|
//! | `keeper` | makes the connection, watches it and makes it again |
//! | `in_flight` | counts the calls without an answer |
//! | `target` | says where the connection leads: to one server, or to the master that sentinels name (`sentinel`) |
//! | `master_election` | decides which of the named masters to use |
//! | `probe` | asks whether the operations would succeed now |
//! | `server_info` | asks the server about itself; `eviction` warns of one that evicts keys |

mod eviction;
mod in_flight;
mod keeper;
mod master_election;
pub(super) mod probe;
mod sentinel;
pub(super) mod server_info;
mod target;

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
pub use self::sentinel::Sentinels;
pub use self::target::RedisTarget;
use self::target::{Link, RedisServer};
use super::codec::script::Scripts;
use super::error::{self, ServerRole};
use crate::clock::Stopwatch;
use crate::store::StoreError;

/// How things stand between us and Redis.
#[derive(Debug, Clone)]
enum ConnectionState {
    /// A connection is being made, and no attempt has failed: calls wait for it.
    Opening,
    /// Calls can be made, until the line ends.
    Up(OpenConnection),
    /// The server keeps the connection and doesn't answer: calls end with that.
    Silent(StoreError),
    /// There is no connection, and none can be made: calls end with that.
    Down(StoreError),
}

impl ConnectionState {
    /// What a call has to do with, unless it has to wait.
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

/// One connection, who waits for answers on it, and what they say of it.
#[derive(Debug, Clone)]
struct OpenConnection {
    /// The connection.
    link: Link,
    /// Where it leads.
    server: Arc<RedisServer>,
    /// The calls that it has been handed.
    queue: Arc<InFlight>,
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

/// A connection that keeps itself. Dropping it ends it.
#[derive(Debug)]
pub(in crate::store::redis) struct RedisConnection {
    /// How things stand.
    state: watch::Receiver<ConnectionState>,
    /// How long a call may take.
    deadline: Duration,
    /// Whom calls are made to.
    peer: ServerRole,
    /// The number of the database.
    database: i64,
    /// The task that keeps it.
    _keeper: AbortOnDropHandle<()>,
}

impl RedisConnection {
    /// Begins to connect, and returns at once. Has to be called within a Tokio runtime.
    #[expect(
        clippy::disallowed_methods,
        reason = "the task is owned by what it serves, and is aborted with it"
    )]
    pub(in crate::store::redis) fn open(
        source: RedisTarget,
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

    /// The server that calls are made to now, for people; none while there is no connection.
    pub(in crate::store::redis) fn server(&self) -> Option<String> {
        match &*self.state.borrow() {
            ConnectionState::Up(line) => Some(line.server.place.clone()),
            ConnectionState::Opening | ConnectionState::Silent(_) | ConnectionState::Down(_) => {
                None
            }
        }
    }

    /// The number of the database that calls are about.
    pub(in crate::store::redis) const fn database(&self) -> i64 {
        self.database
    }

    /// How long a call may take.
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

    /// Makes a call, within the deadline, and has the keeper look after the connection if it is to blame for a failure. Where a connection is being
    /// made, the call waits for it for three quarters of the deadline: what is left has to be enough for an answer, since whether a call that got
    /// none took place is unknown.
    ///
    /// # Errors
    /// It was not made, for that reason; or it was, and has failed.
    pub(in crate::store::redis) async fn call<T, A>(
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
            let reason = format!("{} calls wait for an answer already", in_flight::MOST);
            return Err(StoreError::NotAsked(reason));
        };
        let left = self.deadline.saturating_sub(waited.elapsed());
        let outcome = match timeout(left, act(line.link.calls)).await {
            Ok(answer) => {
                line.queue.answered(place);
                answer.map_err(|error| error::of_call(&error, self.peer))
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

/// What ends a wait for the connection when nobody makes one any more.
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
    use crate::store::redis::connection::target::tests::connection;

    pub(super) const DEADLINE: Duration = Duration::from_millis(200);

    /// A connection that leads to nobody who says more than `OK`.
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
