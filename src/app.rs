//! All wiring: configuration in, a bound and running instance out. Nothing is decided here.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::server::{Router as GrpcRouter, TcpIncoming};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tracing::{info, warn};

use crate::clock::{Clock, SystemClock};
use crate::config::{Backend, Config, Listen};
use crate::envoy::{self, AccessLogDoor, CheckDoor, STREAM_AGE};
use crate::http::{self, HttpDoor, Phase, Readiness};
use crate::ledger::Ledger;
use crate::lifecycle::{DrainTimes, Stop};
use crate::releaser::{Delivery, Releaser, releaser};
use crate::session::Terms;
use crate::store::redis::{RedisSettings, RedisStore};
use crate::store::{MemoryStore, Store};
use crate::telemetry::{Metrics, RefusalLog};

/// How often the embedded store is swept, the store's health looked at, and durations folded into their buckets.
const CHORES: Duration = Duration::from_secs(5);

/// How soon a store that doesn't answer is asked again.
const CHORES_IN_TROUBLE: Duration = Duration::from_secs(1);

/// Why an instance can't start.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// An address can't be listened on.
    #[error("failed to listen on {address} ({key}): {source}")]
    Listen {
        /// The address.
        address: String,
        /// The configuration key that names it.
        key: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The store's settings can't be used.
    #[error("failed to set up the store: {0}")]
    Store(String),
    /// The metrics can't be set up.
    #[error("failed to set up metrics: {0}")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
    /// The descriptors for reflection are broken.
    #[error("failed to set up reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Why an instance has ended other than by being asked to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The gRPC server has died.
    #[error("the gRPC server has died: {0}")]
    Grpc(String),
    /// The HTTP server has died.
    #[error("the HTTP server has died: {0}")]
    Http(String),
    /// A task that never ends has ended.
    #[error("the {0} has died")]
    Task(&'static str),
    /// The drain was cut short by its deadline or a second signal; that many renewals and releases were lost.
    #[error(
        "the drain was cut short; {0} queued renewals and releases are lost, and their leases will run out"
    )]
    CutShort(usize),
}

/// Where an instance listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// Envoy's port.
    pub grpc: Listen,
    /// Everybody else's port.
    pub http: SocketAddr,
}

/// An instance with its ports bound, not yet serving.
#[derive(Debug)]
pub struct App {
    /// Where it listens.
    addresses: Addresses,
    /// Envoy's port.
    grpc_listener: GrpcListener,
    /// Everybody else's port.
    http_listener: TcpListener,
    /// What is served on the first.
    grpc: GrpcRouter,
    /// What is served on the second.
    http: axum::Router,
    /// Tells gateways whether to come.
    health: HealthReporter,
    /// Tells probes.
    phase: watch::Sender<Phase>,
    /// Ends access log streams.
    closing_logs: CancellationToken,
    /// The tasks of calls: acquisitions and readers of access logs.
    tasks: TaskTracker,
    /// Is closed when they are done.
    releaser: Releaser,
    /// Delivers what it took.
    delivery: Delivery,
    /// Does what has to be done now and then.
    chores: Chores,
    /// How long the drain may take.
    drain: DrainTimes,
}

/// Envoy's port.
#[derive(Debug)]
enum GrpcListener {
    /// Over TCP.
    Tcp(TcpListener),
    /// Over a Unix socket, whose file is removed in the end.
    Unix(UnixListener, PathBuf),
}

/// What has to be done now and then.
#[derive(Debug)]
struct Chores {
    /// Looks at the store.
    ledger: Arc<Ledger>,
    /// Is swept, where it is the embedded one.
    memory: Option<Arc<MemoryStore>>,
    /// Fold recorded durations.
    metrics: Arc<Metrics>,
}

// === impl App ===

