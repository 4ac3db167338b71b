//! The effective configuration as YAML, without secrets: what `check-config` prints.
//!
//! It can be read back, passwords aside. Keys that can have only one value by now, or have no effect, are left out.

use std::fmt::{self, Display};

use super::load::value::shown_duration;
use super::sections::limits::WHEN_FULL;
use super::sections::refusal::SHOWN;
use super::sections::store::{BACKENDS, OUTAGES, TOPOLOGIES};
use super::sections::telemetry::{LOG_FORMATS, LOG_LEVELS};
use super::{Config, Endpoint, Http, Limits, Origins, Store, Tls, Topology};
use crate::identity::{Identity, Source};

impl Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "grpc:\n  listen: {}", quoted(&self.grpc.listen))?;
        tls(self.grpc.tls.as_ref(), f)?;
        writeln!(f, "http:\n  listen: {}", quoted(self.http.listen))?;
        http(&self.http, f)?;
        store(&self.store, f)?;
        limits(&self.limits, f)?;
        writeln!(
            f,
            "leases:\n  request: {}",
            shown_duration(self.leases.request)
        )?;
        writeln!(f, "  playback: {}", shown_duration(self.leases.playback))?;
        identity(&self.identity, f)?;
        let shown = self.refusal.show.iter().map(|shown| SHOWN.word(*shown));
        writeln!(f, "refusal:\n  show: {}", list(shown))?;
        let problems = or_null(self.refusal.problems.as_deref());
        writeln!(f, "  problems: {problems}")?;
        writeln!(
            f,
            "telemetry:\n  log_format: {}",
            LOG_FORMATS.word(self.telemetry.log_format)
        )?;
        writeln!(
            f,
            "  log_level: {}",
            LOG_LEVELS.word(self.telemetry.log_level)
        )?;
        writeln!(f, "  log_starts: {}", self.telemetry.log_starts)?;
        writeln!(
            f,
            "shutdown:\n  grace: {}",
            shown_duration(self.shutdown.grace)
        )?;
        writeln!(f, "  deadline: {}", shown_duration(self.shutdown.deadline))
    }
}

fn http(http: &Http, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    tls(http.tls.as_ref(), f)?;
    let tokens_file = http.tokens_file.as_ref();
    let tokens_file = tokens_file.map(|file| file.display().to_string());
    writeln!(f, "  tokens_file: {}", or_null(tokens_file.as_deref()))?;
    let origins = match &http.cors_origins {
        Origins::Any => list([quoted("*")].into_iter()),
        Origins::These(these) => list(these.iter().map(quoted)),
    };
    writeln!(f, "  cors_origins: {origins}")?;
    writeln!(f, "  hosts: {}", list(http.hosts.iter().map(quoted)))?;
    let endpoint = http.endpoint.as_ref().map(Endpoint::template);
    writeln!(f, "  endpoint: {}", or_null(endpoint.as_deref()))
}

/// The text, or that there is none.
fn or_null(text: Option<&str>) -> String {
    text.map_or_else(|| "null".to_owned(), quoted)
}

fn tls(tls: Option<&Tls>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Some(tls) = tls else {
        return writeln!(f, "  tls: null");
    };
    writeln!(f, "  tls:\n    cert: {}", quoted(tls.cert.display()))?;
    writeln!(f, "    key: {}", quoted(tls.key.display()))?;
    match &tls.client_ca {
        Some(path) => writeln!(f, "    client_ca: {}", quoted(path.display())),
        None => writeln!(f, "    client_ca: null"),
    }
}

fn store(store: &Store, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "store:\n  backend: {}", BACKENDS.word(store.backend))?;
    writeln!(f, "  outage: {}", OUTAGES.word(store.outage))?;
    writeln!(f, "  timeout: {}", shown_duration(store.timeout))?;
    writeln!(
        f,
        "  redis:\n    topology: {}",
        TOPOLOGIES.word(store.redis.topology)
    )?;
    writeln!(f, "    urls: {}", list(store.redis.urls.iter().map(quoted)))?;
    if store.redis.topology == Topology::Sentinel {
        let service = quoted(&store.redis.sentinel_service);
        writeln!(f, "    sentinel_service: {service}")?;
        writeln!(f, "    master_url: {}", quoted(store.redis.master()))?;
    }
    writeln!(f, "    key_prefix: {}", quoted(&store.redis.key_prefix))
}

fn limits(limits: &Limits, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "limits:\n  enforce: {}", limits.enforce)?;
    writeln!(f, "  default: {}", limits.policy.default)?;
    map("plans", limits.policy.plans.iter(), f)?;
    let mut users: Vec<_> = limits.policy.users.iter().collect();
    users.sort();
    map("users", users.into_iter(), f)?;
    let users_file = limits.users_file.as_ref();
    let users_file = users_file.map(|file| file.display().to_string());
    writeln!(f, "  users_file: {}", or_null(users_file.as_deref()))?;
    writeln!(f, "  when_full: {}", WHEN_FULL.word(limits.when_full))?;
    writeln!(f, "  displacements: {}", limits.displacements)?;
    writeln!(f, "  grace: {}", shown_duration(limits.grace))?;
    writeln!(f, "  quiet: {}", shown_duration(limits.quiet))
}

fn identity(identity: &Identity, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let sources = |sources: &[Source]| list(sources.iter().map(quoted));
    writeln!(f, "identity:\n  user: {}", sources(&identity.user))?;
    writeln!(f, "  session: {}", sources(&identity.session))?;
    writeln!(f, "  plan: {}", sources(&identity.plan))?;
    writeln!(f, "  device: {}", sources(&identity.device))?;
    writeln!(f, "  content: {}", sources(&identity.content))?;
    writeln!(f, "  takeover: {}", sources(&identity.takeover))?;
    writeln!(f, "  fresh: {}", sources(&identity.fresh))
}

fn map<'a, Name: Display + 'a>(
    key: &str,
    entries: impl ExactSizeIterator<Item = (&'a Name, &'a u32)>,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    if entries.len() == 0 {
        return writeln!(f, "  {key}: {{}}");
    }
    writeln!(f, "  {key}:")?;
    for (name, limit) in entries {
        writeln!(f, "    {}: {limit}", quoted(name))?;
    }
    Ok(())
}

fn list<Item: Display>(items: impl Iterator<Item = Item>) -> String {
    let items: Vec<_> = items.map(|item| item.to_string()).collect();
    format!("[{}]", items.join(", "))
}

/// The text in quotes, where YAML would read it as something else without them.
fn quoted(value: impl Display) -> String {
    let text = value.to_string();
    let is_plain = text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte))
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"]
            .contains(&&*text.to_ascii_lowercase());
    // Every JSON string is a YAML string.
    if is_plain {
        text
    } else {
        serde_json::Value::from(text).to_string()
    }
}
