//! The reasons of refusals and errors, as words that never change, and their titles.

use serde::{Serialize, Serializer};
use utoipa::ToSchema;

/// Defines the enum of reasons, each with its word on the wire and its title.
macro_rules! reasons {
    ($($(#[$meta:meta])* $variant:ident => $word:literal, $title:literal;)+) => {
        /// The reason of a refusal or error, as a word that never changes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ToSchema)]
        pub enum Reason {
            $($(#[$meta])* #[schema(rename = $word)] $variant,)+
        }

        impl Reason {
            /// All reasons.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word on the wire.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }

            /// The problem type: the reason's section of the guide to problems, where an instance
            /// serves it.
            #[must_use]
            pub const fn kind(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!("/v1/problems#", $word),)+
                }
            }

            /// A short title.
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
    /// The session has ended, reported by itself or its gateway.
    Ended => "ended", "Stream has ended";
    /// Another session has taken its slot.
    Displaced => "displaced", "Stream has ended";
    /// An operator has ended it.
    Operator => "operator", "Stream has ended";
    /// It runs inside the gateway, and can't be stopped from here.
    NotStoppable => "not_stoppable", "Stream can't be stopped";
    /// The session store doesn't answer.
    Outage => "outage", "Streams can't be counted";
    /// At the gateway: nothing in the request identifies the user.
    NoUser => "no_user", "No user";
    /// At the gateway: nothing in the request identifies the playback.
    NoSession => "no_session", "No session";
    /// At the gateway: the user's or the session's name is not valid.
    Malformed => "malformed", "Malformed identity";
    /// At the gateway: its configuration is wrong.
    Misconfigured => "misconfigured", "Gateway misconfigured";
    /// The URL or the body is invalid.
    BadRequest => "bad_request", "Bad request";
    /// The caller is not identified.
    Unauthorized => "unauthorized", "Credentials missing or invalid";
    /// The caller is not allowed to do this.
    Forbidden => "forbidden", "Not allowed";
    /// There is nothing at this path.
    NotFound => "not_found", "Not found";
    /// No such session is live.
    NotLive => "not_live", "No such session";
    /// This path doesn't support the method.
    MethodNotAllowed => "method_not_allowed", "Method not allowed";
    /// The request did not arrive in time.
    TooSlow => "too_slow", "Request too slow";
    /// The body is too large.
    TooLarge => "too_large", "Body too large";
    /// The URL is too long.
    AddressTooLong => "address_too_long", "URL too long";
    /// The headers are too large.
    HeadersTooLarge => "headers_too_large", "Headers too large";
    /// As many clients as possible listen to events.
    TooManyListeners => "too_many_listeners", "Too many listeners";
    /// The body has a media type that this path doesn't accept.
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
