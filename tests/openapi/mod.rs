//! The OpenAPI document, and whether the service keeps to it.

// What it says, against the code and against the service.
mod document;
