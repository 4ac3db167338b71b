//! Speaks to streamgate as Envoy does: checks, and access log streams down to the frames.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::watch::PATIENCE;
use bytes::{BufMut, Bytes, BytesMut};
use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::{Address, HeaderValueOption, Metadata};
use envoy_types::pb::envoy::data::accesslog::v3::{
    AccessLogCommon, AccessLogType, HttpAccessLogEntry, HttpRequestProperties,
    HttpResponseProperties,
};
use envoy_types::pb::envoy::service::accesslog::v3::StreamAccessLogsMessage;
use envoy_types::pb::envoy::service::accesslog::v3::stream_access_logs_message::{
    HttpAccessLogEntries, LogEntries,
};
use envoy_types::pb::envoy::service::auth::v3::attribute_context::{HttpRequest, Request};
use envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest, CheckResponse};
use envoy_types::pb::google::protobuf::value::Kind as ValueKind;
use envoy_types::pb::google::protobuf::{Struct, UInt32Value, Value};
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tonic::Status;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

/// One gateway's connection for checks.
#[derive(Debug, Clone)]
pub struct Gateway {
    channel: Channel,
    address: SocketAddr,
}

/// A check's answer, in the parts that Envoy makes use of.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// `status.code`
    pub code: i32,
    /// Which of the three answers it is.
    pub kind: &'static str,
    /// The HTTP status of a denial or an error.
    pub http: i32,
    /// The headers that it brings.
    pub headers: HashMap<String, String>,
    /// The cookies that it sets at the client.
    pub cookies: Vec<String>,
    /// What the access log will show.
    pub metadata: HashMap<String, String>,
    /// The body of a denial or an error.
    pub body: serde_json::Value,
}

/// A check in the making.
#[derive(Debug, Clone, Default)]
pub struct Check {
    http: HttpRequest,
    context: HashMap<String, String>,
}

/// An access log stream.
#[derive(Debug)]
pub struct LogStream {
    frames: h2::SendStream<Bytes>,
    /// Waits for the end that the other side makes.
    answer: JoinSet<Result<i32, h2::Error>>,
    /// Finds out that the other side has got this far.
    ping: h2::PingPong,
    /// Drives the connection.
    connection: JoinSet<()>,
}

// === impl Gateway ===

