//! The settings that may change while the process runs: limits, what a refusal says, and whose
//! starts are logged.

use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use super::{Config, Limits, RefusalSettings, Share, Telemetry};
use crate::policy::{TwoLimits, UserLimits};
use crate::util::lock;

/// The settings that may change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changeable {
    /// `limits`
    pub limits: Limits,
    /// `refusal`
    pub refusal: RefusalSettings,
    /// `telemetry.log_starts`
    pub log_starts: Share,
}

/// The settings that apply now. Code that makes a decision reads them once, so the whole decision
/// uses the same settings.
#[derive(Debug, Default)]
pub struct InForce {
    /// The settings.
    now: watch::Sender<Arc<Changeable>>,
    /// Locked while a change is prepared, so that changes happen one after the other. Readers don't
    /// wait for it: to check a list of a million users takes a while.
    changing: Mutex<()>,
}

impl Changeable {
    /// The changeable part of a configuration.
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
    /// These settings, until a change replaces them.
    #[must_use]
    pub fn new(settings: Changeable) -> Self {
        Self {
            now: watch::Sender::new(Arc::new(settings)),
            changing: Mutex::default(),
        }
    }

    /// The settings that apply now.
    #[must_use]
    pub fn now(&self) -> Arc<Changeable> {
        Arc::clone(&self.now.borrow())
    }

    /// Replaces the settings for all later decisions. The list of `limits.users_file` stays.
    ///
    /// # Errors
    /// A user is both in `limits.users` and in the list. Nothing changes then.
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
    /// A user is both in `limits.users` and in the list. Nothing changes then.
    pub fn list(&self, listed: Arc<UserLimits>) -> Result<(), TwoLimits> {
        self.replace(|now| {
            now.limits.policy.check_against(&listed)?;
            let mut settings = Changeable::clone(now);
            settings.limits.policy.listed = listed;
            Ok(settings)
        })
    }

    /// Replaces the settings in force by what `prepare` makes of them.
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
