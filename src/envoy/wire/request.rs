//! An incoming check: the fields of Envoy's `CheckRequest` that we use, over the received bytes.
//!
//! Decoding the full `envoy-types` message (a hash table of a browser's headers, two allocations
//! for each) costs more than the rest of a check, so we decode only the fields we use. Others are
//! skipped like unknown fields, and names and texts stay in the received buffer. The field numbers
//! are those of `envoy/service/auth/v3/attribute_context.proto`; a test compares this with
//! `envoy-types`.

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::{Address, Metadata};
use prost::{DecodeError, Message};

/// Envoy's request.
#[derive(Clone, PartialEq, Message)]
pub(in crate::envoy) struct CheckRequest {
    /// The attributes of the checked request.
    #[prost(message, optional, boxed, tag = "1")]
    pub(in crate::envoy) attributes: Option<Box<AttributeContext>>,
}

/// The attributes of the checked request.
#[derive(Clone, PartialEq, Message)]
pub(in crate::envoy) struct AttributeContext {
    /// The viewer's end of the connection.
    #[prost(message, optional, tag = "1")]
    pub(in crate::envoy) source: Option<SocketPeer>,
    /// The gateway's end.
    #[prost(message, optional, tag = "2")]
    pub(in crate::envoy) destination: Option<SocketPeer>,
    /// The request.
    #[prost(message, optional, tag = "4")]
    pub(in crate::envoy) request: Option<Request>,
    /// The route's `context_extensions`.
    #[prost(message, repeated, tag = "10")]
    pub(in crate::envoy) context_extensions: Vec<Pair>,
    /// The metadata of Envoy's filters.
    #[prost(message, optional, tag = "11")]
    pub(in crate::envoy) metadata_context: Option<Metadata>,
}

/// One end of a connection.
#[derive(Clone, PartialEq, Message)]
pub(in crate::envoy) struct SocketPeer {
    /// Its address.
    #[prost(message, optional, tag = "1")]
    pub(in crate::envoy) address: Option<Address>,
    /// The name in its certificate.
    #[prost(string, tag = "4")]
    pub(in crate::envoy) principal: String,
}

/// A request of some protocol.
#[derive(Clone, PartialEq, Message)]
pub(in crate::envoy) struct Request {
    /// The HTTP request, if it is one.
    #[prost(message, optional, tag = "2")]
    pub(in crate::envoy) http: Option<HttpRequest>,
}

/// An HTTP request.
#[derive(Clone, PartialEq, Message)]
pub(in crate::envoy) struct HttpRequest {
    /// The method, such as `GET`.
    #[prost(string, tag = "2")]
    pub(in crate::envoy) method: String,
    /// The headers; values with the same name are joined by commas.
    #[prost(message, repeated, tag = "3")]
    pub(in crate::envoy) headers: Vec<Pair>,
    /// The path with its query.
    #[prost(string, tag = "4")]
    pub(in crate::envoy) path: String,
    /// `http` or `https`.
    #[prost(string, tag = "6")]
    pub(in crate::envoy) scheme: String,
    /// The headers as they came over the wire (`encode_raw_headers`), instead of `headers`.
    #[prost(message, optional, tag = "13")]
    pub(in crate::envoy) header_map: Option<HeaderMap>,
}

/// Headers, each line separately.
#[derive(Clone, PartialEq, Message)]
pub(in crate::envoy) struct HeaderMap {
    /// The lines.
    #[prost(message, repeated, tag = "1")]
    pub(in crate::envoy) headers: Vec<RawHeader>,
}

/// One header line.
#[derive(Clone, PartialEq, Message)]
pub(in crate::envoy) struct RawHeader {
    /// Its name, which is UTF-8.
    #[prost(bytes = "bytes", tag = "1")]
    pub(in crate::envoy) key: Bytes,
    /// Its value, if it is UTF-8.
    #[prost(bytes = "bytes", tag = "2")]
    pub(in crate::envoy) value: Bytes,
    /// Its value otherwise.
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

/// Why bytes can't be decoded as a check.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::envoy) enum ReadError {
    /// They are not such a message.
    #[error(transparent)]
    Message(#[from] DecodeError),
    /// A name or a text in it is not UTF-8.
    #[error("failed to decode Protobuf message: {0}: the data is not UTF-8")]
    NotText(&'static str),
}

impl CheckRequest {
    /// Decodes a check.
    pub(in crate::envoy) fn read(bytes: Bytes) -> Result<Self, ReadError> {
        let request = Self::decode(bytes)?;
        match request.not_text() {
            Some(field) => Err(ReadError::NotText(field)),
            None => Ok(request),
        }
    }

    /// The first field with a name or a text that isn't UTF-8.
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

    /// The HTTP request, if the check is about one.
    pub(in crate::envoy) fn http(&self) -> Option<&HttpRequest> {
        self.attributes.as_ref()?.request.as_ref()?.http.as_ref()
    }
}

/// The text with that name. If a name occurs twice, the last text counts, as in maps.
pub(in crate::envoy) fn text<'a>(pairs: &'a [Pair], name: &str) -> Option<&'a str> {
    let mut pairs = pairs.iter().rev();
    let found = pairs.find(|pair| pair.name == name.as_bytes())?;
    std::str::from_utf8(&found.text).ok()
}

impl RawHeader {
    /// Its value, byte for byte.
    pub(in crate::envoy) fn bytes(&self) -> &[u8] {
        if self.raw_value.is_empty() {
            &self.value
        } else {
            &self.raw_value
        }
    }
}