impl Gateway {
    /// Connects to that address, over TCP.
    pub async fn connect(address: SocketAddr) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
        let channel = endpoint.connect().await.expect("it listens");
        Self { channel, address }
    }

    /// Connects to that address when it first asks, and again whenever the connection is lost. An
    /// attempt may take that long.
    pub fn lazily(address: SocketAddr, attempt: Duration) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
        let channel = endpoint.connect_timeout(attempt).connect_lazy();
        Self { channel, address }
    }

    /// The same over TLS, if the server accepts its certificate.
    ///
    /// # Errors
    ///
    /// Fails if nothing listens there, or the handshake fails.
    pub async fn connect_over_tls(
        address: SocketAddr,
        tls: ClientTlsConfig,
    ) -> Result<Self, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(format!("https://{address}"))?;
        let channel = endpoint.tls_config(tls)?.connect().await?;
        Ok(Self { channel, address })
    }

    /// The same over a Unix socket, which has no access logs here.
    ///
    /// # Errors
    ///
    /// Fails if nothing listens there, or the handshake fails.
    pub async fn connect_to_socket(path: PathBuf) -> Result<Self, tonic::transport::Error> {
        let connector = tower::service_fn(move |_| {
            let connecting = UnixStream::connect(path.clone());
            async move { connecting.await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://streamgate");
        let channel = endpoint.connect_with_connector(connector).await?;
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        Ok(Self { channel, address })
    }

    /// The connection, for clients of other services.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Asks.
    pub async fn check(&self, check: Check) -> Answer {
        self.try_check(check).await.expect("an answer")
    }

    /// Asks; dropping the future is what Envoy does when its client leaves.
    ///
    /// # Errors
    ///
    /// Fails if the call fails: its status.
    pub async fn try_check(&self, check: Check) -> Result<Answer, Status> {
        self.send(check.request()).await
    }

    /// Asks just that.
    ///
    /// # Errors
    ///
    /// Fails if the call fails: its status.
    pub async fn send(
        &self,
        request: impl tonic::IntoRequest<CheckRequest>,
    ) -> Result<Answer, Status> {
        let mut client = AuthorizationClient::new(self.channel.clone());
        let answer = client.check(request).await?;
        Ok(Answer::of(answer.into_inner()))
    }

    /// Waits until streamgate has read everything sent over this connection, cancellations
    /// included: it answers one more call after them.
    pub async fn catch_up(&self) {
        let preflight = self.check(Check::default().method("OPTIONS")).await;
        assert!(preflight.is_allowed(), "{preflight:?}");
    }

    /// Reports that a request that was let in got through to its viewer.
    pub async fn report_success(&self, answer: &Answer) {
        let mut log = self.access_log().await;
        log.send(vec![answered("any", answer, 200)]);
        assert_eq!(log.finish().await, 0);
    }

    /// Opens an access log stream, over a connection of its own.
    pub async fn access_log(&self) -> LogStream {
        LogStream::open(self.address).await
    }
}

// === impl Check ===

impl Check {
    /// A check on a request of that user's, whose id is that.
    pub fn of(user: &str, request_id: &str) -> Self {
        let http = HttpRequest {
            method: "GET".to_owned(),
            path: "/live/news".to_owned(),
            ..HttpRequest::default()
        };
        let check = Self {
            http,
            ..Self::default()
        };
        check
            .header("x-user-id", user)
            .header("x-request-id", request_id)
    }

    /// A check on a request of that playback's.
    pub fn of_playback(user: &str, playback: &str) -> Self {
        Self::of(user, "any").header("x-playback-session-id", playback)
    }

    /// With one header more, or another value for it.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.http.headers.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Without that header.
    pub fn without(mut self, name: &str) -> Self {
        self.http.headers.remove(name);
        self
    }

    /// With that method.
    pub fn method(mut self, method: &str) -> Self {
        method.clone_into(&mut self.http.method);
        self
    }

    /// With that path.
    pub fn path(mut self, path: &str) -> Self {
        path.clone_into(&mut self.http.path);
        self
    }

    /// With a context extension of the route.
    pub fn route(mut self, key: &str, value: &str) -> Self {
        self.context.insert(key.to_owned(), value.to_owned());
        self
    }

    /// The message.
    pub fn request(self) -> CheckRequest {
        let request = Request {
            http: Some(self.http),
            ..Request::default()
        };
        let attributes = AttributeContext {
            request: Some(request),
            context_extensions: self.context,
            ..AttributeContext::default()
        };
        CheckRequest {
            attributes: Some(attributes),
        }
    }
}

// === impl Answer ===

impl Answer {
    fn of(response: CheckResponse) -> Self {
        let mut to_client = Vec::new();
        let (kind, http, headers, body) = match response.http_response {
            Some(HttpResponse::OkResponse(ok)) => {
                to_client = ok.response_headers_to_add;
                ("ok", 200, ok.headers, String::new())
            }
            Some(HttpResponse::DeniedResponse(denied)) => {
                let status = denied.status.map_or(0, |status| status.code);
                ("denied", status, denied.headers, denied.body)
            }
            Some(HttpResponse::ErrorResponse(error)) => {
                let status = error.status.map_or(0, |status| status.code);
                ("error", status, error.headers, error.body)
            }
            None => ("nothing", 0, Vec::new(), String::new()),
        };
        let cookies = to_client.iter().chain(&headers).filter_map(cookie_set);
        let cookies = cookies.collect();
        let headers = headers.into_iter().filter_map(|option| option.header);
        let fields = response.dynamic_metadata.unwrap_or_default().fields;
        Self {
            code: response.status.map_or(-1, |status| status.code),
            kind,
            http,
            headers: headers.map(|header| (header.key, header.value)).collect(),
            cookies,
            metadata: fields
                .into_iter()
                .map(|(name, value)| (name, text(value)))
                .collect(),
            body: serde_json::from_str(&body).unwrap_or_default(),
        }
    }

    /// Whether Envoy lets the request through.
    pub fn is_allowed(&self) -> bool {
        self.kind == "ok" && self.code == 0
    }

    /// Why it was refused.
    pub fn reason(&self) -> &str {
        self.metadata.get("reason").map_or("", String::as_str)
    }

    /// The value of a header that the answer sets.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// What Envoy puts in its access log of this answer.
    pub fn logged(&self) -> Metadata {
        let text = |text: &String| Value {
            kind: Some(ValueKind::StringValue(text.clone())),
        };
        let fields = self.metadata.iter();
        let ours = Struct {
            fields: fields
                .map(|(name, value)| (name.clone(), text(value)))
                .collect(),
        };
        Metadata {
            filter_metadata: HashMap::from([("envoy.filters.http.ext_authz".to_owned(), ours)]),
            ..Metadata::default()
        }
    }
}

/// The cookie that a header sets. It must leave those alone that others set.
fn cookie_set(option: &HeaderValueOption) -> Option<String> {
    let header = option.header.as_ref()?;
    (header.key == "set-cookie").then(|| {
        let append = HeaderAppendAction::AppendIfExistsOrAdd;
        assert_eq!(option.append_action(), append, "{header:?}");
        header.value.clone()
    })
}

fn text(value: Value) -> String {
    match value.kind {
        Some(ValueKind::StringValue(text)) => text,
        other => format!("{other:?}"),
    }
}

// === entries ===

/// An access log entry of that type for a request, with the answer to its check; `None` if no
/// answer came.
pub fn entry(kind: AccessLogType, request_id: &str, answer: Option<&Answer>) -> HttpAccessLogEntry {
    let common = AccessLogCommon {
        access_log_type: kind.into(),
        metadata: answer.map(Answer::logged),
        upstream_remote_address: answer.map(|_| Address::default()),
        ..AccessLogCommon::default()
    };
    let request = HttpRequestProperties {
        request_id: request_id.to_owned(),
        path: "/live/news".to_owned(),
        ..HttpRequestProperties::default()
    };
    HttpAccessLogEntry {
        common_properties: Some(common),
        request: Some(request),
        ..HttpAccessLogEntry::default()
    }
}

/// The end of a stream that was let in.
pub fn end(request_id: &str, answer: &Answer) -> HttpAccessLogEntry {
    entry(AccessLogType::DownstreamEnd, request_id, Some(answer))
}

/// The end of a request that was let in and answered with that status.
pub fn answered(request_id: &str, answer: &Answer, status: u32) -> HttpAccessLogEntry {
    let response = HttpResponseProperties {
        response_code: Some(UInt32Value { value: status }),
        ..HttpResponseProperties::default()
    };
    HttpAccessLogEntry {
        response: Some(response),
        ..end(request_id, answer)
    }
}

/// The sign of life of a stream that was let in.
pub fn periodic(request_id: &str, answer: &Answer) -> HttpAccessLogEntry {
    entry(AccessLogType::DownstreamPeriodic, request_id, Some(answer))
}

/// The end of a request whose client left before the answer came.
pub fn abandoned(user: &str, request_id: &str) -> HttpAccessLogEntry {
    let mut entry = entry(AccessLogType::DownstreamEnd, request_id, None);
    if let Some(request) = &mut entry.request {
        let header = ("x-user-id".to_owned(), user.to_owned());
        request.request_headers.extend([header]);
    }
    entry
}

/// A message with these entries.
pub fn message(entries: Vec<HttpAccessLogEntry>) -> StreamAccessLogsMessage {
    StreamAccessLogsMessage {
        log_entries: Some(LogEntries::HttpLogs(HttpAccessLogEntries {
            log_entry: entries,
        })),
        ..StreamAccessLogsMessage::default()
    }
}

// === impl LogStream ===

impl LogStream {
    /// Opens a stream on a connection of its own.
    pub async fn open(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).await.expect("it listens");
        Self::over(socket).await
    }

    /// The same over a connection that is open already.
    pub async fn over(socket: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        let (mut client, mut connection) = h2::client::handshake(socket).await.expect("HTTP/2");
        let ping = connection.ping_pong().expect("the first to ask");
        let mut driver = JoinSet::new();
        driver.spawn(async move { drop(connection.await) });
        let uri = "http://streamgate/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs";
        let request = http::Request::post(uri)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .expect("a request");
        let (answer, frames) = client.send_request(request, false).expect("a stream");
        let mut waiting = JoinSet::new();
        waiting.spawn(grpc_status(answer));
        Self {
            frames,
            answer: waiting,
            ping,
            connection: driver,
        }
    }

    /// Sends entries as one message.
    pub fn send(&mut self, entries: Vec<HttpAccessLogEntry>) {
        self.send_bytes(&message(entries).encode_to_vec());
    }

    /// Sends bytes as one message, valid or not.
    pub fn send_bytes(&mut self, message: &[u8]) {
        let length = u32::try_from(message.len()).expect("less than 4 GiB");
        let mut frame = BytesMut::with_capacity(message.len() + 5);
        frame.put_u8(0);
        frame.put_u32(length);
        frame.put_slice(message);
        self.frames
            .send_data(frame.freeze(), false)
            .expect("the stream is open");
    }

    /// Ends the stream as a gateway that is asked to; the gRPC status that it gets.
    pub async fn finish(mut self) -> i32 {
        drop(self.frames.send_data(Bytes::new(), true));
        self.ended().await
    }

    /// Waits until everything has been sent: until a ping is answered.
    pub async fn flush(&mut self) {
        let pong = self.ping.ping(h2::Ping::opaque()).await;
        pong.expect("the connection is open");
    }

    /// Resets the stream, as Envoy does when it has seen its end. Unsent data is dropped.
    pub fn reset(mut self) -> JoinSet<()> {
        self.frames.send_reset(h2::Reason::CANCEL);
        self.connection
    }

    /// Waits for the other side to end the stream; the gRPC status that it says.
    pub async fn ended(&mut self) -> i32 {
        let ended = tokio::time::timeout(PATIENCE, self.answer.join_next()).await;
        let ended = ended.expect("the stream is ended").expect("once");
        ended
            .expect("no panic")
            .expect("the stream ends by its rules")
    }
}

/// The gRPC status at the end of an answer.
async fn grpc_status(answer: h2::client::ResponseFuture) -> Result<i32, h2::Error> {
    let (head, mut body) = answer.await?.into_parts();
    while let Some(data) = body.data().await {
        drop(body.flow_control().release_capacity(data?.len()));
    }
    let trailers = body.trailers().await?;
    let status = head.headers.get("grpc-status").cloned();
    let status = status.or_else(|| trailers?.get("grpc-status").cloned());
    let status = status.expect("a gRPC answer has a status");
    Ok(status.to_str().expect("a text").parse().expect("a number"))
}
