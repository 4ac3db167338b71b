//! The table of all keys in the documentation is written from their declarations.

use std::path::{Path, PathBuf};

use super::*;

/// What stands before the table, in a line of its own.
const BEGIN: &str = "<!-- keys: begin -->\n";

/// What stands behind the table.
const END: &str = "<!-- keys: end -->\n";

/// The documents of the project.
fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = std::fs::read_dir(root.join("docs")).into_iter().flatten();
    let docs = docs.map(|file| file.unwrap().path());
    docs.filter(|path| path.extension().is_some_and(|it| it == "md"))
        .chain([root.join("README.md")])
        .collect()
}

/// Holds the table to the code. With `STREAMGATE_WRITE=1` it is written again.
#[test]
fn the_table_of_keys_is_the_one_in_the_code() {
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        text.contains(BEGIN).then_some((path, text))
    };
    let found: Vec<_> = documents().into_iter().filter_map(read).collect();
    let [(path, text)] = &found[..] else {
        panic!("the table of keys must be in one document: {found:?}");
    };
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (written, after) = rest.split_once(END).unwrap();
    let table = reference();
    assert!(
        table.lines().all(|row| row.matches('|').count() == 5),
        "{table}"
    );
    if std::env::var_os("STREAMGATE_WRITE").is_some() {
        std::fs::write(path, [before, BEGIN, &table, END, after].concat()).unwrap();
    } else {
        assert_eq!(written, table, "run this test with STREAMGATE_WRITE=1");
    }
    // Where the table links to is written below it, so that it can move between documents.
    for link in table.split("][").skip(1) {
        let label = link.split(']').next().unwrap();
        assert!(
            after.contains(&format!("\n[{label}]: ")),
            "no link [{label}]"
        );
    }
}

#[test]
fn the_defaults_in_the_table_are_values_that_are_taken() {
    for known in known_keys() {
        let (sections, name) = known.key.name.rsplit_once('.').unwrap();
        let opened: String = sections.split('.').map(|it| format!("{{{it}: ")).collect();
        let closed = "}".repeat(sections.split('.').count());
        let text = format!("{opened}{{{name}: {}}}{closed}", known.default);
        assert_eq!(load_text(&text), Ok(Config::default()), "{text}");
    }
}
