//! The names of users, sessions and the like: opaque text, checked once where it enters.

use std::fmt;
use std::sync::Arc;

/// How long a name may be, in bytes of UTF-8.
pub const MAX_ID_BYTES: usize = 256;

/// Why a text can't be a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text is empty.
    #[error("is empty; it must have 1 to {MAX_ID_BYTES} bytes")]
    Empty,
    /// The text is too long.
    #[error("has {0} bytes; at most {MAX_ID_BYTES} are allowed")]
    TooLong(usize),
    /// It contains a control character, which would make logs and keys ambiguous.
    #[error("has a control character at byte {0}; none is allowed")]
    ControlCharacter(usize),
}

/// Checks the text of a name.
fn check(text: &str) -> Result<&str, IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if text.len() > MAX_ID_BYTES {
        return Err(IdError::TooLong(text.len()));
    }
    // Nearly all names are printable ASCII, which this finds out faster.
    let is_plain = |plain: bool, byte: u8| plain & (0x20..0x7f).contains(&byte);
    if text.bytes().fold(true, is_plain) {
        return Ok(text);
    }
    match text
        .char_indices()
        .find(|(_, character)| character.is_control())
    {
        Some((at, _)) => Err(IdError::ControlCharacter(at)),
        None => Ok(text),
    }
}

/// Defines a newtype around a checked name; cheap to clone.
macro_rules! name {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name, if the text is valid.
            ///
            /// # Errors
            /// The text is empty, longer than [`MAX_ID_BYTES`], or has a control character.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                check(text).map(|text| Self(text.into()))
            }

            /// The text of the name.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// The account whose streams are counted.
    UserId
}
name! {
    /// Identifies a session within its user and kind.
    SessionId
}
name! {
    /// A named tier that sets a limit.
    PlanName
}
name! {
    /// The device a session plays on, as the device names itself.
    DeviceId
}
name! {
    /// What a session is watching, as its player names it.
    ContentId
}

impl SessionId {
    /// A name made from a number: 32 letters and digits. If the number is random, nobody can guess
    /// the name, and it is never made twice.
    #[must_use]
    pub fn from_number(number: u128) -> Self {
        Self(format!("{number:032x}").into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_any_short_text_without_control_characters() {
        let longest = "x".repeat(MAX_ID_BYTES);
        let longer = "x".repeat(MAX_ID_BYTES + 1);
        let wide = "é".repeat(MAX_ID_BYTES / 2);
        for (text, expected) in [
            ("a", Ok(())),
            ("user {1}:%2F/\u{1f600} ", Ok(())),
            (&longest, Ok(())),
            (&wide, Ok(())),
            ("", Err(IdError::Empty)),
            (&longer, Err(IdError::TooLong(MAX_ID_BYTES + 1))),
            ("a\0b", Err(IdError::ControlCharacter(1))),
            ("é\n", Err(IdError::ControlCharacter(2))),
            ("\u{85}", Err(IdError::ControlCharacter(0))),
        ] {
            assert_eq!(UserId::parse(text).map(|_| ()), expected, "{text:?}");
        }
    }

    #[test]
    fn a_name_shows_as_it_was_given() {
        let id = SessionId::parse("tv \"1\"").unwrap();
        assert_eq!(
            (id.as_str(), id.to_string().as_str()),
            ("tv \"1\"", "tv \"1\"")
        );
        assert_eq!(format!("{id:?}"), "\"tv \\\"1\\\"\"");
    }

    #[test]
    fn an_error_names_the_allowed_values() {
        for (text, message) in [
            (String::new(), "is empty; it must have 1 to 256 bytes"),
            ("x".repeat(300), "has 300 bytes; at most 256 are allowed"),
            (
                "ab\u{7f}".to_owned(),
                "has a control character at byte 2; none is allowed",
            ),
        ] {
            assert_eq!(PlanName::parse(&text).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn a_name_made_of_a_number_has_all_its_digits() {
        for (number, expected) in [
            (0, "0".repeat(32)),
            (0xabc, format!("{}abc", "0".repeat(29))),
            (u128::MAX, "f".repeat(32)),
        ] {
            assert_eq!(SessionId::from_number(number).as_str(), expected);
        }
    }
}