impl App {
    /// Binds everything and wires it together. Redis need not be there yet.
    ///
    /// # Errors
    /// An address can't be listened on, or the store's settings can't be used.
    pub async fn build(config: &Config) -> Result<Self, BuildError> {
        let metrics = Arc::new(Metrics::new()?);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
        let terms = Terms::new(config.leases.longest(), config.store.timeout);
        let (store, memory) = open_store(config, terms, &clock)?;
        let ledger = Arc::new(Ledger::new(
            store,
            config.limits.policy.clone(),
            config.leases,
            config.limits.grace,
            Arc::clone(&metrics),
        ));
        let (releaser, delivery) = releaser(Arc::clone(&ledger), terms, Arc::clone(&metrics));
        let (tasks, closing_logs) = (TaskTracker::new(), CancellationToken::new());
        let (health, health_service) = tonic_health::server::health_reporter();
        health
            .set_service_status("", ServingStatus::NotServing)
            .await;
        let check = CheckDoor {
            identity: config.identity.clone(),
            show: config.refusal.show.clone(),
            ledger: Arc::clone(&ledger),
            releaser: releaser.clone(),
            metrics: Arc::clone(&metrics),
            refusals: RefusalLog::default(),
            clock,
            tasks: tasks.clone(),
        };
        let access_log = AccessLogDoor {
            identity: config.identity.clone(),
            leases: config.leases,
            releaser: releaser.clone(),
            metrics: Arc::clone(&metrics),
            tasks: tasks.clone(),
            closing: closing_logs.clone(),
            stream_age: STREAM_AGE,
        };
        let (phase, readiness) = watch::channel(Phase::Starting);
        let http = HttpDoor {
            ledger: Arc::clone(&ledger),
            readiness: Readiness::new(readiness),
            metrics: Arc::clone(&metrics),
        };
        let (grpc_listener, http_listener) = (
            bind_grpc(&config.grpc.listen).await?,
            bind_http(config.http.listen).await?,
        );
        Ok(Self {
            addresses: addresses(&grpc_listener, &http_listener)?,
            grpc_listener,
            http_listener,
            grpc: envoy::server(check, access_log, health_service)?,
            http: http::router(http),
            health,
            phase,
            closing_logs,
            tasks,
            releaser,
            delivery,
            chores: Chores {
                ledger,
                memory,
                metrics,
            },
            drain: DrainTimes {
                grace: config.shutdown.grace,
                deadline: config.shutdown.deadline,
            },
        })
    }

    /// Where it listens; with port 0 in the configuration, the port that it got.
    #[must_use]
    pub const fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Serves until it is told to stop, then drains.
    ///
    /// # Errors
    /// Something that never ends has ended, or the drain was cut short.
    pub async fn run(self, stop: Stop) -> Result<(), RunError> {
        let close_listeners = CancellationToken::new();
        let mut servers = JoinSet::new();
        servers.spawn(serve_grpc(
            self.grpc,
            self.grpc_listener,
            close_listeners.clone(),
        ));
        servers.spawn(serve_http(
            self.http,
            self.http_listener,
            close_listeners.clone(),
        ));
        let drain = Drain {
            health: self.health,
            phase: self.phase,
            closing_logs: self.closing_logs,
            close_listeners,
            tasks: self.tasks,
            releaser: self.releaser,
            grace: self.drain.grace,
        };
        let chores = self.chores.run();
        tokio::pin!(chores);
        drain.open().await;
        info!(grpc = %self.addresses.grpc, http = %self.addresses.http, "serving");
        let delivering = self.delivery.run();
        tokio::pin!(delivering);
        tokio::select! {
            biased;
            () = stop.soft.cancelled() => {}
            () = stop.hard.cancelled() => {}
            Some(ended) = servers.join_next() => return ended.unwrap_or_else(|error| Err(RunError::Grpc(error.to_string()))),
            () = &mut delivering => return Err(RunError::Task("releaser")),
            () = &mut chores => return Err(RunError::Task("housekeeper")),
        }
        tokio::select! {
            ((), ()) = async { tokio::join!(drain.close(servers), delivering) } => {
                info!("stopped: all is delivered");
                return Ok(());
            }
            () = chores => {}
            () = tokio::time::sleep(self.drain.deadline) => warn!("the drain has reached its deadline"),
            () = stop.hard.cancelled() => {}
        }
        Err(RunError::CutShort(self.delivery.give_up()))
    }
}

/// What is opened at the start, and closed in order at the end.
struct Drain {
    /// Tells gateways whether to come.
    health: HealthReporter,
    /// Tells probes.
    phase: watch::Sender<Phase>,
    /// Ends access log streams.
    closing_logs: CancellationToken,
    /// Closes the ports.
    close_listeners: CancellationToken,
    /// The tasks of calls.
    tasks: TaskTracker,
    /// Ends once these are done.
    releaser: Releaser,
    /// How long everything goes on as before.
    grace: Duration,
}

impl Drain {
    /// Says that we serve.
    async fn open(&self) {
        self.phase.send_replace(Phase::Serving);
        self.health
            .set_service_status("", ServingStatus::Serving)
            .await;
    }

