//! Opens the doors at startup, and closes them in order at shutdown.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tracing::info;

use super::DrainTimes;
use crate::events::Events;
use crate::http::Phase;
use crate::ledger::Ledger;
use crate::outbox::Outbox;
use crate::webhooks::Webhooks;

/// How long connections may stay open once the ports are closed. Envoy's checks need less; a health
/// watch or half a request would otherwise delay the drain to its deadline. Operations already
/// started at the store are awaited anyway. At most half of what remains of the deadline, so that
/// the rest is left for the store.
const LAST_CALLS: Duration = Duration::from_secs(2);

/// How long webhooks are given for the last events; at most a quarter of what remains of the
/// deadline.
const LAST_EVENTS: Duration = Duration::from_secs(2);

/// What is opened at startup and closed in order at shutdown.
pub(super) struct Drain {
    /// Reports health to gateways.
    pub(super) health: HealthReporter,
    /// Reports the phase to probes.
    pub(super) phase: watch::Sender<Phase>,
    /// Ends access log streams.
    pub(super) closing_logs: CancellationToken,
    /// Ends the streams of events.
    pub(super) events: Arc<Events>,
    /// Closes the ports.
    pub(super) close_listeners: CancellationToken,
    /// The tasks of calls in progress.
    pub(super) tasks: TaskTracker,
    /// Closed once those tasks have finished.
    pub(super) outbox: Outbox,
    /// Told about the end once the outbox has delivered everything.
    pub(super) ledger: Arc<Ledger>,
    /// Get what is left of the events in the end.
    pub(super) webhooks: Option<Arc<Webhooks>>,
    /// Time limits of the drain.
    pub(super) times: DrainTimes,
}

impl Drain {
    /// Reports that the instance serves.
    pub(super) async fn open(&self) {
        self.phase.send_replace(Phase::Serving);
        report(&self.health, ServingStatus::Serving).await;
    }

    /// Closes one part after the other, so that nothing is lost between them.
    pub(super) async fn close(&self, mut servers: JoinSet<()>) {
        self.phase.send_replace(Phase::Draining);
        report(&self.health, ServingStatus::NotServing).await;
        tokio::time::sleep(self.times.grace).await;
        self.closing_logs.cancel();
        self.events.close();
        self.close_listeners.cancel();
        let last_calls = async { while servers.join_next().await.is_some() {} };
        let left = self.times.deadline.saturating_sub(self.times.grace);
        let bound = LAST_CALLS.min(left / 2);
        if tokio::time::timeout(bound, last_calls).await.is_err() {
            info!("some connections are still open; not waiting for them");
        }
        self.tasks.close();
        self.tasks.wait().await;
        self.outbox.close();
    }

    /// Does what is left when everything has been delivered to the store.
    pub(super) async fn finish(&self) {
        self.ledger.settle_all().await;
        self.ledger.close_statistics().await;
        if let Some(webhooks) = &self.webhooks {
            let left = self.times.deadline.saturating_sub(self.times.grace);
            webhooks.finish(LAST_EVENTS.min(left / 4)).await;
        }
    }
}

/// The services whose health gateways may query: the whole instance, or the service that they use.
const SERVICES: [&str; 3] = [
    "",
    "envoy.service.auth.v3.Authorization",
    "envoy.service.accesslog.v3.AccessLogService",
];

/// Reports health to gateways.
pub(super) async fn report(health: &HealthReporter, status: ServingStatus) {
    for service in SERVICES {
        health.set_service_status(service, status).await;
    }
}
