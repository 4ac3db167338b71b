//! The files that are shipped are written here, from command lines and what each has besides. With
//! `STREAMGATE_WRITE=1` they are written again; otherwise they must be what the pieces say.

use std::path::Path;

use clap::Parser;

use super::args::EnvoyConfigArgs;
use super::fill::{Piece, leading_comment};
use super::gateway::{Fragment, Gateway, route};
use super::plan::Plan;
use super::{head, notes, pieces};

/// The arguments alone.
#[derive(Debug, Parser)]
#[command(no_binary_name = true)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) args: EnvoyConfigArgs,
}

/// What a command line says behind `envoy-config`.
pub(super) fn parse(line: &str) -> EnvoyConfigArgs {
    let words = line.split_whitespace();
    Arguments::try_parse_from(words).unwrap().args
}

/// compose.yaml's gateway, but for what it has besides.
const COMPOSE: &str = "--shared --health-interval 0.5 --listen 0.0.0.0:10000 --admin 127.0.0.1:9902 \
    --node gateway-1 --streamgate streamgate:50051 --api streamgate:8080 --upstream backend:9000 \
    --cors-origin https://player.example";

/// The demo's gateway, but for what it has besides. Its ports stand for those that it picks.
const DEMO: &str = "--user header:x-user-id --trusted-hops 0 --without cors --node demo \
    --listen 127.0.0.1:1 --streamgate 127.0.0.1:2 --api 127.0.0.1:3 --upstream 127.0.0.1:4 \
    --admin 127.0.0.1:5 --live /live --live /finite --ws /ws --hls /vod";

/// The demo's places for ports, in the order of the ports above.
const DEMO_PORTS: [&str; 5] = ["GATEWAY", "GRPC", "HTTP", "BACKEND", "ADMIN"];

/// Fails unless the file is that text, or writes it.
fn hold(path: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("STREAMGATE_WRITE").is_some() {
        std::fs::write(path, text).unwrap();
    } else {
        let written = std::fs::read_to_string(&path).unwrap();
        assert!(
            written == text,
            "{}: run this test with STREAMGATE_WRITE=1",
            path.display()
        );
    }
}

#[test]
fn the_whole_file_is_what_the_command_writes() {
    let (text, _) = super::write(&parse(""), "envoy-config").unwrap();
    hold("envoy/envoy.yaml", &text);
}

#[test]
fn the_fragments_are_what_the_command_writes() {
    let args = parse("--live /live --hls /vod --hls-cookie /films");
    let plan = Plan::of(&args).unwrap();
    let gateway = Gateway::of(&plan);
    let tls = Fragment::of("tls", pieces::TLS, &gateway.values);
    for fragment in gateway.fragments().iter().chain([&tls]) {
        let path = format!("envoy/fragments/{}.yaml", fragment.name);
        hold(&path, &fragment.text.replace("/films/", "/vod/"));
    }
}

#[test]
fn compose_s_file_is_what_the_command_writes_and_two_listeners_more() {
    let args = parse(COMPOSE);
    let plan = Plan::of(&args).unwrap();
    let mut gateway = Gateway::of(&plan);
    let extra = |text| Piece::new(text).body(&gateway.values);
    let listeners = extra(include_str!("extras/compose-listeners.yaml"));
    let administrator = extra(include_str!("extras/compose-administrator.yaml"));
    gateway.listeners.push(listeners);
    gateway.clusters.push(administrator);
    let mut text = head(&notes(&plan), &format!("envoy-config {COMPOSE}"));
    text.push_str(
        "#\n# For compose.yaml: two streamgates, and two more listeners. The administrator can do everything, so only this\n\
         # container reaches it. Tokens are verified with the published example key: who can reach this gateway can be alice.\n",
    );
    hold("deploy/compose/envoy.yaml", &gateway.whole(&text));
}

#[test]
fn the_demo_s_template_is_what_the_command_writes_for_places_instead_of_ports() {
    let args = parse(DEMO);
    let plan = Plan::of(&args).unwrap();
    let mut gateway = Gateway::of(&plan);
    let extra = |text| Piece::new(text).body(&gateway.values);
    let logger = extra(include_str!("extras/demo-logger.yaml"));
    gateway.loggers.push(logger);
    let unchecked = |action| {
        let body = pieces::ROUTE_UNCHECKED.body(&gateway.values.with("action", action));
        leading_comment(&body).1.to_owned()
    };
    let page = unchecked("route: {cluster: origin}");
    let rest = unchecked(
        "direct_response: {status: 404, body: {inline_string: \"the demo serves /, /live/{channel}, /finite?seconds=N, \
         /vod/demo/index.m3u8, /v1/users and /ws\\n\"}}",
    );
    let first = route("# The page with four players.\n", "{path: /}", &page);
    gateway.routes.insert(0, first);
    gateway.routes.push(route("", "{prefix: /}", &rest));
    let text = "# Envoy for the demo: a gateway in front of the dummy video backend that asks streamgate about each stream.\n\
         # A template: `demo` fills in ${GATEWAY_PORT}, ${GRPC_PORT}, ${HTTP_PORT}, ${BACKEND_PORT} and ${ADMIN_PORT}.\n\
         # It believes any `x-user-id` that a client sends, which is right for a demo only. For your own gateway use\n\
         # `streamgate envoy-config`.\n";
    let mut filled = gateway.whole(text);
    for word in ["cluster: ", "name: "] {
        filled = filled.replace(&format!("{word}origin"), &format!("{word}backend"));
    }
    for (port, name) in (1..).zip(DEMO_PORTS) {
        let place = format!("port_value: ${{{name}_PORT}}}}");
        filled = filled.replace(&format!("port_value: {port}}}"), &place);
    }
    hold("deploy/demo/envoy.yaml.in", &filled);
}
