//! The HTTP port: where it listens, who may ask, and what it tells.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::grpc::{self, Listen};
use super::tls::{self, Tls, TlsKeys};
use crate::config::load::error::Report;
use crate::config::load::form::{Form, NotAPath, file, list, or_null, path, quoted};
use crate::config::load::raw::Raw;
use crate::config::load::redact::is_more_than_a_page;
use crate::config::load::section::{Key, Keys};
use crate::config::load::value::{RawValue, Wrong};
use ::http::Uri;

/// The port for everything else: the HTTP API, probes, metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// `http.listen`
    pub listen: SocketAddr,
    /// `http.tls`
    pub tls: Option<Tls>,
    /// `http.tokens_file`: who may ask what. Without it, everybody may ask everything.
    pub tokens_file: Option<PathBuf>,
    /// `http.cors_origins`: the origins whose scripts may read answers.
    pub cors_origins: Origins,
    /// `http.hosts`: without tokens, the host names that browsers may use, in lower case.
    pub hosts: Vec<String>,
    /// `http.endpoint`: the address of a video, as the small API gives it.
    pub endpoint: Option<Endpoint>,
}

/// Origins of scripts, as browsers write them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origins {
    /// Every origin.
    Any,
    /// Only these origins.
    These(Vec<String>),
}

/// The address of a video, with a placeholder for its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The part before the id.
    before: String,
    /// The part after the id.
    behind: String,
}

/// The longest name that a host can have.
const MAX_NAME: usize = 253;

/// The placeholder for a video's id.
const PLACE: &str = "{id}";

impl Http {
    /// Declares the keys of `http`.
    pub(in crate::config) fn keys(&mut self, keys: &mut impl Keys) {
        keys.key(
            Key::new(
                "http.listen",
                "The port of the HTTP API, probes and metrics. Without `http.tokens_file`, anyone who can \
                 reach it may do everything: keep it private.",
            ),
            Form::new("an IP address with a port", tcp, quoted),
            &mut self.listen,
        );
        tls::keys(&mut self.tls, TlsKeys::HTTP, None, keys);
        keys.key(
            Key::new(
                "http.tokens_file",
                "A file that says who may ask what, see [Who may ask][access].",
            ),
            file(|written| {
                let allowed = "the path of a file with a token on each line";
                path(written).map_err(|NotAPath| written.wrong_secret(allowed))
            }),
            &mut self.tokens_file,
        );
        self.for_browsers(keys);
        keys.key(
            Key::new(
                "http.endpoint",
                "Where a video is, as the small API tells it.",
            ),
            Form::new(
                "an address with `{id}` in it, such as `https://cdn.example.com/{id}`, or `null`",
                endpoint,
                |endpoint: &Option<Endpoint>| or_null(endpoint.as_ref().map(Endpoint::template)),
            ),
            &mut self.endpoint,
        );
    }

    /// Declares the keys about browsers.
    fn for_browsers(&mut self, keys: &mut impl Keys) {
        let origins_of = |origins: &Origins| match origins {
            Origins::Any => list(["*"]),
            Origins::These(these) => list(these),
        };
        keys.key(
            Key::new(
                "http.cors_origins",
                "The origins whose scripts may call the API and read its answers, each in full, or `*`.",
            ),
            Form::new(
                "`*`, or a list of origins such as `https://app.example.com`",
                origins,
                origins_of,
            ),
            &mut self.cors_origins,
        );
        keys.key(
            Key::new(
                "http.hosts",
                "Without tokens: the host names that browsers may use, in addition to `localhost` and IP \
                 addresses, see [Who may ask][access].",
            ),
            Form::new(
                "a list of names such as `streamgate.example.com`",
                hosts,
                |hosts: &Vec<String>| list(hosts),
            ),
            &mut self.hosts,
        );
    }

    /// Checks that the port has both TLS files or none, and that the gRPC port listens elsewhere.
    pub(in crate::config) fn check(&self, grpc: &Listen, raw: &Raw, report: &mut Report) {
        tls::check(TlsKeys::HTTP, raw, report);
        let (listen, Listen::Tcp(grpc)) = (self.listen, grpc) else {
            return;
        };
        let keys = ["http.listen", "grpc.listen"].into_iter();
        let written = keys.filter_map(|key| Some((key, raw.get(key)?))).next();
        if let (true, Some((key, written))) = (grpc::is_taken_twice(listen, *grpc), written) {
            let taken = written.refuse(format_args!(
                "http.listen ({listen}) and grpc.listen ({grpc}) use the same port; allowed: two different ports"
            ));
            report.add(taken.into_problem(key));
        }
    }
}

