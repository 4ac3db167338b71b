//! An incoming access log message: the fields of Envoy's `StreamAccessLogsMessage` that we use, over
//! the received bytes.
//!
//! An entry has some forty fields, and Envoy sends one for each request, so we read only those we
//! use, as for a [check](super::request), and nothing is copied. The field numbers are those of
//! `envoy/service/accesslog/v3/als.proto` and `envoy/data/accesslog/v3/accesslog.proto`; a property
//! test compares this with `envoy-types`.
//!
//! The texts we use are UTF-8, or their message can't be decoded; a header is checked when it is
//! looked up. Where protobuf would merge several messages of one field, which nobody sends, the last
//! one counts.

use std::time::Duration;

use super::fields::{Field, FieldError, MessageFields};
use super::request::{In, Pair, ReadError, push};

/// The namespace in which Envoy stores our answer to a check.
pub(in crate::envoy) const OUR_NAMESPACE: &str = "envoy.filters.http.ext_authz";

/// How many logged headers an entry usually has at most.
const USUAL_HEADERS: usize = 8;

/// A message of an access log stream.
#[derive(Debug, Clone, Default)]
pub(in crate::envoy) struct LogMessage<'a> {
    /// Who sends the log; only the first message of a stream says so.
    pub(in crate::envoy) sender: Option<LogSender<'a>>,
    /// What it says about HTTP requests.
    pub(in crate::envoy) entries: Vec<LogEntry<'a>>,
    /// How many TCP connections it tells about.
    pub(in crate::envoy) tcp_entries: usize,
}

/// Who sends a log.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::envoy) struct LogSender<'a> {
    /// The id of the gateway's node.
    pub(in crate::envoy) node: &'a str,
    /// The name of the log.
    pub(in crate::envoy) log: &'a str,
}

/// What Envoy tells about an HTTP request.
#[derive(Debug, Clone, Default)]
pub(in crate::envoy) struct LogEntry<'a> {
    /// Why the entry was written: an `AccessLogType`.
    pub(in crate::envoy) log_type: i32,
    /// When Envoy saw the request begin, since 1970 by its own clock.
    pub(in crate::envoy) start_time: Option<Duration>,
    /// How long the request has taken.
    pub(in crate::envoy) duration: Option<Duration>,
    /// Whether the request went to an upstream.
    pub(in crate::envoy) has_upstream: bool,
    /// Our answer to the check about the request.
    pub(in crate::envoy) ours: Option<OurAnswer<'a>>,
    /// The metadata of Envoy's filters: an `envoy.config.core.v3.Metadata`, not decoded.
    pub(in crate::envoy) metadata: &'a [u8],
    /// The viewer's certificate: a `TlsProperties`, not decoded.
    pub(in crate::envoy) tls_properties: &'a [u8],
    /// Envoy's id of the request.
    pub(in crate::envoy) request_id: &'a str,
    /// The path with its query.
    pub(in crate::envoy) path: &'a str,
    /// The logged request headers.
    pub(in crate::envoy) headers: Vec<Pair<'a>>,
    /// The status code of the response, if one was sent.
    pub(in crate::envoy) response_code: Option<u64>,
    /// Where the response came from.
    pub(in crate::envoy) response_code_details: &'a str,
}

/// Our answer to a check: the texts of its metadata.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::envoy) struct OurAnswer<'a> {
    /// `allow` or `deny`.
    pub(in crate::envoy) decision: Option<&'a str>,
    /// The user.
    pub(in crate::envoy) user: Option<&'a str>,
    /// The kind of the session.
    pub(in crate::envoy) kind: Option<&'a str>,
    /// The id of the session.
    pub(in crate::envoy) session: Option<&'a str>,
}

// === impl LogMessage, LogSender ===

impl<'a> LogMessage<'a> {
    /// Decodes a message.
    pub(in crate::envoy) fn read(message: &'a [u8]) -> Result<Self, ReadError> {
        let (mut fields, mut log) = (MessageFields(message), Self::default());
        while let Some((number, field)) = fields.next().of("StreamAccessLogsMessage")? {
            match number {
                1 => {
                    let sender = LogSender::read(field).of("StreamAccessLogsMessage.identifier")?;
                    log.sender = Some(sender);
                }
                2 => log.read_entries(field)?,
                3 => {
                    let mut entries =
                        MessageFields(field.bytes().of("StreamAccessLogsMessage.tcp_logs")?);
                    while entries.next().of("TCPAccessLogEntries")?.is_some() {
                        log.tcp_entries += 1;
                    }
                }
                _ => {}
            }
        }
        Ok(log)
    }

    /// Reads entries about HTTP requests.
    fn read_entries(&mut self, field: Field<'a>) -> Result<(), ReadError> {
        let mut entries = MessageFields(field.bytes().of("StreamAccessLogsMessage.http_logs")?);
        while let Some((number, field)) = entries.next().of("HTTPAccessLogEntries")? {
            if number == 1 {
                let entry = field.bytes().of("HTTPAccessLogEntries.log_entry")?;
                self.entries.push(LogEntry::read(entry)?);
            }
        }
        Ok(())
    }
}

impl<'a> LogSender<'a> {
    /// Reads an `Identifier`.
    fn read(field: Field<'a>) -> Result<Self, FieldError> {
        let (mut fields, mut sender) = (MessageFields(field.bytes()?), Self::default());
        while let Some((number, field)) = fields.next()? {
            match number {
                1 => {
                    let mut node = MessageFields(field.bytes()?);
                    while let Some((number, field)) = node.next()? {
                        if number == 1 {
                            sender.node = field.text()?;
                        }
                    }
                }
                2 => sender.log = field.text()?,
                _ => {}
            }
        }
        Ok(sender)
    }
}

