//! The product end to end: the real binary behind a real Envoy, with real clients. Each test is one
//! promise of the documents.
//!
//! Times are measured from the event to its effect at the client, and printed; the bound is ten
//! times the published value.

// The HTTP API through the gateway: viewers reach only their own sessions.
mod api;
// What makes no sense is refused, counted, and takes no slot.
mod bad_input;
// The console, with viewers behind Envoy.
mod console;
// Players that say nothing, and the cookie that names them.
mod cookies;
// The check that a newcomer runs.
mod demo;
// The demo's page, in a browser.
mod demo_page;
// From a refusal's request id to its holders, and where they began.
mod explained;
// Users who are named by Basic, and by their certificates.
mod identities;
// Clients that leave while streamgate is being asked.
mod leavers;
// How many streams a user may watch, and the answers beyond that.
mod limit;
// Streams longer than their lease, redirected, asked about twice.
mod long_streams;
// streamgate stopped, killed, or one of several.
mod outages;
// Names of clusters that are no host names.
mod authority;
// HLS: many requests are one stream.
mod playbacks;
// A Redis Cluster whose slots move, and whose masters are exchanged or killed.
mod redis_cluster;
// Redis gone and come back, with each outage rule.
mod redis_outage;
// The files in `envoy/`, run: tokens, plans, fragments.
pub(crate) mod shipped_files;
// How soon a slot is free after each way in which a stream can end.
mod slot_free;
// Answers to clients that aren't plain HTTP (gRPC, WebSockets), and the addresses of problems.
mod told;
// Changing channel at the limit.
mod zapping;
