//! An incoming check: the fields of Envoy's `CheckRequest` that we use, over the received bytes.
//!
//! Decoding the full `envoy-types` message (a hash table of a browser's headers, two allocations
//! for each) costs more than the rest of a check, so we read only the fields we use, and nothing is
//! copied. The field numbers are those of `envoy/service/auth/v3/attribute_context.proto`; property
//! tests and a fuzz target compare this with `envoy-types`.
//!
//! # What is not UTF-8
//!
//! Protobuf's texts are UTF-8, and Envoy replaces what isn't. A header's name and its value are
//! checked when they are looked up: one that is asked for and is not UTF-8 is [`Flaw::NotText`], as
//! it is with `encode_raw_headers`, and the client gets a 400. One that nobody asks for may be
//! anything, like the fields that we skip. All other texts are checked at once, and a message in
//! which one isn't UTF-8 is not a check. The peers' addresses are decoded only for the log, which
//! does without one that it can't read.
//!
//! [`Flaw::NotText`]: crate::identity::find::Flaw::NotText

use envoy_types::pb::envoy::config::core::v3::Metadata;
use prost::{DecodeError, Message};

use super::fields::{Field, FieldError, MessageFields};

/// How many headers a check usually has at most.
const USUAL_HEADERS: usize = 24;

/// Envoy's request: the attributes of the checked request.
#[derive(Debug, Clone, Default)]
pub(in crate::envoy) struct CheckRequest<'a> {
    /// The viewer's end of the connection.
    pub(in crate::envoy) source: Option<SocketPeer<'a>>,
    /// The gateway's end.
    pub(in crate::envoy) destination: Option<SocketPeer<'a>>,
    /// The HTTP request, if it is one.
    pub(in crate::envoy) http: Option<HttpRequest<'a>>,
    /// The route's `context_extensions`; both parts of each are UTF-8.
    pub(in crate::envoy) context_extensions: Vec<Pair<'a>>,
    /// The metadata of Envoy's filters.
    pub(in crate::envoy) metadata_context: Option<Metadata>,
}

/// One end of a connection.
#[derive(Debug, Clone, Default)]
pub(in crate::envoy) struct SocketPeer<'a> {
    /// Its address: an `envoy.config.core.v3.Address`, not decoded. If it has several, which nobody
    /// sends, the last one counts, and they aren't merged.
    pub(in crate::envoy) address: Option<&'a [u8]>,
    /// The name in its certificate.
    pub(in crate::envoy) principal: &'a str,
}

/// An HTTP request.
#[derive(Debug, Clone, Default)]
pub(in crate::envoy) struct HttpRequest<'a> {
    /// The method, such as `GET`.
    pub(in crate::envoy) method: &'a str,
    /// The headers; values with the same name are joined by commas.
    pub(in crate::envoy) headers: Vec<Pair<'a>>,
    /// The path with its query.
    pub(in crate::envoy) path: &'a str,
    /// `http` or `https`.
    pub(in crate::envoy) scheme: &'a str,
    /// The lines of the headers as they came over the wire (`encode_raw_headers`), instead of
    /// `headers`. Their texts may be any bytes.
    pub(in crate::envoy) header_map: Option<Vec<Pair<'a>>>,
}

/// A name and its text: an entry of a map, or a line of a header.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::envoy) struct Pair<'a> {
    /// The name.
    pub(in crate::envoy) name: &'a [u8],
    /// The text.
    pub(in crate::envoy) text: &'a [u8],
}

