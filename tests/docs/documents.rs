//! The documents hold together: links and anchors lead somewhere, the book names each page, and all of it can be read in little
//! time.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

use testkit::docs::{self, Document, anchor, headings};
use testkit::tools::repository;

/// How many words a sentence may have.
const MOST_WORDS: usize = 30;

/// How many columns a line of prose may have.
const MOST_COLUMNS: usize = 100;

/// How many lines and bytes the README may have.
const README: (usize, usize) = (200, 8192);

/// The documents that have links, too, and are no prose for everybody.
fn others() -> Vec<Document> {
    let paths = ["CHANGELOG.md", "src/problem/guide.md"];
    let documents = paths.map(|path| Document {
        path: path.to_owned(),
        text: docs::file(path),
    });
    documents.into()
}

/// Where a link of a document leads: a file of the repository, and an anchor in it.
fn destination(document: &str, link: &str) -> (PathBuf, Option<String>) {
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    let path = if path.is_empty() {
        PathBuf::from(document)
    } else {
        without_dots(&Path::new(document).parent().unwrap().join(path))
    };
    (path, (!anchor.is_empty()).then(|| anchor.to_owned()))
}

/// The path without `..`.
fn without_dots(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        if component == Component::ParentDir {
            assert!(plain.pop(), "{} leaves the repository", path.display());
        } else {
            plain.push(component);
        }
    }
    plain
}

/// The links of a text that lead to files of the repository.
fn links(text: &str) -> Vec<String> {
    let events = Parser::new_ext(text, Options::ENABLE_TABLES);
    let links = events.filter_map(|event| match event {
        Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
            Some(dest_url.into_string())
        }
        _ => None,
    });
    links.filter(|link| !link.contains("://")).collect()
}

#[test]
fn each_link_and_each_anchor_leads_somewhere() {
    let others = others();
    let mut seen = 0;
    for document in docs::all().iter().chain(&others) {
        for link in links(&document.text) {
            let (path, wanted) = destination(&document.path, &link);
            let from = &document.path;
            assert!(repository(&path).exists(), "{from}: {link}");
            if let Some(wanted) = wanted {
                let text = docs::file(path.to_str().unwrap());
                let found = headings(&text).iter().any(|title| anchor(title) == wanted);
                assert!(found, "{from}: {link} has no such heading");
            }
            seen += 1;
        }
    }
    assert!(seen > 150, "{seen}");
}

#[test]
fn each_file_that_a_page_includes_is_there() {
    let mut seen = 0;
    for document in docs::all() {
        for included in document.text.split("{{#include ").skip(1) {
            let (link, _) = included.split_once("}}").unwrap();
            let (path, _) = destination(&document.path, link);
            assert!(repository(&path).is_file(), "{}: {link}", document.path);
            seen += 1;
        }
    }
    assert!(seen >= 6, "{seen}");
}

#[test]
fn the_book_names_each_page_once() {
    let summary = links(docs::text("docs/SUMMARY.md"));
    let named: BTreeSet<_> = summary
        .iter()
        .map(|link| format!("docs/{link}"))
        .chain(["docs/SUMMARY.md".to_owned()])
        .collect();
    assert_eq!(named.len(), summary.len() + 1);
    let pages = docs::all().iter().map(|document| document.path.clone());
    let pages: BTreeSet<_> = pages.filter(|path| path.starts_with("docs/")).collect();
    assert_eq!(named, pages);
}

#[test]
fn the_readme_is_short() {
    let text = docs::text("README.md");
    let (lines, bytes) = README;
    assert!(text.lines().count() <= lines && text.len() <= bytes);
}

#[test]
fn no_sentence_is_too_long_to_be_read_once() {
    let mut seen = 0;
    for document in docs::all() {
        for block in prose(&document.text) {
            for sentence in sentences(&block) {
                let words = sentence.split_whitespace();
                let words = words.filter(|word| word.contains(char::is_alphanumeric));
                let count = words.count();
                let path = &document.path;
                assert!(count <= MOST_WORDS, "{path}: {count} words: {sentence}");
                seen += 1;
            }
        }
    }
    assert!(seen > 1000, "{seen}");
}

#[test]
fn each_line_of_prose_fits_on_a_screen() {
    for document in docs::all() {
        let mut inside = false;
        for (number, line) in document.text.lines().enumerate() {
            inside ^= line.starts_with("```");
            // What can't be broken, as a command in a sentence or a link, may have a line to itself.
            let is_prose = !inside && !line.starts_with('|') && breaks(line) > 0;
            let fits = line.chars().count() <= MOST_COLUMNS;
            assert!(
                !is_prose || fits,
                "{}:{}: {line}",
                document.path,
                number + 1
            );
        }
    }
}

/// At how many places a line could be broken before its last column.
fn breaks(line: &str) -> usize {
    let text = line.trim_start_matches([' ', '-', '*']);
    let outside = text.split('`').step_by(2).collect::<String>();
    outside.trim().split(' ').count() - 1
}

/// The paragraphs and items of a text, each as one line; neither tables nor code. Code within a sentence is one word.
fn prose(text: &str) -> Vec<String> {
    let mut blocks = vec![String::new()];
    let mut left_out = 0;
    for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::Table(_) | Tag::CodeBlock(_)) => left_out += 1,
            Event::End(TagEnd::Table | TagEnd::CodeBlock) => left_out -= 1,
            _ if left_out > 0 => {}
            Event::Start(Tag::Paragraph | Tag::Item | Tag::Heading { .. } | Tag::List(_))
            | Event::End(TagEnd::Paragraph | TagEnd::Item | TagEnd::Heading(_)) => {
                blocks.push(String::new());
            }
            Event::Text(text) => blocks.last_mut().unwrap().push_str(&text),
            Event::Code(_) => blocks.last_mut().unwrap().push_str("code"),
            Event::SoftBreak | Event::HardBreak => blocks.last_mut().unwrap().push(' '),
            _ => {}
        }
    }
    blocks.retain(|block| !block.is_empty());
    blocks
}

/// The sentences of a paragraph: each ends with a mark and a blank, or with the paragraph.
fn sentences(block: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    for word in block.split_whitespace() {
        let sentence = found.last_mut().unwrap();
        sentence.push_str(word);
        sentence.push(' ');
        let bare = word.trim_end_matches(['"', '”', ')', '*', '_']);
        if bare.ends_with(['.', '?', '!']) {
            found.push(String::new());
        }
    }
    found
}

#[test]
fn prose_is_told_from_tables_and_code_and_cut_into_sentences() {
    let text = "# A title\n\nOne `two three`\nfour. (Five six.) Seven\n\n- eight\n- nine\n\n\
        | a |\n|---|\n| not this |\n\n```sh\nnor this\n```\n";
    let found: Vec<_> = prose(text).iter().flat_map(|it| sentences(it)).collect();
    let found: Vec<_> = found.iter().map(|it| it.trim()).collect();
    let found: Vec<_> = found.into_iter().filter(|it| !it.is_empty()).collect();
    let expected = [
        "A title",
        "One code four.",
        "(Five six.)",
        "Seven",
        "eight",
        "nine",
    ];
    assert_eq!(found, expected);
}
