//! Replays the corpora.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::*;

/// How large a corpus may become, in files and in bytes.
const ROOM: (usize, usize) = (60, 40_000);

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// The names in a folder of `fuzz/`.
fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
    let names = entries.map(|entry| name(entry).into_string().unwrap());
    names.collect()
}

#[test]
fn properties_hold_for_every_corpus_file() {
    for (target, property) in TARGETS {
        let folder = fuzz().join("corpus").join(target);
        let files = names(&folder);
        assert!(!files.is_empty(), "{target} has no corpus");
        let mut bytes = 0;
        for file in &files {
            let data = fs::read(folder.join(file)).unwrap();
            bytes += data.len();
            let held = std::panic::catch_unwind(|| property(&data));
            assert!(held.is_ok(), "{target}: {file}");
        }
        assert!(files.len() <= ROOM.0, "{target} has {} files", files.len());
        assert!(bytes <= ROOM.1, "{target} has {bytes} bytes");
    }
}

#[test]
fn each_target_has_exactly_one_program_and_corpus() {
    let targets: BTreeSet<String> = TARGETS.map(|(name, _)| name.to_owned()).into();
    assert_eq!(names(&fuzz().join("corpus")), targets);
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    let named = |line: &str| {
        Some(
            line.strip_prefix("name = \"")?
                .strip_suffix('"')?
                .to_owned(),
        )
    };
    let programs: BTreeSet<String> = manifest.lines().filter_map(named).skip(1).collect();
    assert_eq!(programs, targets);
}
