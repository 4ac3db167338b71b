//! A viewer's request, with the names where the row's configuration looks for them.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use envoy_types::pb::envoy::config::core::v3::Metadata;
use envoy_types::pb::envoy::service::auth::v3::CheckRequest;
use envoy_types::pb::envoy::service::auth::v3::attribute_context::Peer;
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Struct, Value};

use testkit::gateway_client::Check;

/// What a request says, by where it says it.
#[derive(Debug, Default)]
pub(super) struct Viewer {
    headers: BTreeMap<String, String>,
    cookies: Vec<String>,
    queries: Vec<String>,
    cmcd: Vec<String>,
    segments: Vec<String>,
    claims: Vec<(String, String)>,
    contexts: Vec<(String, String)>,
    principal: Option<String>,
}

impl Viewer {
    /// Says a value at a source; what the service makes of it.
    pub(super) fn says(&mut self, source: &str, value: &str) -> String {
        let (kind, name) = source.split_once(':').unwrap_or((source, ""));
        if let Some((first, second)) = source.split_once('+')
            && kind != "path"
        {
            self.says(first, value);
            self.says(second, "part");
            return format!("{value}+part");
        }
        match kind {
            "header" => {
                self.headers.insert(name.to_owned(), value.to_owned());
            }
            "cookie" => self.cookies.push(format!("{name}={value}")),
            "query" => self.queries.push(format!("{name}={value}")),
            "cmcd" => self.cmcd.push(format!("{name}=\"{value}\"")),
            "path" => {
                let (fact, _) = name.trim_start_matches('/').split_once('=').unwrap();
                self.segments.push(format!("{fact}={value}"));
            }
            "jwt" => self.claims.push((name.to_owned(), value.to_owned())),
            "context" => self.contexts.push((name.to_owned(), value.to_owned())),
            "basic" => {
                let credentials = BASE64_STANDARD.encode(format!("{value}:password"));
                let header = format!("Basic {credentials}");
                self.headers.insert("authorization".to_owned(), header);
            }
            "principal" => self.principal = Some(value.to_owned()),
            "request" => {
                self.headers
                    .insert("x-request-id".to_owned(), value.to_owned());
            }
            other => panic!("no such source: {other}"),
        }
        value.to_owned()
    }

    /// The check on its request.
    pub(super) fn check(mut self) -> CheckRequest {
        let segments: String = self
            .segments
            .iter()
            .map(|part| format!("/{part}"))
            .collect();
        let mut path = format!("{segments}/live");
        if !self.queries.is_empty() {
            path = format!("{path}?{}", self.queries.join("&"));
        }
        for (name, values, glue) in [
            ("cookie", &self.cookies, "; "),
            ("cmcd-session", &self.cmcd, ","),
        ] {
            if !values.is_empty() {
                self.headers.insert(name.to_owned(), values.join(glue));
            }
        }
        let check = Check::of("", "any").without("x-user-id").path(&path);
        let headers = self.headers.iter();
        let check = headers.fold(check, |check, (name, value)| check.header(name, value));
        let contexts = self.contexts.iter();
        let check = contexts.fold(check, |check, (name, value)| check.route(name, value));
        let mut request = check.request();
        let attributes = request.attributes.as_mut().unwrap();
        attributes.source = self.principal.map(|principal| Peer {
            principal,
            ..Peer::default()
        });
        attributes.metadata_context = Some(claims(&self.claims));
        request
    }
}

/// What Envoy's filter leaves of a token with these claims, each below `realm`.
fn claims(claims: &[(String, String)]) -> Metadata {
    let text = |text: &str| Value {
        kind: Some(Kind::StringValue(text.to_owned())),
    };
    let object = |fields| Value {
        kind: Some(Kind::StructValue(Struct { fields })),
    };
    let named = claims.iter().map(|(path, value)| {
        let name = path.rsplit('.').next().unwrap();
        (name.to_owned(), text(value))
    });
    let payload = object([("realm".to_owned(), object(named.collect()))].into());
    let ours = Struct {
        fields: [("payload".to_owned(), payload)].into(),
    };
    Metadata {
        filter_metadata: [("envoy.filters.http.jwt_authn".to_owned(), ours)].into(),
        ..Metadata::default()
    }
}
