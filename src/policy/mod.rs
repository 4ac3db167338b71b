//! How many streams a user may watch at once: the limits and their precedence, and nothing else.
//!
//! Pure functions. This module reads no configuration, and its caller counts and logs what it
//! reports. If several limits could apply, the most specific wins: the user's own, then their
//! plan's, then the default.

mod listed;

pub use listed::{Entry, NamedTwice, UserLimits};

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::identity::{PlanName, UserId};

/// The limits of all users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The limit of all other users.
    pub default: u32,
    /// The limit of each plan.
    pub plans: BTreeMap<PlanName, u32>,
    /// Single users' own limits. They take precedence over the plan, even if the plan's is higher.
    pub users: HashMap<UserId, u32>,
    /// The same for a great many users, from a file of its own. A user is in only one of the two.
    pub listed: Arc<UserLimits>,
}

/// A user has two limits of their own, and we can't know which was meant.
///
/// The line says who that is. As with all errors about the file, the log shows nobody's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: this user has a limit in limits.users too; delete one of the two")]
pub struct TwoLimits {
    /// The line of `limits.users_file`.
    pub line: usize,
}

/// The limit of one user, and whether anything was odd about the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resolved {
    /// How many streams the user may watch at once; 0 allows none.
    pub limit: u32,
    /// Whether the named plan exists. The caller counts an unknown one, and logs each name once.
    pub plan: PlanMatch,
}

/// Where a configured limit comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitSource {
    /// The user has a limit of their own.
    User,
    /// Their plan has one.
    Plan,
    /// Neither: it is everybody else's.
    Default,
}

/// The result of looking up a plan by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlanMatch {
    /// No plan was named, and none was needed: the policy has none, or the user has a limit of
    /// their own.
    NotNamed,
    /// No plan was named although the policy has some: the default applies. That is right for users
    /// without a plan, and happens to all users if the plan is looked for in the wrong place. The
    /// caller counts it.
    Missing,
    /// The plan is one of the policy's.
    Known,
    /// The policy has no such plan: a typing error, or a plan newer than the configuration.
    Unknown,
}

// === impl Policy ===

impl Policy {
    /// A policy with one limit for all users.
    #[must_use]
    pub fn new(default: u32) -> Self {
        Self {
            default,
            plans: BTreeMap::new(),
            users: HashMap::new(),
            listed: Arc::default(),
        }
    }

    /// Checks that no listed user also has a limit in `users`.
    ///
    /// # Errors
    /// The first line that names such a user.
    pub fn check_against(&self, listed: &UserLimits) -> Result<(), TwoLimits> {
        match listed.first_of(&self.users) {
            None => Ok(()),
            Some(line) => Err(TwoLimits { line }),
        }
    }

    /// What applies to this user on this plan.
    ///
    /// An unknown plan gets the default: refusing a paying viewer, or not limiting them at all,
    /// would both be worse than a wrong number. It is reported even if the user's own limit hides
    /// its effect.
    #[must_use]
    pub fn allowance(&self, user: &UserId, plan: Option<&PlanName>) -> Resolved {
        let own = self.users.get(user).copied();
        let own = own.or_else(|| self.listed.get(user.as_str()));
        let (of_plan, plan) = match plan.map(|name| self.plans.get(name)) {
            None if own.is_some() || self.plans.is_empty() => (None, PlanMatch::NotNamed),
            None => (None, PlanMatch::Missing),
            Some(Some(limit)) => (Some(*limit), PlanMatch::Known),
            Some(None) => (None, PlanMatch::Unknown),
        };
        let limit = own.or(of_plan).unwrap_or(self.default);
        Resolved { limit, plan }
    }

    /// Where the limit of this user on this plan comes from.
    #[must_use]
    pub fn source(&self, user: &UserId, plan: Option<&PlanName>) -> LimitSource {
        if self.users.contains_key(user) || self.listed.get(user.as_str()).is_some() {
            LimitSource::User
        } else if plan.is_some_and(|plan| self.plans.contains_key(plan)) {
            LimitSource::Plan
        } else {
            LimitSource::Default
        }
    }
}

