//! The gateway to write, as the command line describes it. Anything left out becomes an example,
//! marked `CHANGE`.

use std::net::SocketAddr;

use clap::{Args, FromArgMatches, ValueEnum};

use super::place::{EnvoyPlace, RoutePath};
use super::version::EnvoyVersion;
use crate::identity::Source;

/// The gateway to write.
#[derive(Debug, Args)]
pub(in crate::cli) struct EnvoyConfigArgs {
    /// Print only the pieces that concern streamgate, each headed by where it goes in the Envoy
    /// that you have.
    #[arg(long)]
    pub(super) fragments: bool,
    /// Who verifies the user: `jwt:CLAIM` and `basic`, this Envoy; `principal`, its listener by
    /// client certificates; `header:NAME` and `cookie:NAME`, a proxy in front of it. Unsaid, an
    /// example key verifies tokens.
    #[arg(long, value_name = "SOURCE")]
    pub(super) user: Option<Source>,
    /// Who issues the tokens (`iss`).
    #[arg(long, value_name = "ISSUER", requires = "user")]
    pub(super) issuer: Option<String>,
    /// Where the keys of tokens are fetched: an http or https URL.
    #[arg(long, value_name = "URL", requires = "user")]
    pub(super) jwks: Option<String>,
    /// Whom tokens are for (`aud`).
    #[arg(long, value_name = "AUDIENCE", requires = "user")]
    pub(super) audience: Option<String>,
    /// A path where one request is one stream; repeatable, like the other paths.
    #[arg(long, value_name = "PATH")]
    pub(super) live: Vec<RoutePath>,
    /// A path of `WebSockets`: as --live, but a stream may be silent for long.
    #[arg(long, value_name = "PATH")]
    pub(super) ws: Vec<RoutePath>,
    /// A path of HLS or DASH, for players that name their playback.
    #[arg(long, value_name = "PATH")]
    pub(super) hls: Vec<RoutePath>,
    /// A path of HLS or DASH, for players that may name nothing: those get a cookie.
    #[arg(long, value_name = "PATH")]
    pub(super) hls_cookie: Vec<RoutePath>,
    /// A path that anybody may fetch, uncounted: pages, images.
    #[arg(long, value_name = "PATH")]
    pub(super) open: Vec<RoutePath>,
    /// Where the streams come from.
    #[arg(long, value_name = "HOST:PORT")]
    pub(super) upstream: Option<EnvoyPlace>,
    /// Where streamgate's gRPC port is (grpc.listen): `HOST:PORT` or `unix:/PATH`.
    #[arg(long, value_name = "PLACE")]
    pub(super) streamgate: Option<EnvoyPlace>,
    /// Where streamgate's HTTP port is (http.listen).
    #[arg(long, value_name = "HOST:PORT")]
    pub(super) api: Option<EnvoyPlace>,
    /// The origin of a site whose pages play or call the API.
    #[arg(long, value_name = "ORIGIN")]
    pub(super) cors_origin: Vec<String>,
    /// Leave that out: CORS, or viewers' way to streamgate's HTTP API.
    #[arg(long, value_name = "PART", value_delimiter = ',')]
    pub(super) without: Vec<Part>,
    /// Where this Envoy listens.
    #[arg(long, value_name = "IP:PORT")]
    pub(super) listen: Option<SocketAddr>,
    /// Where this Envoy's administrator listens.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:9901")]
    pub(super) admin: SocketAddr,
    /// What this Envoy calls itself.
    #[arg(long, value_name = "ID")]
    pub(super) node: Option<String>,
    /// How many proxies in front of this Envoy write x-forwarded-for; unsaid, 1 if one of them
    /// verifies the user, else 0.
    #[arg(long, value_name = "NUMBER")]
    pub(super) trusted_hops: Option<u8>,
    #[command(flatten)]
    pub(super) tls: TlsToStreamgate,
    /// For a service that many gateways share: rarer health checks, and a check that one instance
    /// leaves unanswered goes to another.
    #[arg(long)]
    pub(super) shared: bool,
    /// Seconds between two health checks; unsaid, 0.1, and 2 with --shared.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(super) health_interval: Option<f64>,
    /// The Envoy that the file is for; what it lacks is written into the file and to standard
    /// error.
    #[arg(long, value_name = "VERSION", default_value = "1.40")]
    pub(super) envoy: EnvoyVersion,
}

/// TLS between this Envoy and streamgate's gRPC port. Envoy reads the files, not this command.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct TlsToStreamgate {
    /// A name in streamgate's certificate: turns on TLS to grpc.listen.
    #[arg(long, value_name = "NAME", requires = "tls_ca")]
    pub(super) tls_name: Option<String>,
    /// The authorities (PEM) that may sign streamgate's certificate.
    #[arg(long, value_name = "FILE", requires = "tls_name")]
    pub(super) tls_ca: Option<String>,
    /// The certificate (PEM) that this Envoy shows to streamgate.
    #[arg(long, value_name = "FILE", requires = "tls_key", requires = "tls_name")]
    pub(super) tls_cert: Option<String>,
    /// The private key (PEM) of --tls-cert.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(super) tls_key: Option<String>,
}

/// What can be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Part {
    /// CORS, for pages of another origin.
    Cors,
    /// Viewers' way to the HTTP API, and the page about problems.
    Api,
}

impl EnvoyConfigArgs {
    /// The arguments for a gateway with each kind of route and users identified by that source. A
    /// token's issuer stays the example.
    pub(super) fn with_all_routes(user: Option<&Source>) -> Option<Self> {
        let routes = ["--live", "/live", "--hls", "/vod", "--hls-cookie", "/films"];
        let mut words: Vec<String> = routes.map(str::to_owned).to_vec();
        if let Some(user) = user.filter(|user| !matches!(user, Source::Jwt(_))) {
            words.extend(["--user".to_owned(), user.to_string()]);
        }
        let command = Self::augment_args(clap::Command::new("envoy-config").no_binary_name(true));
        let matches = command.try_get_matches_from(words).ok()?;
        Self::from_arg_matches(&matches).ok()
    }
}

/// A time between health checks that Envoy takes, and that makes sense.
fn seconds(text: &str) -> Result<f64, String> {
    let seconds: Option<f64> = text.parse().ok();
    seconds
        .filter(|seconds| (0.05..=60.0).contains(seconds))
        .ok_or_else(|| "allowed: 0.05 to 60".to_owned())
}
