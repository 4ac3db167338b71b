//! How many streams: the numbers for [`Policy`], and the grace that a start at the limit is given.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::tls;
use crate::config::load::error::Report;
use crate::config::load::value::{Written, Wrong};
use crate::config::load::words::Words;
use crate::config::load::yaml::Slot;
use crate::policy::Policy;
use crate::session::{IdError, PlanName, StartRules, UserId};

/// `limits`, as written.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct RawLimits {
    enforce: Option<Written>,
    default: Option<Written>,
    plans: Option<Written>,
    users: Option<Written>,
    users_file: Option<Written>,
    when_full: Option<Written>,
    displacements: Option<Written>,
    grace: Option<Written>,
    quiet: Option<Written>,
}

/// The limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// `limits.default`, `limits.plans` and `limits.users`
    pub policy: Policy,
    /// `limits.users_file`: a file with the limits of very many single users.
    pub users_file: Option<PathBuf>,
    /// `limits.enforce`: false is a dry run, in which all is decided and nothing refused. A route can say otherwise.
    pub enforce: bool,
    /// `limits.when_full`: what happens to a start at the limit that asks for nobody's slot.
    pub when_full: WhenFull,
    /// `limits.displacements`: how many starts of a user may displace in one burst, beyond as many as the limit; then one for each lease of
    /// a playback.
    pub displacements: u32,
    /// `limits.grace`: how long a start at the limit waits before its second try; zero refuses at once.
    pub grace: Duration,
    /// `limits.quiet`: how long a derived id that was ended against its viewer's will must stay silent before it may start again.
    pub quiet: Duration,
}

/// What happens to a start at the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// It is refused.
    Refuse,
    /// The session that started first gives way.
    DisplaceOldest,
    /// The session that has shown no sign of life for longest gives way.
    DisplaceIdlest,
}

/// The words of `limits.when_full`.
pub(in crate::config) const WHEN_FULL: Words<WhenFull> = Words {
    known: &[
        ("refuse", WhenFull::Refuse),
        ("displace_oldest", WhenFull::DisplaceOldest),
        ("displace_idlest", WhenFull::DisplaceIdlest),
    ],
    later: &[],
};

/// The words of `limits.enforce`.
pub(in crate::config) const TRUTHS: Words<bool> = Words {
    known: &[("true", true), ("false", false)],
    later: &[],
};

/// Nobody watches a thousand streams, and every admission looks at all of a user's.
pub(in crate::config) const LIMIT: std::ops::RangeInclusive<u32> = 0..=1000;

/// Above, Envoy has given up long before.
const GRACE: std::ops::RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(5);

/// At least a second, or a player that keeps asking would never be kept out.
const QUIET: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(3600);

impl RawLimits {
    pub(in crate::config) fn slots(&mut self) -> Vec<Slot<'_>> {
        vec![
            ("limits.enforce", &mut self.enforce),
            ("limits.default", &mut self.default),
            ("limits.plans", &mut self.plans),
            ("limits.users", &mut self.users),
            ("limits.users_file", &mut self.users_file),
            ("limits.when_full", &mut self.when_full),
            ("limits.displacements", &mut self.displacements),
            ("limits.grace", &mut self.grace),
            ("limits.quiet", &mut self.quiet),
        ]
    }

    pub(in crate::config) fn check(&self, report: &mut Report) -> Limits {
        let Limits {
            policy,
            users_file,
            enforce,
            when_full,
            displacements,
            grace,
            quiet,
        } = Limits::default();
        let plans = |written: &Written| {
            let plans = numbers("limits.plans", written, PlanName::parse);
            plans.map(BTreeMap::from_iter)
        };
        let users = |written: &Written| {
            let users = numbers("limits.users", written, UserId::parse);
            users.map(HashMap::from_iter)
        };
        Limits {
            policy: Policy {
                default: report.read(
                    "limits.default",
                    self.default.as_ref(),
                    policy.default,
                    |w| w.number(LIMIT),
                ),
                plans: report.read("limits.plans", self.plans.as_ref(), policy.plans, plans),
                users: report.read("limits.users", self.users.as_ref(), policy.users, users),
                listed: policy.listed,
            },
            users_file: report.read(
                "limits.users_file",
                self.users_file.as_ref(),
                users_file,
                |w| {
                    tls::path(w)
                        .map_err(|_| w.wrong("the path of a file with `name limit` on each line"))
                },
            ),
            enforce: report.read("limits.enforce", self.enforce.as_ref(), enforce, |w| {
                TRUTHS.read(w)
            }),
            when_full: report.read(
                "limits.when_full",
                self.when_full.as_ref(),
                when_full,
                |w| WHEN_FULL.read(w),
            ),
            displacements: report.read(
                "limits.displacements",
                self.displacements.as_ref(),
                displacements,
                |w| w.number(LIMIT),
            ),
            grace: report.read("limits.grace", self.grace.as_ref(), grace, |w| {
                w.duration(GRACE)
            }),
            quiet: report.read("limits.quiet", self.quiet.as_ref(), quiet, |w| {
                w.duration(QUIET)
            }),
        }
    }
}

/// The map of that key from names to limits.
fn numbers<Name: Eq + Hash>(
    key: &str,
    written: &Written,
    parse: impl Fn(&str) -> Result<Name, IdError>,
) -> Result<HashMap<Name, u32>, Wrong> {
    let entries = written.entries(key).ok_or_else(|| {
        written.wrong("a map of names to whole numbers, such as {basic: 1} in the file or basic=1 in the environment")
    })?;
    let mut numbers = HashMap::with_capacity(entries.len());
    for (name, limit) in entries {
        // A name with a control character in it must not reach a terminal as it is. A user's name may be a mail address.
        let shown = if name.contains("://") || name.contains(':') && name.contains('@') {
            "…".to_owned()
        } else {
            name.escape_debug().to_string()
        };
        let id = parse(&name).map_err(|error| {
            limit
                .refuse(format_args!("got the name \"{shown}\", which {error}"))
                .below(&shown)
        })?;
        let number = limit.number(LIMIT).map_err(|wrong| wrong.below(&shown))?;
        if numbers.insert(id, number).is_some() {
            return Err(limit.refuse("written twice; allowed: once").below(&shown));
        }
    }
    Ok(numbers)
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            policy: Policy::new(3),
            users_file: None,
            enforce: true,
            when_full: WhenFull::Refuse,
            displacements: StartRules::DISPLACEMENTS,
            grace: Duration::from_millis(250),
            quiet: StartRules::QUIET,
        }
    }
}
