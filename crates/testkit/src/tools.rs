//! Finds the repository's files, and the programs and files that tests need besides them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{LazyLock, Mutex, PoisonError};

/// The path of a file or folder of the repository, which `path` names from its root.
pub fn repository(path: impl AsRef<Path>) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join(path)
}

/// The streamgate program under test. cargo names it to the tests and benches of its package.
pub fn streamgate_program() -> PathBuf {
    let program = std::env::var_os("CARGO_BIN_EXE_streamgate");
    program
        .expect("cargo sets CARGO_BIN_EXE_streamgate: run tests with `cargo test`")
        .into()
}

/// The path that the environment variable holds, or else the path that the script prints, which
/// fetches the tool where it is missing. A script runs once in a process.
pub fn find(variable: &str, script: &str) -> PathBuf {
    static FOUND: LazyLock<Mutex<HashMap<String, PathBuf>>> = LazyLock::new(Mutex::default);
    if let Some(path) = std::env::var_os(variable) {
        return path.into();
    }
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    let fetch = || {
        let printed = Command::new(repository(script)).output().unwrap();
        assert!(printed.status.success(), "{script}: {printed:?}");
        String::from_utf8(printed.stdout).unwrap().trim().into()
    };
    found.entry(script.to_owned()).or_insert_with(fetch).clone()
}

/// A program that the system has to bring along. Says which package has it if it is not there.
pub fn tool(name: &str, package: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).map(|place| place.join(name));
    places
        .find(|file| file.is_file())
        .unwrap_or_else(|| panic!("{name} is missing; on Debian: apt-get install {package}"))
}
