//! The integration tests, as one binary. Each module says what it shows; the crate `testkit` holds
//! what they share.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that can't go on has failed"
)]

// The stores, and Redis in particular.
mod store;
// The rule under attack, for unlucky viewers, and between instances that differ.
mod rule;
// Envoy's doors: checks and the access log.
mod envoy;
// The HTTP port.
mod http;
// The program as a process.
mod process;
// The main job on a real Envoy: ask, count, refuse, release at the stream's end.
mod e2e;
// Real players: what tells each of them as one playback, and what it does at a reload, a seek, a
// pause and another network.
mod players;
// The clients in `docs/clients/`, unchanged: curl, Python, Node, and a page in a real Chromium.
mod clients;
// The files in `deploy/` and `envoy/`, and the image.
mod deploy;
// The documents.
mod docs;
// Checks of the source itself.
mod source;
