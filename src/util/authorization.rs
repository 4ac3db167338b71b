//! The value of an `Authorization` header (RFC 9110), and of its scheme `Basic` (RFC 7617).

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

/// The credentials in a header's value, if it is of that scheme.
pub(crate) fn credentials<'h>(value: &'h str, scheme: &str) -> Option<&'h str> {
    let (name, rest) = value.split_once(' ')?;
    name.eq_ignore_ascii_case(scheme).then(|| rest.trim())
}

/// The name and the password in credentials of the scheme `Basic`.
pub(crate) fn basic(credentials: &str) -> Option<(String, String)> {
    let decoded = BASE64_STANDARD.decode(credentials).ok()?;
    let decoded = String::from_utf8(decoded).ok()?;
    let (name, password) = decoded.split_once(':')?;
    Some((name.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_of_that_scheme_has_credentials() {
        for (value, expected) in [
            ("Basic YTpi", Some("YTpi")),
            ("bASIC   YTpi ", Some("YTpi")),
            ("Basic ", Some("")),
            ("Basic", None),
            ("Bearer YTpi", None),
            ("", None),
        ] {
            assert_eq!(credentials(value, "basic"), expected, "{value:?}");
        }
    }

    #[test]
    fn basic_is_a_name_and_a_password_in_base64() {
        let shown = |encoded| basic(encoded).map(|(name, password)| [name, password].join("|"));
        for (encoded, expected) in [
            ("YTpi", Some("a|b")),
            ("YTpiOmM=", Some("a|b:c")),
            ("Og==", Some("|")),
            ("YQ==", None),
            ("YTpi/w==", None),
            ("%", None),
        ] {
            assert_eq!(shown(encoded).as_deref(), expected, "{encoded}");
        }
    }
}