fn tcp(written: &RawValue) -> Result<SocketAddr, Wrong> {
    let address = written.scalar().and_then(grpc::tcp);
    address.ok_or_else(|| {
        written.wrong("an IP address with a port such as 127.0.0.1:8080, localhost:8080, or :8080 for 0.0.0.0:8080")
    })
}

fn origins(written: &RawValue) -> Result<Origins, Wrong> {
    let allowed = "* alone, or a list of origins such as https://app.example.com: scheme, host in lower case and port, without a path";
    let written = written.hiding(is_more_than_a_page);
    let items = written.items().ok_or_else(|| written.wrong(allowed))?;
    let these: Vec<&str> = items.iter().map(text).collect();
    if these == ["*"] {
        return Ok(Origins::Any);
    }
    let has_wildcard = |item: &&RawValue| text(item).contains('*') && text(item) != "*";
    if let Some(wildcard) = items.iter().find(has_wildcard) {
        return Err(wildcard.refuse(format_args!(
            "got {wildcard}; wildcards within an origin are not supported; list each origin in full, such as https://app.example.com, or use * alone"
        )));
    }
    match items.iter().find(|item| !is_origin(text(item))) {
        Some(wrong) => Err(wrong.wrong(allowed)),
        None => Ok(Origins::These(
            these.into_iter().map(str::to_owned).collect(),
        )),
    }
}

/// The text of an item of a list, if it is one.
fn text(item: &RawValue) -> &str {
    item.scalar().unwrap_or_default()
}

/// Whether a browser writes an origin like this: scheme and host in lower case, a port unless it is
/// the default of the scheme, and nothing else.
fn is_origin(text: &str) -> bool {
    let Ok(uri) = text.parse::<Uri>() else {
        return false;
    };
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return false;
    };
    let is_own_port = matches!(
        (scheme, authority.port_u16()),
        ("http", Some(80)) | ("https", Some(443))
    );
    let host = authority.host();
    let is_host_good = host.starts_with('[') || is_name(host);
    let port = authority.as_str().strip_prefix(host);
    let is_port_good = port == Some("") || (authority.port_u16().is_some() && !is_own_port);
    is_host_good && is_port_good && text == format!("{scheme}://{authority}").to_lowercase()
}

fn hosts(written: &RawValue) -> Result<Vec<String>, Wrong> {
    let allowed = "a list of host names without a port, such as streamgate.example.com; no IP address, and not localhost, which browsers may always use";
    let written = written.hiding(is_more_than_a_page);
    let items = written.items().ok_or_else(|| written.wrong(allowed))?;
    let read = |item: &RawValue| {
        let name = text(item).to_ascii_lowercase();
        // A last part of digits makes it an IP address.
        let last = name.rsplit('.').next().unwrap_or_default();
        let is_ip = !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit());
        let is_good = is_name(&name) && !name.ends_with('.') && !is_ip && name != "localhost";
        is_good.then_some(name).ok_or_else(|| item.wrong(allowed))
    };
    items.iter().map(read).collect()
}

/// Whether a text can be the name of a host, or an IPv4 address.
fn is_name(text: &str) -> bool {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(is_good)
}

fn endpoint(written: &RawValue) -> Result<Option<Endpoint>, Wrong> {
    let Some(text) = written.optional() else {
        return Ok(None);
    };
    let wrong = || {
        let written = written.hiding(is_more_than_a_page);
        written.wrong("an http:// or https:// address with {id} in it once, such as https://cdn.example.com/{id}")
    };
    let parsed: Uri = text.replace(PLACE, "id").parse().map_err(|_| wrong())?;
    let host = parsed
        .authority()
        .map_or("@", |authority| authority.as_str());
    // The client chooses the id, so it may be in the path, but not in the host.
    let start = text.strip_prefix(parsed.scheme_str().unwrap_or_default());
    let names_host = start.is_some_and(|start| start.starts_with(&format!("://{host}/")));
    let is_web =
        matches!(parsed.scheme_str(), Some("http" | "https")) && names_host && !host.contains('@');
    match text.split_once(PLACE) {
        Some((before, behind)) if is_web && !behind.contains(PLACE) => Ok(Some(Endpoint {
            before: before.to_owned(),
            behind: behind.to_owned(),
        })),
        _ => Err(wrong()),
    }
}

// === impl Http, Endpoint ===

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 8080).into(),
            tls: None,
            tokens_file: None,
            cors_origins: Origins::These(Vec::new()),
            hosts: Vec::new(),
            endpoint: None,
        }
    }
}

impl Endpoint {
    /// The address of the video with this id, which is already escaped.
    #[must_use]
    pub fn of(&self, id: &str) -> String {
        format!("{}{id}{}", self.before, self.behind)
    }

    /// The address as it was written.
    pub(in crate::config) fn template(&self) -> String {
        self.of(PLACE)
    }
}
