//! The generic loader: a file and the environment, turned into values that know where they were written. It knows no key.

pub(in crate::config) mod environment;
pub(in crate::config) mod error;
pub(in crate::config) mod redact;
pub(in crate::config) mod value;
pub(in crate::config) mod words;
pub(in crate::config) mod yaml;
