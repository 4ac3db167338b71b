//! All wiring: takes a configuration and returns a bound, running instance. This module makes no
//! decisions.

mod build;
mod drain;
mod housekeeping;
mod lifecycle;
mod outages;
mod reload;
mod start_line;
mod users;

pub use lifecycle::{DrainTimes, Signals, Stop};
pub use reload::Reload;
pub(crate) use users::unusable as unusable_users_file;

use std::sync::Arc;
use std::time::Duration;

use hyper_util::service::TowerToHyperService;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tracing::{info, warn};

use crate::clock::Clock;
use crate::config::Config;
use crate::envoy::{self, MAX_MESSAGE_BYTES, STREAM_AGE};
use crate::events::{EventWorker, Events};
use crate::http::{self, HttpDoor, Phase, REQUEST_TIMEOUT, Readiness};
use crate::outbox::{Delivery, Outbox};
use crate::reload::{ReloadedFiles, Unusable};
use crate::server::{Addresses, ConnectionTimes, PortError, Ports};
use crate::store::Store;
use crate::webhooks::Webhooks;
use build::Core;
use drain::{Drain, report};
use housekeeping::Housekeeping;
use start_line::StartLine;

/// Why an instance can't start.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A port can't be opened.
    #[error(transparent)]
    Port(#[from] PortError),
    /// A configured file can't be used.
    #[error(transparent)]
    File(#[from] Unusable),
    /// The store's settings can't be used.
    #[error("failed to set up the store: {0}")]
    Store(String),
    /// The descriptors for reflection are broken.
    #[error("failed to set up reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Why an instance has ended without being asked to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A task that should never end has ended.
    #[error("the {0} has died")]
    Task(&'static str),
    /// The drain was cut short by its deadline or a second signal; that many renewals and releases
    /// were lost.
    #[error(
        "the drain was cut short; {0} queued renewals and releases are lost, and their leases will run out"
    )]
    CutShort(usize),
}

/// An instance with its ports bound, not yet serving.
#[derive(Debug)]
pub struct App {
    /// Describes what has started.
    start_line: StartLine,
    /// The gRPC and HTTP ports.
    ports: Ports,
    /// Served on the gRPC port.
    grpc: envoy::Services,
    /// Served on the HTTP port.
    http: axum::Router,
    /// Reloads changed files.
    reloaded_files: ReloadedFiles,
    /// Reports health to gateways.
    health: HealthReporter,
    /// Reports the phase to probes.
    phase: watch::Sender<Phase>,
    /// Ends access log streams.
    closing_logs: CancellationToken,
    /// The tasks of calls: starts and access log readers.
    tasks: TaskTracker,
    /// Closed when those tasks are done.
    outbox: Outbox,
    /// Delivers the outbox's notices.
    delivery: Delivery,
    /// Tells operators what happens.
    events: Arc<Events>,
    /// Delivers that.
    telling: EventWorker,
    /// Sends it to receivers, if there are any.
    webhooks: Option<Arc<Webhooks>>,
    /// Runs periodic work.
    housekeeping: Housekeeping,
    /// Time limits of the drain.
    drain: DrainTimes,
}

/// Replacements for configured parts, for tests.
#[derive(Debug, Default)]
pub struct Substitutes {
    /// The store.
    pub store: Option<Arc<dyn Store>>,
    /// The clock of everything in front of the store.
    pub clock: Option<Arc<dyn Clock>>,
    /// The maximum age of an access log stream.
    pub stream_age: Option<Duration>,
    /// The time limit for an HTTP request to arrive and be answered.
    pub request_timeout: Option<Duration>,
    /// Time limits for clients.
    pub connection_times: Option<ConnectionTimes>,
}

// === impl App ===

impl App {
    /// Binds the ports and wires everything together. Redis needn't be running yet.
    ///
    /// # Errors
    /// An address can't be listened on, or a file or the store's settings can't be used.
    pub async fn build(config: &Config, reload: Option<Reload>) -> Result<Self, BuildError> {
        Self::build_with(config, reload, Substitutes::default()).await
    }

