//! The HTTP API of a running instance, as `sessions`, `release` and `doctor` ask it.
//!
//! One question, one answer, each within bounds of time and size. What an answer means for the exit code, and what is told of one that was
//! not hoped for, is the same for all commands and decided here.

mod answer;
mod api;
mod base;
mod token;

pub(super) use answer::{ApiResponse, Disappointment};
pub(super) use api::{AccessArgs, Api, ApiArgs};