    /// Ends one thing after the other, so that nothing is lost between them.
    async fn close(&self, mut servers: JoinSet<Result<(), RunError>>) {
        self.phase.send_replace(Phase::Draining);
        self.health
            .set_service_status("", ServingStatus::NotServing)
            .await;
        tokio::time::sleep(self.grace).await;
        self.closing_logs.cancel();
        self.close_listeners.cancel();
        while servers.join_next().await.is_some() {}
        self.tasks.close();
        self.tasks.wait().await;
        self.releaser.close();
    }
}

// === impl Chores ===

impl Chores {
    /// Does them, until it is dropped.
    async fn run(self) {
        loop {
            self.ledger.probe().await;
            if let Some(memory) = &self.memory {
                memory.sweep();
            }
            self.metrics.upkeep();
            let in_trouble = self.ledger.store_trouble().is_some();
            tokio::time::sleep(if in_trouble {
                CHORES_IN_TROUBLE
            } else {
                CHORES
            })
            .await;
        }
    }
}

/// The store that the configuration names, and the embedded one if it is that.
fn open_store(
    config: &Config,
    terms: Terms,
    clock: &Arc<dyn Clock>,
) -> Result<(Arc<dyn Store>, Option<Arc<MemoryStore>>), BuildError> {
    match config.store.backend {
        Backend::Memory => {
            let memory = Arc::new(MemoryStore::new(terms, Arc::clone(clock)));
            Ok((Arc::<MemoryStore>::clone(&memory), Some(memory)))
        }
        Backend::Redis => {
            todo!()
        }
    }
}

/// Binds Envoy's port.
async fn bind_grpc(listen: &Listen) -> Result<GrpcListener, BuildError> {
    let failed = |source| BuildError::Listen {
        address: listen.to_string(),
        key: "grpc.listen",
        source,
    };
    match listen {
        Listen::Tcp(address) => TcpListener::bind(address)
            .await
            .map(GrpcListener::Tcp)
            .map_err(failed),
        Listen::Unix(path) => {
            remove_stale_socket(path).await;
            UnixListener::bind(path)
                .map(|listener| GrpcListener::Unix(listener, path.clone()))
                .map_err(failed)
        }
    }
}

/// Removes a socket file that nobody listens at: a process that was killed leaves one behind.
async fn remove_stale_socket(path: &Path) {
    let is_socket = std::fs::metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if is_socket
        && UnixStream::connect(path)
            .await
            .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    {
        // If it can't be removed, binding says why.
        drop(std::fs::remove_file(path));
    }
}

/// Binds everybody else's port.
async fn bind_http(address: SocketAddr) -> Result<TcpListener, BuildError> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|source| BuildError::Listen {
        address: address.to_string(),
        key: "http.listen",
        source,
    })
}

/// Where the listeners are.
fn addresses(grpc: &GrpcListener, http: &TcpListener) -> Result<Addresses, BuildError> {
    let unknown = |key| {
        move |source| BuildError::Listen {
            address: "its bound port".to_owned(),
            key,
            source,
        }
    };
    let grpc = match grpc {
        GrpcListener::Tcp(listener) => {
            Listen::Tcp(listener.local_addr().map_err(unknown("grpc.listen"))?)
        }
        GrpcListener::Unix(_, path) => Listen::Unix(path.clone()),
    };
    Ok(Addresses {
        grpc,
        http: http.local_addr().map_err(unknown("http.listen"))?,
    })
}

/// Serves Envoy until `close`, and then those whose calls are under way.
async fn serve_grpc(
    router: GrpcRouter,
    listener: GrpcListener,
    close: CancellationToken,
) -> Result<(), RunError> {
    let closed = close.cancelled_owned();
    let served = match listener {
        GrpcListener::Tcp(listener) => {
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            router.serve_with_incoming_shutdown(incoming, closed).await
        }
        GrpcListener::Unix(listener, path) => {
            let served = router
                .serve_with_incoming_shutdown(UnixListenerStream::new(listener), closed)
                .await;
            drop(std::fs::remove_file(path));
            served
        }
    };
    served.map_err(|error| RunError::Grpc(error.to_string()))
}

/// Serves everybody else until `close`, and then those whose calls are under way.
async fn serve_http(
    router: axum::Router,
    listener: TcpListener,
    close: CancellationToken,
) -> Result<(), RunError> {
    let served = axum::serve(listener, router)
        .with_graceful_shutdown(close.cancelled_owned())
        .await;
    served.map_err(|error| RunError::Http(error.to_string()))
}
