//! The task that connects, watches the connection, and reconnects.
//!
//! It makes one attempt at a time, with backoff and jitter, so that neither a restart of Redis nor
//! a thousand waiting calls cause a storm of connections.
//!
//! Healthy servers also close connections, so a closed connection is no outage: the keeper notices
//! immediately and makes the next one.
//!
//! It also detects a Redis that keeps its connections open but doesn't answer. After a call without
//! an answer, and after every second without a call, the keeper pings the server. Until an answer
//! arrives no calls are made, so that they don't each wait for their deadline. After some seconds
//! of silence the keeper abandons the connection, which is an outage.

use std::future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use redis::RedisError;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::eviction;
use super::link::ping;
use super::sentinel::SentinelLog;
use super::target::{Connected, ConnectionSource};
use super::{ConnectionState, OpenConnection};
use crate::clock::Stopwatch;
use crate::store::StoreError;
use crate::store::redis::codec::script::Scripts;
use crate::store::redis::error;
use crate::util::Throttle;

/// The longest wait after the first failed attempt, or before the second connection in a row that
/// was lost immediately; later waits double.
const SHORTEST_WAIT: Duration = Duration::from_millis(50);

/// The longest wait between two attempts: how much a restart of Redis costs in addition to its own
/// start.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// How often a connection in good standing is pinged.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// The longest time that a ping may take before calls are held back, however long their own
/// deadline.
const LONGEST_PATIENCE: Duration = Duration::from_secs(1);

/// How long the keeper pauses after a doubt, so that many callers that reach their deadlines don't
/// make it ping without a pause.
const REST: Duration = Duration::from_millis(100);

/// How long a connection may stay silent before it is replaced.
const SILENCE: Duration = Duration::from_secs(3);

/// How often the log repeats that Redis is unreachable or drops connections.
const REMINDER: Duration = Duration::from_secs(30);

/// How long a connection must have lasted for the next attempt to follow without a wait.
/// Connections that are repeatedly lost at once are as bad as none.
const LASTING: Duration = LONGEST_WAIT;

/// The task that connects and watches the connection.
#[derive(Debug)]
pub(super) struct Keeper {
    /// Where connections come from.
    source: ConnectionSource,
    /// The current or intended server, for display and without secrets.
    address: String,
    /// The scripts to load into a server.
    scripts: Arc<Scripts>,
    /// Where the keeper publishes the state.
    state: watch::Sender<ConnectionState>,
    /// How long a ping may take before calls are held back: two call deadlines, at most
    /// [`LONGEST_PATIENCE`].
    patience: Duration,
    /// The last warning about the server's eviction policy.
    eviction: eviction::Watch,
    /// What the log already says about sentinels.
    told: SentinelLog,
    /// The upper bound of the next wait before an attempt.
    wait: Duration,
    /// Whether the last connection was lost immediately.
    flaps: bool,
    /// Throttles log lines about trouble until a connection has lasted.
    trouble: Throttle,
}

impl Keeper {
    /// A keeper that has done nothing yet. It publishes to `state`; `deadline` is that of a call.
    pub(super) fn new(
        source: ConnectionSource,
        scripts: Arc<Scripts>,
        deadline: Duration,
        state: watch::Sender<ConnectionState>,
    ) -> Self {
        Self {
            address: source.place(),
            source,
            scripts,
            state,
            patience: (deadline * 2).min(LONGEST_PATIENCE),
            eviction: eviction::Watch::default(),
            told: SentinelLog::default(),
            wait: Duration::ZERO,
            flaps: false,
            trouble: Throttle::every(REMINDER),
        }
    }

    /// Connects and watches forever, even if one round panics: otherwise the store would have no
    /// connection until the process is restarted.
    pub(super) async fn run(mut self) {
        loop {
            let round = AssertUnwindSafe(self.round()).catch_unwind().await;
            let lost = round.unwrap_or_else(|_| {
                let bug = "a bug in the connection's task".to_owned();
                let bug = StoreError::Disconnected(bug);
                self.tell_lost(&bug);
                bug
            });
            self.address = self.source.place();
            self.reopen(lost);
            self.pause().await;
        }
    }

    /// Connects, and watches the connection until it is lost; returns why.
    async fn round(&mut self) -> StoreError {
        let line = self.connect().await;
        if !self.flaps {
            self.tell_connected(&line);
        }
        self.state.send_replace(ConnectionState::Up(line.clone()));
        let age = Stopwatch::start();
        let mut told = std::mem::take(&mut self.told);
        let lost = tokio::select! {
            biased;
            () = line.link.ended.cancelled() => error::of_an_end(),
            lost = self.watch(&line, &age) => lost,
            other = self.source.other_than(&line.server, &mut told) => other,
            never = self.tell_if_it_lasts(&line) => never,
        };
        self.told = told;
        let has_lasted = age.elapsed() >= LASTING;
        if has_lasted {
            (self.wait, self.trouble) = (Duration::ZERO, Throttle::every(REMINDER));
        }
        // If the log reported the connection, it also reports its loss.
        if has_lasted || !self.flaps || self.trouble.is_due() {
            self.tell_lost(&lost);
        }
        self.flaps = !has_lasted;
        lost
    }

    /// Logs that a connection was made.
    fn tell_connected(&self, line: &OpenConnection) {
        let sentinels = self.source.sentinels();
        tracing::info!(address = %line.server.place, sentinels, "connected to Redis");
    }

    /// Logs that the connection was lost, and why.
    fn tell_lost(&self, lost: &StoreError) {
        tracing::warn!(address = %self.address, reason = %lost, "lost the connection to Redis");
    }

