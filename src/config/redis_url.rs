//! The address of a Redis, which may hold a password: shown without it, whoever shows it.

use std::fmt;
use std::str::FromStr;

use redis::IntoConnectionInfo;

use super::redact::redact;

/// The address of one Redis, checked by the library that will connect to it.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl(String);

/// Why a text isn't the address of a Redis. Deliberately without the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "redis://[user:password@]host[:port][/database], or rediss:// for TLS; # in a password is %23"
)]
pub struct NotARedisUrl;

impl RedisUrl {
    /// The whole address with its password: for connecting, for nothing else.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for RedisUrl {
    type Err = NotARedisUrl;

    fn from_str(text: &str) -> Result<Self, NotARedisUrl> {
        let has_scheme = text.starts_with("redis://") || text.starts_with("rediss://");
        // What follows a `#` leads nowhere. It is most likely what is left of a password, and would be shown.
        match text.into_connection_info() {
            Ok(_) if has_scheme && !text.contains('#') => Ok(Self(text.to_owned())),
            _ => Err(NotARedisUrl),
        }
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redact(&self.0))
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", redact(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_redis_is_what_its_client_takes() {
        for text in [
            "redis://127.0.0.1:6379",
            "redis://cache",
            "rediss://app:secret@cache:6380/1",
            "redis://[::1]:6379",
        ] {
            assert_eq!(text.parse::<RedisUrl>().unwrap().expose(), text);
        }
        for text in [
            "",
            "cache:6379",
            "http://cache",
            "redis://",
            "redis://cache:99999",
            "redis://cache/one",
            "unix:///run/redis.sock",
            "redis://cache#secret",
            "redis://default:#secret@cache",
            "rediss://cache/#insecure",
        ] {
            assert_eq!(text.parse::<RedisUrl>(), Err(NotARedisUrl), "{text}");
        }
    }

    #[test]
    fn a_password_never_shows() {
        let url: RedisUrl = "rediss://app:hunter2@cache:6380/1".parse().unwrap();
        assert_eq!(url.to_string(), "rediss://***@cache:6380/1");
        assert_eq!(format!("{url:?}"), "\"rediss://***@cache:6380/1\"");
    }
}