    /// The same, with some parts replaced.
    ///
    /// # Errors
    /// As for [`Self::build`].
    pub async fn build_with(
        config: &Config,
        reload: Option<Reload>,
        substitutes: Substitutes,
    ) -> Result<Self, BuildError> {
        let stream_age = substitutes.stream_age.unwrap_or(STREAM_AGE);
        let (core, delivery, telling) = Core::of(config, substitutes.store, substitutes.clock)?;
        let (tasks, closing_logs) = (TaskTracker::new(), CancellationToken::new());
        let (health, health_service) = tonic_health::server::health_reporter();
        report(&health, ServingStatus::NotServing).await;
        let check = core.check_door(config, tasks.clone());
        let access_log =
            core.access_log_door(config, tasks.clone(), closing_logs.clone(), stream_age);
        let (phase, readiness) = watch::channel(Phase::Starting);
        let times = substitutes.connection_times.unwrap_or_default();
        let mut reloaded_files = ReloadedFiles::default();
        let start_line = StartLine::of(config, reload.as_ref());
        let tokens = core.tokens(config, &mut reloaded_files)?;
        core.follow_limits(config, reload, &mut reloaded_files)?;
        let webhooks = core.webhooks(config, &mut reloaded_files)?;
        let http = HttpDoor {
            request_timeout: substitutes.request_timeout.unwrap_or(REQUEST_TIMEOUT),
            ..core.http_door(config, tokens, Readiness::new(readiness), tasks.clone())
        };
        Ok(Self {
            start_line,
            ports: Ports::open(config, times, &core.metrics, &mut reloaded_files).await?,
            reloaded_files,
            grpc: envoy::services(check, access_log, health_service)?,
            http: http::router(http),
            health,
            phase,
            closing_logs,
            tasks,
            outbox: core.outbox,
            delivery,
            events: core.events,
            telling,
            webhooks,
            housekeeping: Housekeeping {
                ledger: core.ledger,
                memory: core.memory,
            },
            drain: DrainTimes {
                grace: config.shutdown.grace,
                deadline: config.shutdown.for_drain(),
            },
        })
    }

    /// The addresses it listens on; with port 0 in the configuration, the assigned port.
    #[must_use]
    pub const fn addresses(&self) -> &Addresses {
        &self.ports.addresses
    }

    /// Notifying this makes it check its files immediately.
    #[must_use]
    pub fn reload_now(&self) -> Arc<Notify> {
        self.reloaded_files.reload_now()
    }

    /// Where it is in its life, from now on.
    #[must_use]
    pub fn phases(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Serves until stopped, then drains.
    ///
    /// # Errors
    /// A task that should never end has ended, or the drain was cut short.
    pub async fn run(self, stop: Stop) -> Result<(), RunError> {
        let close_listeners = CancellationToken::new();
        let addresses = self.ports.addresses.clone();
        let http = TowerToHyperService::new(self.http);
        let mut servers = self
            .ports
            .serve(self.grpc, http, MAX_MESSAGE_BYTES, &close_listeners);
        let drain = Drain {
            health: self.health,
            phase: self.phase,
            closing_logs: self.closing_logs,
            events: Arc::clone(&self.events),
            close_listeners,
            tasks: self.tasks,
            outbox: self.outbox,
            ledger: Arc::clone(&self.housekeeping.ledger),
            webhooks: self.webhooks.clone(),
            times: self.drain,
        };
        let ledger = Arc::clone(&self.housekeeping.ledger);
        let telling = self.telling;
        let outages = outages::tell(Arc::clone(&ledger), Arc::clone(&self.events));
        let housekeeping = async {
            tokio::join!(
                self.housekeeping.run(),
                ledger.run_background(),
                telling.run(),
                send_events(self.webhooks),
                outages
            )
        };
        tokio::pin!(housekeeping);
        drain.open().await;
        self.start_line.tell(&addresses);
        let delivering = self.delivery.run();
        tokio::pin!(delivering);
        tokio::select! {
            biased;
            () = stop.soft.cancelled() => {}
            () = stop.hard.cancelled() => {}
            Some(_) = servers.join_next() => return Err(RunError::Task("listener")),
            () = &mut delivering => return Err(RunError::Task("outbox")),
            _ = &mut housekeeping => return Err(RunError::Task("housekeeper")),
            () = self.reloaded_files.run() => return Err(RunError::Task("reader of changed files")),
        }
        tokio::select! {
            () = async { tokio::join!(drain.close(servers), delivering); drain.finish().await } => {
                info!("stopped: everything was delivered");
                return Ok(());
            }
            _ = housekeeping => {}
            () = tokio::time::sleep(self.drain.deadline) => warn!("the drain has reached its deadline"),
            () = stop.hard.cancelled() => {}
        }
        Err(RunError::CutShort(self.delivery.give_up()))
    }
}

/// Sends events to webhooks until dropped.
async fn send_events(webhooks: Option<Arc<Webhooks>>) {
    match webhooks {
        Some(webhooks) => webhooks.run().await,
        None => std::future::pending().await,
    }
}
