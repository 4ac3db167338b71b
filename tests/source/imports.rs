//! Imports point one way: a file imports only modules that `src/lib.rs` declares above its own. Tests within `src` may import any.

use std::path::{Path, PathBuf};

/// None of these imports another: the doors, and what serves them.
const STRANGERS: [&str; 3] = ["envoy", "http", "server"];

/// The modules in the order in which `src/lib.rs` declares them.
fn modules(lib: &str) -> Vec<&str> {
    let declared = lib.lines().filter_map(|line| {
        let line = line.trim_start_matches("pub ");
        line.strip_prefix("mod ")?.strip_suffix(';')
    });
    declared.collect()
}

/// The source files below a folder.
pub(crate) fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The modules that the code imports, without its tests and comments.
fn imported(code: &str) -> impl Iterator<Item = &str> {
    let code = code
        .split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or_default();
    let lines = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    lines.flat_map(|line| {
        let paths = line.split("crate::").skip(1);
        paths.map(|path| {
            path.split(|c: char| !c.is_alphanumeric() && c != '_')
                .next()
                .unwrap()
        })
    })
}

/// Whether the file is compiled for tests alone.
pub(crate) fn is_test(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap();
    name.ends_with("tests.rs") || path.contains("/tests/") || path.contains("fuzzing")
}

#[test]
fn imports_point_one_way() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let lib = std::fs::read_to_string(src.join("lib.rs")).unwrap();
    let modules = modules(&lib);
    let place = |module: &str| modules.iter().position(|declared| *declared == module);
    let mut files = Vec::new();
    sources(&src, &mut files);
    let mut seen = 0;
    for file in files {
        let path = file.strip_prefix(&src).unwrap().to_str().unwrap();
        let module = path.split(['/', '.']).next().unwrap();
        if is_test(path) || ["lib", "main"].contains(&module) {
            continue;
        }
        let own = place(module).unwrap_or_else(|| panic!("{path} is in no module of src/lib.rs"));
        let code = std::fs::read_to_string(&file).unwrap();
        for other in imported(&code) {
            let Some(theirs) = place(other) else { continue };
            assert!(
                theirs <= own,
                "{path} imports {other}, which stands below {module}"
            );
            assert!(
                module != "identity" || ["identity", "util"].contains(&other),
                "{path} imports {other}: what reads a request imports only util of the crate"
            );
            let are_strangers = STRANGERS.contains(&module) && STRANGERS.contains(&other);
            assert!(
                module == other || !are_strangers,
                "{path} imports {other}: doors know neither each other nor the server"
            );
            seen += 1;
        }
    }
    assert!(seen > 100, "{seen} imports");
}
