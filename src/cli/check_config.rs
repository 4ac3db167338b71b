//! `check-config`: what would apply, and what is wrong or risky about it.

use std::io::Write;

use super::{Outcome, SettingsError, complain, print};
use crate::config::Config;

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
    for warning in config.warnings() {
        let _ = writeln!(errors, "streamgate: warning: {warning}");
    }
    print(config, out, errors)
}
