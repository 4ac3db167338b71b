//! Owns finding the repository's documents, and the examples, sections and anchors in them. No test
//! names a document that it doesn't read itself, so a page may be added or moved without one.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use crate::tools::repository;

/// A document of the repository.
#[derive(Debug)]
pub struct Document {
    /// Its path from the repository's root.
    pub path: String,
    /// Its text, in Markdown.
    pub text: String,
}

/// A fenced block of a document.
#[derive(Debug)]
pub struct Example {
    /// The heading above it, or nothing.
    pub heading: &'static str,
    /// The language behind its fence, or nothing.
    pub language: &'static str,
    /// The text between the fences.
    pub text: &'static str,
}

/// The documents outside `docs/`.
const OUTSIDE: [&str; 5] = [
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "envoy/README.md",
    "deploy/README.md",
];

/// The text of a file of the repository.
pub fn file(path: &str) -> String {
    std::fs::read_to_string(repository(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every document that people read, but for the changelog and the guide to problems.
pub fn all() -> &'static [Document] {
    static ALL: LazyLock<Vec<Document>> = LazyLock::new(|| {
        let mut paths = OUTSIDE.map(PathBuf::from).to_vec();
        pages(Path::new("docs"), &mut paths);
        paths.sort();
        let documents = paths.into_iter().map(|path| Document {
            text: std::fs::read_to_string(repository(&path)).unwrap(),
            path: path.to_str().unwrap().to_owned(),
        });
        documents.collect()
    });
    &ALL
}

/// The Markdown files below a folder.
fn pages(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(repository(folder)).unwrap() {
        let path = folder.join(entry.unwrap().file_name());
        if repository(&path).is_dir() {
            pages(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

/// The text of that document.
pub fn text(path: &str) -> &'static str {
    let found = all().iter().find(|document| document.path == path);
    &found
        .unwrap_or_else(|| panic!("{path} is no document"))
        .text
}

/// Its fenced blocks, in their order.
pub fn examples(text: &'static str) -> Vec<Example> {
    let mut heading = "";
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((line, after)) = rest.split_once('\n') {
        rest = after;
        if let Some(title) = heading_of(line) {
            heading = title;
        } else if let Some(language) = line.strip_prefix("```") {
            let (text, after) = rest.split_once("\n```\n").unwrap();
            found.push(Example {
                heading,
                language,
                text,
            });
            rest = after;
        }
    }
    found
}

/// The first block in that language below that heading of a document.
pub fn example(path: &str, heading: &str, language: &str) -> &'static str {
    let found = examples(text(path))
        .into_iter()
        .find(|example| example.heading == heading && example.language == language);
    let missing = || panic!("{path} has no {language} below {heading:?}");
    found.unwrap_or_else(missing).text
}

/// The headings of a text.
pub fn headings(text: &str) -> Vec<&str> {
    let mut inside = false;
    let lines = text.lines().filter(|line| {
        let is_fence = line.starts_with("```");
        inside ^= is_fence;
        !inside && !is_fence
    });
    lines.filter_map(heading_of).collect()
}

/// The title, if that line is a heading.
fn heading_of(line: &str) -> Option<&str> {
    let (marks, title) = line.split_once(' ')?;
    let is_heading = !marks.is_empty() && marks.chars().all(|mark| mark == '#');
    is_heading.then_some(title)
}

/// A heading's anchor, as the web pages made of Markdown have it.
pub fn anchor(heading: &str) -> String {
    let lower = heading.to_lowercase().replace(' ', "-");
    lower
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_'))
        .collect()
}
