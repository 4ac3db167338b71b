//! What the client sends: a check as Envoy sends it for a browser's player by the shipped
//! configuration, or the player's own request to Envoy. Only the viewer and the playback change.

use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::{
    Address, HeaderMap, HeaderValue, SocketAddress, address,
};
use envoy_types::pb::envoy::service::auth::v3::attribute_context::{HttpRequest, Peer, Request};
use envoy_types::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest};
use envoy_types::pb::google::protobuf::Timestamp;
use prost::Message;

/// How many digits the number of a viewer has, and of a playback.
const DIGITS: (usize, usize) = (13, 12);

/// What stands before the digits, and nowhere else in the message.
const VIEWER: &str = "viewer-";
const PLAYBACK: &str = "0188f1a2-4b6c-7d8e-9f00-";

/// The path and the host of each request.
const PATH: &str = "/vod/a-film/1080p/segment-00042.m4s";
const HOST: &str = "video.example.com";

/// The headers that the player sends.
const PLAYER: [(&str, &str); 8] = [
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
    ("x-device-id", "tv-living-room-1"),
];

/// Those that Envoy adds.
const ENVOY: [(&str, &str); 3] = [
    ("x-forwarded-for", "203.0.113.7"),
    ("x-forwarded-proto", "https"),
    ("x-request-id", "6f9c1b1e-7d2f-4b0e-9b1a-1c2d3e4f5a6b"),
];

/// Whose request it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sender {
    /// Envoy's, to an `ext_authz` server: the message of a check.
    Envoy,
    /// A player's, to Envoy: a block of header fields.
    Player,
}

/// A request, and where the numbers stand in it.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    /// Whose it is.
    pub(crate) sender: Sender,
    bytes: Vec<u8>,
    viewer_at: usize,
    playback_at: usize,
}

impl Template {
    /// That sender's.
    pub(crate) fn of(sender: Sender) -> Self {
        let bytes = match sender {
            Sender::Envoy => message().encode_to_vec(),
            Sender::Player => block(),
        };
        let after = |text: &str| {
            let text = text.as_bytes();
            let found = bytes.windows(text.len()).position(|part| part == text);
            found.unwrap() + text.len()
        };
        Self {
            sender,
            viewer_at: after(VIEWER),
            playback_at: after(PLAYBACK),
            bytes,
        }
    }

    /// Appends that viewer's request for that playback.
    pub(crate) fn write(&self, (viewer, playback): (usize, usize), out: &mut Vec<u8>) {
        let begin = out.len();
        out.extend_from_slice(&self.bytes);
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
        self.bytes.len()
    }
}

/// The headers that name a viewer and a playback, as texts.
pub(crate) fn names((viewer, playback): (usize, usize)) -> [(&'static str, String); 2] {
    let (viewers, playbacks) = DIGITS;
    [
        ("x-user-id", format!("{VIEWER}{viewer:0viewers$}")),
        (
            "x-playback-session-id",
            format!("{PLAYBACK}{playback:0playbacks$}"),
        ),
    ]
}

/// A player's header fields, none of which the receiver remembers.
fn block() -> Vec<u8> {
    let pseudo = [
        (":method", "GET"),
        (":scheme", "http"),
        (":path", PATH),
        (":authority", HOST),
    ];
    let fields = pseudo.into_iter().chain(PLAYER);
    let fields = fields.map(|(name, value)| (name, value.to_owned()));
    let mut block = Vec::new();
    for (name, value) in fields.chain(names((0, 0))) {
        block.push(0);
        for text in [name, &value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// A check of a player's request, with all attributes that Envoy sends.
fn message() -> CheckRequest {
    let pseudo = [
        (":authority", HOST),
        (":path", PATH),
        (":method", "GET"),
        (":scheme", "https"),
    ];
    let headers = pseudo.into_iter().chain(PLAYER).chain(ENVOY);
    let headers = headers.map(|(name, value)| (name, value.to_owned()));
    let headers = headers.chain(names((0, 0)));
    let headers = headers.map(|(name, value)| HeaderValue {
        key: name.to_owned(),
        raw_value: value.into_bytes(),
        ..HeaderValue::default()
    });
    let http = HttpRequest {
        id: "11342367439283740213".to_owned(),
        method: "GET".to_owned(),
        header_map: Some(HeaderMap {
            headers: headers.collect(),
        }),
        path: PATH.to_owned(),
        host: HOST.to_owned(),
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
