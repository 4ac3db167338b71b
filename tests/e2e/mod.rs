//! The product end to end: the real binary behind a real Envoy, with real clients. Each test is one sentence of what is promised.
//!
//! Times are measured from the event to its effect at the client and printed; what is demanded is ten times what is published.

// The HTTP API through the gateway: viewers reach their own sessions, and nobody else's.
mod api;
// What makes no sense is refused, counted, and takes no slot.
mod bad_input;
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
// How many streams a user may watch, and who is told what beyond that.
mod limit;
// Streams longer than their lease, redirected, asked about twice.
mod long_streams;
// streamgate stopped, killed, or one of several.
mod outages;
// Names of clusters that are no host names.
mod authority;
// HLS: many requests are one stream.
mod playbacks;
// Redis gone and come back, with each outage rule.
mod redis_outage;
// The files in `envoy/`, run: tokens, plans, fragments.
pub(crate) mod shipped_files;
// How soon a slot is free after each way in which a stream can end.
mod slot_free;
// What clients that aren't plain HTTP are told: gRPC, WebSockets; and where problems lead.
mod told;
// Changing channel at the limit.
mod zapping;
