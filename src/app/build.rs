//! Builds what the doors share: the store, the ledger in front of it, and the outbox.

use std::sync::Arc;
use std::time::Duration;

use redis::{IntoConnectionInfo, RedisResult};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::reload::Reload;
use super::{BuildError, users};
use crate::clock::{Clock, SystemClock};
use crate::config::{
    self, Backend, Changeable, Config, EffectiveSettings, InForce, RedisUrl, SharedSettings,
    Topology,
};
use crate::doors::DecisionLog;
use crate::envoy::{AccessLogDoor, CheckDoor};
use crate::events::{EventWorker, Events};
use crate::http::{HttpDoor, REQUEST_TIMEOUT, Readiness, Tokens};
use crate::identity::RouteLists;
use crate::ledger::{Ledger, ROOM_TO_HOLD, Settings};
use crate::outbox::{Delivery, Outbox, outbox};
use crate::reload::{Reloaded, ReloadedFiles};
use crate::session::Terms;
use crate::store::redis::{RedisSettings, RedisStore, RedisTarget, Sentinels};
use crate::store::{Broadcast, MemoryStore, Store};
use crate::telemetry::metrics::ReloadedFile;
use crate::telemetry::{Gateways, Metrics};
use crate::webhooks::Webhooks;

/// What the doors share.
#[derive(Debug)]
pub(super) struct Core {
    /// The settings that may change while the process runs.
    pub(super) in_force: Arc<InForce>,
    /// Every setting in force, for people who look at this instance.
    pub(super) effective: Arc<EffectiveSettings>,
    /// The gateways that send their access logs.
    pub(super) gateways: Arc<Gateways>,
    /// The metrics.
    pub(super) metrics: Arc<Metrics>,
    /// The clock.
    pub(super) clock: Arc<dyn Clock>,
    /// A random id, new at each start.
    pub(super) id: String,
    /// Tells operators what happens.
    pub(super) events: Arc<Events>,
    /// The ledger that the doors ask.
    pub(super) ledger: Arc<Ledger>,
    /// The embedded store, if used; housekeeping sweeps it.
    pub(super) memory: Option<Arc<MemoryStore>>,
    /// Takes renewals and releases that nobody waits for.
    pub(super) outbox: Outbox,
}

/// A store; if it is the embedded one, also as its own type.
struct Opened {
    /// The store.
    store: Arc<dyn Store>,
    /// The embedded store.
    memory: Option<Arc<MemoryStore>>,
    /// The way to other instances; none if the store isn't shared.
    bus: Option<Arc<dyn Broadcast>>,
}

// === impl Core ===

impl Core {
    /// Builds everything, and the outbox's worker.
    pub(super) fn of(
        config: &Config,
        substitute: Option<Arc<dyn Store>>,
        clock: Option<Arc<dyn Clock>>,
    ) -> Result<(Self, Delivery, EventWorker), BuildError> {
        let metrics = Arc::new(Metrics::new());
        metrics.enforces(config.limits.enforce);
        let clock = clock.unwrap_or_else(|| Arc::new(SystemClock::start()));
        let terms = Terms::new(config.leases.longest(), config.store.timeout)
            .refilling_every(config.leases.playback);
        let opened = match substitute {
            Some(store) => Opened {
                store,
                memory: None,
                bus: None,
            },
            None => open_store(config, terms, &clock)?,
        };
        let id = format!("{:016x}", rand::random::<u64>());
        let (events, telling) =
            Events::open(&id, opened.bus, Arc::clone(&clock), Arc::clone(&metrics));
        let in_force = Arc::new(InForce::new(Changeable::of(config)));
        let settings = Settings {
            in_force: Arc::clone(&in_force),
            leases: config.leases,
            terms,
            outage: config.store.outage,
            // The embedded store is as close as a lease cache would be.
            room_to_hold: if opened.memory.is_some() {
                0
            } else {
                ROOM_TO_HOLD
            },
        };
        let ledger = Ledger::new(
            opened.store,
            settings,
            Arc::clone(&clock),
            Arc::clone(&metrics),
        );
        let ledger = Arc::new(ledger.telling(Arc::clone(&events)));
        let (outbox, delivery) = outbox(Arc::clone(&ledger), terms, Arc::clone(&metrics));
        let core = Self {
            in_force,
            effective: Arc::new(EffectiveSettings::of(config)),
            gateways: Arc::default(),
            metrics,
            clock,
            id,
            events,
            ledger,
            memory: opened.memory,
            outbox,
        };
        Ok((core, delivery, telling))
    }

    /// A log of one door's decisions, which operators hear too.
    fn decision_log(&self) -> DecisionLog {
        DecisionLog::new(Arc::clone(&self.clock)).telling(Arc::clone(&self.events))
    }

    /// The door for checks.
    pub(super) fn check_door(&self, config: &Config, tasks: TaskTracker) -> CheckDoor {
        CheckDoor {
            identity: config.identity.clone(),
            routes: RouteLists::default(),
            in_force: Arc::clone(&self.in_force),
            ledger: Arc::clone(&self.ledger),
            outbox: self.outbox.clone(),
            metrics: Arc::clone(&self.metrics),
            log: self.decision_log(),
            tasks,
        }
    }

    /// The tokens for HTTP, followed from now on.
    pub(super) fn tokens(
        &self,
        config: &Config,
        reloaded_files: &mut ReloadedFiles,
    ) -> Result<Option<Arc<Reloaded<Tokens>>>, BuildError> {
        let Some(path) = &config.http.tokens_file else {
            return Ok(None);
        };
        let (label, metrics) = (ReloadedFile::Tokens, Arc::clone(&self.metrics));
        let reloaded = Arc::new(Reloaded::load(label, Tokens::file(path), metrics)?);
        reloaded_files.add(&reloaded);
        Ok(Some(reloaded))
    }

