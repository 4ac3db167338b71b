//! What is wrong with a configuration, in words that name the place, the key, the value and what is allowed.
//!
//! All problems are collected before loading gives up: who fixes a file wants one list, not one round trip for each line.

use std::fmt;
use std::path::{Path, PathBuf};

use super::value::{Written, Wrong};

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// In the file, in this line; 0 where the line isn't known.
    Line(u64),
    /// In the environment, by the name of the variable.
    Variable(String),
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where it was written.
    pub origin: Origin,
    /// The key, its parts joined by dots; empty where the file as a whole is wrong.
    pub key: String,
    /// The value and what is allowed instead. Holds no secret.
    pub message: String,
}

/// Why there is no configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    file: Option<PathBuf>,
    problems: Vec<Problem>,
}

/// The problems found so far.
#[derive(Debug, Default)]
pub(in crate::config) struct Report {
    problems: Vec<Problem>,
}

// === impl ConfigError ===

impl ConfigError {
    /// All that is wrong, each in a line of its own.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.problems.iter().map(|problem| self.line(problem))
    }

    fn line(
        &self,
        Problem {
            origin,
            key,
            message,
        }: &Problem,
    ) -> String {
        let place = match (origin, &self.file) {
            (Origin::Variable(name), _) => name.clone(),
            (Origin::Line(0), Some(file)) => file.display().to_string(),
            (Origin::Line(line), Some(file)) => format!("{}:{line}", file.display()),
            (Origin::Line(_), None) => "defaults".to_owned(),
        };
        if key.is_empty() {
            format!("{place}: {message}")
        } else {
            format!("{place}: {key}: {message}")
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, line) in self.lines().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            f.write_str(&line)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

// === impl Report ===

impl Report {
    /// The value as `read` understands it; the default where nothing is written or what is written is wrong.
    pub(in crate::config) fn read<T>(
        &mut self,
        key: &str,
        written: Option<&Written>,
        default: T,
        read: impl FnOnce(&Written) -> Result<T, Wrong>,
    ) -> T {
        match written.map(read) {
            None => default,
            Some(Ok(value)) => value,
            Some(Err(wrong)) => {
                self.add(wrong.into_problem(key));
                default
            }
        }
    }

    /// Accepts nothing at all for a key whose feature comes later.
    pub(in crate::config) fn nothing(&mut self, key: &str, written: Option<&Written>) {
        self.read(key, written, (), |written| match written.scalar() {
            Some("") => Ok(()),
            _ => Err(written.unavailable("null")),
        });
    }

    /// Notes a problem.
    pub(in crate::config) fn add(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// What was wrong, if anything was.
    pub(in crate::config) fn into_error(self, file: Option<&Path>) -> Option<ConfigError> {
        (!self.problems.is_empty()).then(|| ConfigError {
            file: file.map(Path::to_path_buf),
            problems: self.problems,
        })
    }
}
