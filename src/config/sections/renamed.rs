//! The keys that have new names in this version.

use crate::config::load::renamed::RenamedKey;

/// Every renamed key whose old name still works. Those of tests are made up.
pub(in crate::config) const RENAMED: &[RenamedKey] = &[
    #[cfg(test)]
    RenamedKey {
        old: "log.level",
        new: "telemetry.log_level",
        gone_in: "1000.1",
    },
    #[cfg(test)]
    RenamedKey {
        old: "limits.tiers",
        new: "limits.plans",
        gone_in: "1000.1",
    },
    #[cfg(test)]
    RenamedKey {
        old: "store.redis.addresses",
        new: "store.redis.urls",
        gone_in: "1000.1",
    },
];
