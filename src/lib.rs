//! streamgate limits how many streams one user watches at once, in the path of an Envoy gateway.

pub mod session;

pub mod policy;

pub mod config;

pub mod clock;

pub mod problem;

pub mod store;

pub mod telemetry;

pub mod ledger;

pub mod releaser;

pub mod envoy;

pub mod http;

pub mod app;
pub mod lifecycle;

pub mod cli;

// The store that fails as told is shared with the integration tests, which know this crate by its name.
#[cfg(test)]
extern crate self as streamgate;
#[cfg(test)]
#[path = "../tests/support/faulty_store.rs"]
mod faulty_store;
