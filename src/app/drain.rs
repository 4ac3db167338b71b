//! Opens the doors at the start, and closes them in order at the end.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tracing::info;

use super::DrainTimes;
use crate::http::Phase;
use crate::outbox::Outbox;

/// How long connections may stay open once the ports are closed. Envoy's checks need less; a watch of the health service, or half a
/// request, would otherwise keep the drain waiting to its deadline. What was begun for the store is waited for all the same.
/// At most half of what the deadline leaves, so that the rest is there for the store.
const LAST_CALLS: Duration = Duration::from_secs(2);

/// What is opened at the start, and closed in order at the end.
pub(super) struct Drain {
    /// Tells gateways whether to come.
    pub(super) health: HealthReporter,
    /// Tells probes.
    pub(super) phase: watch::Sender<Phase>,
    /// Ends access log streams.
    pub(super) closing_logs: CancellationToken,
    /// Closes the ports.
    pub(super) close_listeners: CancellationToken,
    /// The tasks of calls.
    pub(super) tasks: TaskTracker,
    /// Ends once these are done.
    pub(super) outbox: Outbox,
    /// How long it may take.
    pub(super) times: DrainTimes,
}

impl Drain {
    /// Says that we serve.
    pub(super) async fn open(&self) {
        self.phase.send_replace(Phase::Serving);
        report(&self.health, ServingStatus::Serving).await;
    }

    /// Ends one thing after the other, so that nothing is lost between them.
    pub(super) async fn close(&self, mut servers: JoinSet<()>) {
        self.phase.send_replace(Phase::Draining);
        report(&self.health, ServingStatus::NotServing).await;
        tokio::time::sleep(self.times.grace).await;
        self.closing_logs.cancel();
        self.close_listeners.cancel();
        let last_calls = async { while servers.join_next().await.is_some() {} };
        let left = self.times.deadline.saturating_sub(self.times.grace);
        let bound = LAST_CALLS.min(left / 2);
        if tokio::time::timeout(bound, last_calls).await.is_err() {
            info!("some connections are still open; nobody waits for them");
        }
        self.tasks.close();
        self.tasks.wait().await;
        self.outbox.close();
    }
}

/// What gateways may ask the health of: the whole of it, or the service that they use.
const SERVICES: [&str; 3] = [
    "",
    "envoy.service.auth.v3.Authorization",
    "envoy.service.accesslog.v3.AccessLogService",
];

/// Tells gateways whether to come.
pub(super) async fn report(health: &HealthReporter, status: ServingStatus) {
    for service in SERVICES {
        health.set_service_status(service, status).await;
    }
}
