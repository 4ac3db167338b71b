//! Output for people: texts that can't control a terminal, positions, times, columns.

use std::fmt::Write;
use std::time::{Duration, SystemTime};

/// A text that a terminal shows as it is: control characters, and those that change the direction
/// of text, are escaped. The API sends no control characters, but an answer may come from anywhere.
pub(super) fn plain(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() || turns_text(character) {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// A body as a line of its own.
pub(super) fn line(body: &str) -> String {
    format!("{}\n", body.trim_end_matches('\n'))
}

/// A position in the content, as players show it.
pub(super) fn position(seconds: u64) -> String {
    format!(
        "{}:{:02}:{:02}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

/// How long ago `then` was. If `now` is unknown, `then` itself.
pub(super) fn ago(then: &str, now: Option<SystemTime>) -> String {
    match both(then, now) {
        Some((then, now)) => format!("{} ago", roughly(between(then, now))),
        None => plain(then),
    }
}

/// How far ahead `then` is. If `now` is unknown, `then` itself.
pub(super) fn ahead(then: &str, now: Option<SystemTime>) -> String {
    match both(then, now) {
        Some((then, now)) => format!("in {}", roughly(between(now, then))),
        None => plain(then),
    }
}

/// A table. Each column is as wide as its widest cell, and two spaces separate columns.
pub(super) fn table<const COLUMNS: usize>(
    head: [&str; COLUMNS],
    rows: &[[String; COLUMNS]],
) -> String {
    let mut widths = head.map(width);
    for row in rows {
        for (widest, cell) in widths.iter_mut().zip(row) {
            *widest = width(cell).max(*widest);
        }
    }
    let head = head.map(str::to_owned);
    let mut table = String::new();
    for row in std::iter::once(&head).chain(rows) {
        let mut line = String::new();
        for (cell, widest) in row.iter().zip(widths) {
            let gap = widest.saturating_sub(width(cell)) + 2;
            // Writing to a string can't fail.
            let _ = write!(line, "{cell}{:gap$}", "");
        }
        table.push_str(line.trim_end());
        table.push('\n');
    }
    table
}

/// A time in RFC 3339 (UTC) and `now`, if both are known.
fn both(then: &str, now: Option<SystemTime>) -> Option<(SystemTime, SystemTime)> {
    Some((humantime::parse_rfc3339(then).ok()?, now?))
}

/// How long after `from` is `until`. Zero if it is earlier: the clocks of two machines differ a
/// little.
fn between(from: SystemTime, until: SystemTime) -> Duration {
    until.duration_since(from).unwrap_or_default()
}

/// A duration in its one or two largest units.
fn roughly(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m"),
        (0, _, _) => format!("{hours}h {}m", minutes % 60),
        _ => format!("{days}d {}h", hours % 24),
    }
}

/// How many columns a text takes in a terminal, nearly. East Asian letters and emoji take two,
/// combining marks none.
fn width(text: &str) -> usize {
    let columns = text.chars().map(|character| match u32::from(character) {
        0x300..=0x36f | 0x200b..=0x200d | 0xfe00..=0xfe0f => 0,
        0x1100..=0x115f
        | 0x2e80..=0xa4cf
        | 0xac00..=0xd7a3
        | 0xf900..=0xfaff
        | 0xfe30..=0xfe6f
        | 0xff00..=0xff60
        | 0xffe0..=0xffe6
        | 0x1f300..=0x1f64f
        | 0x1f680..=0x1f6ff
        | 0x1f900..=0x1f9ff
        | 0x20000..=0x3fffd => 2,
        _ => 1,
    });
    columns.sum()
}

/// Whether a character changes the direction of the text around it.
const fn turns_text(character: char) -> bool {
    matches!(
        character,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_does_nothing_to_a_terminal() {
        for (text, shown) in [
            ("tv \"1\" é 映画", "tv \"1\" é 映画"),
            ("a\u{1b}[2J\r\nb\u{9b}", r"a\u{1b}[2J\r\nb\u{9b}"),
            ("a\u{202e}b", r"a\u{202e}b"),
        ] {
            assert_eq!(plain(text), shown);
        }
    }

    #[test]
    fn a_position_has_hours_minutes_and_seconds() {
        for (seconds, shown) in [(0, "0:00:00"), (61, "0:01:01"), (360_000, "100:00:00")] {
            assert_eq!(position(seconds), shown);
        }
    }

    #[test]
    fn a_time_is_told_from_when_it_was_asked_for() {
        let now = Some(humantime::parse_rfc3339("2027-01-15T08:00:00Z").unwrap());
        for (then, shown) in [
            ("2027-01-15T08:00:00.500Z", "0s ago"),
            ("2027-01-15T07:59:15.000Z", "45s ago"),
            ("2027-01-15T07:48:00.000Z", "12m ago"),
            ("2027-01-15T04:55:00.000Z", "3h 5m ago"),
            ("2027-01-13T02:00:00.000Z", "2d 6h ago"),
            ("9999-12-31T23:59:59.999Z", "0s ago"),
            ("soon\n", r"soon\n"),
        ] {
            assert_eq!(ago(then, now), shown);
        }
        for (then, shown) in [
            ("2027-01-15T08:00:29.900Z", "in 29s"),
            ("2027-01-15T07:59:59.000Z", "in 0s"),
            ("", ""),
        ] {
            assert_eq!(ahead(then, now), shown);
        }
        let then = "2027-01-15T07:59:15.000Z";
        assert_eq!(
            (ago(then, None), ahead(then, None)),
            (then.into(), then.into())
        );
    }

    #[test]
    fn columns_stay_in_line_whatever_is_in_them() {
        let row = |a: &str, b: &str, c: &str| [a.to_owned(), b.to_owned(), c.to_owned()];
        let rows = [
            row("é", "x", "1"),
            row("e\u{301}", "映画", "-"),
            row("a longer one", "y", ""),
        ];
        assert_eq!(
            table(["A", "B", "C"], &rows),
            "A             B     C\n\
             é             x     1\n\
             e\u{301}             映画  -\n\
             a longer one  y\n"
        );
        assert_eq!(table(["A"], &[]), "A\n");
    }
}
