//! Checks of the listener and of the HTTP connection manager's own settings.

use super::envoy::Manager;
use super::finding::Findings;
use super::node::At;

/// The piece that most of these are in.
const PIECE: &str = "http_connection_manager";

/// The longest time between two reports of a running stream: a third of `leases.request` (15 s).
const FLUSH_SECONDS: f64 = 5.0;

/// Linux's numbers of the socket options that notice a client without a network.
const SOCKET_OPTIONS: [(f64, f64, &str); 2] =
    [(1.0, 9.0, "SO_KEEPALIVE"), (6.0, 18.0, "TCP_USER_TIMEOUT")];

/// Checks the listener.
pub(super) fn listener(manager: &Manager<'_>, findings: &mut Findings) {
    let listener = &manager.listener;
    if listener.find(&["address", "socket_address"]).is_none() {
        return;
    }
    let options = listener.list("socket_options");
    let number = |option: &At<'_>, name| option.get(name).and_then(|it| it.number());
    for (level, name, called) in SOCKET_OPTIONS {
        let has = options.iter().any(|option| {
            number(option, "level") == Some(level) && number(option, "name") == Some(name)
        });
        findings.need(
            has,
            listener,
            "socket_options",
            "listener",
            &format!("{called} is not set: a client that loses its network holds its slot until the connection breaks"),
        );
    }
}

/// Checks the settings that decide which paths, ids and times a request has.
pub(super) fn settings(manager: &Manager<'_>, findings: &mut Findings) {
    let at = &manager.settings;
    for name in ["normalize_path", "merge_slashes"] {
        findings.need(
            at.is(name, true),
            at,
            name,
            PIECE,
            &format!(
                "{name} is not true: /open/../live/1 takes the route of /open and plays uncounted"
            ),
        );
    }
    let slashes = at.text_of("path_with_escaped_slashes_action");
    findings.need(
        ["REJECT_REQUEST", "UNESCAPE_AND_REDIRECT", "UNESCAPE_AND_FORWARD"].contains(&slashes),
        at,
        "path_with_escaped_slashes_action",
        PIECE,
        "path_with_escaped_slashes_action lets %2F pass: a path may be one route to Envoy and another one to the origin",
    );
    if !at.is("use_remote_address", true) {
        findings.add(
            at,
            "use_remote_address",
            None,
            "use_remote_address is not true: clients write their own x-forwarded-for, x-envoy-* and request id; set it, and \
             xff_num_trusted_hops to the number of proxies in front of this Envoy",
        );
    }
    let pack = at.find(&["request_id_extension", "typed_config"]);
    findings.need(
        pack.is_some_and(|it| it.is("pack_trace_reason", false)),
        at,
        "request_id_extension",
        PIECE,
        "pack_trace_reason is not false: tracing changes the request id between the check and the log, and ends find no stream",
    );
    times(at, findings);
}

/// Checks what ends silent streams, and what reports running ones.
fn times(at: &At<'_>, findings: &mut Findings) {
    let idle = at.get("stream_idle_timeout").and_then(|it| it.seconds());
    findings.need(
        idle.is_some_and(|seconds| seconds > 0.0),
        at,
        "stream_idle_timeout",
        PIECE,
        "stream_idle_timeout is unset or 0: a client that has stopped reading holds its slot for 5 minutes, or for ever",
    );
    let keepalive = at.find(&["http2_protocol_options", "connection_keepalive"]);
    findings.need(
        keepalive.is_some(),
        at,
        "http2_keepalive",
        PIECE,
        "http2_protocol_options has no connection_keepalive: an HTTP/2 client that loses its network holds its slots",
    );
    let flush = at
        .find(&["access_log_options", "access_log_flush_interval"])
        .or_else(|| at.get("access_log_flush_interval"));
    let told = match flush.as_ref().and_then(At::seconds) {
        Some(seconds) if seconds > 0.0 && seconds <= FLUSH_SECONDS => return,
        Some(seconds) => format!(
            "access_log_flush_interval is {seconds} s: two of three reports may come too late for leases.request (15 s); \
             set 5s, or a third of your leases.request"
        ),
        None => "access_log_flush_interval is unset: running streams are never reported, so their leases expire and the limit \
                 does not hold"
            .to_owned(),
    };
    let place = flush.as_ref().unwrap_or(at);
    findings.add(place, "periodic", Some(PIECE), told);
}
