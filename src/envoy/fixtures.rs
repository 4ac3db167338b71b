//! Messages as Envoy sends them, for the tests of what reads them.

use std::collections::HashMap;

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

use super::request::CheckRequest;

/// JSON as protobuf has it.
pub(super) fn value(json: &serde_json::Value) -> Value {
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

/// A JSON object as protobuf has it.
pub(super) fn object(json: &serde_json::Value) -> Struct {
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

/// The check on that, once it has come over the wire.
pub(super) fn sent(attributes: Option<AttributeContext>) -> CheckRequest {
    let sent = v3::CheckRequest { attributes };
    CheckRequest::read(sent.encode_to_vec().into()).unwrap()
}

/// A check in the making.
#[derive(Debug, Clone, Default)]
pub(super) struct Check(pub(super) AttributeContext);

impl Check {
    /// A check on a request by that method for that path.
    pub(super) fn on(method: &str, path: &str) -> Self {
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

    pub(super) fn headers(mut self, pairs: &[(&str, &str)]) -> Self {
        self.http().headers.extend(map(pairs));
        self
    }

    /// Headers as `encode_raw_headers` sends them.
    pub(super) fn raw_headers(mut self, pairs: &[(&str, &[u8])]) -> Self {
        let header = |(name, raw): &(&str, &[u8])| HeaderValue {
            key: (*name).to_owned(),
            raw_value: raw.to_vec(),
            ..HeaderValue::default()
        };
        let headers = pairs.iter().map(header).collect();
        self.http().header_map = Some(HeaderMap { headers });
        self
    }

    pub(super) fn context(mut self, pairs: &[(&str, &str)]) -> Self {
        self.0.context_extensions.extend(map(pairs));
        self
    }

    /// The payloads of the JWT filter, by the names that the operator gave them.
    pub(super) fn jwt(mut self, payloads: &serde_json::Value) -> Self {
        let all = serde_json::json!({"envoy.filters.http.jwt_authn": payloads});
        self.0.metadata_context = Some(metadata(&all));
        self
    }

    /// The name in the client's certificate, as Envoy makes it out.
    pub(super) fn principal(mut self, name: &str) -> Self {
        self.0.source.get_or_insert_default().principal = name.to_owned();
        self
    }

    pub(super) fn request(self) -> CheckRequest {
        sent(Some(self.0))
    }
}

/// An access log entry in the making.
#[derive(Debug, Clone)]
pub(super) struct Entry(pub(super) HttpAccessLogEntry);

impl Entry {
    /// An entry of that type on the request of that id.
    pub(super) fn of(kind: AccessLogType, request_id: &str) -> Self {
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

    pub(super) fn end(request_id: &str) -> Self {
        Self::of(AccessLogType::DownstreamEnd, request_id)
    }

    pub(super) fn periodic(request_id: &str) -> Self {
        Self::of(AccessLogType::DownstreamPeriodic, request_id)
    }

    pub(super) fn common(&mut self) -> &mut AccessLogCommon {
        self.0.common_properties.as_mut().unwrap()
    }

    fn request(&mut self) -> &mut HttpRequestProperties {
        self.0.request.as_mut().unwrap()
    }

    pub(super) fn path(mut self, path: &str) -> Self {
        path.clone_into(&mut self.request().path);
        self
    }

    pub(super) fn headers(mut self, pairs: &[(&str, &str)]) -> Self {
        self.request().request_headers.extend(map(pairs));
        self
    }

    /// Metadata by namespace.
    pub(super) fn metadata(mut self, all: &serde_json::Value) -> Self {
        self.common().metadata = Some(metadata(all));
        self
    }

    /// What we answered to the check.
    pub(super) fn ours(self, fields: &serde_json::Value) -> Self {
        self.metadata(&serde_json::json!({"envoy.filters.http.ext_authz": fields}))
    }

    /// Our answer, when that session was let in.
    pub(super) fn allowed(self, user: &str, kind: &str, session: &str) -> Self {
        self.ours(&serde_json::json!({
            "decision": "allow", "user": user, "kind": kind, "session": session, "ext_authz_duration": 10,
        }))
    }

    fn response(&mut self) -> &mut HttpResponseProperties {
        self.0.response.get_or_insert_default()
    }

    pub(super) fn details(mut self, details: &str) -> Self {
        details.clone_into(&mut self.response().response_code_details);
        self
    }

    /// A response with that code went out.
    pub(super) fn answered(mut self, code: u32) -> Self {
        self.response().response_code = Some(UInt32Value { value: code });
        self
    }

    /// It took that many seconds.
    pub(super) fn lasting(mut self, seconds: u64) -> Self {
        let seconds = i64::try_from(seconds).unwrap();
        self.common().duration = Some(Duration { seconds, nanos: 0 });
        self
    }

    /// It went to an upstream.
    pub(super) fn upstream(mut self) -> Self {
        self.common().upstream_remote_address = Some(Address::default());
        self
    }
}
