//! `limits.users_file`: a line for each user who has a limit of their own.

use bytes::Bytes;

use super::limits::LIMIT;
use crate::identity::UserId;
use crate::policy::{Entry, NamedTwice, UserLimits};

/// Some editors begin a file with this.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// Reads the text of a file: `name limit` on each line. The limit is the last word, so a name may
/// have spaces. Empty lines and lines that begin with `#` are skipped.
///
/// # Errors
/// A line is wrong. The error has its number, but not its content: the path may lead to another
/// file.
pub fn user_limits(text: &Bytes) -> Result<UserLimits, String> {
    let written = std::str::from_utf8(text).map_err(|error| {
        let good = text.get(..error.valid_up_to()).unwrap_or_default();
        let line = 1 + good.iter().filter(|byte| **byte == b'\n').count();
        format!("line {line}: not UTF-8; save the file as UTF-8")
    })?;
    let mut entries = Vec::with_capacity(written.lines().count());
    let mut end = 0;
    for (number, line) in (1..).zip(written.split_inclusive('\n')) {
        end += line.len();
        let line = match number {
            1 => line.trim_start_matches(BYTE_ORDER_MARK),
            _ => line,
        };
        let from_name = line.trim_start();
        let start = end - from_name.len();
        let line = from_name.trim_end();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let at_line = |flaw: String| format!("line {number}: {flaw}");
        let (name, limit) = user_and_limit(line).map_err(at_line)?;
        let place = start..start + name.len();
        let entry =
            Entry::new(&place, limit).ok_or_else(|| at_line("the file is too large".to_owned()))?;
        entries.push(entry);
    }
    UserLimits::new(text.clone(), entries).map_err(|NamedTwice { first, second }| {
        format!("line {second}: this user is already in line {first}; delete one of the two lines")
    })
}

/// The name and the limit in a line.
fn user_and_limit(line: &str) -> Result<(&str, u32), String> {
    let allowed = format!("a whole number from {} to {}", LIMIT.start(), LIMIT.end());
    let (name, limit) = line
        .rsplit_once(|gap: char| gap.is_ascii_whitespace())
        .ok_or_else(|| format!("only one word; write a name, a space and the limit, {allowed}"))?;
    let name = name.trim_end();
    if name.contains(" #") {
        return Err("a comment after a limit; put it on its own line".to_owned());
    }
    let limit = limit
        .parse()
        .ok()
        .filter(|limit| LIMIT.contains(limit))
        .ok_or_else(|| format!("the last word is not a limit; write {allowed}"))?;
    UserId::parse(name).map_err(|flaw| format!("the name {flaw}"))?;
    Ok((name, limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<UserLimits, String> {
        user_limits(&Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn a_line_is_a_name_and_a_limit() {
        let limits = read(
            "\u{feff}anna 2\n# a comment\r\n\n\t ben  \t 0 \r\nthe user 4 1000\nzo\u{eb}:#1@x 3\nlast 1",
        )
        .unwrap();
        for (user, limit) in [
            ("anna", Some(2)),
            ("ben", Some(0)),
            ("the user 4", Some(1000)),
            ("zo\u{eb}:#1@x", Some(3)),
            ("last", Some(1)),
            ("the user", None),
            ("#", None),
            ("", None),
        ] {
            assert_eq!(limits.get(user), limit, "{user}");
        }
        assert_eq!((limits.len(), limits.line("last")), (5, Some(7)));
        assert_eq!(read("# nobody\n").unwrap().len(), 0);
    }

    #[test]
    fn a_mistake_is_named_by_its_line_and_how_to_mend_it() {
        let long = format!("{} 1", "x".repeat(257));
        for (text, expected) in [
            (
                "anna 1\nhunter2\n",
                "line 2: only one word; write a name, a space and the limit, a whole number from 0 to 1000",
            ),
            (
                "# a\n\nhunter2 many",
                "line 3: the last word is not a limit; write a whole number from 0 to 1000",
            ),
            ("hunter2 1001", "line 1: the last word is not a limit"),
            ("hunter2 -1", "line 1: the last word is not a limit"),
            ("hunter2 2.5", "line 1: the last word is not a limit"),
            (
                "hunter2 2 # tv",
                "line 1: a comment after a limit; put it on its own line",
            ),
            ("hunter2 2 # 3", "line 1: a comment after a limit"),
            (
                "hunt\u{7}er2 1",
                "line 1: the name has a control character at byte 4; none is allowed",
            ),
            (&long, "line 1: the name has 257 bytes; at most 256"),
            (
                "hunter2 1\nben 1\n  hunter2  1\n",
                "line 3: this user is already in line 1; delete one of the two lines",
            ),
        ] {
            let told = read(text).unwrap_err();
            assert!(told.starts_with(expected), "{text:?} gave {told}");
            assert!(!told.contains("hunter"), "{told}");
        }
        let told = user_limits(&Bytes::from_static(b"anna 1\n\xff 2\n")).unwrap_err();
        assert_eq!(told, "line 2: not UTF-8; save the file as UTF-8");
    }
}
