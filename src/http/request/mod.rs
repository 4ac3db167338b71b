//! Reads HTTP requests: the caller, the names in the URL, and the body.

pub(super) mod body;
pub(super) mod caller;
pub(super) mod foreign_page;
pub(super) mod path;
pub(super) mod tokens;

pub(crate) use path::escaped;
pub use tokens::Tokens;
