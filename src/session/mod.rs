//! Stand-in for the vocabulary of sessions: only the names that policy and configuration need.

use std::fmt;

/// Why a text can't be a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text is empty, too long, or has a control character.
    #[error("takes 1 to 256 bytes without control characters")]
    NotAName,
}

macro_rules! name {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// The name, if the text can be one.
            ///
            /// # Errors
            /// The text is empty, too long, or has a control character.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                if text.is_empty() || text.len() > 256 || text.chars().any(char::is_control) {
                    return Err(IdError::NotAName);
                }
                Ok(Self(text.to_owned()))
            }

            /// The text of the name.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
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
    /// What names a session within its user and kind.
    SessionId
}
name! {
    /// A named tier that sets a limit.
    PlanName
}
