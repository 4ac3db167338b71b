//! Errors of a configuration: each names the place, the key, the value and what is allowed.
//!
//! Loading collects all problems before it gives up, so that you can fix a file in one round.

use std::fmt;
use std::path::{Path, PathBuf};

use super::origin::Origin;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) struct ConfigProblem {
    /// Where it was written.
    pub(in crate::config) origin: Origin,
    /// The key, its parts joined by dots; empty where the file as a whole is wrong.
    pub(in crate::config) key: String,
    /// The value, and what is allowed instead. It holds no secret.
    pub(in crate::config) message: String,
}

/// Why there is no configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    file: Option<PathBuf>,
    problems: Vec<ConfigProblem>,
}

/// The problems found so far.
#[derive(Debug, Default)]
pub(in crate::config) struct Report {
    problems: Vec<ConfigProblem>,
}

// === impl ConfigError ===

impl ConfigError {
    /// A line for each problem.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.problems.iter().map(|problem| self.line(problem))
    }

    /// Where something is wrong: the lines of the file, or the variables.
    pub fn places(&self) -> impl Iterator<Item = String> {
        let problems = self.problems.iter();
        problems.map(|problem| self.place(&problem.origin))
    }

    /// A problem with its place and its key.
    fn line(&self, problem: &ConfigProblem) -> String {
        let ConfigProblem {
            origin,
            key,
            message,
        } = problem;
        let place = self.place(origin);
        if key.is_empty() {
            format!("{place}: {message}")
        } else {
            format!("{place}: {key}: {message}")
        }
    }

    /// A place as an error shows it.
    fn place(&self, origin: &Origin) -> String {
        match (origin, &self.file) {
            (Origin::Variable(name), _) => name.clone(),
            (Origin::Line(0), Some(file)) => file.display().to_string(),
            (Origin::Line(line), Some(file)) => format!("{}:{line}", file.display()),
            (Origin::Line(_), None) => "defaults".to_owned(),
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
    /// Adds a problem.
    pub(in crate::config) fn add(&mut self, problem: ConfigProblem) {
        self.problems.push(problem);
    }

    /// The error, if there was a problem.
    pub(in crate::config) fn into_error(self, file: Option<&Path>) -> Option<ConfigError> {
        (!self.problems.is_empty()).then(|| ConfigError {
            file: file.map(Path::to_path_buf),
            problems: self.problems,
        })
    }
}
