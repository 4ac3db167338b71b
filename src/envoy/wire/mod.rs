//! Envoy's messages: the check's request and answer as bytes, and what a request in either message shows of itself.

pub(super) mod attributes;
#[cfg(test)]
mod attributes_tests;
pub(super) mod denial;
pub(super) mod grpc_status;
mod metadata;
pub(super) mod request;
pub(super) mod response;
#[cfg(test)]
mod response_tests;
pub(super) mod service;
