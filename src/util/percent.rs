//! Percent-encoding as queries have it, where a plus stands for a space.

use std::borrow::Cow;
use std::string::FromUtf8Error;

use percent_encoding::percent_decode_str;

/// Decodes a name or a value of a query, which may be no text.
pub(crate) fn decode_bytes(text: &str) -> Cow<'_, [u8]> {
    if !text.contains(['%', '+']) {
        return text.as_bytes().into();
    }
    let spaced = text.replace('+', " ");
    Cow::from(percent_decode_str(&spaced)).into_owned().into()
}

/// Decodes a name or a value of a query that has to be text.
pub(crate) fn decode(text: &str) -> Result<Cow<'_, str>, FromUtf8Error> {
    match decode_bytes(text) {
        Cow::Borrowed(_) => Ok(text.into()),
        Cow::Owned(bytes) => String::from_utf8(bytes).map(Cow::from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_decoded_once_and_kept_where_nothing_is_encoded() {
        for (text, expected) in [
            ("", Some("")),
            ("film-7", Some("film-7")),
            ("a+b%2Bc", Some("a b+c")),
            ("%252B", Some("%2B")),
            ("100%", Some("100%")),
            ("%C3%A9", Some("é")),
            ("%ff", None),
        ] {
            assert_eq!(decode(text).ok().as_deref(), expected, "{text}");
        }
        assert!(matches!(decode("film-7"), Ok(Cow::Borrowed(_))));
        assert_eq!(*decode_bytes("%ff+"), *b"\xff ");
    }
}
