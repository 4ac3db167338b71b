//! A check as it comes: Envoy's `CheckRequest`, as far as it is read here, over the bytes that came in.
//!
//! To make all of it that `envoy-types` does (a hash table of a browser's headers, two allocations for each) takes more time than all else that
//! is done here about a check. So what nobody asks for is passed over, as fields are that aren't known, and names and texts stay where they
//! lie. The field numbers are those of `envoy/service/auth/v3/attribute_context.proto`; a test holds this to `envoy-types`.

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::{Address, Metadata};
use prost::{DecodeError, Message};

/// What Envoy asks.
#[derive(Clone, PartialEq, Message)]
pub(in crate::envoy) struct CheckRequest {
    /// What it is about.
    #[prost(message, optional, boxed, tag = "1")]
    pub(in crate::envoy) attributes: Option<Box<AttributeContext>>,
}

/// What a check is about.
#[derive(Clone, PartialEq, Message)]
pub(in crate::envoy) struct AttributeContext {
    /// The viewer's end of the connection.
    #[prost(message, optional, tag = "1")]
    pub(in crate::envoy) source: Option<Peer>,
    /// The gateway's.
    #[prost(message, optional, tag = "2")]
    pub(in crate::envoy) destination: Option<Peer>,
    /// The request.
    #[prost(message, optional, tag = "4")]
    pub(in crate::envoy) request: Option<Request>,
    /// What the route says to us.
    #[prost(message, repeated, tag = "10")]
    pub(in crate::envoy) context_extensions: Vec<Pair>,
    /// What Envoy's filters have left.
    #[prost(message, optional, tag = "11")]
    pub(in crate::envoy) metadata_context: Option<Metadata>,
}

/// One end of a connection.
#[derive(Clone, PartialEq, Message)]
pub(in crate::envoy) struct Peer {
    /// Where it is.
    #[prost(message, optional, tag = "1")]
    pub(in crate::envoy) address: Option<Address>,
    /// The name in its certificate.
    #[prost(string, tag = "4")]
    pub(in crate::envoy) principal: String,
}

/// A request of some protocol.
#[derive(Clone, PartialEq, Message)]
pub(in crate::envoy) struct Request {
    /// It is HTTP.
    #[prost(message, optional, tag = "2")]
    pub(in crate::envoy) http: Option<HttpRequest>,
}

/// A request over HTTP.
#[derive(Clone, PartialEq, Message)]
pub(in crate::envoy) struct HttpRequest {
    /// `GET` and the like.
    #[prost(string, tag = "2")]
    pub(in crate::envoy) method: String,
    /// The headers, those of one name joined by commas.
    #[prost(message, repeated, tag = "3")]
    pub(in crate::envoy) headers: Vec<Pair>,
    /// The path with its query.
    #[prost(string, tag = "4")]
    pub(in crate::envoy) path: String,
    /// `http` or `https`.
    #[prost(string, tag = "6")]
    pub(in crate::envoy) scheme: String,
    /// The headers as they came over the wire (`encode_raw_headers`), instead of those.
    #[prost(message, optional, tag = "13")]
    pub(in crate::envoy) header_map: Option<HeaderMap>,
}

/// Headers, each line on its own.
#[derive(Clone, PartialEq, Message)]
pub(in crate::envoy) struct HeaderMap {
    /// The lines.
    #[prost(message, repeated, tag = "1")]
    pub(in crate::envoy) headers: Vec<RawHeader>,
}

/// One line of them.
#[derive(Clone, PartialEq, Message)]
pub(in crate::envoy) struct RawHeader {
    /// Its name, which is UTF-8.
    #[prost(bytes = "bytes", tag = "1")]
    pub(in crate::envoy) key: Bytes,
    /// What stands in it, if that is UTF-8.
    #[prost(bytes = "bytes", tag = "2")]
    pub(in crate::envoy) value: Bytes,
    /// What stands in it, instead.
    #[prost(bytes = "bytes", tag = "3")]
    pub(in crate::envoy) raw_value: Bytes,
}

/// A name and its text: an entry of a map. Both are UTF-8.
#[derive(Clone, PartialEq, Message)]
pub(in crate::envoy) struct Pair {
    /// The name.
    #[prost(bytes = "bytes", tag = "1")]
    pub(in crate::envoy) name: Bytes,
    /// The text.
    #[prost(bytes = "bytes", tag = "2")]
    pub(in crate::envoy) text: Bytes,
}

/// Why bytes are no check.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::envoy) enum ReadError {
    /// They are no such message.
    #[error(transparent)]
    Message(#[from] DecodeError),
    /// A name or a text in it is none.
    #[error("failed to decode Protobuf message: {0}: the data is not UTF-8")]
    NotText(&'static str),
}

impl CheckRequest {
    /// The check in those bytes.
    pub(in crate::envoy) fn read(bytes: Bytes) -> Result<Self, ReadError> {
        let request = Self::decode(bytes)?;
        match request.not_text() {
            Some(field) => Err(ReadError::NotText(field)),
            None => Ok(request),
        }
    }

    /// A field with a name or a text that isn't UTF-8.
    fn not_text(&self) -> Option<&'static str> {
        let are_text = |name: &[u8], text: &[u8]| {
            std::str::from_utf8(name).is_ok() && std::str::from_utf8(text).is_ok()
        };
        let is_text = |pair: &Pair| are_text(&pair.name, &pair.text);
        let attributes = self.attributes.as_ref()?;
        if !attributes.context_extensions.iter().all(is_text) {
            return Some("AttributeContext.context_extensions");
        }
        let http = self.http()?;
        if !http.headers.iter().all(is_text) {
            return Some("HttpRequest.headers");
        }
        let mut lines = http.header_map.iter().flat_map(|map| &map.headers);
        let are_all_text = lines.all(|line| are_text(&line.key, &line.value));
        (!are_all_text).then_some("HttpRequest.header_map")
    }

    /// The request over HTTP that it is about, if it is about one.
    pub(in crate::envoy) fn http(&self) -> Option<&HttpRequest> {
        self.attributes.as_ref()?.request.as_ref()?.http.as_ref()
    }
}

/// The text of that name. A name that comes twice has the text that came last, as maps have it.
pub(in crate::envoy) fn text<'a>(pairs: &'a [Pair], name: &str) -> Option<&'a str> {
    let mut pairs = pairs.iter().rev();
    let found = pairs.find(|pair| pair.name == name.as_bytes())?;
    std::str::from_utf8(&found.text).ok()
}

impl RawHeader {
    /// What stands in it, byte for byte.
    pub(in crate::envoy) fn bytes(&self) -> &[u8] {
        if self.raw_value.is_empty() {
            &self.value
        } else {
            &self.raw_value
        }
    }
}
