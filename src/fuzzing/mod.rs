//! Properties of the decoders of all untrusted input: one property function for each fuzz target.
//!
//! A property function takes bytes, and panics if a promise doesn't hold. The targets in `fuzz/`
//! call them millions of times with bytes from libFuzzer. The tests here call them with each file
//! of `fuzz/corpus/`, so that past findings stay fixed even without cargo-fuzz. Each function is in
//! the module that it tests, whose items are private. Not part of the library: compiled only for
//! tests and under `cfg(fuzzing)`.

#[cfg(test)]
mod tests;

use crate::identity::MAX_ID_BYTES;

/// A property that must hold for any bytes.
pub type Property = fn(&[u8]);

/// The targets by name. `fuzz/Cargo.toml` and the folders in `fuzz/corpus/` use the same names.
pub const TARGETS: [(&str, Property); 12] = [
    ("bodies", crate::http::fuzzing::bodies),
    ("claim", crate::envoy::fuzzing::claim),
    ("cmcd", crate::envoy::fuzzing::cmcd),
    ("config", crate::config::fuzzing::config),
    ("cursor", crate::store::fuzzing::cursor),
    ("entry", crate::envoy::fuzzing::entry),
    ("envoy_check", crate::cli::fuzzing::envoy_check),
    ("identity", crate::envoy::fuzzing::identity),
    ("record", crate::store::redis::fuzzing::record),
    ("reply", crate::store::redis::fuzzing::reply),
    ("source", crate::config::fuzzing::source),
    ("tokens", crate::http::fuzzing::tokens),
];

/// Calls the property of that target.
///
/// # Panics
/// A promise doesn't hold; or there is no such target.
pub fn run(target: &str, data: &[u8]) {
    let found = TARGETS.iter().find(|(name, _)| *name == target);
    assert!(found.is_some(), "there is no target {target}");
    if let Some((_, property)) = found {
        property(data);
    }
}

/// An accepted name is short, not empty, and without control characters.
pub(crate) fn assert_is_name(text: &str) {
    assert!(!text.is_empty() && text.len() <= MAX_ID_BYTES, "{text:?}");
    assert!(!text.chars().any(char::is_control), "{text:?}");
}

/// The same for an optional name.
pub(crate) fn assert_are_names(names: Option<&str>) {
    names.into_iter().for_each(assert_is_name);
}

/// The bytes before and after the first one with that value.
pub(crate) fn cut(data: &[u8], at: u8) -> (&[u8], &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == at);
    let first = parts.next().unwrap_or_default();
    (first, parts.next().unwrap_or_default())
}

/// The bytes as text, with invalid UTF-8 replaced.
pub(crate) fn text(data: &[u8]) -> String {
    String::from_utf8_lossy(data).into_owned()
}
