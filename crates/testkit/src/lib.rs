//! What several test modules need.

pub(crate) mod api;
pub(crate) mod app;
pub(crate) mod axe;
#[path = "../../deploy/demo/backend.rs"]
pub(crate) mod backend;
pub(crate) mod chromium;
pub(crate) mod docs;
pub(crate) mod envoy_files;
pub(crate) mod faulty_store;
pub(crate) mod frames;
pub(crate) mod gateway;
pub(crate) mod gateway_client;
pub(crate) mod log;
pub(crate) mod origin;
pub(crate) mod pki;
pub(crate) mod port;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod redis;
pub(crate) mod sentinel;
pub(crate) mod service;
pub(crate) mod stack;
pub(crate) mod streamgate;
pub(crate) mod streams;
pub(crate) mod talk;
pub(crate) mod viewers;
pub(crate) mod watch;
pub(crate) mod wire;

use std::time::Duration;

use ::streamgate::clock::Stopwatch;

/// Waits until that is so, looking again and again; fails after ten seconds.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let waiting = Stopwatch::start();
    while !holds().await {
        assert!(
            waiting.elapsed() < Duration::from_secs(10),
            "not within ten seconds: {what}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