/// Why bytes can't be decoded as a check.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::envoy) enum ReadError {
    /// A field can't be read.
    #[error("failed to decode Protobuf message: {0}: {1}")]
    Field(&'static str, FieldError),
    /// The metadata can't be read.
    #[error(transparent)]
    Metadata(#[from] DecodeError),
}

/// Names the field, or the message, that an error is in.
pub(super) trait In<T> {
    /// The same with the name.
    fn of(self, field: &'static str) -> Result<T, ReadError>;
}

impl<T> In<T> for Result<T, FieldError> {
    fn of(self, field: &'static str) -> Result<T, ReadError> {
        self.map_err(|error| ReadError::Field(field, error))
    }
}

// === impl CheckRequest ===

impl<'a> CheckRequest<'a> {
    /// Decodes a check.
    pub(in crate::envoy) fn read(message: &'a [u8]) -> Result<Self, ReadError> {
        let (mut fields, mut request) = (MessageFields(message), Self::default());
        while let Some((number, field)) = fields.next().of("CheckRequest")? {
            if number == 1 {
                request.merge_attributes(field.bytes().of("CheckRequest.attributes")?)?;
            }
        }
        Ok(request)
    }

    /// Reads attributes. If there are several, protobuf merges them: the last text counts, and
    /// lists are joined.
    fn merge_attributes(&mut self, message: &'a [u8]) -> Result<(), ReadError> {
        let mut fields = MessageFields(message);
        while let Some((number, field)) = fields.next().of("AttributeContext")? {
            match number {
                1 => merge_peer(&mut self.source, field, "AttributeContext.source")?,
                2 => merge_peer(&mut self.destination, field, "AttributeContext.destination")?,
                4 => self.merge_request(field.bytes().of("AttributeContext.request")?)?,
                10 => self
                    .context_extensions
                    .push(extension(field).of("AttributeContext.context_extensions")?),
                11 => {
                    let bytes = field.bytes().of("AttributeContext.metadata_context")?;
                    self.metadata_context.get_or_insert_default().merge(bytes)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Reads a request of some protocol.
    fn merge_request(&mut self, message: &'a [u8]) -> Result<(), ReadError> {
        let mut fields = MessageFields(message);
        while let Some((number, field)) = fields.next().of("AttributeContext.request")? {
            if number == 2 {
                let message = field.bytes().of("Request.http")?;
                self.http.get_or_insert_default().merge(message)?;
            }
        }
        Ok(())
    }
}

/// Reads an end of a connection.
fn merge_peer<'a>(
    peer: &mut Option<SocketPeer<'a>>,
    field: Field<'a>,
    name: &'static str,
) -> Result<(), ReadError> {
    let (mut fields, peer) = (
        MessageFields(field.bytes().of(name)?),
        peer.get_or_insert_default(),
    );
    while let Some((number, field)) = fields.next().of(name)? {
        match number {
            1 => peer.address = Some(field.bytes().of("Peer.address")?),
            3 => drop(field.bytes().of("Peer.labels")?),
            4 => peer.principal = field.text().of("Peer.principal")?,
            _ => {}
        }
    }
    Ok(())
}

/// An entry of the route's context, which is UTF-8.
fn extension(field: Field<'_>) -> Result<Pair<'_>, FieldError> {
    let pair = Pair::read(field)?;
    for part in [pair.name, pair.text] {
        Field::Bytes(part).text()?;
    }
    Ok(pair)
}

// === impl HttpRequest, Pair ===

impl<'a> HttpRequest<'a> {
    /// Reads an HTTP request.
    fn merge(&mut self, message: &'a [u8]) -> Result<(), ReadError> {
        let mut fields = MessageFields(message);
        while let Some((number, field)) = fields.next().of("HttpRequest")? {
            match number {
                2 => self.method = field.text().of("HttpRequest.method")?,
                3 => {
                    let pair = Pair::read(field).of("HttpRequest.headers")?;
                    push(&mut self.headers, pair, USUAL_HEADERS);
                }
                4 => self.path = field.text().of("HttpRequest.path")?,
                6 => self.scheme = field.text().of("HttpRequest.scheme")?,
                13 => {
                    let lines = self.header_map.get_or_insert_default();
                    read_lines(field, lines).of("HttpRequest.header_map")?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Reads a `HeaderMap`.
fn read_lines<'a>(field: Field<'a>, lines: &mut Vec<Pair<'a>>) -> Result<(), FieldError> {
    let mut fields = MessageFields(field.bytes()?);
    while let Some((number, field)) = fields.next()? {
        if number == 1 {
            push(lines, Pair::read_line(field)?, USUAL_HEADERS);
        }
    }
    Ok(())
}

/// Adds a header. The list has room for the usual number at once.
pub(super) fn push<'a>(headers: &mut Vec<Pair<'a>>, header: Pair<'a>, usual: usize) {
    if headers.is_empty() {
        headers.reserve(usual);
    }
    headers.push(header);
}

impl<'a> Pair<'a> {
    /// Reads an entry of a map.
    #[inline]
    pub(super) fn read(field: Field<'a>) -> Result<Self, FieldError> {
        let (mut fields, mut pair) = (MessageFields(field.bytes()?), Self::default());
        while let Some((number, field)) = fields.next()? {
            match number {
                1 => pair.name = field.bytes()?,
                2 => pair.text = field.bytes()?,
                _ => {}
            }
        }
        Ok(pair)
    }

    /// Reads a `HeaderValue`. Its value stands in either of two fields.
    #[inline]
    fn read_line(field: Field<'a>) -> Result<Self, FieldError> {
        let mut fields = MessageFields(field.bytes()?);
        let (mut line, mut value) = (Self::default(), Default::default());
        while let Some((number, field)) = fields.next()? {
            match number {
                1 => line.name = field.bytes()?,
                2 => value = field.bytes()?,
                3 => line.text = field.bytes()?,
                _ => {}
            }
        }
        if line.text.is_empty() {
            line.text = value;
        }
        Ok(line)
    }
}

/// The text with that name. If a name occurs twice, the last text counts, as in maps.
pub(in crate::envoy) fn text<'a>(pairs: &[Pair<'a>], name: &str) -> Option<&'a [u8]> {
    let mut pairs = pairs.iter().rev();
    let found = pairs.find(|pair| pair.name == name.as_bytes())?;
    Some(found.text)
}
