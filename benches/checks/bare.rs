//! Two `ext_authz` servers to compare with: tonic and `envoy-types` as they come, with the runtime
//! and the allocator that suit them best. One lets everybody in. The other asks Redis about each
//! check by the textbook script, and so does the least that a count in Redis takes. Both read access
//! logs, and do nothing about them. Each is this program in a process of its own.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use envoy_types::pb::envoy::config::core::v3::HeaderMap;
use envoy_types::pb::envoy::service::accesslog::v3::access_log_service_server::{
    AccessLogService, AccessLogServiceServer,
};
use envoy_types::pb::envoy::service::accesslog::v3::{
    StreamAccessLogsMessage, StreamAccessLogsResponse,
};
use envoy_types::pb::envoy::service::auth::v3::authorization_server::{
    Authorization, AuthorizationServer,
};
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::service::auth::v3::{
    CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse,
};
use envoy_types::pb::google::rpc::Status as RpcStatus;
use redis::Script;
use redis::aio::MultiplexedConnection;
use testkit::tools::find;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

/// The argument that makes this program such a server. The next is how many threads it has, and
/// then the URL of Redis, if it asks one.
pub(crate) const ARGUMENT: &str = "--serve-bare";

/// The counting semaphore as it is usually written.
const TEXTBOOK: &str = include_str!("../textbook.lua");

/// The limit, and how long a lease lasts, in milliseconds.
const LIMIT_AND_LEASE: (usize, usize) = (3, 3_600_000);

/// What the server counts in.
#[derive(Clone)]
struct Bare(Option<(Script, MultiplexedConnection)>);

impl Bare {
    /// Whether the viewer gets a slot.
    async fn admits(&self, request: &CheckRequest) -> bool {
        let Some((script, connection)) = &self.0 else {
            return true;
        };
        let attributes = request.attributes.as_ref().unwrap();
        let http = attributes.request.as_ref().unwrap().http.as_ref().unwrap();
        let headers = http.header_map.as_ref().unwrap();
        let [user, playback] =
            ["x-user-id", "x-playback-session-id"].map(|name| value(headers, name));
        let mut asked = script.key(format!("user:{user}"));
        asked
            .arg(LIMIT_AND_LEASE.0)
            .arg(playback)
            .arg(LIMIT_AND_LEASE.1);
        let mut connection = connection.clone();
        asked.invoke_async(&mut connection).await.unwrap()
    }
}

/// The header's value.
fn value<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    let mut headers = headers.headers.iter();
    let header = headers.find(|header| header.key == name).unwrap();
    std::str::from_utf8(&header.raw_value).unwrap()
}

#[tonic::async_trait]
impl Authorization for Bare {
    async fn check(
        &self,
        request: Request<CheckRequest>,
    ) -> Result<Response<CheckResponse>, Status> {
        let (code, response) = if self.admits(request.get_ref()).await {
            (0, HttpResponse::OkResponse(OkHttpResponse::default()))
        } else {
            (
                8,
                HttpResponse::DeniedResponse(DeniedHttpResponse::default()),
            )
        };
        let status = RpcStatus {
            code,
            ..RpcStatus::default()
        };
        Ok(Response::new(CheckResponse {
            status: Some(status),
            http_response: Some(response),
            ..CheckResponse::default()
        }))
    }
}

#[tonic::async_trait]
impl AccessLogService for Bare {
    async fn stream_access_logs(
        &self,
        request: Request<Streaming<StreamAccessLogsMessage>>,
    ) -> Result<Response<StreamAccessLogsResponse>, Status> {
        let mut messages = request.into_inner();
        while messages.message().await?.is_some() {}
        Ok(Response::new(StreamAccessLogsResponse {}))
    }
}

/// Serves with so many threads until it is killed, after it has printed its address.
pub(crate) fn serve(threads: &str, redis: Option<&str>) {
    let mut runtime = match threads.parse().unwrap() {
        1 => tokio::runtime::Builder::new_current_thread(),
        threads => {
            let mut runtime = tokio::runtime::Builder::new_multi_thread();
            runtime.worker_threads(threads);
            runtime
        }
    };
    let runtime = runtime.enable_all().build().unwrap();
    runtime.block_on(async {
        let mut count = None;
        if let Some(url) = redis {
            let client = redis::Client::open(url).unwrap();
            let connection = client.get_multiplexed_async_connection().await.unwrap();
            count = Some((Script::new(TEXTBOOK), connection));
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("{}", listener.local_addr().unwrap());
        let bare = Bare(count);
        let server = Server::builder()
            .add_service(AccessLogServiceServer::new(bare.clone()))
            .add_service(AuthorizationServer::new(bare));
        let incoming = TcpListenerStream::new(listener);
        server.serve_with_incoming(incoming).await.unwrap();
    });
}

/// That process; killed when dropped.
pub(crate) struct BareServer {
    process: Child,
    pub(crate) address: SocketAddr,
}

impl BareServer {
    /// Starts the one that lets everybody in, or that asks the Redis at that URL, with so many
    /// threads.
    pub(crate) fn start(threads: usize, redis: Option<String>) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([ARGUMENT, &threads.to_string()]).args(redis);
        Self::run(command)
    }

    /// Starts the one that counts with Limitador's library.
    pub(crate) fn limitador() -> Self {
        let program = find("STREAMGATE_BENCH_LIMITADOR", "benches/limitador/build.sh");
        Self::run(Command::new(program))
    }

    fn run(mut command: Command) -> Self {
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let output = process.stdout.take().unwrap();
        BufReader::new(output).read_line(&mut line).unwrap();
        let address = line.trim().parse().unwrap();
        Self { process, address }
    }

    /// The process's id.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for BareServer {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}
