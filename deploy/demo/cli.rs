//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// A gateway, a video backend and streamgate, to try or to check
#[derive(Debug, Parser)]
#[command(name = "demo")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start everything, print what to try, run until Ctrl-C
    Run(RunArgs),
    /// Start everything on free ports, walk through the scenario, end with an exit code
    Check(CheckArgs),
    /// Build and start the services of compose.yaml, walk through the scenario, break things, end
    /// it
    Compose(ComposeArgs),
    /// Serve only the dummy video backend
    Backend(BackendArgs),
}

/// The parts of the stack.
#[derive(Debug, Clone, Args)]
pub(crate) struct Parts {
    /// The streamgate binary [default: the one built next to this program]
    #[arg(long, value_name = "FILE")]
    pub(crate) streamgate: Option<PathBuf>,
    /// The Envoy binary
    #[arg(long, value_name = "FILE", env = "ENVOY", default_value = "envoy")]
    pub(crate) envoy: PathBuf,
    /// The redis-server binary, for `--store redis`
    #[arg(
        long,
        value_name = "FILE",
        env = "REDIS_SERVER",
        default_value = "redis-server"
    )]
    pub(crate) redis_server: PathBuf,
    /// Where streams are counted
    #[arg(long, value_enum, default_value_t = StoreChoice::Memory)]
    pub(crate) store: StoreChoice,
    /// The folder with the clip
    #[arg(long, value_name = "FOLDER", default_value = "deploy/demo/media")]
    pub(crate) media: PathBuf,
    /// The folder for the logs of everything started
    #[arg(long, value_name = "FOLDER", default_value = "target/demo/logs")]
    pub(crate) logs: PathBuf,
}

/// Where streamgate counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StoreChoice {
    /// Inside the streamgate process
    Memory,
    /// In a Redis that the demo starts
    Redis,
}

/// `demo run`
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) parts: Parts,
    /// The port for clients
    #[arg(
        long,
        value_name = "PORT",
        env = "GATEWAY_PORT",
        default_value_t = 10000
    )]
    pub(crate) gateway_port: u16,
    /// streamgate's HTTP API
    #[arg(long, value_name = "PORT", env = "HTTP_PORT", default_value_t = 8080)]
    pub(crate) http_port: u16,
    /// streamgate's gRPC services, for Envoy
    #[arg(long, value_name = "PORT", env = "GRPC_PORT", default_value_t = 50051)]
    pub(crate) grpc_port: u16,
}

/// `demo check`
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub(crate) parts: Parts,
}

/// `demo compose`
#[derive(Debug, Args)]
pub(crate) struct ComposeArgs {
    /// The compose command [default: `docker compose` if available, else `docker-compose`]
    #[arg(long, value_name = "COMMAND", env = "COMPOSE")]
    pub(crate) tool: Option<String>,
    /// The compose file
    #[arg(long, value_name = "FILE", default_value = "deploy/compose.yaml")]
    pub(crate) file: PathBuf,
    /// The tokens of alice, bob, carol and dave
    #[arg(
        long,
        value_name = "FILE",
        default_value = "tests/fixtures/example-tokens.json"
    )]
    pub(crate) tokens: PathBuf,
    /// The folder for the logs
    #[arg(long, value_name = "FOLDER", default_value = "target/demo/logs")]
    pub(crate) logs: PathBuf,
}

/// `demo backend`
#[derive(Debug, Args)]
pub(crate) struct BackendArgs {
    /// The address to listen on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9000")]
    pub(crate) listen: SocketAddr,
    /// The folder with the clip
    #[arg(long, value_name = "FOLDER", default_value = "deploy/demo/media")]
    pub(crate) media: PathBuf,
    /// Serve nothing: ask the backend at that address whether it serves, for a container's health
    /// check
    #[arg(long)]
    pub(crate) ask: bool,
}
