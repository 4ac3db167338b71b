//! The integration tests, as one binary. Each module says what it shows; `support` holds what they share.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that can't go on has failed"
)]

mod support;

// The access log door over real gRPC: ends, sightings, and what arrives broken, late or twice.
mod access_log;
// The attacker's list: what a viewer may try for a stream more, or for another's slot, and what it gets.
mod attackers;
// The `ext_authz` door over real gRPC, with a store that fails as told.
mod authz;
// What a check costs streamgate, and how long it takes: a measurement.
mod check_cost;
// The commands that ask a running instance: what they print, their exit codes, where a token goes, TLS.
mod cli;
// The clients in `docs/clients/` as they stand there: curl, Python, Node, and a page in a real Chromium.
mod clients;
// Every key of the configuration at every documented value, on the real program.
mod config_matrix;
// The collection of requests, sent from top to bottom.
mod collection;
// The cookie of ours for players that say nothing: issued, brought back, ended, somebody else's.
mod cookie;
// Many who come, or leave, at once.
mod crowds;
// Whose slot a start gets at a full limit.
mod displacement;
// The image, compose.yaml and its Envoy, as far as that can be seen without a Docker engine.
mod deploy_files;
// `streamgate doctor` on real installations.
mod doctor;
// The dry run: nobody is refused, and what would have been is counted.
mod dry_run;
// The main job on a real Envoy: ask, count, refuse, release at the stream's end.
mod e2e;
// Floods: what one user, or very many, can take of memory and of others' room.
mod floods;
// Floods of HTTP/2 frames at the gRPC port: memory, and others' checks meanwhile.
mod grpc_floods;
// What `streamgate envoy-config` writes, in a real Envoy, and what `streamgate envoy-check` finds.
mod envoy_config;
// What can be said of the files in `envoy/` without starting Envoy.
mod envoy_files;
// The HTTP doors beside the API on sessions: the release hook, probes, metrics.
mod http;
// The pages for people at the HTTP port.
mod http_front;
// The HTTP API's callers: each role, each call, one's own user and another.
mod http_access;
// The operator's list of everybody's sessions, page by page.
mod http_list;

mod http_pages;
// The small API: videos, by HTTP Basic.
mod http_small;
// What all HTTP requests have in common: CORS, ids, limits, how they are counted.
mod http_wire;
// Connections to the HTTP port that are slow, silent, or many.
mod http_connections;
// The HTTP API on sessions: each call and each of its answers, on both stores, and in an outage.
mod http_sessions;
// An instance's life as a process: binding, readiness, the drain, signals, exit codes, the log.
mod lifecycle;
// Files import only what stands above them.
mod imports;
// Logging macros have no effects in their arguments.
mod log_macros;
// A log that can't be written, or that nobody reads.
mod log_unwritable;
// The OpenAPI document: as it is committed, as the service answers, and as a fuzzer that reads it finds the service.
mod openapi;
// Real players: what tells each of them as one playback, and what it does at a reload, a seek, a pause and another network.
mod players;
// The documents: their links, how long their sentences are, what they have to paste into a shell.
mod documents;
mod readme_commands;
mod readme_sentences;
// The names that versions promise: metrics, configuration keys, reasons.
mod promises;
// The committed descriptors are those of the protocol.
mod reflection_descriptors;
// The files for Prometheus and Grafana: alerts that fire and clear, and a dashboard whose every query returns data.
mod prometheus;
// A Redis that sentinels watch: which server is used, and what a failover costs.
mod redis_sentinel;
// The service on a real Redis in trouble: what everybody gets by each outage rule, and that all is well again without a restart.
mod redis_trouble;
// What a store has to do, whatever it is made of.
mod store_contract;
// The configuration followed while the process runs.
mod reload;
// Followed files that were emptied or cut off, and the list of users' limits.
mod followed_files;
// Random operations on every store and on the rule itself, compared step by step.
mod store_model;
// Instances whose versions of records differ, on one Redis.
mod record_versions;
// What is Redis's own: outages, deadlines, a full server, foreign data.
mod store_redis;
// The listing of everybody by pages on Redis: other data beside ours, what it costs, rights.
mod store_pages;
// Each fault that a Redis or the way to it can have: what the store says, and how it goes on.
mod store_faults;
// Many viewers at once while Redis forgets, stands still, or is just to be left in peace.
mod redis_load;
// What refusals tell at both doors: of others, and where problems are explained.
mod told;
// The rule under attack, for unlucky viewers, and between instances that differ.
mod rule;
// TLS on both ports, with and without client certificates, and certificates that are replaced while all goes on.
mod tls;
// What Redis costs; a measurement, run by hand.
mod store_cost;
