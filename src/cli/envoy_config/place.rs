//! Where something is reached, and the paths of routes, as they are given on the command line.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use super::fill::yaml_text;

/// Where something is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum EnvoyPlace {
    /// By a host's name or IP, and a port.
    Net(String, u16),
    /// By a Unix socket at that path.
    Socket(String),
}

/// The path of a route, including everything below it. It has no slash at its end; `/` itself is
/// empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RoutePath(String);

/// Why a text is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("allowed: HOST:PORT, [IPv6]:PORT, or unix:/PATH")]
pub(super) struct NoPlace;

/// Why a text is no path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "allowed: a path that begins with / and has no query, fragment, space or control character"
)]
pub(super) struct NoPath;

impl FromStr for EnvoyPlace {
    type Err = NoPlace;

    fn from_str(text: &str) -> Result<Self, NoPlace> {
        if let Some(path) = text.strip_prefix("unix:") {
            let is_path = path.starts_with('/') && !path.contains(char::is_control);
            return is_path
                .then(|| Self::Socket(path.to_owned()))
                .ok_or(NoPlace);
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self::from(address));
        }
        let (host, port) = text.rsplit_once(':').ok_or(NoPlace)?;
        let port = port.parse().map_err(|_| NoPlace)?;
        let is_part = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let is_name = !host.is_empty() && host.len() <= 253 && host.chars().all(is_part);
        (is_name && port != 0)
            .then(|| Self::Net(host.to_owned(), port))
            .ok_or(NoPlace)
    }
}

impl From<SocketAddr> for EnvoyPlace {
    fn from(address: SocketAddr) -> Self {
        Self::Net(address.ip().to_string(), address.port())
    }
}

impl EnvoyPlace {
    /// Envoy's `address`.
    pub(super) fn address(&self) -> String {
        match self {
            Self::Net(host, port) => {
                let host = match host.parse::<IpAddr>() {
                    Ok(IpAddr::V4(_)) => host.clone(),
                    _ => yaml_text(host),
                };
                format!("{{socket_address: {{address: {host}, port_value: {port}}}}}")
            }
            Self::Socket(path) => format!("{{pipe: {{path: {}}}}}", yaml_text(path)),
        }
    }

    /// How a cluster finds its hosts: a name may stand for several.
    pub(super) fn discovery(&self) -> &'static str {
        match self {
            Self::Net(host, _) if host.parse::<IpAddr>().is_err() => {
                "type: STRICT_DNS\ndns_lookup_family: V4_PREFERRED"
            }
            Self::Net(..) | Self::Socket(_) => "type: STATIC",
        }
    }
}

impl FromStr for RoutePath {
    type Err = NoPath;

    fn from_str(text: &str) -> Result<Self, NoPath> {
        let is_strange = |c: char| c.is_control() || c.is_whitespace() || "?#".contains(c);
        if !text.starts_with('/') || text.contains(is_strange) {
            return Err(NoPath);
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }
}

impl RoutePath {
    /// The path, as people write it.
    pub(super) fn as_str(&self) -> &str {
        if self.0.is_empty() { "/" } else { &self.0 }
    }

    /// The path without a slash at its end.
    pub(super) fn stem(&self) -> &str {
        &self.0
    }

    /// Envoy's `match`.
    pub(super) fn matcher(&self) -> String {
        if self.0.is_empty() {
            "{prefix: /}".to_owned()
        } else {
            format!("{{path_separated_prefix: {}}}", yaml_text(&self.0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_host_and_a_port_or_a_socket() {
        for (text, address, kind) in [
            (
                "127.0.0.1:1",
                "{socket_address: {address: 127.0.0.1, port_value: 1}}",
                "type: STATIC",
            ),
            (
                "[::1]:1",
                "{socket_address: {address: \"::1\", port_value: 1}}",
                "type: STATIC",
            ),
            (
                "gate.internal:50051",
                "{socket_address: {address: gate.internal, port_value: 50051}}",
                "type: STRICT_DNS\ndns_lookup_family: V4_PREFERRED",
            ),
            (
                "unix:/run/a b",
                "{pipe: {path: \"/run/a b\"}}",
                "type: STATIC",
            ),
        ] {
            let place: EnvoyPlace = text.parse().unwrap();
            assert_eq!((&*place.address(), place.discovery()), (address, kind));
        }
        for text in [
            "", "host", "host:", ":1", "a b:1", "host:0", "h:70000", "unix:a",
        ] {
            assert_eq!(text.parse::<EnvoyPlace>(), Err(NoPlace), "{text}");
        }
    }

    #[test]
    fn a_path_loses_the_slash_at_its_end_and_the_root_is_a_prefix() {
        for (text, matcher) in [
            ("/vod/", "{path_separated_prefix: /vod}"),
            ("/", "{prefix: /}"),
            ("/a{b", "{path_separated_prefix: \"/a{b\"}"),
        ] {
            assert_eq!(text.parse::<RoutePath>().unwrap().matcher(), matcher);
        }
        for text in ["", "vod", "/a?b", "/a b", "/a\n"] {
            assert_eq!(text.parse::<RoutePath>(), Err(NoPath), "{text}");
        }
    }
}
