//! The settings that may change while the process runs: limits, and what a refusal tells, and whose starts are logged.

use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use super::{Config, Limits, RefusalSettings, Share, Telemetry};
use crate::policy::{TwoLimits, UserLimits};
use crate::util::lock;

/// What may change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changeable {
    /// `limits`
    pub limits: Limits,
    /// `refusal`
    pub refusal: RefusalSettings,
    /// `telemetry.log_starts`
    pub log_starts: Share,
}

/// What applies now. Whoever decides something reads it once, so that all of one decision is by the same settings.
#[derive(Debug, Default)]
pub struct InForce {
    /// What applies.
    now: watch::Sender<Arc<Changeable>>,
    /// Held while a change is prepared, so that changes happen one after the other.
    changing: Mutex<()>,
}

impl Changeable {
    /// That part of a configuration.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self {
            limits: config.limits.clone(),
            refusal: config.refusal.clone(),
            log_starts: config.telemetry.log_starts,
        }
    }
}

impl Default for Changeable {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            refusal: RefusalSettings::default(),
            log_starts: Telemetry::default().log_starts,
        }
    }
}

impl InForce {
    /// Those settings, until others are put in their place.
    #[must_use]
    pub fn new(settings: Changeable) -> Self {
        Self {
            now: watch::Sender::new(Arc::new(settings)),
            changing: Mutex::default(),
        }
    }

    /// What applies now.
    #[must_use]
    pub fn now(&self) -> Arc<Changeable> {
        Arc::clone(&self.now.borrow())
    }

    /// Replaces the settings for everything that is decided from now on. The list of `limits.users_file` stays.
    ///
    /// # Errors
    /// A user is both in `limits.users` and in that list. Nothing has changed then.
    pub fn change(&self, mut settings: Changeable) -> Result<(), TwoLimits> {
        self.replace(|now| {
            let listed = &now.limits.policy.listed;
            settings.limits.policy.check_against(listed)?;
            settings.limits.policy.listed = Arc::clone(listed);
            Ok(settings)
        })
    }

    /// Replaces the list of `limits.users_file`, and nothing else.
    ///
    /// # Errors
    /// A user is both in `limits.users` and in that list. Nothing has changed then.
    pub fn list(&self, listed: Arc<UserLimits>) -> Result<(), TwoLimits> {
        self.replace(|now| {
            now.limits.policy.check_against(&listed)?;
            let mut settings = Changeable::clone(now);
            settings.limits.policy.listed = listed;
            Ok(settings)
        })
    }

    /// Puts what `prepare` makes of the settings in force into their place.
    fn replace(
        &self,
        prepare: impl FnOnce(&Changeable) -> Result<Changeable, TwoLimits>,
    ) -> Result<(), TwoLimits> {
        let _one_at_a_time = lock(&self.changing);
        let after = prepare(&self.now())?;
        self.now.send_replace(Arc::new(after));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_can_be_read_while_a_change_is_prepared() {
        let in_force = InForce::default();
        let replaced = in_force.replace(|before| {
            assert_eq!(*in_force.now(), *before);
            let mut settings = before.clone();
            settings.limits.policy.default = 9;
            Ok(settings)
        });
        assert_eq!(replaced, Ok(()));
        assert_eq!(in_force.now().limits.policy.default, 9);
    }
}
