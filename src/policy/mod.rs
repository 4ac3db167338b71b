//! How many streams a user may watch at once: the numbers and their precedence, and nothing else.
//!
//! Pure: it is asked and answers. It reads no configuration, and leaves it to its caller to count and to log what it
//! reports. Where two numbers could apply, the nearer to the user wins: their own, then their plan's, then the default.

mod listed;

pub use listed::{Entry, NamedTwice, UserLimits};

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::session::{PlanName, UserId};

/// The limits of all users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The limit of everybody else.
    pub default: u32,
    /// The limit of each plan.
    pub plans: BTreeMap<PlanName, u32>,
    /// Single users' own limits; they beat the plan, whichever of the two is higher.
    pub users: HashMap<UserId, u32>,
    /// The same for very many users, from a file of its own. A user is in one of the two only.
    pub listed: Arc<UserLimits>,
}

/// A user with two limits of their own: nobody can know which was meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "line {line}: the user \"{}\" has a limit in limits.users too; delete one of the two",
    user.as_str().escape_debug()
)]
pub struct TwoLimits {
    /// Who that is.
    pub user: UserId,
    /// The line of `limits.users_file`.
    pub line: usize,
}

/// The answer to who may watch how much, and what was odd about the question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resolved {
    /// How many streams the user may watch at once; 0 allows none.
    pub limit: u32,
    /// Whether the plan that was named exists. An unknown one is for the caller to count, and to log once a name.
    pub plan: PlanMatch,
}

/// What became of the name of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlanMatch {
    /// No plan was named, and none was needed: the policy has none, or the user has a limit of their own.
    NotNamed,
    /// No plan was named though the policy has some: the default applies, as is meant for users without a plan, and as happens to all
    /// where the plan is looked for in the wrong place. For the caller to count.
    Missing,
    /// The plan is one of the policy's.
    Known,
    /// The policy has no such plan: a typing error, or a plan newer than the configuration.
    Unknown,
}

// === impl Policy ===

impl Policy {
    /// A policy with one limit for everybody.
    #[must_use]
    pub fn new(default: u32) -> Self {
        Self {
            default,
            plans: BTreeMap::new(),
            users: HashMap::new(),
            listed: Arc::default(),
        }
    }

    /// Makes sure that a list names nobody who also has a limit in `users`.
    ///
    /// # Errors
    /// It does; the first line that does.
    pub fn check_against(&self, listed: &UserLimits) -> Result<(), TwoLimits> {
        match listed.first_of(self.users.keys()) {
            None => Ok(()),
            Some((user, line)) => Err(TwoLimits {
                user: user.clone(),
                line,
            }),
        }
    }

    /// What applies to this user, who is on this plan.
    ///
    /// An unknown plan gets the default: turning a paying viewer away, or letting them watch without limit, would both be
    /// worse than a wrong number. It is reported even where the user's own limit hides its effect.
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
            assert_eq!(
                policy.allowance(&user(who), on.map(plan).as_ref()),
                expected,
                "{who} on {on:?}"
            );
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
    fn a_default_of_zero_allows_nobody_but_those_named() {
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
        let two_limits = TwoLimits {
            user: user("user 000006"),
            line: 7,
        };
        assert_eq!(policy.check_against(&listed), Err(two_limits));
        let took = asked.elapsed();
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
}
