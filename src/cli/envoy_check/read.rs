//! Reads the file, and says clearly if it isn't an Envoy configuration.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::node::Node;

/// The largest file that is read. A `config_dump` of a large gateway has some megabytes.
const MAX_BYTES: u64 = 32 * 1024 * 1024;

/// So many values a file may have, aliases counted each time: a bound on memory.
const MAX_NODES: usize = 2_000_000;

/// What a bootstrap file, a `config_dump` and a file of resources begin with.
const KNOWN: [&str; 4] = [
    "static_resources",
    "dynamic_resources",
    "configs",
    "resources",
];

/// Why there is nothing to check.
#[derive(Debug, thiserror::Error)]
pub(super) enum EnvoyFileError {
    /// The system doesn't let us read it.
    #[error("failed to read {0}: {1}")]
    Unreadable(PathBuf, #[source] std::io::Error),
    /// It is too large.
    #[error("{0}: larger than {mib} MiB; pass one Envoy's configuration", mib = MAX_BYTES / 1024 / 1024)]
    TooLarge(PathBuf),
    /// There is nothing in it.
    #[error("{0}: empty; pass an Envoy configuration, or the output of Envoy's /config_dump")]
    Empty(PathBuf),
    /// It is no text.
    #[error("{0}: not UTF-8; pass an Envoy configuration in YAML or JSON")]
    NotText(PathBuf),
    /// It is neither YAML nor JSON.
    #[error("{file}: neither YAML nor JSON, so no Envoy configuration: {message}")]
    NotYaml {
        /// The file, and the line where known.
        file: String,
        /// What the parser says.
        message: String,
    },
    /// It is something else.
    #[error(
        "{0}: no Envoy configuration: none of {known} is at its top; pass a bootstrap file, or the output of \
         Envoy's /config_dump",
        known = KNOWN.join(", ")
    )]
    NotEnvoy(PathBuf),
}

/// The tree of a file; `-` is standard input.
pub(super) fn read(file: &Path, input: &mut impl Read) -> Result<Node, EnvoyFileError> {
    let unreadable = |error| EnvoyFileError::Unreadable(file.to_owned(), error);
    let mut bytes = Vec::new();
    if file == Path::new("-") {
        input
            .take(MAX_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(unreadable)?;
    } else {
        let opened = std::fs::File::open(file).map_err(unreadable)?;
        opened
            .take(MAX_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(unreadable)?;
    }
    if bytes.len() as u64 > MAX_BYTES {
        return Err(EnvoyFileError::TooLarge(file.to_owned()));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| EnvoyFileError::NotText(file.to_owned()))?;
    parse(file, text)
}

/// The tree of a text.
pub(super) fn parse(file: &Path, text: &str) -> Result<Node, EnvoyFileError> {
    if text.trim().is_empty() {
        return Err(EnvoyFileError::Empty(file.to_owned()));
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_nodes: MAX_NODES, max_events: 2 * MAX_NODES },
        with_snippet: false,
        strict_booleans: true,
        non_finite_float_policy: serde_saphyr::NonFiniteFloatPolicy::AsString,
    };
    let tree: Node = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let line = error.location().map(|location| location.line());
        let message = error.render_with_formatter(&serde_saphyr::UserMessageFormatter);
        let message = message
            .rsplit_once(" at line ")
            .map_or(&*message, |(told, _)| told)
            .to_owned();
        let file = file.display();
        EnvoyFileError::NotYaml {
            file: line.map_or(file.to_string(), |line| format!("{file}:{line}")),
            message,
        }
    })?;
    let root = tree.root();
    if KNOWN.iter().any(|key| root.get(key).is_some()) {
        Ok(tree)
    } else {
        Err(EnvoyFileError::NotEnvoy(file.to_owned()))
    }
}
