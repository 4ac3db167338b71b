//! The line that says what has started: what a reader of a log needs before anything else.

use std::path::Path;

use tracing::info;

use super::reload::Reload;
use crate::config::{Backend, Config, Topology};
use crate::server::Addresses;
use crate::telemetry::metrics::LabelValue;

/// What has started.
#[derive(Debug)]
pub(super) struct StartLine {
    /// The configuration file, if there is one.
    file: Option<String>,
    /// Where it counts, without passwords.
    store: String,
    /// The default limit.
    limit: u32,
    /// What decides while the store can't answer.
    outage_rule: &'static str,
    /// Whether nobody is refused.
    dry_run: bool,
}

impl StartLine {
    /// What starts with that configuration.
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

    /// Logs it, with where that listens.
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

/// Where it counts, without passwords.
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
