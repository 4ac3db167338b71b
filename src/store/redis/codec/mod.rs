//! The binary form of records, questions and answers in Redis.

pub(super) mod keys;
pub(super) mod layout;
pub(super) mod question;
pub(super) mod record;
pub(super) mod reply;
pub(super) mod script;
mod text;