    /// Logs the connection only once it has lasted, because the previous one didn't. Never
    /// resolves.
    async fn tell_if_it_lasts(&self, line: &OpenConnection) -> StoreError {
        if self.flaps {
            sleep(LASTING).await;
            self.tell_connected(line);
        }
        future::pending().await
    }

    /// Stops calls, for that reason.
    fn stop(&self, reason: StoreError) {
        let answer = error::of_no_call(reason);
        self.state.send_replace(ConnectionState::Down(answer));
    }

    /// Handles a lost connection. Calls wait for the next one unless there was trouble before, or
    /// the wait before the next attempt may take more than half of their deadlines.
    fn reopen(&self, lost: StoreError) {
        let is_soon = self.wait * 4 <= self.patience;
        self.state.send_modify(|state| {
            *state = match state {
                ConnectionState::Up(_) if is_soon => ConnectionState::Opening,
                _ => ConnectionState::Down(error::of_no_call(lost)),
            }
        });
    }

    /// Waits before the next attempt, each time longer; doesn't wait before the first.
    async fn pause(&mut self) {
        if !self.wait.is_zero() {
            sleep(self.wait.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
        }
        self.wait = (self.wait * 2).clamp(SHORTEST_WAIT, LONGEST_WAIT);
    }

    /// Tries until a connection is made.
    async fn connect(&mut self) -> OpenConnection {
        loop {
            let failure = match timeout(self.source.attempt(), self.attempt()).await {
                Ok(Ok(line)) => {
                    self.address.clone_from(&line.server.place);
                    return line;
                }
                Ok(Err(failure)) => failure,
                Err(_) => self.source.silence(),
            };
            if self.trouble.is_due() {
                let sentinels = self.source.sentinels();
                tracing::warn!(address = %self.address, sentinels, reason = %failure, "can't connect to Redis; retrying");
            }
            self.stop(failure);
            self.wait = self.wait.max(SHORTEST_WAIT);
            self.pause().await;
        }
    }

    /// Tries once and prepares the connection. If the server refuses the preparation we use the
    /// connection anyway: calls report what doesn't work.
    async fn attempt(&mut self) -> Result<OpenConnection, StoreError> {
        let Connected { mut link, server } = self.source.connect().await?;
        let lost = |error: RedisError| error::of_connecting(&error, self.source.peer());
        match self.scripts.load(&mut link.calls).await {
            Err(error) if error.is_unrecoverable_error() => return Err(lost(error)),
            Err(error) => {
                tracing::debug!(address = %server.place, %error, "failed to preload the scripts");
            }
            Ok(()) => {}
        }
        let looked = self.eviction.look(&mut link.calls, &server.place).await;
        looked.map_err(lost)?;
        Ok(OpenConnection {
            link,
            server: Arc::new(server),
            queue: Arc::default(),
            doubts: Arc::default(),
        })
    }

    /// Watches a connection until it is lost; returns why.
    async fn watch(&self, line: &OpenConnection, age: &Stopwatch) -> StoreError {
        loop {
            let doubted = timeout(HEARTBEAT, line.doubts.raised.notified())
                .await
                .is_ok();
            if line.doubts.replica.swap(false, Ordering::Relaxed)
                && age.elapsed() >= self.source.replaceable_after()
            {
                return error::of_a_replica(self.source.peer());
            }
            if let Err(error) = self.ask_for_life(line).await {
                return error;
            }
            if doubted {
                sleep(REST).await;
            }
        }
    }

    /// Pings the server, and stops calls while no answer comes.
    async fn ask_for_life(&self, line: &OpenConnection) -> Result<(), StoreError> {
        let mut calls = line.link.calls.clone();
        let alive = async {
            let before = line.queue.end();
            let answer = ping(&mut calls).await;
            line.queue.answered(before);
            answer.map_err(|error| error::of_connecting(&error, self.source.peer()))
        };
        tokio::pin!(alive);
        if let Ok(answer) = timeout(self.patience, &mut alive).await {
            return answer;
        }
        let silent = StoreError::Disconnected("it does not answer".to_owned());
        tracing::warn!(address = %self.address, "Redis does not answer");
        let unmade = error::of_no_call(silent.clone());
        self.state.send_replace(ConnectionState::Silent(unmade));
        let answer = timeout(SILENCE, &mut alive).await;
        answer.unwrap_or(Err(silent))?;
        tracing::info!(address = %self.address, "Redis answers again");
        self.state.send_replace(ConnectionState::Up(line.clone()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Terms;
    use crate::store::redis::codec::layout::RecordVersions;
    use crate::store::redis::connection::tests::{DEADLINE, line};
    use crate::store::redis::error::ServerRole;

    /// A keeper that has done nothing yet.
    fn keeper() -> Keeper {
        let source = ConnectionSource::Server("redis://a".parse().unwrap(), ServerRole::Standalone);
        let terms = Terms::new(Duration::from_secs(30), DEADLINE);
        let scripts = Arc::new(Scripts::new(&terms, RecordVersions::OURS));
        Keeper::new(
            source,
            scripts,
            DEADLINE,
            watch::channel(ConnectionState::Opening).0,
        )
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
            keeper.state.send_replace(ConnectionState::Up(line().await));
            keeper.reopen(lost());
            let state = keeper.state.borrow().clone();
            assert_eq!(
                matches!(state, ConnectionState::Down(_)),
                is_down,
                "{state:?}"
            );
            // A connection that is lost before it was up counts as trouble.
            keeper.state.send_replace(ConnectionState::Opening);
            keeper.reopen(lost());
            assert!(matches!(*keeper.state.borrow(), ConnectionState::Down(_)));
        }
    }
}
