//! Configuration: one YAML file and the environment, turned into checked values.
//!
//! Each section declares its keys once, in its file below `sections`: what reads, shows, documents
//! and compares settings passes over these declarations. `load` is the generic loader. Nothing
//! reads the process's environment here: the command line hands it in.

mod changes;
mod effective;
mod file;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod live;
mod load;
mod reference;
mod sections;
mod shared;
mod summary;
mod warnings;

#[cfg(test)]
mod tests;

use std::path::Path;

pub use changes::{Change, Effect};
pub use effective::{EffectiveSetting, EffectiveSettings, KeyOrigins, SettingOrigin};
pub use file::ConfigFile;
pub use live::{Changeable, InForce};
pub(crate) use load::environment::PREFIX;
pub use load::error::ConfigError;
#[doc(hidden)]
pub use reference::reference;
pub use sections::events::EventSettings;
pub use sections::grpc::{Grpc, Listen, NotAnAddress};
pub use sections::http::{Endpoint, Http, Origins};
pub use sections::leases::Leases;
pub use sections::limits::{FullRule, Limits};
pub use sections::redis::{Redis, Topology};
pub use sections::redis_url::{NotARedisUrl, RedisUrl};
pub use sections::refusal::{RefusalSettings, Shown};
pub use sections::runtime::Runtime;
pub use sections::shutdown::Shutdown;
pub use sections::store::{Backend, OutageRule, StoreSettings};
pub use sections::telemetry::{LogFormat, LogUsers, Share, Telemetry};
pub use sections::tls::{Tls, TlsKeys};
pub use sections::users_file::user_limits;
pub use shared::{Shared, SharedSettings};

use load::environment;
use load::error::{ConfigProblem, Report};
use load::file::text;
use load::raw::Raw;
use load::section::{Keys, KnownKey, Reader};
use sections::identity;
use sections::renamed::RENAMED;

use crate::identity::Identity;

/// All settings, checked. The default applies where nothing is written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// The door for Envoy.
    pub grpc: Grpc,
    /// The door for everything else.
    pub http: Http,
    /// Where rosters are kept.
    pub store: StoreSettings,
    /// How many streams.
    pub limits: Limits,
    /// How long a session counts without renewal.
    pub leases: Leases,
    /// Where a request has its user, session and other facts.
    pub identity: Identity,
    /// What a refusal says about other sessions.
    pub refusal: RefusalSettings,
    /// Where events go.
    pub events: EventSettings,
    /// How the log looks.
    pub telemetry: Telemetry,
    /// How many threads serve.
    pub runtime: Runtime,
    /// How the process ends.
    pub shutdown: Shutdown,
    /// A warning for each key that is written by an old name.
    pub old_names: Vec<String>,
    /// Where each key that is set was written.
    pub origins: KeyOrigins,
}

impl Config {
    /// The defaults, overlaid by the file, overlaid by the environment.
    ///
    /// # Errors
    /// The file can't be read, or something in it or in the environment is wrong. The error names
    /// everything that is wrong.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut report = Report::default();
        let raw = match file {
            None => Raw::new(known_keys(), RENAMED),
            Some(path) => Raw::read(known_keys(), RENAMED, text(path).as_deref(), &mut report),
        };
        let (config, error) = Self::overlaid(raw, file, environment, report);
        error.map_or(Ok(config), Err)
    }

    /// Loads the file and the environment like [`Self::load`]. Keys with wrong values keep their
    /// defaults, so there is always a configuration to look at.
    #[must_use]
    pub fn examine(
        file: &Path,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> (Self, Option<ConfigError>) {
        let mut report = Report::default();
        let raw = Raw::read(known_keys(), RENAMED, text(file).as_deref(), &mut report);
        Self::overlaid(raw, Some(file), environment, report)
    }

    /// Loads the text of a file that was already read, or reports why it can't be read.
    fn understand(
        file: &Path,
        text: Result<&[u8], &ConfigProblem>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut report = Report::default();
        let raw = Raw::read(known_keys(), RENAMED, text, &mut report);
        let (config, error) = Self::overlaid(raw, Some(file), environment, report);
        error.map_or(Ok(config), Err)
    }

    /// Checks what a file says, overlaid by the environment.
    fn overlaid(
        mut raw: Raw,
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        mut report: Report,
    ) -> (Self, Option<ConfigError>) {
        environment::overlay(&mut raw, environment, &mut report);
        let config = Self::check(&raw, &mut report);
        (config, report.into_error(file))
    }

    /// Declares every key, section by section.
    fn keys(&mut self, keys: &mut impl Keys) {
        self.grpc.keys(keys);
        self.http.keys(keys);
        self.store.keys(keys);
        self.limits.keys(keys);
        self.leases.keys(keys);
        identity::keys(&mut self.identity, keys);
        self.refusal.keys(keys);
        self.events.keys(keys);
        self.telemetry.keys(keys);
        self.runtime.keys(keys);
        self.shutdown.keys(keys);
    }

    /// The values that are written, and defaults for all other keys.
    fn check(raw: &Raw, report: &mut Report) -> Self {
        let mut config = Self {
            old_names: raw.warnings().to_vec(),
            origins: KeyOrigins::of(raw),
            ..Self::default()
        };
        config.keys(&mut Reader { raw, report });
        config.grpc.check(raw, report);
        config.http.check(&config.grpc.listen, raw, report);
        config.store.redis.check(raw, report);
        config.leases.check(config.store.timeout, raw, report);
        config.telemetry.check(raw, report);
        config.shutdown.check(raw, report);
        config
    }
}

/// Every key there is, with its documentation.
fn known_keys() -> Vec<KnownKey> {
    let mut known = Vec::new();
    Config::default().keys(&mut known);
    known
}

/// Every key by its full name, and the words that its value consists of or begins with; none where
/// it takes any text, number or duration. For tests that try all of them on the real program.
#[doc(hidden)]
#[must_use]
pub fn keys() -> Vec<(&'static str, Vec<&'static str>)> {
    let known = known_keys().into_iter();
    known.map(|known| (known.key.name, known.words)).collect()
}
