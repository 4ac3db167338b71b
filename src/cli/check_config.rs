//! `check-config`: what would apply, and what is wrong or risky about it.

use std::io::Write;

use super::{Outcome, SettingsError, complain, print};
use crate::app::unusable_users_file;
use crate::config::Config;
use crate::http::Tokens;
use crate::telemetry::metrics::{LabelValue, Port};
use crate::tls::PortTls;

/// Prints the settings in effect, and the warnings apart from them, so that the settings can be piped.
pub(super) fn run(
    settings: Result<Config, SettingsError>,
    out: &mut impl Write,
    errors: &mut impl Write,
) -> Outcome {
    let config = match settings {
        Ok(config) => config,
        Err(error) => return complain(errors, error, Outcome::Usage),
    };
    let unusable = unusable_files(&config);
    if !unusable.is_empty() {
        return complain(errors, unusable.join("\n"), Outcome::Usage);
    }
    for warning in config.warnings() {
        let _ = writeln!(errors, "streamgate: warning: {warning}");
    }
    print(config, out, errors)
}

/// What is wrong with the files that the settings name.
fn unusable_files(config: &Config) -> Vec<String> {
    let tls = Port::ALL
        .iter()
        .filter_map(|port| PortTls::of(config, *port));
    let tls = tls.filter_map(|tls| tls.files.read().err());
    let tokens = config.http.tokens_file.as_ref();
    let tokens = tokens.and_then(|path| Tokens::file(path).read().err());
    let unusable = tls.chain(tokens).chain(unusable_users_file(config));
    unusable.map(|unusable| unusable.to_string()).collect()
}
