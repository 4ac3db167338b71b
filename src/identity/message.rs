//! The text that an operator, or a back end, sends to the viewer of a session that it ends.

use std::fmt;
use std::sync::Arc;

/// A message to a viewer, checked once where it enters; cheap to clone.
///
/// It may come from anybody with the right token and is shown as it is, so whoever shows it has to
/// escape it for the page it appears on. In our own answers it is part of a JSON document.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EndMessage(Arc<str>);

/// Why a text can't be a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// The text is empty.
    #[error("is empty; it must have 1 to {MAX_MESSAGE_CHARACTERS} characters")]
    Empty,
    /// The text is too long.
    #[error("has {0} characters; at most {MAX_MESSAGE_CHARACTERS} are allowed")]
    TooLong(usize),
    /// It contains a control character, such as a line break.
    #[error("has a control character at character {0}; none is allowed, line breaks included")]
    ControlCharacter(usize),
}

/// How long a message may be, in characters.
pub const MAX_MESSAGE_CHARACTERS: usize = 200;

impl EndMessage {
    /// The message, if the text is valid.
    ///
    /// # Errors
    /// The text is empty, longer than [`MAX_MESSAGE_CHARACTERS`], or has a control character.
    pub fn parse(text: &str) -> Result<Self, MessageError> {
        let count = text.chars().count();
        if text.is_empty() {
            return Err(MessageError::Empty);
        }
        if count > MAX_MESSAGE_CHARACTERS {
            return Err(MessageError::TooLong(count));
        }
        match text.chars().position(char::is_control) {
            Some(at) => Err(MessageError::ControlCharacter(at)),
            None => Ok(Self(text.into())),
        }
    }

    /// The text of the message.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for EndMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_a_line_of_at_most_two_hundred_characters() {
        let longest = "\u{1f4fa}".repeat(200);
        for text in ["Stopped.", " <b>&\"'</b> ", "\u{6620}\u{753b}", &longest] {
            assert_eq!(EndMessage::parse(text).unwrap().as_str(), text);
        }
        for (text, error) in [
            ("", MessageError::Empty),
            (&*"x".repeat(201), MessageError::TooLong(201)),
            ("\u{e9}a\nb", MessageError::ControlCharacter(2)),
            ("a\u{9b}b", MessageError::ControlCharacter(1)),
        ] {
            assert_eq!(EndMessage::parse(text), Err(error), "{text:?}");
        }
    }
}
