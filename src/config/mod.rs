//! Configuration: one YAML file and the environment, turned into checked values.
//!
//! There are two types. `Raw` is what was written, in the shape of the file; [`Config`] is what it means. The way from
//! one to the other is the only place where values are checked, section by section, each in its own file with its keys,
//! defaults and ranges. Nothing reads the process's environment here: the command line hands it in.

mod changes;
mod file;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod keys;
mod live;
mod load;
mod sections;
mod shared;
mod summary;
mod warnings;

#[cfg(test)]
mod tests;

use std::path::Path;

pub use changes::{Change, Effect};
pub use file::ConfigFile;
#[doc(hidden)]
pub use keys::keys;
pub use live::{Changeable, InForce};
pub(crate) use load::environment::PREFIX;
pub use load::error::{ConfigError, Origin, Problem};
pub use sections::grpc::{Grpc, Listen, NotAnAddress};
pub use sections::http::{Endpoint, Http, Origins};
pub use sections::leases::Leases;
pub use sections::limits::{Limits, WhenFull};
pub use sections::redis_url::{NotARedisUrl, RedisUrl};
pub use sections::refusal::{Refusal, Shown};
pub use sections::shutdown::Shutdown;
pub use sections::store::{Backend, OutageRule, Redis, Store, Topology};
pub use sections::telemetry::{LogFormat, Share, Telemetry};
pub use sections::tls::{Tls, TlsKeys};
pub use sections::users_file::user_limits;
pub use shared::{Shared, SharedSettings};

use load::environment;
use load::error::Report;
use load::yaml::Raw;

use crate::identity::Identity;

/// All settings, checked. The default is what applies where nothing is written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// The door for Envoy.
    pub grpc: Grpc,
    /// The door for everything else.
    pub http: Http,
    /// Where rosters are kept.
    pub store: Store,
    /// How many streams.
    pub limits: Limits,
    /// How long a session counts without renewal.
    pub leases: Leases,
    /// Where the facts about a request are found.
    pub identity: Identity,
    /// What a refusal tells.
    pub refusal: Refusal,
    /// How the log looks.
    pub telemetry: Telemetry,
    /// How the process ends.
    pub shutdown: Shutdown,
}

impl Config {
    /// The defaults, overlaid by the file, overlaid by the environment.
    ///
    /// # Errors
    /// The file can't be read, or something in it or in the environment is wrong. All that is wrong is named at once.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut report = Report::default();
        let raw = match file {
            None => Raw::default(),
            Some(path) => Raw::read(file::text(path).as_deref(), &mut report),
        };
        let (config, error) = Self::overlaid(raw, file, environment, report);
        error.map_or(Ok(config), Err)
    }

    /// The same, and what can be understood in spite of what is wrong: the default stands in for that.
    #[must_use]
    pub fn examine(
        file: &Path,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> (Self, Option<ConfigError>) {
        let mut report = Report::default();
        let raw = Raw::read(file::text(file).as_deref(), &mut report);
        Self::overlaid(raw, Some(file), environment, report)
    }

    /// The same for a file that was read before, or couldn't be.
    fn understand(
        file: &Path,
        text: Result<&[u8], &Problem>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut report = Report::default();
        let raw = Raw::read(text, &mut report);
        let (config, error) = Self::overlaid(raw, Some(file), environment, report);
        error.map_or(Ok(config), Err)
    }

    /// What was written in a file, overlaid by the environment.
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

    /// The sections that are not alike in another one, but for those that may change while the process runs.
    #[must_use]
    pub fn sections_unlike(&self, other: &Self) -> Vec<&'static str> {
        let log_format = (self.telemetry.log_format, other.telemetry.log_format);
        [
            ("grpc", self.grpc != other.grpc),
            ("http", self.http != other.http),
            ("store", self.store != other.store),
            ("leases", self.leases != other.leases),
            ("identity", self.identity != other.identity),
            (
                "limits.users_file",
                self.limits.users_file != other.limits.users_file,
            ),
            ("telemetry.log_format", log_format.0 != log_format.1),
            ("shutdown", self.shutdown != other.shutdown),
        ]
        .into_iter()
        .filter_map(|(section, is_unlike)| is_unlike.then_some(section))
        .collect()
    }

    fn check(raw: &Raw, report: &mut Report) -> Self {
        let config = Self {
            grpc: raw.grpc.check(report),
            http: raw.http.check(report),
            store: raw.store.check(report),
            limits: raw.limits.check(report),
            leases: raw.leases.check(report),
            identity: raw.identity.check(report),
            refusal: raw.refusal.check(report),
            telemetry: raw.telemetry.check(report),
            shutdown: raw.shutdown.check(report),
        };
        let timeout = (raw.store.timeout.as_ref(), config.store.timeout);
        raw.leases.check_against(config.leases, timeout, report);
        let grpc = (raw.grpc.listen.as_ref(), &config.grpc.listen);
        raw.http.check_against(config.http.listen, grpc, report);
        config
    }
}
