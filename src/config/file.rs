//! The configuration file: read once at the start, and read again when it has changed.

use std::fmt;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::load::file::text;
use super::{Config, ConfigError};

/// A configuration file, and the environment that overrides it.
#[derive(Clone)]
pub struct ConfigFile {
    /// Where it is.
    path: PathBuf,
    /// The variables as they were when the process started.
    environment: Vec<(String, String)>,
    /// The text as it was when the process started.
    text: Bytes,
}

impl ConfigFile {
    /// Reads the file at that path, under those variables, and what it says.
    ///
    /// # Errors
    /// The file can't be read, or something in it or in the environment is wrong. All that is wrong is named at once.
    pub fn load(
        path: PathBuf,
        environment: Vec<(String, String)>,
    ) -> Result<(Self, Config), ConfigError> {
        let read = text(&path);
        let config = Config::understand(&path, read.as_deref(), environment.iter().cloned())?;
        let file = Self {
            path,
            environment,
            // A file that couldn't be read was refused above.
            text: read.unwrap_or_default(),
        };
        Ok((file, config))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The text as it was when the process started.
    #[must_use]
    pub fn text(&self) -> &Bytes {
        &self.text
    }

    /// What it says, if its text is that.
    ///
    /// # Errors
    /// Something in it is wrong. All that is wrong is named at once.
    pub fn understand(&self, text: &[u8]) -> Result<Config, ConfigError> {
        Config::understand(&self.path, Ok(text), self.environment.iter().cloned())
    }
}

impl fmt::Debug for ConfigFile {
    /// Says where it is; a variable may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConfigFile({})", self.path.display())
    }
}
