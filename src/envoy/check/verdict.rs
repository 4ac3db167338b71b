//! The metrics' label for the answer to a check.

use crate::config::OutageRule;
use crate::identity::claim::ClaimError;
use crate::ledger::Basis;
use crate::session::{AdmissionKind, EndCause, Refusal};
use crate::telemetry::metrics::Verdict;

/// The label of a stream that was let in.
pub(in crate::envoy) const fn admitted(entry: AdmissionKind, basis: Basis) -> Verdict {
    match (entry, basis) {
        (_, Basis::HeldLease) => Verdict::Held,
        (_, Basis::Rule(OutageRule::Local)) => Verdict::OutageLocal,
        (_, Basis::Rule(OutageRule::Allow | OutageRule::Deny)) => Verdict::OutageAllowed,
        (AdmissionKind::Started, Basis::Store) => Verdict::Started,
        (AdmissionKind::Renewed, Basis::Store) => Verdict::Renewed,
    }
}

/// The label of a stream that was refused.
pub(in crate::envoy) const fn refused(refusal: &Refusal, basis: Basis) -> Verdict {
    match refusal {
        Refusal::Full { .. } if matches!(basis, Basis::Rule(_)) => Verdict::FullLocal,
        Refusal::Full { .. } => Verdict::Full,
        Refusal::NotStoppable => Verdict::NotStoppable,
        Refusal::Ended(EndCause::Released, ..) => Verdict::Ended,
        Refusal::Ended(EndCause::Displaced { .. }, ..) => Verdict::Displaced,
        Refusal::Ended(EndCause::Operator, ..) => Verdict::Operator,
    }
}

/// The label of a request that the ledger was not asked about.
pub(in crate::envoy) const fn rejected(error: &ClaimError) -> Verdict {
    match error {
        ClaimError::NoUser => Verdict::NoUser,
        ClaimError::NoSession => Verdict::NoSession,
        ClaimError::Malformed { .. } => Verdict::Malformed,
        ClaimError::NotHttp | ClaimError::Misconfigured(..) => Verdict::Misconfigured,
    }
}