    /// The webhooks, followed from now on, if there is a file of them.
    pub(super) fn webhooks(
        &self,
        config: &Config,
        reloaded_files: &mut ReloadedFiles,
    ) -> Result<Option<Arc<Webhooks>>, BuildError> {
        let Some(path) = &config.events.webhooks_file else {
            return Ok(None);
        };
        let (events, clock) = (Arc::clone(&self.events), Arc::clone(&self.clock));
        let webhooks = Webhooks::of(events, &self.id, clock, Arc::clone(&self.metrics))?;
        reloaded_files.add(&Arc::new(webhooks.follow(path)?));
        Ok(Some(webhooks))
    }

    /// The settings in force, followed from now on: the configuration, and the separate list of
    /// users.
    pub(super) fn follow_limits(
        &self,
        config: &Config,
        reload: Option<Reload>,
        reloaded_files: &mut ReloadedFiles,
    ) -> Result<(), BuildError> {
        let (in_force, metrics) = (&self.in_force, &self.metrics);
        let of_config = reload.map(|reload| {
            let (effective, events) = (Arc::clone(&self.effective), Arc::clone(&self.events));
            reload.follow(config, Arc::clone(in_force), effective, metrics, events)
        });
        let of_users = match &config.limits.users_file {
            Some(path) => Some(users::follow(path, in_force, metrics, &self.events)?),
            None => None,
        };
        // If one was refused because of the other, it is retried once the other has changed.
        let config_again = of_config.as_ref().map(Reloaded::retry);
        let users_again = of_users.as_ref().map(Reloaded::retry);
        if let Some(of_config) = of_config {
            reloaded_files.add(&Arc::new(of_config.then_ask(users_again)));
        }
        if let Some(of_users) = of_users {
            reloaded_files.add(&Arc::new(of_users.then_ask(config_again)));
        }
        Ok(())
    }

    /// The HTTP doors.
    pub(super) fn http_door(
        &self,
        config: &Config,
        tokens: Option<Arc<Reloaded<Tokens>>>,
        readiness: Readiness,
        tasks: TaskTracker,
    ) -> HttpDoor {
        HttpDoor {
            ledger: Arc::clone(&self.ledger),
            readiness,
            outbox: self.outbox.clone(),
            events: Arc::clone(&self.events),
            metrics: Arc::clone(&self.metrics),
            tasks,
            tokens,
            http: config.http.clone(),
            grpc: config.grpc.clone(),
            backend: config.store.backend,
            settings: SharedSettings::of(config),
            effective: Arc::clone(&self.effective),
            gateways: Arc::clone(&self.gateways),
            id: self.id.clone(),
            log: self.decision_log(),
            request_timeout: REQUEST_TIMEOUT,
        }
    }

    /// The door for access logs.
    pub(super) fn access_log_door(
        &self,
        config: &Config,
        tasks: TaskTracker,
        closing: CancellationToken,
        stream_age: Duration,
    ) -> AccessLogDoor {
        AccessLogDoor {
            gateways: Arc::clone(&self.gateways),
            clock: Arc::clone(&self.clock),
            identity: config.identity.clone(),
            leases: config.leases,
            ledger: Arc::clone(&self.ledger),
            outbox: self.outbox.clone(),
            metrics: Arc::clone(&self.metrics),
            tasks,
            closing,
            stream_age,
        }
    }
}

/// The configured store, and the embedded one if it is that.
fn open_store(config: &Config, terms: Terms, clock: &Arc<dyn Clock>) -> Result<Opened, BuildError> {
    match config.store.backend {
        Backend::Memory => {
            let memory = Arc::new(MemoryStore::new(terms, Arc::clone(clock)));
            Ok(Opened {
                store: Arc::<MemoryStore>::clone(&memory),
                memory: Some(memory),
                bus: None,
            })
        }
        Backend::Redis => {
            let redis = Arc::new(open_redis(&config.store, terms)?);
            Ok(Opened {
                store: Arc::<RedisStore>::clone(&redis),
                memory: None,
                bus: Some(redis),
            })
        }
    }
}

/// The configured Redis, which needn't be running yet.
fn open_redis(config: &config::StoreSettings, terms: Terms) -> Result<RedisStore, BuildError> {
    let source = redis_source(&config.redis);
    let settings = RedisSettings {
        source: source.map_err(|error| BuildError::Store(error.to_string()))?,
        key_prefix: config.redis.key_prefix.clone(),
        timeout: config.timeout,
        terms,
    };
    RedisStore::open(settings).map_err(|error| BuildError::Store(error.to_string()))
}

/// Where its connections come from.
fn redis_source(redis: &config::Redis) -> RedisResult<RedisTarget> {
    match redis.topology {
        Topology::Standalone => {
            // The configuration ensures that there is exactly one.
            let url = redis.urls.first().map_or("", RedisUrl::expose);
            url.into_connection_info().map(RedisTarget::Standalone)
        }
        Topology::Sentinel => Ok(RedisTarget::Sentinel(Sentinels {
            sentinels: redis
                .urls
                .iter()
                .map(RedisUrl::sentinel)
                .collect::<Result<_, _>>()?,
            service: redis.sentinel_service.clone(),
            master: redis.master().server()?,
        })),
        Topology::Cluster => {
            let seeds = redis.urls.iter().map(RedisUrl::server);
            seeds.collect::<Result<_, _>>().map(RedisTarget::Cluster)
        }
    }
}
