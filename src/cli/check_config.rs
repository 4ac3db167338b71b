//! `check-config`: shows the effective settings, and what is wrong or risky about them.

use std::io::Write;

use super::{CommandStatus, complain, hash_user, print};
use crate::app::unusable_users_file;
use crate::config::{Config, ConfigError, Listen};
use crate::http::Tokens;
use crate::reload::PortTls;
use crate::server::unusable_socket;
use crate::telemetry::metrics::{LabelValue, Port};
use crate::webhooks::WebhookTargets;

/// Prints everything that is wrong. If nothing is, prints the effective settings to `out` and the
/// warnings to `errors`, so that the settings can be piped.
pub(super) fn run(
    (config, error): (Config, Option<ConfigError>),
    out: &mut impl Write,
    errors: &mut impl Write,
) -> CommandStatus {
    let wrong = error.iter().flat_map(ConfigError::lines);
    let wrong: Vec<_> = wrong.chain(unusable_files(&config)).collect();
    if !wrong.is_empty() {
        return complain(errors, wrong.join("\n"), CommandStatus::Usage);
    }
    for warning in config.warnings() {
        let _ = writeln!(errors, "streamgate: warning: {warning}");
    }
    print(config, out, errors)
}

/// The problems with the files that the settings name.
fn unusable_files(config: &Config) -> Vec<String> {
    let tls = Port::ALL
        .iter()
        .filter_map(|port| PortTls::of(config, *port));
    let tls = tls.filter_map(|tls| tls.files.read().err());
    let tokens = config.http.tokens_file.as_ref();
    let tokens = tokens.and_then(|path| Tokens::file(path).read().err());
    let webhooks = config.events.webhooks_file.as_ref();
    let webhooks = webhooks.and_then(|path| WebhookTargets::file(path).read().err());
    let socket = match &config.grpc.listen {
        Listen::Unix(path) => unusable_socket(path),
        Listen::Tcp(_) => None,
    };
    let socket = socket.map(|flaw| format!("grpc.listen: {}: {flaw}", config.grpc.listen));
    let users = hash_user::of_config(config).err();
    let unusable = tls.chain(tokens).chain(unusable_users_file(config));
    let unusable = unusable.chain(webhooks).chain(users);
    let unusable = unusable.flat_map(|unusable| unusable.flaws().to_vec());
    unusable.chain(socket).collect()
}
