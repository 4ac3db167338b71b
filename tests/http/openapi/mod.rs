//! The OpenAPI document, and whether the service keeps to it.

// What it says, against the code and against the service.
mod document;
// What schemathesis finds in a running service, and whether the document is one.
mod fuzz;
