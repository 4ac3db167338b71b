//! The checks that the client makes: one message as Envoy sends it for a browser's player, in which
//! only the viewer and the playback change.

use std::collections::HashMap;

use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::{Address, SocketAddress, address};
use envoy_types::pb::envoy::service::auth::v3::attribute_context::{HttpRequest, Peer, Request};
use envoy_types::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest};
use envoy_types::pb::google::protobuf::Timestamp;
use prost::Message;

/// How many digits the number of a viewer has, and of a playback.
const DIGITS: (usize, usize) = (13, 12);

/// What stands before the digits, and nowhere else in the message.
const VIEWER: &str = "viewer-";
const PLAYBACK: &str = "0188f1a2-4b6c-7d8e-9f00-";

/// The message, and where the numbers stand in it.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    message: Vec<u8>,
    viewer_at: usize,
    playback_at: usize,
}

impl Template {
    pub(crate) fn new() -> Self {
        let message = message().encode_to_vec();
        let after = |text: &str| {
            let text = text.as_bytes();
            let found = message.windows(text.len()).position(|part| part == text);
            found.unwrap() + text.len()
        };
        Self {
            viewer_at: after(VIEWER),
            playback_at: after(PLAYBACK),
            message,
        }
    }

    /// Appends the check of that viewer's playback.
    pub(crate) fn write(&self, (viewer, playback): (usize, usize), out: &mut Vec<u8>) {
        let begin = out.len();
        out.extend_from_slice(&self.message);
        for (number, at, digits) in [
            (viewer, self.viewer_at, DIGITS.0),
            (playback, self.playback_at, DIGITS.1),
        ] {
            let mut rest = number;
            for byte in out[begin + at..begin + at + digits].iter_mut().rev() {
                *byte = b'0' + u8::try_from(rest % 10).unwrap();
                rest /= 10;
            }
        }
    }

    /// How many bytes each has.
    pub(crate) const fn size(&self) -> usize {
        self.message.len()
    }
}

/// A check of a browser's player, with all attributes that Envoy sends.
fn message() -> CheckRequest {
    let path = "/vod/a-film/1080p/segment-00042.m4s";
    let headers = [
        (":authority", "video.example.com"),
        (":method", "GET"),
        (":path", path),
        (":scheme", "https"),
        ("accept", "*/*"),
        ("accept-encoding", "gzip, deflate, br, zstd"),
        ("accept-language", "de-DE,de;q=0.9,en;q=0.8"),
        ("origin", "https://www.example.com"),
        ("referer", "https://www.example.com/"),
        ("sec-fetch-mode", "cors"),
        (
            "user-agent",
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/146.0.0.0 Safari/537.36",
        ),
        ("x-forwarded-for", "203.0.113.7"),
        ("x-forwarded-proto", "https"),
        ("x-request-id", "6f9c1b1e-7d2f-4b0e-9b1a-1c2d3e4f5a6b"),
        ("x-device-id", "tv-living-room-1"),
    ];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut headers = HashMap::from(headers);
    let (viewers, playbacks) = ("0".repeat(DIGITS.0), "0".repeat(DIGITS.1));
    headers.insert("x-user-id".to_owned(), format!("{VIEWER}{viewers}"));
    headers.insert(
        "x-playback-session-id".to_owned(),
        format!("{PLAYBACK}{playbacks}"),
    );
    let http = HttpRequest {
        id: "11342367439283740213".to_owned(),
        method: "GET".to_owned(),
        headers,
        path: path.to_owned(),
        host: "video.example.com".to_owned(),
        scheme: "https".to_owned(),
        protocol: "HTTP/2".to_owned(),
        size: -1,
        ..HttpRequest::default()
    };
    CheckRequest {
        attributes: Some(AttributeContext {
            source: Some(peer("203.0.113.7", 51_412)),
            destination: Some(peer("10.0.0.5", 10_000)),
            request: Some(Request {
                time: Some(Timestamp {
                    seconds: 1_800_000_000,
                    nanos: 123_456_000,
                }),
                http: Some(http),
            }),
            ..AttributeContext::default()
        }),
    }
}

fn peer(address: &str, port: u32) -> Peer {
    let socket = SocketAddress {
        address: address.to_owned(),
        port_specifier: Some(PortSpecifier::PortValue(port)),
        ..SocketAddress::default()
    };
    Peer {
        address: Some(Address {
            address: Some(address::Address::SocketAddress(socket)),
        }),
        ..Peer::default()
    }
}
