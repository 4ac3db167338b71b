//! The composer: fills values into the slots of a piece of YAML and keeps its indentation.

use std::collections::BTreeMap;

/// What a gateway's slots hold, by the slot's name.
#[derive(Debug, Default, Clone)]
pub(super) struct Values(BTreeMap<&'static str, String>);

/// A piece of YAML: where it goes, and what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece(&'static str);

impl Values {
    /// Sets a slot.
    pub(super) fn set(&mut self, name: &'static str, value: impl Into<String>) {
        self.0.insert(name, value.into());
    }

    /// The same values with another one.
    pub(super) fn with(&self, name: &'static str, value: impl Into<String>) -> Self {
        let mut values = self.clone();
        values.set(name, value);
        values
    }

    /// The value of a slot; `None` if it isn't set.
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

impl Piece {
    /// A piece that has its place in front, with an empty line behind it. A piece without one has
    /// only a body.
    pub(super) const fn new(text: &'static str) -> Self {
        Self(text)
    }

    /// Where it goes, as a comment.
    pub(super) fn place(self, values: &Values) -> String {
        let place = self.0.split_once("\n\n").map_or("", |(place, _)| place);
        fill(place, values)
    }

    /// What it says, filled in.
    pub(super) fn body(self, values: &Values) -> String {
        let body = self.0.split_once("\n\n").map_or(self.0, |(_, body)| body);
        fill(body, values)
    }
}

/// Fills the slots `${name}` of a template. A slot that has a line to itself takes any number of
/// lines, each indented as the slot is; where it holds none, its line is left out.
fn fill(template: &str, values: &Values) -> String {
    let mut filled = String::new();
    for line in template.lines() {
        let text = line.trim_start();
        let slot = text.strip_prefix("${").and_then(|it| it.strip_suffix('}'));
        match slot.and_then(|name| values.get(name)) {
            Some(value) => {
                let (indentation, _) = line.split_at(line.len() - text.len());
                filled.push_str(&indented(value, indentation));
            }
            None => {
                fill_line(line, values, &mut filled);
                filled.push('\n');
            }
        }
    }
    filled
}

/// Fills the slots within a line. Everything else stays unchanged.
fn fill_line(line: &str, values: &Values, filled: &mut String) {
    let mut parts = line.split("${");
    filled.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let known = part.split_once('}');
        match known.and_then(|(name, rest)| Some((values.get(name)?, rest))) {
            Some((value, rest)) => {
                filled.push_str(value);
                filled.push_str(rest);
            }
            None => {
                filled.push_str("${");
                filled.push_str(part);
            }
        }
    }
}

/// Lines behind an indentation; an empty one stays empty.
pub(super) fn indented(lines: &str, indentation: &str) -> String {
    let mut text = String::new();
    for line in lines.lines() {
        if !line.is_empty() {
            text.push_str(indentation);
            text.push_str(line);
        }
        text.push('\n');
    }
    text
}

/// The comment that a text begins with, and the rest.
pub(super) fn leading_comment(text: &str) -> (&str, &str) {
    let comment = text
        .split_inclusive('\n')
        .take_while(|line| line.starts_with('#'));
    let length = comment.map(str::len).sum();
    text.split_at(length)
}

/// A text as YAML: plain, or in quotes where it would be read as something else.
pub(super) fn yaml_text(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._/-:".contains(c);
    let begins_well = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
    let is_word = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"]
        .iter()
        .any(|word| text.eq_ignore_ascii_case(word));
    if begins_well && !is_word && text.chars().all(is_plain) && !text.ends_with(':') {
        text.to_owned()
    } else {
        quoted(text)
    }
}

/// A text in double quotes.
pub(super) fn quoted(text: &str) -> String {
    // JSON's strings are YAML's, and texts can always be written.
    serde_json::to_string(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_on_its_own_line_takes_lines_and_one_within_a_line_takes_words() {
        let mut values = Values::default();
        values.set("lines", "a:\n\n  b: 1\n");
        values.set("none", "");
        values.set("word", "x");
        let filled = fill(
            "c:\n  ${lines}\n  ${none}\n- {d: ${word}${none}, e: ${OTHER}}\n",
            &values,
        );
        assert_eq!(filled, "c:\n  a:\n\n    b: 1\n- {d: x, e: ${OTHER}}\n");
    }

    #[test]
    fn a_text_is_quoted_where_yaml_would_read_something_else() {
        for (text, yaml) in [
            ("x-user-id", "x-user-id"),
            ("https://login.example/a", "https://login.example/a"),
            ("no", "\"no\""),
            ("12", "\"12\""),
            ("::1", "\"::1\""),
            ("a: b", "\"a: b\""),
            ("a\nb\"", "\"a\\nb\\\"\""),
        ] {
            assert_eq!(yaml_text(text), yaml);
        }
    }
}
