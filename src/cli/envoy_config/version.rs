//! Which Envoy the file is for, and what that version lacks.

use clap::ValueEnum;

/// Envoy's versions that streamgate runs behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(super) enum EnvoyVersion {
    /// The oldest that was run.
    #[value(name = "1.36")]
    V1_36,
    /// The first that understands how streamgate answers in an outage.
    #[value(name = "1.37")]
    V1_37,
    /// As 1.37.
    #[value(name = "1.38")]
    V1_38,
    /// The first that keeps ends while streamgate is down.
    #[value(name = "1.39")]
    V1_39,
    /// The newest that was run.
    #[value(name = "1.40")]
    V1_40,
}

impl EnvoyVersion {
    /// What it lacks, a sentence for each.
    pub(super) fn lacks(self) -> Vec<&'static str> {
        let mut lacks = Vec::new();
        if self < Self::V1_37 {
            lacks.push(
                "before Envoy 1.37, an outage of the store is answered with an empty 403 instead of 503 \
                 (with store.outage: deny)",
            );
        }
        if self < Self::V1_39 {
            lacks.push(
                "before Envoy 1.39, ends of streams are lost while streamgate is down; their slots stay \
                 taken for leases.request",
            );
        }
        lacks
    }
}
