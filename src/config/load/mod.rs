//! The generic loader: turns a file and the environment into checked values. It knows no key.
//!
//! [`yaml`] and [`environment`] fill a [`raw::Raw`] with what is written, each value with its
//! origin. The sections declare their keys through [`section`], each with its [`form`]; a
//! [`section::Reader`] passes every declared key and turns what is written into values. [`renamed`]
//! keeps old names of keys working. All problems go into one [`error::Report`].

pub(super) mod environment;
pub(super) mod error;
pub(super) mod file;
pub(super) mod form;
pub(super) mod origin;
pub(super) mod raw;
pub(super) mod redact;
pub(super) mod renamed;
pub(super) mod section;
pub(super) mod value;
pub(super) mod yaml;
