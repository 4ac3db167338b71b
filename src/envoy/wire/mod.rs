//! Envoy's messages: the check's request and answer as bytes, and a request's attributes in either
//! message.

pub(super) mod attributes;
#[cfg(test)]
mod attributes_tests;
pub(super) mod denial;
mod fields;
pub(super) mod grpc_status;
mod metadata;
pub(super) mod request;
pub(super) mod response;
#[cfg(test)]
mod response_tests;
pub(super) mod service;
#[cfg(test)]
mod service_tests;
