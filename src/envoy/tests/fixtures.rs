//! Messages as Envoy sends them, for the tests of their decoders.

use std::collections::HashMap;

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::{
    Address, HeaderMap, HeaderValue, Metadata, RequestMethod,
};
use envoy_types::pb::envoy::data::accesslog::v3::{
    AccessLogCommon, AccessLogType, HttpAccessLogEntry, HttpRequestProperties,
    HttpResponseProperties,
};
use envoy_types::pb::envoy::service::auth::v3::attribute_context::{HttpRequest, Request};
use envoy_types::pb::envoy::service::auth::v3::{self, AttributeContext};
use envoy_types::pb::google::protobuf::value::Kind as ValueKind;
use envoy_types::pb::google::protobuf::{Duration, ListValue, Struct, UInt32Value, Value};
use prost::Message;

use crate::envoy::wire::entry::LogEntry;
use crate::envoy::wire::request::CheckRequest;

/// JSON as a protobuf value.
pub(in crate::envoy) fn value(json: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    let kind = match json {
        Json::Null => ValueKind::NullValue(0),
        Json::Bool(is) => ValueKind::BoolValue(*is),
        Json::Number(number) => ValueKind::NumberValue(number.as_f64().unwrap()),
        Json::String(text) => ValueKind::StringValue(text.clone()),
        Json::Array(items) => ValueKind::ListValue(ListValue {
            values: items.iter().map(value).collect(),
        }),
        Json::Object(_) => ValueKind::StructValue(object(json)),
    };
    Value { kind: Some(kind) }
}

/// A JSON object as a protobuf struct.
pub(in crate::envoy) fn object(json: &serde_json::Value) -> Struct {
    let fields = json.as_object().unwrap().iter();
    Struct {
        fields: fields
            .map(|(name, json)| (name.clone(), value(json)))
            .collect(),
    }
}

/// Metadata, by namespace.
fn metadata(json: &serde_json::Value) -> Metadata {
    let namespaces = json.as_object().unwrap().iter();
    Metadata {
        filter_metadata: namespaces
            .map(|(name, json)| (name.clone(), object(json)))
            .collect(),
        ..Metadata::default()
    }
}

/// Texts by name.
fn map(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs
        .iter()
        .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
        .collect()
}

/// The check with those attributes, sent over the wire.
pub(in crate::envoy) fn sent(attributes: Option<AttributeContext>) -> CheckRequest<'static> {
    let sent = v3::CheckRequest { attributes };
    // A check borrows its message, and a test ends soon.
    CheckRequest::read(sent.encode_to_vec().leak()).unwrap()
}

/// A check under construction.
#[derive(Debug, Clone, Default)]
pub(in crate::envoy) struct Check(pub(in crate::envoy) AttributeContext);

impl Check {
    /// A check of a request with that method and path.
    pub(in crate::envoy) fn on(method: &str, path: &str) -> Self {
        let http = HttpRequest {
            method: method.to_owned(),
            path: path.to_owned(),
            ..HttpRequest::default()
        };
        let request = Request {
            http: Some(http),
            ..Request::default()
        };
        Self(AttributeContext {
            request: Some(request),
            ..AttributeContext::default()
        })
    }

    fn http(&mut self) -> &mut HttpRequest {
        self.0.request.as_mut().unwrap().http.as_mut().unwrap()
    }

    pub(in crate::envoy) fn headers(mut self, pairs: &[(&str, &str)]) -> Self {
        self.http().headers.extend(map(pairs));
        self
    }

    /// Headers as `encode_raw_headers` sends them.
    pub(in crate::envoy) fn raw_headers(mut self, pairs: &[(&str, &[u8])]) -> Self {
        let header = |(name, raw): &(&str, &[u8])| HeaderValue {
            key: (*name).to_owned(),
            raw_value: raw.to_vec(),
            ..HeaderValue::default()
        };
        let headers = pairs.iter().map(header).collect();
        self.http().header_map = Some(HeaderMap { headers });
        self
    }

    pub(in crate::envoy) fn context(mut self, pairs: &[(&str, &str)]) -> Self {
        self.0.context_extensions.extend(map(pairs));
        self
    }

