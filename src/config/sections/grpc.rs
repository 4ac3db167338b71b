//! Where Envoy's door listens, and what an address to listen on is.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use super::tls::{self, Tls, TlsKeys};
use crate::config::load::error::Report;
use crate::config::load::form::{Form, quoted};
use crate::config::load::raw::Raw;
use crate::config::load::section::{Key, Keys};
use crate::config::load::value::RawValue;

/// The longest path that a Unix socket can be bound to on Linux.
const MAX_SOCKET_PATH: usize = 107;

/// The port for Envoy: checks, access logs, health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grpc {
    /// `grpc.listen`
    pub listen: Listen,
    /// `grpc.tls`: never with a Unix socket.
    pub tls: Option<Tls>,
}

/// An address to listen on, or to reach a listener at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// An IP address and a port; port 0 takes a free one.
    Tcp(SocketAddr),
    /// A Unix socket, by its absolute path.
    Unix(PathBuf),
}

/// Why a text isn't an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "an IP address with a port such as 127.0.0.1:50051, localhost:50051, :50051 for 0.0.0.0:50051, or unix:/path.sock (absolute, at most {MAX_SOCKET_PATH} bytes)"
)]
pub struct NotAnAddress;

// === impl Grpc ===

impl Grpc {
    /// Declares the keys of `grpc`.
    pub(in crate::config) fn keys(&mut self, keys: &mut impl Keys) {
        let read = |written: &RawValue| {
            let address = written.scalar().unwrap_or_default().parse();
            address.map_err(|error: NotAnAddress| written.wrong(error))
        };
        keys.key(
            Key::new(
                "grpc.listen",
                "Envoy's port. `localhost:50051` is `127.0.0.1:50051`, and `:50051` is `0.0.0.0:50051`. \
                 Anyone who can reach it can forge the end of any stream: keep it private, or set \
                 `grpc.tls.client_ca`.",
            ),
            Form::new("an IP address with a port, or `unix:/path.sock`", read, quoted),
            &mut self.listen,
        );
        let refused = self.no_tls();
        tls::keys(&mut self.tls, TlsKeys::GRPC, refused.as_deref(), keys);
    }

    /// Checks that the port has both TLS files or none.
    pub(in crate::config) fn check(&self, raw: &Raw, report: &mut Report) {
        if self.no_tls().is_none() {
            tls::check(TlsKeys::GRPC, raw, report);
        }
    }

    /// Why the port can't speak TLS, if it can't.
    fn no_tls(&self) -> Option<String> {
        let listen = &self.listen;
        matches!(listen, Listen::Unix(_)).then(|| {
            format!(
                "a Unix socket has no TLS, and grpc.listen is {listen}; allowed: null, or an IP address with a port in grpc.listen"
            )
        })
    }
}

impl Default for Grpc {
    fn default() -> Self {
        Self {
            listen: Listen::Tcp((Ipv4Addr::LOCALHOST, 50051).into()),
            tls: None,
        }
    }
}

// === impl Listen ===

impl Listen {
    /// Whether other machines can reach it.
    #[must_use]
    pub fn is_beyond_loopback(&self) -> bool {
        match self {
            Self::Tcp(address) => is_beyond_loopback(address),
            Self::Unix(_) => false,
        }
    }
}

/// Whether other machines can reach this address.
pub(in crate::config) fn is_beyond_loopback(address: &SocketAddr) -> bool {
    // The standard library doesn't take an IPv4-mapped IPv6 address for loopback.
    !address.ip().to_canonical().is_loopback()
}

/// An IP address and a port. `localhost` is 127.0.0.1, and no host before the colon is 0.0.0.0.
pub(in crate::config) fn tcp(text: &str) -> Option<SocketAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let (host, port) = text.split_once(':')?;
    let ip = match host {
        "localhost" => Ipv4Addr::LOCALHOST,
        "" => Ipv4Addr::UNSPECIFIED,
        _ => return None,
    };
    // A number may have a sign, a port has none.
    let is_port = port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse().ok().filter(|_| is_port)?;
    Some(SocketAddr::from((ip, port)))
}

