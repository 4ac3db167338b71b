//! What must hold for any text that is checked as an Envoy configuration. See [`crate::fuzzing`].

use std::path::Path;

use super::{EnvoyFinding, as_json, as_text, check, envoy_config, read, told};
use crate::fuzzing::text;
use crate::identity::Source;

/// Checks a file; a first line `#user SOURCE` says who verifies the user. Each finding is on a line
/// that there is, and names a piece that there is. What is printed has no control character, and as
/// JSON it is a line for each finding.
pub(crate) fn envoy_check(data: &[u8]) {
    let written = text(data);
    let first = written.lines().next().unwrap_or_default();
    let user: Option<Source> = first.strip_prefix("#user ").and_then(|it| it.parse().ok());
    let user = user.as_ref();
    let file = Path::new("envoy.yaml");
    let Ok(tree) = read::parse(file, &written) else {
        assert!(told(&written, user).is_err());
        return;
    };
    let findings = check(&tree, user).findings;
    assert_eq!(told(&written, user).map(|it| it.len()), Ok(findings.len()));
    let ends = written.chars().filter(|it| is_end_of_line(*it)).count();
    for found in &findings {
        assert!(found.line <= ends as u64 + 1, "{found:?}");
        let is_repaired = |piece| envoy_config::fragment(piece, None).is_some();
        assert!(found.piece.is_none_or(is_repaired), "{found:?}");
    }
    let shown = as_text(file, &findings, user);
    let mut controls = shown.chars().filter(|it| it.is_control());
    assert!(controls.all(|it| it == '\n'), "{shown:?}");
    assert_is_json(&findings);
}

/// Whether YAML lets a line end with that.
fn is_end_of_line(character: char) -> bool {
    matches!(character, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// There is a line of JSON for each finding, with what it says.
fn assert_is_json(findings: &[EnvoyFinding]) {
    let printed = as_json(findings);
    let read: Vec<serde_json::Value> = serde_json::Deserializer::from_str(&printed)
        .into_iter()
        .flatten()
        .collect();
    assert_eq!(read.len(), findings.len(), "{printed}");
    assert_eq!(printed.lines().count(), findings.len(), "{printed}");
    for (read, found) in read.iter().zip(findings) {
        assert_eq!(read["told"], found.told, "{printed}");
    }
}
