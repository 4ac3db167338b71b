//! All users' sessions, page by page: what a page holds, and the cursor to the next one.
//!
//! A client that lists sessions gets a cursor and sends it back as text. It is no secret and no
//! promise: any text that parses as a cursor gives some page, at worst not the one its sender
//! meant.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::clock::Timestamp;
use crate::identity::UserId;
use crate::session::Session;

/// A part of all users' live sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The sessions, each with its user. A user's sessions are adjacent, in the order they took
    /// their slots.
    pub entries: Vec<(UserId, Session)>,
    /// Where the next page begins; `None` if this was the last.
    pub next: Option<Cursor>,
    /// The store's time when it began this page; sessions that had expired by then are left out.
    pub taken_at: Timestamp,
    /// Why this page may lack sessions that were live all the while; `None` if it doesn't.
    pub may_miss: Option<&'static str>,
}

/// Where a page begins. The default is the first page.
///
/// As text it is a number, optionally followed by a dot and a user's name in base64url, so it needs
/// no escaping in a URL.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// The place; its meaning depends on the store.
    pub(super) place: u64,
    /// The last user that the previous page showed at that place, if the place has many users.
    pub(super) last: Option<UserId>,
}

/// Why a text is not a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    /// It doesn't begin with a place.
    #[error("does not begin with a number below 2^64; copy it from the previous page")]
    Place,
    /// The part after the place is not a user.
    #[error("has no valid user after its dot; copy it from the previous page")]
    User,
}

impl Cursor {
    /// The beginning of that place.
    pub(super) const fn at(place: u64) -> Self {
        Self { place, last: None }
    }

    /// Just after that user at that place.
    pub(super) const fn behind(place: u64, user: UserId) -> Self {
        Self {
            place,
            last: Some(user),
        }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.place)?;
        match &self.last {
            None => Ok(()),
            Some(user) => write!(f, ".{}", URL_SAFE_NO_PAD.encode(user.as_str())),
        }
    }
}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let (place, last) = match text.split_once('.') {
            None => (text, None),
            Some((place, user)) => (place, Some(user)),
        };
        // The standard library would accept a sign as well.
        if !place.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(CursorError::Place);
        }
        Ok(Self {
            place: place.parse().map_err(|_| CursorError::Place)?,
            last: last.map(decode_user).transpose()?,
        })
    }
}

/// Decodes a user's name from base64url.
fn decode_user(text: &str) -> Result<UserId, CursorError> {
    let name = URL_SAFE_NO_PAD.decode(text).ok();
    let name = name.and_then(|name| String::from_utf8(name).ok());
    name.and_then(|name| UserId::parse(&name).ok())
        .ok_or(CursorError::User)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_cursor_comes_back_as_it_went_out_and_fits_into_a_url(
            place: u64,
            name in proptest::option::of("\\PC{1,64}"),
        ) {
            let last = name.map(|name| UserId::parse(&name).unwrap());
            let cursor = Cursor { place, last };
            let text = cursor.to_string();
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)));
            prop_assert_eq!(text.parse(), Ok(cursor));
        }

        #[test]
        fn any_text_parses_without_panic_and_round_trips(text in "[0-9.A-Za-z_=-]{0,12}|\\PC{0,12}") {
            if let Ok(cursor) = text.parse::<Cursor>() {
                prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
            }
        }
    }

    #[test]
    fn the_first_cursor_is_zero_and_bad_cursors_explain_why() {
        assert_eq!(Cursor::default().to_string(), "0");
        let too_long = format!("0.{}", URL_SAFE_NO_PAD.encode("x".repeat(257)));
        for (text, error) in [
            ("", CursorError::Place),
            (".YQ", CursorError::Place),
            ("+1", CursorError::Place),
            ("-1", CursorError::Place),
            ("18446744073709551616", CursorError::Place),
            ("1 ", CursorError::Place),
            ("1.", CursorError::User),
            ("1.YQ==", CursorError::User),
            ("1.YR", CursorError::User),
            ("1.YQ.YQ", CursorError::User),
            ("1._w", CursorError::User),
            ("1.AA", CursorError::User),
            (&too_long, CursorError::User),
        ] {
            assert_eq!(text.parse::<Cursor>(), Err(error), "{text:?}");
        }
        assert_eq!(
            CursorError::Place.to_string(),
            "does not begin with a number below 2^64; copy it from the previous page"
        );
    }
}
