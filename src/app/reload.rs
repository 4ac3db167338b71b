//! The configuration while the process runs: what of a changed file comes into force, and what has to wait for a restart.

use std::sync::Arc;

use tracing::warn;

use crate::config::{Changeable, Config, ConfigFile, InForce};
use crate::follow::{Files, Followed, Unusable};
use crate::telemetry::Metrics;
use crate::telemetry::log::LogLevel;
use crate::telemetry::metrics::ReloadedFile;

/// What is needed to follow the configuration.
#[derive(Debug)]
pub struct Reload {
    /// The file that was read.
    pub file: ConfigFile,
    /// Has the log tell more, or less; where there is one.
    pub log: Option<LogLevel>,
}

impl Reload {
    /// Follows the file: limits, refusals and the log's level as it says them from now on. A file with a mistake changes nothing.
    ///
    /// # Errors
    /// It can't be used any more.
    pub(super) fn follow(
        self,
        running: &Config,
        in_force: Arc<InForce>,
        metrics: &Arc<Metrics>,
    ) -> Result<Arc<Followed<Config>>, Unusable> {
        let Self { file, log } = self;
        let named = vec![("--config", file.path().to_owned())];
        let files = Files::new(named, move |contents| {
            let text = contents.first().map_or(&[][..], Vec::as_slice);
            let text = std::str::from_utf8(text);
            let text = text.map_err(|_| format!("{}: is not UTF-8", file.path().display()))?;
            file.understand(text).map_err(|error| error.to_string())
        });
        let (running, counting) = (running.clone(), Arc::clone(metrics));
        let followed = Followed::load(ReloadedFile::Config, files, Arc::clone(metrics))?;
        Ok(Arc::new(followed.then(move |config| {
            in_force.change(Changeable::of(config));
            counting.enforces(config.limits.enforce);
            if let Some(log) = &log {
                log.set(config.telemetry.log_level);
            }
            let sections = running.sections_unlike(config);
            if !sections.is_empty() {
                let sections = sections.join(", ");
                warn!(%sections, "some of what has changed in the configuration takes effect when the process is started again");
            }
        })))
    }
}
