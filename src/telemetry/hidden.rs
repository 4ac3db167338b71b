//! Writes characters to the log by their numbers if a terminal doesn't show them, or if they change
//! where it shows others. Viewers choose names, and U+202E in a name would reverse the rest of its
//! line.
//!
//! The libraries that format lines escape only control characters below U+0080.

use std::borrow::Cow;
use std::fmt::Write;

use crate::config::LogFormat;

/// The line with the number of each hidden character in its place, in the notation of the format.
pub(super) fn shown(line: &[u8], format: LogFormat) -> Cow<'_, [u8]> {
    if line.is_ascii() {
        return Cow::Borrowed(line);
    }
    let text = String::from_utf8_lossy(line);
    if !text.contains(is_hidden) {
        return Cow::Borrowed(line);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match format {
            _ if !is_hidden(character) => shown.push(character),
            // As Rust's `Debug` writes it, which formats every quoted field.
            LogFormat::Text => shown.extend(character.escape_unicode()),
            // In JSON, only strings have characters beyond ASCII.
            LogFormat::Json => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    // Writing to a string doesn't fail.
                    let _ = write!(shown, "\\u{unit:04x}");
                }
            }
        }
    }
    Cow::Owned(shown.into_bytes())
}

/// True for Unicode controls, format characters, separators, default-ignorables, and the blank
/// Braille pattern.
const fn is_hidden(character: char) -> bool {
    matches!(
        character,
        '\u{80}'..='\u{a0}'
            | '\u{ad}'
            | '\u{34f}'
            | '\u{600}'..='\u{605}'
            | '\u{61c}'
            | '\u{6dd}'
            | '\u{70f}'
            | '\u{890}'..='\u{891}'
            | '\u{8e2}'
            | '\u{115f}'..='\u{1160}'
            | '\u{1680}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{2000}'..='\u{200f}'
            | '\u{2028}'..='\u{202f}'
            | '\u{205f}'..='\u{206f}'
            | '\u{2800}'
            | '\u{3000}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{110bd}'
            | '\u{110cd}'
            | '\u{13430}'..='\u{1343f}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

#[cfg(test)]
mod tests {
    use regex::Regex;

    use super::*;

    #[test]
    fn each_character_that_unicode_hides_is_hidden_and_no_other() {
        let class = r"[\x{80}-\x{9f}\p{Cf}\p{Zl}\p{Zp}\p{Zs}\p{Default_Ignorable_Code_Point}\x{2800}--\x{20}]";
        let class = Regex::new(class).unwrap();
        for character in '\0'..=char::MAX {
            let expected = class.is_match(character.encode_utf8(&mut [0; 4]));
            assert_eq!(is_hidden(character), expected, "{character:?}");
        }
    }

    #[test]
    fn a_hidden_character_is_written_by_its_number() {
        let line = "an\u{202e}na \u{200b}ü\u{2028}日本\u{e0041}\u{9b}\n";
        for (format, expected) in [
            (
                LogFormat::Text,
                "an\\u{202e}na \\u{200b}ü\\u{2028}日本\\u{e0041}\\u{9b}\n",
            ),
            (
                LogFormat::Json,
                "an\\u202ena \\u200bü\\u2028日本\\udb40\\udc41\\u009b\n",
            ),
        ] {
            let shown = shown(line.as_bytes(), format);
            assert_eq!(std::str::from_utf8(&shown).unwrap(), expected);
        }
        for line in ["anna\n", "ü 日本 e\u{301} 🎬\n"] {
            let shown = shown(line.as_bytes(), LogFormat::Json);
            assert!(matches!(shown, Cow::Borrowed(_)), "{line}");
        }
    }

    #[test]
    fn json_means_the_same_afterwards() {
        for character in ('\0'..=char::MAX).filter(|character| is_hidden(*character)) {
            let value = serde_json::Value::from(format!("a{character}b"));
            let line = value.to_string();
            let shown = shown(line.as_bytes(), LogFormat::Json);
            assert!(shown.is_ascii(), "{character:?}");
            let read: serde_json::Value = serde_json::from_slice(&shown).unwrap();
            assert_eq!(read, value);
        }
    }
}
