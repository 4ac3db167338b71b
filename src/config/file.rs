//! The configuration file: read once at the start, and read again when it has changed.

use std::fmt;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::load::file::text;
use super::{Config, ConfigError};

/// A configuration file, and the environment, which overrides it.
#[derive(Clone)]
pub struct ConfigFile {
    /// Its path.
    path: PathBuf,
    /// The variables as they were when the process started.
    environment: Vec<(String, String)>,
    /// Its text when the process started.
    text: Bytes,
}

impl ConfigFile {
    /// Reads the file and checks its text together with the environment.
    ///
    /// # Errors
    /// The file can't be read, or something in it or in the environment is wrong. The error names
    /// everything that is wrong.
    pub fn load(
        path: PathBuf,
        environment: Vec<(String, String)>,
    ) -> Result<(Self, Config), ConfigError> {
        let read = text(&path);
        let config = Config::understand(&path, read.as_deref(), environment.iter().cloned())?;
        let file = Self {
            path,
            environment,
            // An unreadable file was refused above.
            text: read.unwrap_or_default(),
        };
        Ok((file, config))
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its text when the process started.
    #[must_use]
    pub fn text(&self) -> &Bytes {
        &self.text
    }

    /// The configuration that results if the file has this text.
    ///
    /// # Errors
    /// Something in the text is wrong. The error names everything that is wrong.
    pub fn understand(&self, text: &[u8]) -> Result<Config, ConfigError> {
        Config::understand(&self.path, Ok(text), self.environment.iter().cloned())
    }
}

impl fmt::Debug for ConfigFile {
    /// Shows only the path: a variable may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConfigFile({})", self.path.display())
    }
}
