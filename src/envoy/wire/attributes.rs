//! The attributes of a request in Envoy's messages: a check, and an access log entry.

use std::borrow::Cow;
use std::collections::HashMap;

use envoy_types::pb::envoy::data::accesslog::v3::HttpAccessLogEntry;
use envoy_types::pb::envoy::data::accesslog::v3::tls_properties::certificate_properties::subject_alt_name::San;
use envoy_types::pb::google::protobuf::Struct;

use super::metadata;
use super::request::{self, CheckRequest, HttpRequest, Pair};
use crate::identity::ClaimPath;
use crate::identity::attributes::{CheckedRequest, Found, MetadataValue, RequestAttributes};
use crate::identity::find::{Flaw, keep_one};

/// The namespace in which Envoy stores our answer to a check.
pub(in crate::envoy) const OUR_NAMESPACE: &str = "envoy.filters.http.ext_authz";

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
pub(in crate::envoy) struct EntryAttributes<'a>(pub(in crate::envoy) &'a HttpAccessLogEntry);

impl EntryAttributes<'_> {
    /// The logged request headers.
    fn headers(&self) -> Option<&HashMap<String, String>> {
        self.0
            .request
            .as_ref()
            .map(|request| &request.request_headers)
    }

    /// The metadata of one namespace.
    pub(in crate::envoy) fn namespace(&self, namespace: &str) -> Option<&Struct> {
        let metadata = self.0.common_properties.as_ref()?.metadata.as_ref();
        metadata?.filter_metadata.get(namespace)
    }
}

impl RequestAttributes for EntryAttributes<'_> {
    fn header(&self, name: &str) -> Found<'_> {
        Ok(self
            .headers()
            .and_then(|headers| headers.get(name))
            .map(Cow::from))
    }

    fn raw_lines(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        let line = self.headers().and_then(|headers| headers.get(name));
        line.into_iter().map(String::as_bytes)
    }

    fn principal(&self) -> Option<&str> {
        let tls = self.0.common_properties.as_ref()?.tls_properties.as_ref()?;
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
        self.0.request.as_ref().map_or("", |request| &request.path)
    }

    fn metadata<'a>(
        &'a self,
        namespace: &str,
        path: &ClaimPath,
    ) -> impl Iterator<Item = MetadataValue<'a>> {
        metadata::at_path(self.namespace(namespace), path)
    }

    fn context(&self, _key: &str) -> Option<&str> {
        None
    }

    fn request_id(&self) -> Found<'_> {
        Ok(self
            .0
            .request
            .as_ref()
            .map(|request| Cow::from(&request.request_id)))
    }
}
