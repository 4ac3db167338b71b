//! Why something was refused, as words that never change, and their titles.

use serde::{Serialize, Serializer};
use utoipa::ToSchema;

/// Makes the enum of reasons, each with its word on the wire and its title.
macro_rules! reasons {
    ($($(#[$meta:meta])* $variant:ident => $word:literal, $title:literal;)+) => {
        /// Why something was refused, as a word that never changes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ToSchema)]
        pub enum Reason {
            $($(#[$meta])* #[schema(rename = $word)] $variant,)+
        }

        impl Reason {
            /// All there are.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }

            /// The problem type of it: its section of the guide to problems, where an instance shows that itself.
            #[must_use]
            pub const fn kind(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!("/v1/problems#", $word),)+
                }
            }

            /// What it means, in a few words.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self {
                    $(Self::$variant => $title,)+
                }
            }
        }
    };
}

reasons! {
    /// All slots are taken.
    Full => "full", "Too many streams at once";
    /// The session has ended, by its own word or its gateway's.
    Ended => "ended", "Stream has ended";
    /// Another session has taken its slot.
    Displaced => "displaced", "Stream has ended";
    /// An operator has ended it.
    Operator => "operator", "Stream has ended";
    /// It runs inside the gateway, and can't be stopped from here.
    NotStoppable => "not_stoppable", "Stream can't be stopped";
    /// The store of sessions does not answer.
    Outage => "outage", "Streams can't be counted";
    /// At the gateway: nothing says whose request it is.
    NoUser => "no_user", "No user";
    /// At the gateway: nothing says which playback it belongs to.
    NoSession => "no_session", "No session";
    /// At the gateway: what names the user or the session is no name.
    Malformed => "malformed", "Malformed identity";
    /// At the gateway: its configuration is wrong.
    Misconfigured => "misconfigured", "Gateway misconfigured";
    /// The address or the body is not what it should be.
    BadRequest => "bad_request", "Bad request";
    /// Nobody knows who asks.
    Unauthorized => "unauthorized", "Credentials missing or not good";
    /// Whoever asks may not.
    Forbidden => "forbidden", "Not allowed";
    /// Nothing is at this address.
    NotFound => "not_found", "Not found";
    /// No such session is live.
    NotLive => "not_live", "No such session";
    /// This address does not know that method.
    MethodNotAllowed => "method_not_allowed", "Method not allowed";
    /// The request did not arrive in time.
    TooSlow => "too_slow", "Request too slow";
    /// The body is too large.
    TooLarge => "too_large", "Body too large";
    /// The address is too long.
    AddressTooLong => "address_too_long", "Address too long";
    /// The headers are too large.
    HeadersTooLarge => "headers_too_large", "Headers too large";
    /// The body is called something that is not read here.
    UnsupportedMediaType => "unsupported_media_type", "Unsupported media type";
    /// A bug.
    Internal => "internal", "Internal error";
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_type_of_a_reason_is_its_section_of_the_guide() {
        for reason in Reason::ALL {
            let section = format!("{}#{}", super::super::GUIDE, reason.as_str());
            assert_eq!(reason.kind(), section);
        }
    }

    #[test]
    fn each_reason_has_a_word_of_its_own() {
        let words: HashSet<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(words.len(), Reason::ALL.len());
        let snake = |word: &&str| {
            word.bytes()
                .all(|byte| byte == b'_' || byte.is_ascii_lowercase())
        };
        assert!(words.iter().all(snake), "{words:?}");
    }
}
