//! `--url`: the address of an instance's HTTP API.

use std::fmt;
use std::net::IpAddr;

use http::Uri;
use http::uri::Scheme;

/// The base address of the API. The API's own paths follow it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Base {
    /// The address, without a slash at its end.
    text: String,
    /// The host in it.
    host: String,
    /// Whether the connection is unencrypted.
    pub(super) is_tls: bool,
}

/// Why a text can't be the address of an API. The error leaves out the text, which may have a
/// password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::cli) enum NotABase {
    /// It isn't such an address.
    #[error(
        "--url (STREAMGATE_URL): not a valid address; allowed: http:// or https://, a host, and optionally a port and a path, such as http://127.0.0.1:8080"
    )]
    NoAddress,
    /// It has a user or a password.
    #[error(
        "--url (STREAMGATE_URL): it has a user or a password; leave them out, and pass a token with --token-file"
    )]
    Userinfo,
    /// It has a query or a fragment.
    #[error(
        "--url (STREAMGATE_URL): it has a \"?\" or \"#\"; leave that out, and everything after it"
    )]
    BeyondPath,
}

impl Base {
    /// Parses an address.
    ///
    /// # Errors
    /// No API can have this address.
    pub(super) fn parse(text: &str) -> Result<Self, NotABase> {
        if text.contains('@') {
            return Err(NotABase::Userinfo);
        }
        if text.contains(['?', '#']) {
            return Err(NotABase::BeyondPath);
        }
        let uri: Uri = text.parse().map_err(|_| NotABase::NoAddress)?;
        let is_tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            _ => return Err(NotABase::NoAddress),
        };
        let authority = uri.authority().ok_or(NotABase::NoAddress)?;
        let host = authority.host();
        let port = authority.as_str().strip_prefix(host).unwrap_or_default();
        if host.is_empty() || !(port.is_empty() || authority.port_u16().is_some()) {
            return Err(NotABase::NoAddress);
        }
        Ok(Self {
            text: text.trim_end_matches('/').to_owned(),
            host: host.to_owned(),
            is_tls,
        })
    }

    /// The address of a path of the API.
    pub(super) fn join(&self, path: &str) -> String {
        format!("{}{path}", self.text)
    }

    /// Whether others may read the requests on the way.
    pub(super) fn is_overheard(&self) -> bool {
        !self.is_tls && !self.is_loopback()
    }

    /// Whether it is this machine.
    fn is_loopback(&self) -> bool {
        let bare = self.host.trim_start_matches('[').trim_end_matches(']');
        match bare.parse::<IpAddr>() {
            Ok(ip) => ip.to_canonical().is_loopback(),
            Err(_) => bare.eq_ignore_ascii_case("localhost"),
        }
    }
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_api_has_comes_behind_the_address() {
        for (text, joined) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080/v1"),
            ("http://127.0.0.1:8080/", "http://127.0.0.1:8080/v1"),
            ("https://tv.example", "https://tv.example/v1"),
            ("https://tv.example/a/b%2F/", "https://tv.example/a/b%2F/v1"),
            ("HTTP://[::1]:1", "HTTP://[::1]:1/v1"),
        ] {
            assert_eq!(Base::parse(text).unwrap().join("/v1"), joined);
        }
    }

    #[test]
    fn what_is_no_address_says_what_to_do_and_repeats_nothing() {
        for (text, expected) in [
            ("", NotABase::NoAddress),
            ("127.0.0.1:8080", NotABase::NoAddress),
            ("localhost", NotABase::NoAddress),
            ("/v1", NotABase::NoAddress),
            ("ftp://tv.example", NotABase::NoAddress),
            ("http://", NotABase::NoAddress),
            ("http://tv.example:port", NotABase::NoAddress),
            ("http://tv.example:99999", NotABase::NoAddress),
            ("http://tv.example:", NotABase::NoAddress),
            ("http://tv example", NotABase::NoAddress),
            ("https://anna:hunter2@tv.example", NotABase::Userinfo),
            ("http://tv.example/?a=b", NotABase::BeyondPath),
            ("http://tv.example/#a", NotABase::BeyondPath),
        ] {
            assert_eq!(Base::parse(text), Err(expected), "{text}");
        }
        assert!(!NotABase::Userinfo.to_string().contains("hunter2"));
    }

    #[test]
    fn others_can_read_what_leaves_the_machine_without_tls() {
        for (text, is_overheard) in [
            ("http://127.0.0.1:8080", false),
            ("http://127.8.8.8", false),
            ("http://[::1]:8080", false),
            ("http://[::ffff:127.0.0.1]", false),
            ("http://LocalHost", false),
            ("https://tv.example", false),
            ("http://tv.example", true),
            ("http://localhost.example", true),
            ("http://10.0.0.1", true),
            ("http://[2001:db8::1]", true),
        ] {
            assert_eq!(
                Base::parse(text).unwrap().is_overheard(),
                is_overheard,
                "{text}"
            );
        }
    }
}
