//! Secrets kept out of all that people see: the user and password of a URL, and what follows its `?`.
//!
//! It works on any text, well formed or not, because a mistyped URL ends up in an error message with its password in it.

/// The text without what may be a secret in it.
pub(super) fn redact(text: &str) -> String {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (Some(scheme), rest),
        None => (None, text),
    };
    // The last `@`: a password that nobody escaped may hold one. Without a scheme `anna@example.com` may be a user's
    // name, and only `name:password@` is hidden.
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
mod tests {
    use super::redact;

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
