//! Tests of whole configurations: files named by their mistake, variables, and the errors and
//! warnings about both.

mod many_users;
mod panics;
mod reference;
mod refused;
mod renamed;
mod secrets;
mod taken;

use std::path::PathBuf;

use super::*;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/config")
        .join(name)
}

fn load_fixture(name: &str) -> Result<Config, ConfigError> {
    Config::load(Some(&fixture(name)), [])
}

fn load_text(text: &str) -> Result<Config, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("streamgate.yaml");
    std::fs::write(&file, text).unwrap();
    Config::load(Some(&file), [])
}

fn load_variables(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::load(
        None,
        variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
    )
}

/// The error about a file, without its folder.
fn complaint(result: Result<Config, ConfigError>) -> String {
    let error = result.expect_err("a mistake").to_string();
    let without_folder = |line: &str| match line.split_once(": ") {
        Some((place, rest)) => format!("{}: {rest}", place.rsplit('/').next().unwrap()),
        None => line.to_owned(),
    };
    error
        .lines()
        .map(without_folder)
        .collect::<Vec<_>>()
        .join("\n")
}
