//! Where a configuration was read, so that it can be read anew.

use std::fmt;
use std::path::{Path, PathBuf};

use super::{Config, ConfigError};

/// A configuration file, and the environment that lies over it.
#[derive(Clone)]
pub struct ConfigFile {
    /// Where it is.
    path: PathBuf,
    /// The variables as they were when the process started.
    environment: Vec<(String, String)>,
}

impl ConfigFile {
    /// The file at that path, under those variables.
    #[must_use]
    pub const fn new(path: PathBuf, environment: Vec<(String, String)>) -> Self {
        Self { path, environment }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it says, if its text is that.
    ///
    /// # Errors
    /// Something in it is wrong. All that is wrong is named at once.
    pub fn understand(&self, text: &str) -> Result<Config, ConfigError> {
        Config::understand(Some((&self.path, text)), self.environment.iter().cloned())
    }
}

impl fmt::Debug for ConfigFile {
    /// Says where it is; a variable may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConfigFile({})", self.path.display())
    }
}
