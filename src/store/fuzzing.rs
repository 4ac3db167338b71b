//! Properties of cursors, which clients send back. See [`crate::fuzzing`].

use super::Cursor;
use crate::fuzzing::{assert_are_names, text};
use crate::identity::UserId;

/// A parsed cursor formats as text that parses to the same cursor and needs no escaping in a URL.
pub(crate) fn cursor(data: &[u8]) {
    let Ok(cursor) = text(data).parse::<Cursor>() else {
        return;
    };
    let written = cursor.to_string();
    assert!(
        written
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    );
    assert_eq!(written.parse(), Ok(cursor.clone()));
    assert_are_names(cursor.last.as_ref().map(UserId::as_str));
}