/// Whether two ports can't be bound at once, since they have the same number and share an address.
/// On Linux, the unspecified IPv6 address takes all IPv4 addresses too, by default.
pub(in crate::config) fn is_taken_twice(one: SocketAddr, other: SocketAddr) -> bool {
    let takes_all = |of: IpAddr, ip: IpAddr| of.is_unspecified() && (of.is_ipv6() || ip.is_ipv4());
    let (ip, other_ip) = (one.ip().to_canonical(), other.ip().to_canonical());
    let is_shared = ip == other_ip || takes_all(ip, other_ip) || takes_all(other_ip, ip);
    // Port 0 takes any free port.
    one.port() == other.port() && one.port() != 0 && is_shared
}

impl FromStr for Listen {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        let Some(path) = text.strip_prefix("unix:") else {
            return tcp(text).map(Self::Tcp).ok_or(NotAnAddress);
        };
        // gRPC also writes `unix:///path`, with a host between the second and the third slash.
        let path = path.strip_prefix("//").unwrap_or(path);
        let is_good =
            path.starts_with('/') && path.len() <= MAX_SOCKET_PATH && !path.contains('\0');
        is_good.then(|| Self::Unix(path.into())).ok_or(NotAnAddress)
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_an_ip_with_a_port_or_a_socket() {
        for (text, shown, beyond) in [
            ("127.0.0.1:0", "127.0.0.1:0", false),
            ("[::1]:50051", "[::1]:50051", false),
            ("[::ffff:127.0.0.1]:1", "[::ffff:127.0.0.1]:1", false),
            ("0.0.0.0:50051", "0.0.0.0:50051", true),
            ("[::]:50051", "[::]:50051", true),
            ("10.1.2.3:1", "10.1.2.3:1", true),
            ("localhost:50051", "127.0.0.1:50051", false),
            (":50051", "0.0.0.0:50051", true),
            (
                "unix:/run/streamgate.sock",
                "unix:/run/streamgate.sock",
                false,
            ),
            (
                "unix:///run/streamgate.sock",
                "unix:/run/streamgate.sock",
                false,
            ),
        ] {
            let listen: Listen = text.parse().unwrap();
            assert_eq!(
                (listen.to_string().as_str(), listen.is_beyond_loopback()),
                (shown, beyond),
                "{text}"
            );
            assert_eq!(shown.parse(), Ok(listen), "{text}");
        }
        let long = format!("unix:/{}", "x".repeat(MAX_SOCKET_PATH));
        for text in [
            "",
            "50051",
            ":",
            ":99999",
            ":+1",
            "localhost",
            "localhost:",
            "localhost:http",
            "example.com:50051",
            "127.0.0.1",
            "127.0.0.1:99999",
            "unix:",
            "unix:run",
            "unix://run",
            &long,
        ] {
            assert_eq!(text.parse::<Listen>(), Err(NotAnAddress), "{text}");
        }
    }

    #[test]
    fn two_ports_are_one_where_they_share_a_number_and_an_address() {
        for (one, other, expected) in [
            ("127.0.0.1:1", "127.0.0.1:1", true),
            ("127.0.0.1:1", "127.0.0.1:2", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
            ("127.0.0.1:1", "127.0.0.2:1", false),
            ("127.0.0.1:1", ":1", true),
            ("127.0.0.1:1", "[::]:1", true),
            (":1", "[::]:1", true),
            ("[::1]:1", "[::]:1", true),
            ("[::1]:1", ":1", false),
            ("[::1]:1", "127.0.0.1:1", false),
            ("[::ffff:127.0.0.1]:1", "localhost:1", true),
        ] {
            let (one, other) = (tcp(one).unwrap(), tcp(other).unwrap());
            assert_eq!(is_taken_twice(one, other), expected, "{one} {other}");
            assert_eq!(is_taken_twice(other, one), expected, "{other} {one}");
        }
    }
}