    /// The JWT filter's payloads, under the names that the operator chose.
    pub(in crate::envoy) fn jwt(mut self, payloads: &serde_json::Value) -> Self {
        let all = serde_json::json!({"envoy.filters.http.jwt_authn": payloads});
        self.0.metadata_context = Some(metadata(&all));
        self
    }

    /// The name in the client's certificate, as Envoy extracts it.
    pub(in crate::envoy) fn principal(mut self, name: &str) -> Self {
        self.0.source.get_or_insert_default().principal = name.to_owned();
        self
    }

    pub(in crate::envoy) fn request(self) -> CheckRequest<'static> {
        sent(Some(self.0))
    }

    /// The same, not decoded.
    pub(in crate::envoy) fn message(self) -> Bytes {
        let attributes = Some(self.0);
        v3::CheckRequest { attributes }.encode_to_vec().into()
    }
}

/// An access log entry under construction.
#[derive(Debug, Clone)]
pub(in crate::envoy) struct Entry(pub(in crate::envoy) HttpAccessLogEntry);

impl Entry {
    /// An entry of that type, for the request with that id.
    pub(in crate::envoy) fn of(kind: AccessLogType, request_id: &str) -> Self {
        let common = AccessLogCommon {
            access_log_type: kind.into(),
            ..AccessLogCommon::default()
        };
        let request = HttpRequestProperties {
            request_id: request_id.to_owned(),
            request_method: RequestMethod::Get.into(),
            ..HttpRequestProperties::default()
        };
        Self(HttpAccessLogEntry {
            common_properties: Some(common),
            request: Some(request),
            ..HttpAccessLogEntry::default()
        })
    }

    pub(in crate::envoy) fn end(request_id: &str) -> Self {
        Self::of(AccessLogType::DownstreamEnd, request_id)
    }

    pub(in crate::envoy) fn periodic(request_id: &str) -> Self {
        Self::of(AccessLogType::DownstreamPeriodic, request_id)
    }

    /// The entry, sent over the wire.
    pub(in crate::envoy) fn sent(&self) -> LogEntry<'static> {
        // An entry borrows its message, and a test ends soon.
        LogEntry::read(self.0.encode_to_vec().leak()).unwrap()
    }

    pub(in crate::envoy) fn common(&mut self) -> &mut AccessLogCommon {
        self.0.common_properties.as_mut().unwrap()
    }

    fn request(&mut self) -> &mut HttpRequestProperties {
        self.0.request.as_mut().unwrap()
    }

    pub(in crate::envoy) fn path(mut self, path: &str) -> Self {
        path.clone_into(&mut self.request().path);
        self
    }

    pub(in crate::envoy) fn headers(mut self, pairs: &[(&str, &str)]) -> Self {
        self.request().request_headers.extend(map(pairs));
        self
    }

    /// Metadata by namespace.
    pub(in crate::envoy) fn metadata(mut self, all: &serde_json::Value) -> Self {
        self.common().metadata = Some(metadata(all));
        self
    }

    /// Our answer to the check.
    pub(in crate::envoy) fn ours(self, fields: &serde_json::Value) -> Self {
        self.metadata(&serde_json::json!({"envoy.filters.http.ext_authz": fields}))
    }

    /// Our answer when it let that session in.
    pub(in crate::envoy) fn allowed(self, user: &str, kind: &str, session: &str) -> Self {
        self.ours(&serde_json::json!({
            "decision": "allow", "user": user, "kind": kind, "session": session, "ext_authz_duration": 10,
        }))
    }

    fn response(&mut self) -> &mut HttpResponseProperties {
        self.0.response.get_or_insert_default()
    }

    pub(in crate::envoy) fn details(mut self, details: &str) -> Self {
        details.clone_into(&mut self.response().response_code_details);
        self
    }

    /// A response with that code went out.
    pub(in crate::envoy) fn answered(mut self, code: u32) -> Self {
        self.response().response_code = Some(UInt32Value { value: code });
        self
    }

    /// It took that many seconds.
    pub(in crate::envoy) fn lasting(mut self, seconds: u64) -> Self {
        let seconds = i64::try_from(seconds).unwrap();
        self.common().duration = Some(Duration { seconds, nanos: 0 });
        self
    }

    /// It went to an upstream.
    pub(in crate::envoy) fn upstream(mut self) -> Self {
        self.common().upstream_remote_address = Some(Address::default());
        self
    }
}