// === impl LimitSource ===

impl LimitSource {
    /// The word in the HTTP API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Plan => "plan",
            Self::Default => "default",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Stopwatch;

    fn user(name: &str) -> UserId {
        UserId::parse(name).unwrap()
    }

    fn plan(name: &str) -> PlanName {
        PlanName::parse(name).unwrap()
    }

    #[test]
    fn the_nearest_number_to_the_user_wins() {
        let policy = Policy {
            default: 3,
            plans: BTreeMap::from([
                (plan("basic"), 1),
                (plan("premium"), 5),
                (plan("paused"), 0),
            ]),
            users: HashMap::from([(user("vip"), 9), (user("banned"), 0)]),
            ..Policy::new(3)
        };
        use PlanMatch::{Known, Missing, NotNamed, Unknown};
        for (who, on, limit, matched) in [
            ("anna", None, 3, Missing),
            ("anna", Some("basic"), 1, Known),
            ("anna", Some("premium"), 5, Known),
            ("anna", Some("paused"), 0, Known),
            ("anna", Some("gold"), 3, Unknown),
            ("anna", Some("Premium"), 3, Unknown),
            ("vip", None, 9, NotNamed),
            ("vip", Some("basic"), 9, Known),
            ("vip", Some("gold"), 9, Unknown),
            ("banned", None, 0, NotNamed),
            ("banned", Some("premium"), 0, Known),
        ] {
            let expected = Resolved {
                limit,
                plan: matched,
            };
            let (who, on) = (user(who), on.map(plan));
            let resolved = policy.allowance(&who, on.as_ref());
            assert_eq!(resolved, expected, "{who} on {on:?}");
            let of_source = match policy.source(&who, on.as_ref()) {
                LimitSource::User => policy.users.get(&who),
                LimitSource::Plan => on.as_ref().and_then(|plan| policy.plans.get(plan)),
                LimitSource::Default => Some(&policy.default),
            };
            assert_eq!(of_source, Some(&limit), "{who} on {on:?}");
        }
    }

    #[test]
    fn a_user_and_a_plan_of_one_name_are_two_things() {
        let policy = Policy {
            plans: BTreeMap::from([(plan("gold"), 7)]),
            ..Policy::new(2)
        };
        assert_eq!(policy.allowance(&user("gold"), None).limit, 2);
    }

    #[test]
    fn a_default_of_zero_allows_only_named_users() {
        let policy = Policy {
            users: HashMap::from([(user("anna"), 1)]),
            ..Policy::new(0)
        };
        let anna = policy.allowance(&user("anna"), None);
        assert_eq!((anna.limit, anna.plan), (1, PlanMatch::NotNamed));
        let bert = policy.allowance(&user("bert"), None);
        assert_eq!(
            (bert.limit, bert.plan),
            (0, PlanMatch::NotNamed),
            "there are no plans"
        );
    }

    #[test]
    fn the_first_line_of_very_many_clashes_is_found_soon() {
        let names: Vec<_> = (0..100_000).map(|n| format!("user {n:06}")).collect();
        let (mut text, mut entries) = (String::new(), Vec::new());
        for name in &names {
            let place = text.len()..text.len() + name.len();
            entries.push(Entry::new(&place, 1).unwrap());
            text.push_str(name);
            text.push_str(" 1\n");
        }
        let listed = UserLimits::new(text.into(), entries).unwrap();
        let policy = Policy {
            users: names.iter().skip(6).map(|name| (user(name), 2)).collect(),
            ..Policy::new(1)
        };
        let asked = Stopwatch::start();
        assert_eq!(policy.check_against(&listed), Err(TwoLimits { line: 7 }));
        let took = asked.elapsed();
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
}
