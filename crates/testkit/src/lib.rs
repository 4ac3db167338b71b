//! The kit of the integration tests and measurements: it starts real parts (streamgate as a process
//! or inside the test, Envoy, Redis, browsers), speaks their protocols, and waits for what they do.
//!
//! What fails here fails the test that called it, so functions panic instead of returning errors.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "what fails here fails its test"
)]

pub mod api;
pub mod app;
pub mod axe;
pub mod chromium;
pub mod cluster;
pub mod console;
pub mod docs;
pub mod envoy_files;
pub mod flood;
pub mod frames;
pub mod gateway;
pub mod gateway_client;
pub mod log;
pub mod origin;
pub mod pki;
pub mod port;
pub mod process;
pub mod prometheus;
pub mod proxy;
pub mod redis;
pub mod sentinel;
pub mod stack;
pub mod streamgate;
pub mod streams;
pub mod talk;
pub mod tools;
pub mod viewers;
pub mod watch;
pub mod wire;