// === impl LogEntry ===

impl<'a> LogEntry<'a> {
    /// Decodes an `HTTPAccessLogEntry`.
    pub(in crate::envoy) fn read(message: &'a [u8]) -> Result<Self, ReadError> {
        let (mut fields, mut entry) = (MessageFields(message), Self::default());
        while let Some((number, field)) = fields.next().of("HTTPAccessLogEntry")? {
            match number {
                1 => entry.read_common(field).of("AccessLogCommon")?,
                3 => entry.read_request(field).of("HTTPRequestProperties")?,
                4 => entry.read_response(field).of("HTTPResponseProperties")?,
                _ => {}
            }
        }
        Ok(entry)
    }

    /// Reads what it has in common with entries about connections.
    fn read_common(&mut self, field: Field<'a>) -> Result<(), FieldError> {
        let mut fields = MessageFields(field.bytes()?);
        while let Some((number, field)) = fields.next()? {
            match number {
                4 => self.tls_properties = field.bytes()?,
                5 => self.start_time = read_time(field)?,
                13 => {
                    field.bytes()?;
                    self.has_upstream = true;
                }
                17 => {
                    self.metadata = field.bytes()?;
                    self.ours = read_answer(self.metadata)?;
                }
                23 => self.duration = read_time(field)?,
                33 => {
                    // A longer number is cut off, as protobuf defines.
                    let [a, b, c, d, ..] = field.number()?.to_le_bytes();
                    self.log_type = i32::from_le_bytes([a, b, c, d]);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Reads what it tells about the request.
    fn read_request(&mut self, field: Field<'a>) -> Result<(), FieldError> {
        let mut fields = MessageFields(field.bytes()?);
        while let Some((number, field)) = fields.next()? {
            match number {
                5 => self.path = field.text()?,
                9 => self.request_id = field.text()?,
                13 => push(&mut self.headers, Pair::read(field)?, USUAL_HEADERS),
                _ => {}
            }
        }
        Ok(())
    }

    /// Reads what it tells about the response.
    fn read_response(&mut self, field: Field<'a>) -> Result<(), FieldError> {
        let mut fields = MessageFields(field.bytes()?);
        while let Some((number, field)) = fields.next()? {
            match number {
                1 => self.response_code = Some(read_wrapped(field)?),
                6 => self.response_code_details = field.text()?,
                _ => {}
            }
        }
        Ok(())
    }
}

/// A `google.protobuf.UInt32Value`.
fn read_wrapped(field: Field<'_>) -> Result<u64, FieldError> {
    let (mut fields, mut value) = (MessageFields(field.bytes()?), 0);
    while let Some((number, field)) = fields.next()? {
        if number == 1 {
            value = field.number()?;
        }
    }
    Ok(value)
}

/// A `google.protobuf.Timestamp` or `Duration`; `None` if it is negative.
fn read_time(field: Field<'_>) -> Result<Option<Duration>, FieldError> {
    let (mut fields, mut seconds, mut nanos) = (MessageFields(field.bytes()?), 0, 0);
    while let Some((number, field)) = fields.next()? {
        match number {
            1 => seconds = field.number()?,
            2 => nanos = field.number()?,
            _ => {}
        }
    }
    // A negative number is the two's complement of 64 bits, whatever its own size.
    let seconds = i64::try_from(seconds).ok().map(i64::unsigned_abs);
    let nanos = u32::try_from(nanos)
        .ok()
        .filter(|nanos| *nanos < 1_000_000_000);
    Ok(seconds
        .zip(nanos)
        .map(|(seconds, nanos)| Duration::new(seconds, nanos)))
}

// === our answer ===

/// Our answer to the check, in the metadata of all filters.
fn read_answer(metadata: &[u8]) -> Result<Option<OurAnswer<'_>>, FieldError> {
    let (mut fields, mut ours) = (MessageFields(metadata), None);
    while let Some((number, field)) = fields.next()? {
        if number == 1 {
            let namespace = Pair::read(field)?;
            if namespace.name == OUR_NAMESPACE.as_bytes() {
                ours = Some(OurAnswer::read(namespace.text)?);
            }
        }
    }
    Ok(ours)
}

impl<'a> OurAnswer<'a> {
    /// Reads a `google.protobuf.Struct`.
    fn read(fields: &'a [u8]) -> Result<Self, FieldError> {
        let (mut fields, mut answer) = (MessageFields(fields), Self::default());
        while let Some((number, field)) = fields.next()? {
            if number != 1 {
                continue;
            }
            let pair = Pair::read(field)?;
            let place = match pair.name {
                b"decision" => &mut answer.decision,
                b"user" => &mut answer.user,
                b"kind" => &mut answer.kind,
                b"session" => &mut answer.session,
                _ => continue,
            };
            *place = read_text_value(pair.text)?;
        }
        Ok(answer)
    }
}

/// A `google.protobuf.Value`, if it is a text.
fn read_text_value(value: &[u8]) -> Result<Option<&str>, FieldError> {
    let (mut fields, mut text) = (MessageFields(value), None);
    while let Some((number, field)) = fields.next()? {
        // Its six types exclude each other: the last one counts.
        text = match number {
            3 => Some(field.text()?),
            1..=6 => None,
            _ => text,
        };
    }
    Ok(text)
}
