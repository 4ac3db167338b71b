//! Keeps secrets out of everything that people see: the user and password of a URL, and its query.
//!
//! A well-formed URL is shown without them. A malformed URL isn't shown at all: errors report
//! mistyped URLs, and nobody can say where the password is in such a URL.

/// Shown instead of a value that may hold a secret.
pub(in crate::config) const NOT_SHOWN: &str = "a value that is not shown here";

/// Says whether a text may hold a secret.
pub(in crate::config) type Hides = fn(&str) -> bool;

/// Whether an unreadable text may hold a secret. If so, no part of it can be shown: nobody knows
/// where the password ends.
pub(in crate::config) fn may_hold_a_secret(text: &str) -> bool {
    #[cfg(test)]
    tests::SEARCHES.set(tests::SEARCHES.get() + 1);
    ["://", "@", "redis:", "rediss:"]
        .iter()
        .any(|sign| text.contains(sign))
}

/// The same for a key that takes the address of a page, which holds no secret unless it has a user
/// or a query.
pub(in crate::config) fn is_more_than_a_page(text: &str) -> bool {
    let rest = text.replace("https://", "").replace("http://", "");
    may_hold_a_secret(&rest) || rest.contains('?') || !rest.split(':').skip(1).all(is_port)
}

/// Whether the text after a colon begins with a port. If not, it may be a password that lacks its
/// `@`.
fn is_port(text: &str) -> bool {
    let port = text.split(['/', ',', ']']).next().unwrap_or_default();
    port.bytes().all(|byte| byte.is_ascii_digit())
}

/// The same for a map whose names may be mail addresses, or for a part of such a map.
pub(in crate::config) fn is_more_than_mail(text: &str) -> bool {
    may_hold_a_secret(text) && !has_only_mail(text)
}

/// Whether each `@` belongs to a mail address: there is no colon, and its host has a dot.
fn has_only_mail(text: &str) -> bool {
    let is_host_of_mail = |host: &str| {
        let name = host.split([',', '=', ' ']).next();
        name.is_some_and(|name| name.contains('.'))
    };
    !text.contains(':') && text.split('@').skip(1).all(is_host_of_mail)
}

/// A well-formed address without the parts that may be secret.
pub(in crate::config) fn redact(text: &str) -> String {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (Some(scheme), rest),
        None => (None, text),
    };
    // At the last `@`: an unescaped password may contain one. Without a scheme, `anna@example.com`
    // may be a user's name, so only `name:password@` is hidden.
    let (hidden, rest) = match rest.rsplit_once('@') {
        Some((before, rest)) if scheme.is_some() || before.contains(':') => ("***@", rest),
        _ => ("", rest),
    };
    let Some(scheme) = scheme else {
        return format!("{hidden}{rest}");
    };
    // Redis's socket URLs carry the password in their query.
    match rest.split_once('?') {
        Some((rest, _)) => format!("{scheme}://{hidden}{rest}?***"),
        None => format!("{scheme}://{hidden}{rest}"),
    }
}

#[cfg(test)]
pub(in crate::config) mod tests {
    use std::cell::Cell;

    use super::{is_more_than_a_page, is_more_than_mail, may_hold_a_secret, redact};

    thread_local! {
        /// How often this thread searched a text, for tests that bound the work.
        pub(in crate::config) static SEARCHES: Cell<usize> = const { Cell::new(0) };
    }

    #[test]
    fn text_that_looks_like_an_address_is_treated_as_a_secret() {
        for text in [
            "redis://a",
            "x://",
            "a@b",
            "a:b@c",
            "app:hunter2@cache.example.com",
            "hunter2@cache.example.com",
            "anna@example.com",
            "hunter2@cache:6379",
            "redis:app:hunter2",
            "rediss:a",
            "http://app:1234",
            "https://app.example.com",
        ] {
            assert!(may_hold_a_secret(text), "{text}");
        }
        for text in ["", "memory", "127.0.0.1:50051", "header:x-user-id", "50"] {
            assert!(!may_hold_a_secret(text), "{text}");
        }
    }

    #[test]
    fn the_address_of_a_page_is_shown_where_one_belongs() {
        for text in [
            "redis://a",
            "a@b",
            "hunter2@cache.example.com",
            "https://anna:hunter2@app.example",
            "https://hunter2@app.example",
            "https://app.example/?token=hunter2",
            "app.example/?token=hunter2",
            "http://redis://:hunter2",
            "http://app:hunter2",
            "http://app:1hunter2/",
            "https://app.example,redis://:hunter2",
        ] {
            assert!(is_more_than_a_page(text), "{text}");
        }
        for text in [
            "",
            "*",
            "127.0.0.1:50051",
            "https://app.example.com:8443/",
            "http://a,https://b",
            "http://[::1]:3000/",
        ] {
            assert!(!is_more_than_a_page(text), "{text}");
        }
    }

    #[test]
    fn a_mail_address_is_shown_only_as_the_name_of_a_user() {
        let of_users = is_more_than_mail;
        for text in [
            "hunter2@cache",
            "hunter2@cache=1",
            "anna@example.com=1,hunter2@cache=1",
            "app:hunter2@cache.example.com",
            "redis://hunter2@cache.example.com",
            "redis:app:hunter2",
        ] {
            assert!(of_users(text), "{text}");
        }
        for text in [
            "",
            "anna@example.com",
            "anna@example.com=1,ben@example.com=2",
            "anna=1,ben@example.com=2",
        ] {
            assert!(!of_users(text), "{text}");
        }
        assert!(may_hold_a_secret("anna@example.com"));
    }

    #[test]
    fn what_may_be_a_secret_is_hidden_and_the_rest_is_not() {
        for (text, shown) in [
            ("redis://127.0.0.1:6379/2", "redis://127.0.0.1:6379/2"),
            ("redis://:hunter2@cache:6379", "redis://***@cache:6379"),
            ("rediss://app:hunter2@cache/0", "rediss://***@cache/0"),
            ("redis://:hun@ter2@cache", "redis://***@cache"),
            ("redis://:hun/ter?2@cache", "redis://***@cache"),
            (
                "redis+unix:///run/redis.sock?pass=hunter2",
                "redis+unix:///run/redis.sock?***",
            ),
            ("app:hunter2@cache:6379", "***@cache:6379"),
            (":hunter2@cache", "***@cache"),
            ("anna@example.com", "anna@example.com"),
            ("memory", "memory"),
            ("", ""),
        ] {
            assert_eq!(redact(text), shown, "{text}");
        }
    }
}
