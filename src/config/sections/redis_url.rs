//! The address of a Redis. It may hold a password, and is always shown without it.

use std::fmt;
use std::str::FromStr;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisResult};

use crate::config::load::redact::redact;

/// The default port of a sentinel.
const SENTINELS_PORT: u16 = 26379;

/// The address of one Redis, checked by the library that connects to it.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl(String);

/// Why a text isn't the address of a Redis. It leaves out the text on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "redis://[user:password@]host[:port][/database], or rediss:// for TLS, with one host, by its name or address; # in a password is %23"
)]
pub struct NotARedisUrl;

impl RedisUrl {
    /// The whole address with its password. Only for connecting.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// For connecting.
    ///
    /// # Errors
    /// None: it was checked when it was read.
    pub fn server(&self) -> RedisResult<ConnectionInfo> {
        self.0.as_str().into_connection_info()
    }

    /// For connecting to a sentinel, which has another default port.
    ///
    /// # Errors
    /// None: it was checked when it was read.
    pub fn sentinel(&self) -> RedisResult<ConnectionInfo> {
        let server = self.server()?;
        if self.port().is_some() {
            return Ok(server);
        }
        let mut address = server.addr().clone();
        if let ConnectionAddr::Tcp(_, port) | ConnectionAddr::TcpTls { port, .. } = &mut address {
            *port = SENTINELS_PORT;
        }
        Ok(server.set_addr(address))
    }

    /// The address of a host, without a password.
    pub(in crate::config) fn of_host(with_tls: bool, host: &str) -> Self {
        let scheme = if with_tls { "rediss" } else { "redis" };
        Self(format!("{scheme}://{host}"))
    }

    /// Whether it asks for TLS.
    pub(in crate::config) fn is_with_tls(&self) -> bool {
        self.0.starts_with("rediss://")
    }

    /// The host.
    pub(in crate::config) fn host(&self) -> String {
        let url = redis::parse_redis_url(&self.0);
        let host = url.as_ref().and_then(|url| url.host_str());
        host.unwrap_or_default().to_owned()
    }

    /// The port, if it names one.
    pub(in crate::config) fn port(&self) -> Option<u16> {
        redis::parse_redis_url(&self.0)?.port()
    }

    /// Whether it has the same scheme, user and password as that one.
    pub(in crate::config) fn connects_as(&self, other: &Self) -> bool {
        let how = |url: &Self| {
            let url = redis::parse_redis_url(&url.0)?;
            let password = url.password().map(ToOwned::to_owned);
            Some((url.scheme().to_owned(), url.username().to_owned(), password))
        };
        how(self) == how(other)
    }

    /// Whether it names a database.
    pub(in crate::config) fn has_database(&self) -> bool {
        let url = redis::parse_redis_url(&self.0);
        url.is_some_and(|url| !matches!(url.path(), "" | "/"))
    }
}

impl FromStr for RedisUrl {
    type Err = NotARedisUrl;

    fn from_str(text: &str) -> Result<Self, NotARedisUrl> {
        let has_scheme = text.starts_with("redis://") || text.starts_with("rediss://");
        // The part after a `#` has no effect. It is probably a part of a password, and would be
        // shown.
        let url = Self(text.to_owned());
        match text.into_connection_info() {
            Ok(_) if has_scheme && !text.contains('#') && host_is_good(&url.host()) => Ok(url),
            _ => Err(NotARedisUrl),
        }
    }
}

/// Whether a text can be the name or address of one host. The client library would take several,
/// with commas, for one host, and never find it.
fn host_is_good(host: &str) -> bool {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    // The parser has checked the address in brackets.
    host.starts_with('[') || (!host.is_empty() && host.bytes().all(is_good))
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
            "redis://:a,b@My_Cache-1.internal.",
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
            "redis://s1,s2,s3",
            "redis://s1:26379,s2",
            "redis://:a@s1,s2:26379",
            "redis://caf\u{e9}",
            "redis://*.cache",
            "redis://s1;s2",
            "redis://:6379",
            "rediss://cache/#insecure",
        ] {
            assert_eq!(text.parse::<RedisUrl>(), Err(NotARedisUrl), "{text}");
        }
    }

    #[test]
    fn a_sentinel_without_a_port_listens_on_its_usual_one() {
        for (text, address) in [
            ("redis://s1", "s1:26379"),
            ("redis://s1:6379", "s1:6379"),
            ("rediss://a:b@s1", "s1:26379"),
            ("redis://[::1]", "::1:26379"),
        ] {
            let url: RedisUrl = text.parse().unwrap();
            assert_eq!(url.sentinel().unwrap().addr().to_string(), address);
        }
        let server = "redis://s1".parse::<RedisUrl>().unwrap().server();
        assert_eq!(server.unwrap().addr().to_string(), "s1:6379");
    }

    #[test]
    fn what_an_address_names_is_told() {
        let url: RedisUrl = "rediss://app:secret@My_Master-1.a/2".parse().unwrap();
        assert_eq!((&*url.host(), url.port()), ("My_Master-1.a", None));
        assert!(url.has_database() && url.is_with_tls());
        let url: RedisUrl = "redis://s1:7000/".parse().unwrap();
        assert_eq!((&*url.host(), url.port()), ("s1", Some(7000)));
        assert!(!url.has_database() && !url.is_with_tls());
    }

    #[test]
    fn a_password_never_shows() {
        let url: RedisUrl = "rediss://app:hunter2@cache:6380/1".parse().unwrap();
        assert_eq!(url.to_string(), "rediss://***@cache:6380/1");
        assert_eq!(format!("{url:?}"), "\"rediss://***@cache:6380/1\"");
    }
}
