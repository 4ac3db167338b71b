//! What has to hold of everything that strangers can write, whatever they write: one property function for each fuzz target.
//!
//! A property function takes bytes, and panics where something that is promised doesn't hold. The targets in `fuzz/` call them by the
//! million with bytes of libFuzzer's making; the tests here call them with each file of `fuzz/corpus/`, so that whatever was once found
//! stays found where nobody has cargo-fuzz. Each lies beside what it is about, since that is private. Not part of the library: it is
//! compiled for tests and under `cfg(fuzzing)` alone.

#[cfg(test)]
mod tests;

use crate::identity::MAX_ID_BYTES;

/// A property that has to hold of any bytes.
pub type Property = fn(&[u8]);

/// The targets by their names, which are those in `fuzz/Cargo.toml` and of the folders in `fuzz/corpus/`.
pub const TARGETS: [(&str, Property); 11] = [
    ("bodies", crate::http::fuzzing::bodies),
    ("claim", crate::envoy::fuzzing::claim),
    ("cmcd", crate::envoy::fuzzing::cmcd),
    ("config", crate::config::fuzzing::config),
    ("cursor", crate::store::fuzzing::cursor),
    ("entry", crate::envoy::fuzzing::entry),
    ("identity", crate::envoy::fuzzing::identity),
    ("record", crate::store::redis::fuzzing::record),
    ("reply", crate::store::redis::fuzzing::reply),
    ("source", crate::config::fuzzing::source),
    ("tokens", crate::http::fuzzing::tokens),
];

/// Calls the property of that target.
///
/// # Panics
/// Something that is promised doesn't hold; or there is no such target.
pub fn run(target: &str, data: &[u8]) {
    let found = TARGETS.iter().find(|(name, _)| *name == target);
    assert!(found.is_some(), "there is no target {target}");
    if let Some((_, property)) = found {
        property(data);
    }
}

/// A name that got through: short, there, and without control characters.
pub(crate) fn assert_is_name(text: &str) {
    assert!(!text.is_empty() && text.len() <= MAX_ID_BYTES, "{text:?}");
    assert!(!text.chars().any(char::is_control), "{text:?}");
}

/// The same of one that may not be there.
pub(crate) fn assert_are_names(names: Option<&str>) {
    names.into_iter().for_each(assert_is_name);
}

/// The bytes up to the first of that value, and those behind it.
pub(crate) fn cut(data: &[u8], at: u8) -> (&[u8], &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == at);
    let first = parts.next().unwrap_or_default();
    (first, parts.next().unwrap_or_default())
}

/// The text that those bytes are, what is none replaced.
pub(crate) fn text(data: &[u8]) -> String {
    String::from_utf8_lossy(data).into_owned()
}
