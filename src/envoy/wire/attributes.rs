//! The attributes of a request in Envoy's messages: a check, and an access log entry.

use std::borrow::Cow;
use std::cell::OnceCell;

use envoy_types::pb::envoy::config::core::v3::Metadata;
use envoy_types::pb::envoy::data::accesslog::v3::TlsProperties;
use envoy_types::pb::envoy::data::accesslog::v3::tls_properties::certificate_properties::subject_alt_name::San;
use prost::Message;

use super::entry::LogEntry;
use super::metadata;
use super::request::{self, CheckRequest, HttpRequest, Pair};
use crate::identity::ClaimPath;
use crate::identity::attributes::{CheckedRequest, Found, MetadataValue, RequestAttributes};
use crate::identity::find::{Flaw, keep_one};

/// The header with Envoy's id of the request.
const REQUEST_ID: &str = "x-request-id";

/// The attributes of a check.
#[derive(Debug)]
pub(in crate::envoy) struct CheckAttributes<'a> {
    /// All attributes.
    context: &'a CheckRequest<'a>,
    /// The HTTP request among them.
    http: &'a HttpRequest<'a>,
}

impl<'a> CheckAttributes<'a> {
    /// The attributes of a check of an HTTP request; `None` if it isn't HTTP.
    pub(in crate::envoy) fn of(context: &'a CheckRequest<'_>) -> Option<Self> {
        let http = context.http.as_ref()?;
        Some(Self { context, http })
    }
}

impl RequestAttributes for CheckAttributes<'_> {
    fn header(&self, name: &str) -> Found<'_> {
        match &self.http.header_map {
            Some(raw) => {
                let mut joined: Option<Cow<'_, str>> = None;
                for value in raw_values(raw, name) {
                    let value = value?;
                    joined = Some(
                        joined.map_or(value.into(), |earlier| format!("{earlier},{value}").into()),
                    );
                }
                Ok(joined)
            }
            None => match request::text(&self.http.headers, name) {
                Some(text) => as_text(text).map(|text| Some(text.into())),
                None => Ok(None),
            },
        }
    }

    fn name_header(&self, name: &str) -> Found<'_> {
        let Some(raw) = &self.http.header_map else {
            return self.header(name);
        };
        let mut found = None;
        for value in raw_values(raw, name) {
            keep_one(&mut found, value?.into())?;
        }
        Ok(found)
    }

    fn raw_lines(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        let raw = self.http.header_map.as_ref();
        let joined = match raw {
            Some(_) => None,
            None => request::text(&self.http.headers, name),
        };
        let lines = raw
            .into_iter()
            .flat_map(move |raw| headers_named(raw, name));
        lines.map(|line| line.text).chain(joined)
    }

    fn principal(&self) -> Option<&str> {
        let source = self.context.source.as_ref()?;
        Some(source.principal)
    }

    fn path(&self) -> &str {
        self.http.path
    }

    fn metadata<'a>(
        &'a self,
        namespace: &str,
        path: &ClaimPath,
    ) -> impl Iterator<Item = MetadataValue<'a>> {
        let metadata = self.context.metadata_context.as_ref();
        let payloads = metadata.and_then(|metadata| metadata.filter_metadata.get(namespace));
        metadata::at_path(payloads, path)
    }

    fn context(&self, key: &str) -> Option<&str> {
        as_text(request::text(&self.context.context_extensions, key)?).ok()
    }

    fn request_id(&self) -> Found<'_> {
        self.header(REQUEST_ID)
    }
}

impl CheckedRequest for CheckAttributes<'_> {
    fn method(&self) -> &str {
        self.http.method
    }

    fn scheme(&self) -> &str {
        self.http.scheme
    }
}

/// The values of a header as they came over the wire (`encode_raw_headers`), each separately.
fn raw_values<'a>(
    headers: &'a [Pair<'a>],
    name: &str,
) -> impl Iterator<Item = Result<&'a str, Flaw>> {
    headers_named(headers, name).map(|header| as_text(header.text))
}

/// The headers with that name.
fn headers_named<'a>(headers: &'a [Pair<'a>], name: &str) -> impl Iterator<Item = &'a Pair<'a>> {
    let named = move |header: &&Pair<'_>| header.name.eq_ignore_ascii_case(name.as_bytes());
    headers.iter().filter(named)
}

/// The text, if it is one.
fn as_text(bytes: &[u8]) -> Result<&str, Flaw> {
    std::str::from_utf8(bytes).map_err(|_| Flaw::NotText)
}

/// The attributes of a request in an access log entry. It has no context extensions of the route.
#[derive(Debug)]
pub(in crate::envoy) struct EntryAttributes<'a> {
    /// The entry.
    entry: &'a LogEntry<'a>,
    /// The metadata of Envoy's filters, decoded when a source asks for some of it. What can't be
    /// decoded is empty.
    metadata: OnceCell<Metadata>,
    /// The viewer's certificate, in the same way.
    tls: OnceCell<TlsProperties>,
}

impl<'a> EntryAttributes<'a> {
    /// The attributes of that entry's request.
    pub(in crate::envoy) fn of(entry: &'a LogEntry<'_>) -> Self {
        let (metadata, tls) = Default::default();
        Self {
            entry,
            metadata,
            tls,
        }
    }
}

impl RequestAttributes for EntryAttributes<'_> {
    fn header(&self, name: &str) -> Found<'_> {
        match request::text(&self.entry.headers, name) {
            Some(text) => as_text(text).map(|text| Some(text.into())),
            None => Ok(None),
        }
    }

    fn raw_lines(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        request::text(&self.entry.headers, name).into_iter()
    }

    fn principal(&self) -> Option<&str> {
        let decode = || TlsProperties::decode(self.entry.tls_properties).unwrap_or_default();
        let tls = self.tls.get_or_init(decode);
        let peer = tls.peer_certificate_properties.as_ref()?;
        let names = || {
            peer.subject_alt_name
                .iter()
                .filter_map(|name| name.san.as_ref())
        };
        let address = names().find_map(|name| match name {
            San::Uri(uri) => Some(uri.as_str()),
            San::Dns(_) => None,
        });
        let host = || {
            names().find_map(|name| match name {
                San::Dns(host) => Some(host.as_str()),
                San::Uri(_) => None,
            })
        };
        address.or_else(host).or(Some(&peer.subject))
    }

    fn path(&self) -> &str {
        self.entry.path
    }

    fn metadata<'a>(
        &'a self,
        namespace: &str,
        path: &ClaimPath,
    ) -> impl Iterator<Item = MetadataValue<'a>> {
        let decode = || Metadata::decode(self.entry.metadata).unwrap_or_default();
        let metadata = self.metadata.get_or_init(decode);
        metadata::at_path(metadata.filter_metadata.get(namespace), path)
    }

    fn context(&self, _key: &str) -> Option<&str> {
        None
    }

    fn request_id(&self) -> Found<'_> {
        Ok(Some(self.entry.request_id.into()))
    }
}
