//! The log line at startup: what a reader of the log needs first.

use std::path::Path;

use tracing::info;

use super::reload::Reload;
use crate::config::{Backend, Config, Topology};
use crate::server::Addresses;
use crate::telemetry::metrics::LabelValue;

/// The facts in the startup line.
#[derive(Debug)]
pub(super) struct StartLine {
    /// The configuration file, if there is one.
    file: Option<String>,
    /// The store, without passwords.
    store: String,
    /// The default limit.
    limit: u32,
    /// What decides about new streams while the store can't answer.
    outage_rule: &'static str,
    /// Whether this is a dry run.
    dry_run: bool,
}

impl StartLine {
    /// The facts about that configuration.
    pub(super) fn of(config: &Config, reload: Option<&Reload>) -> Self {
        let file = reload.map(|reload| reload.file.path());
        Self {
            file: file.map(Path::display).map(|path| path.to_string()),
            store: store(config),
            limit: config.limits.policy.default,
            outage_rule: config.store.outage.as_str(),
            dry_run: !config.limits.enforce,
        }
    }

    /// Logs the line, with the addresses.
    pub(super) fn tell(&self, Addresses { grpc, http }: &Addresses) {
        let Self {
            file,
            store,
            limit,
            outage_rule,
            dry_run,
        } = self;
        let version = env!("CARGO_PKG_VERSION");
        let file = file.as_deref();
        info!(%grpc, %http, version, file, store, limit, outage_rule, dry_run, "serving");
    }
}

/// The store, without passwords.
fn store(config: &Config) -> String {
    let redis = &config.store.redis;
    let urls: Vec<_> = redis.urls.iter().map(ToString::to_string).collect();
    let urls = urls.join(", ");
    match (config.store.backend, redis.topology) {
        (Backend::Memory, _) => "memory".to_owned(),
        (Backend::Redis, Topology::Standalone) => urls,
        (Backend::Redis, Topology::Sentinel) => {
            format!("{} named by {urls}", redis.sentinel_service)
        }
        (Backend::Redis, Topology::Cluster) => format!("the cluster of {urls}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_is_named_without_its_password() {
        let store_of = |variables: &[(&str, &str)]| {
            let variables = variables.iter();
            let variables = variables
                .map(|(name, value)| (format!("STREAMGATE_STORE__{name}"), (*value).to_owned()));
            store(&Config::load(None, variables).unwrap())
        };
        assert_eq!(store_of(&[]), "memory");
        let shown = store_of(&[
            ("BACKEND", "redis"),
            ("REDIS__URLS", "redis://gate:hunter2@tv:7000/2"),
        ]);
        assert!(shown.contains("tv:7000/2"), "{shown}");
        assert!(!shown.contains("hunter2"), "{shown}");
        let shown = store_of(&[
            ("BACKEND", "redis"),
            ("REDIS__TOPOLOGY", "sentinel"),
            ("REDIS__URLS", "redis://:hunter2@s1,redis://s2"),
        ]);
        assert!(shown.starts_with("mymaster named by redis://"), "{shown}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
