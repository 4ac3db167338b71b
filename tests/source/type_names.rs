//! No two types of the crate share a name, so that a name says which type is meant.

use std::collections::BTreeMap;
use std::path::Path;

use super::imports::{is_test, sources};

/// What declares a type.
const KEYWORDS: [&str; 5] = ["struct ", "enum ", "union ", "trait ", "type "];

/// The macros that declare a type, whose name stands first in them.
const MACROS: [&str; 3] = ["group! {", "label! {", "name! {"];

/// The types that a file declares, without those in modules within it (its tests) and those of traits.
fn declared(code: &str) -> Vec<&str> {
    let mut is_in_macro = false;
    let names = code.lines().filter_map(|line| {
        if MACROS.contains(&line) {
            is_in_macro = true;
            return None;
        }
        let declared = if is_in_macro {
            let name = line
                .strip_prefix("    ")
                .filter(|it| it.starts_with(char::is_uppercase))?;
            is_in_macro = false;
            name
        } else {
            let bare = match line.strip_prefix("pub") {
                Some(rest) if rest.starts_with('(') => rest.split_once(") ")?.1,
                Some(rest) => rest.trim_start(),
                None => line,
            };
            KEYWORDS
                .iter()
                .find_map(|keyword| bare.strip_prefix(keyword))?
        };
        declared
            .split(|c: char| !c.is_alphanumeric() && c != '_')
            .next()
    });
    names.collect()
}

#[test]
fn a_declaration_is_found_however_it_is_written() {
    let code = "struct A;\npub enum B<T> {\npub(in crate::x) trait C: D {\n    type E;\n}\n\
        pub(super) type F = u8;\nlabel! {\n    /// G.\n    G {\n        H => \"h\",\n    }\n}\n\
        mod tests {\n    struct I;\n}\nlet structure = 1;\n";
    assert_eq!(declared(code), ["A", "B", "C", "F", "G"]);
}

#[test]
fn no_two_types_share_a_name() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let mut homes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in files {
        let path = file.strip_prefix(&src).unwrap().to_str().unwrap();
        if is_test(path) {
            continue;
        }
        let code = std::fs::read_to_string(&file).unwrap();
        for name in declared(&code) {
            homes
                .entry(name.to_owned())
                .or_default()
                .push(path.to_owned());
        }
    }
    assert!(homes.len() > 300, "{} types", homes.len());
    homes.retain(|_, homes| homes.len() > 1);
    assert!(homes.is_empty(), "rename one of each: {homes:#?}");
}
