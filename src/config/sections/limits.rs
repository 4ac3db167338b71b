//! How many streams a user may watch ([`Policy`]), and what happens to a start at a full limit.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::hash::Hash;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::load::form::{Form, NotAPath, Words, duration, file, number, path};
use crate::config::load::redact::{Hides, is_more_than_mail, may_hold_a_secret};
use crate::config::load::section::{Key, Keys};
use crate::config::load::value::{RawValue, Wrong};
use crate::identity::{IdError, PlanName, UserId};
use crate::policy::Policy;
use crate::session::StartRules;

/// The limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// `limits.default`, `limits.plans` and `limits.users`
    pub policy: Policy,
    /// `limits.users_file`: a file with the limits of very many single users.
    pub users_file: Option<PathBuf>,
    /// `limits.enforce`: false is a dry run, which decides and counts, but refuses nothing. A route
    /// can override it.
    pub enforce: bool,
    /// `limits.when_full`: what happens to a start at a full limit that asks for no takeover.
    pub when_full: FullRule,
    /// `limits.displacements`: how many starts of a user may displace in one burst, on top of the
    /// limit; then one for each lease of a playback.
    pub displacements: u32,
    /// `limits.grace`: how long a start at a full limit may wait for a slot. Zero: not at all.
    pub grace: Duration,
    /// `limits.quiet`: how long a derived id that was displaced, or ended by an operator, must stay
    /// quiet before it may start again.
    pub quiet: Duration,
}

/// What happens to a start at a full limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FullRule {
    /// It is refused.
    Refuse,
    /// The session that started first gives way.
    DisplaceOldest,
    /// The session that has shown no sign of life for longest gives way.
    DisplaceIdlest,
}

/// The words of `limits.when_full`.
pub(in crate::config) const WHEN_FULL: Words<FullRule> = Words {
    known: &[
        ("refuse", FullRule::Refuse),
        ("displace_oldest", FullRule::DisplaceOldest),
        ("displace_idlest", FullRule::DisplaceIdlest),
    ],
};

/// The words of `limits.enforce`.
pub(in crate::config) const TRUTHS: Words<bool> = Words {
    known: &[("true", true), ("false", false)],
};

/// Nobody watches a thousand streams, and each admission looks at all sessions of its user.
pub(in crate::config) const LIMIT: std::ops::RangeInclusive<u32> = 0..=1000;

impl Limits {
    /// Declares the keys of `limits`.
    pub(in crate::config) fn keys(&mut self, keys: &mut impl Keys) {
        keys.key(
            Key::new("limits.enforce", "`false` is a [dry run][dry-run].")
                .live()
                .shared(),
            TRUTHS.form(),
            &mut self.enforce,
        );
        self.allowances(keys);
        self.at_the_limit(keys);
    }

    /// Declares the keys that say how many streams a user may watch.
    fn allowances(&mut self, keys: &mut impl Keys) {
        keys.key(
            Key::new(
                "limits.default",
                "How many streams a user without another limit may watch at once.",
            )
            .live()
            .shared(),
            number(LIMIT),
            &mut self.policy.default,
        );
        keys.key(
            Key::new(
                "limits.plans",
                "The limits of plans. A plan that is not listed gets the default, is counted, and logged once. \
                 Where there are plans, a request without one is counted too, unless its user has a limit \
                 of their own (`streamgate_missing_plan_total`).",
            )
            .live()
            .shared(),
            Form::map(
                "a map such as `{basic: 1, premium: 4}`, each limit 0 to 1000",
                may_hold_a_secret,
                |written| numbers(written, may_hold_a_secret, PlanName::parse),
                |plans: &BTreeMap<_, _>| entries(plans.iter()),
            ),
            &mut self.policy.plans,
        );
        keys.key(
            Key::new(
                "limits.users",
                "The limits of single users; they beat the plan's.",
            )
            .live()
            .shared(),
            Form::map(
                "a map such as `{anna: 5}`, each limit 0 to 1000",
                is_more_than_mail,
                |written| numbers(written, is_more_than_mail, UserId::parse),
                |users: &HashMap<_, _>| entries(users.iter()),
            ),
            &mut self.policy.users,
        );
        keys.key(
            Key::new(
                "limits.users_file",
                "The same for a million users and more, see [Limits of very many users][users-file].",
            ),
            file(|written| {
                let allowed = "the path of a file with `name limit` on each line";
                path(written).map_err(|NotAPath| written.wrong(allowed))
            }),
            &mut self.users_file,
        );
    }

    /// Declares the keys that say what happens to a start at a full limit.
    fn at_the_limit(&mut self, keys: &mut impl Keys) {
        keys.key(
            Key::new(
                "limits.when_full",
                "What happens to a start at a full limit that asks for no particular slot: it is refused, or the \
                 oldest session gives way, or the one that has shown no sign of life for longest \
                 (`displace_idlest`). Playbacks and videos give way, never a running `request`.",
            )
            .live()
            .shared(),
            WHEN_FULL.form(),
            &mut self.when_full,
        );
        keys.key(
            Key::new(
                "limits.displacements",
                "How many starts of a user may displace other sessions in one burst, on top of the limit; \
                 then one per `leases.playback`. See [The rule][rule].",
            )
            .live()
            .shared(),
            number(LIMIT),
            &mut self.displacements,
        );
        keys.key(
            Key::new(
                "limits.grace",
                "How long a start at a full limit may wait for a slot; at most half of what Envoy's deadline \
                 leaves. `0s`: not at all.",
            )
            .live(),
            // With a longer one, Envoy would give up first.
            duration(Duration::ZERO..=Duration::from_secs(5)),
            &mut self.grace,
        );
        keys.key(
            Key::new(
                "limits.quiet",
                "How long a derived id that was displaced or ended by an operator must stay quiet before it \
                 may start again. In effect at most as long as its end is remembered: the longest lease + \
                 `store.timeout` + 1 s.",
            )
            .live()
            .shared(),
            // At least a second: a shorter time would never keep out a player that asks repeatedly.
            duration(Duration::from_secs(1)..=Duration::from_secs(3600)),
            &mut self.quiet,
        );
    }
}

/// The entries of a map of limits, sorted by name.
fn entries<'a, Name: Ord + Display + 'a>(
    limits: impl Iterator<Item = (&'a Name, &'a u32)>,
) -> Vec<(String, String)> {
    let mut limits: Vec<_> = limits.collect();
    limits.sort();
    let limits = limits.into_iter();
    limits
        .map(|(name, limit)| (name.to_string(), limit.to_string()))
        .collect()
}

/// Reads a map of names to limits; `hides` says which names may hold a secret.
fn numbers<Name: Eq + Hash, Map: FromIterator<(Name, u32)>>(
    written: &RawValue,
    hides: Hides,
    parse: impl Fn(&str) -> Result<Name, IdError>,
) -> Result<Map, Wrong> {
    let entries = written.entries(hides).ok_or_else(|| {
        written.wrong("a map of names to whole numbers, such as {basic: 1} in the file or basic=1 in the environment")
    })?;
    let mut numbers = HashMap::with_capacity(entries.len());
    for (name, limit) in entries {
        // A control character must not reach a terminal. A user's name may be a mail address.
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
    Ok(numbers.into_iter().collect())
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            policy: Policy::new(3),
            users_file: None,
            enforce: true,
            when_full: FullRule::Refuse,
            displacements: StartRules::DISPLACEMENTS,
            grace: Duration::from_millis(250),
            quiet: StartRules::QUIET,
        }
    }
}
