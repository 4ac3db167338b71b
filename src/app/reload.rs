//! Configuration changes while the process runs: which ones take effect, and which wait for a
//! restart.

use std::sync::Arc;

use bytes::Bytes;
use tracing::{info, warn};

use crate::config::{
    Change, Changeable, Config, ConfigError, ConfigFile, Effect, EffectiveSettings, InForce,
    LogUsers,
};
use crate::events::{Event, EventType, Events};
use crate::reload::{Applied, Files, Reloaded};
use crate::telemetry::Metrics;
use crate::telemetry::log::LogLevel;
use crate::telemetry::metrics::ReloadedFile;

/// How many changed keys are logged at once; `limits.users` may have a great many.
const MAX_LOGGED: usize = 100;

/// How many changed keys one event names.
const MAX_TOLD: usize = 5;

/// What is needed to follow the configuration file.
#[derive(Debug)]
pub struct Reload {
    /// The file that was read.
    pub file: ConfigFile,
    /// Changes the log's level, if there is a log.
    pub log: Option<LogLevel>,
}

impl Reload {
    /// Follows the file: limits, refusals and the log level take effect when they change. A file
    /// with a mistake changes nothing.
    pub(super) fn follow(
        self,
        running: &Config,
        in_force: Arc<InForce>,
        effective: Arc<EffectiveSettings>,
        metrics: &Arc<Metrics>,
        events: Arc<Events>,
    ) -> Reloaded<Config> {
        let Self { file, log } = self;
        let named = vec![("--config", file.path().to_owned())];
        let contents = vec![file.text().clone()];
        let log_users = running.telemetry.log_users;
        let files = Files::new(named, move |contents| {
            let text = contents.first().map_or(&[][..], |text| text);
            let understood = file.understand(text);
            understood.map_err(|error| logged(&error, log_users))
        });
        let files = files.guarded(Bytes::clone);
        let (running, counting) = (running.clone(), Arc::clone(metrics));
        let (label, metrics) = (ReloadedFile::Config, Arc::clone(metrics));
        let reloaded = Reloaded::of(label, files, contents, running.clone(), metrics);
        reloaded.accepted_by(move |config, before| {
            in_force
                .change(Changeable::of(config))
                .map_err(|flaw| format!("limits.users_file: {flaw}"))?;
            effective.change(config);
            counting.enforces(config.limits.enforce);
            if let Some(log) = &log {
                log.set(config.telemetry.log_level);
            }
            let is_new = |name: &&String| !before.old_names.contains(*name);
            for old_name in config.old_names.iter().filter(is_new) {
                warn!("{old_name}");
            }
            let changes = before.changes(config);
            log_changes(&changes);
            events.tell(None, || [changed(&changes)]);
            let sections = running.sections_unlike(config);
            if sections.is_empty() {
                return Ok(Applied::Whole);
            }
            let sections = sections.join(", ");
            warn!(%sections, "some configuration changes take effect only after a restart");
            Ok(Applied::Partly)
        })
    }
}

/// What a log says of a mistake, all in one event. A key in `limits.users` is a user's id, and so may
/// be a misplaced one: where users are hashed, the log says only where the mistake is.
fn logged(error: &ConfigError, log_users: LogUsers) -> String {
    match log_users {
        LogUsers::Plain => error.lines().collect::<Vec<_>>().join("; "),
        LogUsers::Hashed => {
            let places = error.places().collect::<Vec<_>>().join(", ");
            format!("{places}: `streamgate check-config` says what is wrong there")
        }
    }
}

/// The event of a changed configuration.
fn changed(changes: &[Change]) -> Event {
    let named: Vec<_> = changes.iter().take(MAX_TOLD).map(told).collect();
    let rest = match changes.len().saturating_sub(MAX_TOLD) {
        0 => String::new(),
        rest => format!(" and {rest} more"),
    };
    let told = format!("{}{rest}", named.join("; "));
    Event::saying(EventType::ConfigurationChanged, told)
}

/// One change, for operators who may see users.
fn told(change: &Change) -> String {
    let Change {
        key,
        user,
        from,
        to,
        effect,
    } = change;
    let of_user = match user {
        Some(user) => format!(" of {user}"),
        None => String::new(),
    };
    let when = match effect {
        Effect::InForce => "",
        Effect::AfterRestart => ", after a restart",
    };
    format!("{key}{of_user}: {from} to {to}{when}")
}

/// Logs each key that has changed.
fn log_changes(changes: &[Change]) {
    let (logged, rest) = changes.split_at(changes.len().min(MAX_LOGGED));
    for Change {
        key,
        user,
        from,
        to,
        effect,
    } in logged
    {
        match effect {
            Effect::InForce => {
                info!(%key, user.id = user.as_deref(), %from, %to, "a setting has changed");
            }
            Effect::AfterRestart => {
                warn!(%key, %from, %to, "a setting has changed in the file; it applies after a restart");
            }
        }
    }
    if !rest.is_empty() {
        info!(keys = rest.len(), "more settings have changed");
    }
}
