//! What both doors do once the ledger has decided: apply a dry run, log, and undo starts that
//! nobody waits for. The doors themselves only encode.

mod outcome;
mod start_rollback;
#[cfg(test)]
mod start_rollback_tests;
mod uninterrupted;

pub use outcome::DecisionLog;
pub(crate) use outcome::{DecisionOutcome, LedgerAnswer, RequestContext};
pub(crate) use start_rollback::StartRollback;
pub(crate) use uninterrupted::Uninterrupted;
