//! Assigns ports. A taken port is detected before anything is started.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use rand::Rng;

use crate::cli::RunArgs;
use crate::failure::{Doing, Failure};

/// Below the range that systems use for outgoing connections, so that none of those takes a port
/// between our check and the start of its owner.
const FREE: std::ops::Range<u16> = 15_000..30_000;
const TRIES: usize = 200;

/// The ports of everything that listens, all on 127.0.0.1.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ports {
    pub(crate) gateway: u16,
    pub(crate) http: u16,
    pub(crate) grpc: u16,
    pub(crate) envoy_admin: u16,
    pub(crate) redis: u16,
}

impl Ports {
    /// The requested ports; free ones for services that nobody connects to by hand.
    pub(crate) fn asked(args: &RunArgs) -> Result<Self, Failure> {
        let _gateway = claim(args.gateway_port, "the gateway (Envoy)", "GATEWAY_PORT")?;
        let _http = claim(args.http_port, "streamgate's HTTP API", "HTTP_PORT")?;
        let _grpc = claim(args.grpc_port, "streamgate's gRPC services", "GRPC_PORT")?;
        let [envoy_admin, redis] = free()?;
        Ok(Self {
            gateway: args.gateway_port,
            http: args.http_port,
            grpc: args.grpc_port,
            envoy_admin,
            redis,
        })
    }

    /// Free ports for everything.
    pub(crate) fn free() -> Result<Self, Failure> {
        let [gateway, http, grpc, envoy_admin, redis] = free()?;
        Ok(Self {
            gateway,
            http,
            grpc,
            envoy_admin,
            redis,
        })
    }
}

pub(crate) fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Held while the others are chosen, so that no port is assigned twice.
fn claim(port: u16, for_what: &str, variable: &str) -> Result<TcpListener, Failure> {
    TcpListener::bind(loopback(port)).map_err(|error| {
        Failure::new(format!(
            "port {port} of 127.0.0.1 can't be had for {for_what}: {error}\n      \
             Free it, or choose another: make demo {variable}={}",
            if port < 55_000 {
                port + 2000
            } else {
                port - 2000
            },
        ))
    })
}

/// That many free ports.
pub(crate) fn free<const N: usize>() -> Result<[u16; N], Failure> {
    let mut held = Vec::with_capacity(N);
    let mut ports = [0; N];
    for place in &mut ports {
        let listener = free_listener()?;
        *place = listener
            .local_addr()
            .doing(|| "ask for the number of a free port".to_owned())?
            .port();
        held.push(listener);
    }
    Ok(ports)
}

fn free_listener() -> Result<TcpListener, Failure> {
    let mut random = rand::rng();
    (0..TRIES)
        .find_map(|_| TcpListener::bind(loopback(random.random_range(FREE))).ok())
        .ok_or_else(|| {
            Failure::new(format!(
                "found no free port in {FREE:?} of 127.0.0.1, in {TRIES} tries"
            ))
        })
}
