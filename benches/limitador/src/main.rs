//! An `ext_authz` server that counts with Limitador's library, for `make bench`. Its own server isn't
//! published as a crate, so this front is ours: tonic, and one limit in memory. It admits a user
//! three times a minute, because Limitador counts requests, not streams that run.

use std::collections::HashMap;
use std::error::Error;

use envoy_types::pb::envoy::config::core::v3::HeaderMap;
use envoy_types::pb::envoy::service::auth::v3::authorization_server::{
    Authorization, AuthorizationServer,
};
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::service::auth::v3::{
    CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse,
};
use envoy_types::pb::google::rpc::Status as RpcStatus;
use limitador::RateLimiter;
use limitador::limit::{Limit, Namespace};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How many users are counted at most.
const USERS: u64 = 2_000_000;

/// How many requests a user has, and in how many seconds.
const LIMIT: (u64, u64) = (3, 60);

const USER: &str = "x-user-id";

struct Front {
    limiter: RateLimiter,
    namespace: Namespace,
}

/// The user of the request; without one, it isn't limited.
fn user(request: &CheckRequest) -> Option<&str> {
    let http = request
        .attributes
        .as_ref()?
        .request
        .as_ref()?
        .http
        .as_ref()?;
    let HeaderMap { headers } = http.header_map.as_ref()?;
    let header = headers.iter().find(|header| header.key == USER)?;
    std::str::from_utf8(&header.raw_value).ok()
}

impl Front {
    fn admits(&self, request: &CheckRequest) -> Result<bool, Status> {
        let Some(user) = user(request) else {
            return Ok(true);
        };
        let values = HashMap::from([("user".to_owned(), user.to_owned())]);
        let counted =
            self.limiter
                .check_rate_limited_and_update(&self.namespace, &values.into(), 1);
        let counted = counted.map_err(|error| Status::internal(error.to_string()))?;
        Ok(!counted.limited)
    }
}

#[tonic::async_trait]
impl Authorization for Front {
    async fn check(
        &self,
        request: Request<CheckRequest>,
    ) -> Result<Response<CheckResponse>, Status> {
        let (code, response) = if self.admits(request.get_ref())? {
            (0, HttpResponse::OkResponse(OkHttpResponse::default()))
        } else {
            let denied = DeniedHttpResponse::default();
            (8, HttpResponse::DeniedResponse(denied))
        };
        Ok(Response::new(CheckResponse {
            status: Some(RpcStatus {
                code,
                ..RpcStatus::default()
            }),
            http_response: Some(response),
            ..CheckResponse::default()
        }))
    }
}

/// Serves until it is killed, after it has printed its address.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let front = Front {
        limiter: RateLimiter::new(USERS),
        namespace: "streams".into(),
    };
    let (requests, seconds) = LIMIT;
    let limit = Limit::new("streams", requests, seconds, [], ["user".try_into()?]);
    front.limiter.add_limit(limit);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let server = Server::builder().add_service(AuthorizationServer::new(front));
    let incoming = TcpListenerStream::new(listener);
    server.serve_with_incoming(incoming).await?;
    Ok(())
}
