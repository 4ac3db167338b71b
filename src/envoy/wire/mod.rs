//! Envoy's messages: the check's request and answer and the access log as bytes, and a request's
//! attributes in either message.

pub(super) mod attributes;
#[cfg(test)]
mod attributes_tests;
pub(super) mod denial;
pub(super) mod entry;
mod fields;
pub(super) mod grpc_status;
pub(super) mod log_service;
mod metadata;
pub(super) mod request;
pub(super) mod response;
#[cfg(test)]
mod response_tests;
pub(super) mod service;
#[cfg(test)]
mod service_tests;
