//! The settings that may change while the process runs: limits, and what a refusal tells, and whose starts are logged.

use std::sync::{Arc, PoisonError, RwLock};

use super::{Config, Limits, Refusal, Share, Telemetry};
use crate::policy::UserLimits;
use crate::session::UserId;

/// What may change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changeable {
    /// `limits`
    pub limits: Limits,
    /// `refusal`
    pub refusal: Refusal,
    /// `telemetry.log_starts`
    pub log_starts: Share,
}

/// A user who is both in `limits.users` and in `limits.users_file`: which of the two limits was meant can't be known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clash {
    /// Who that is.
    pub user: UserId,
    /// The line of the file.
    pub line: usize,
}

/// What applies now. Whoever decides something reads it once, so that all of one decision is by the same settings.
#[derive(Debug, Default)]
pub struct InForce(RwLock<Arc<Changeable>>);

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

impl Clash {
    fn check(settings: &Changeable, listed: &UserLimits) -> Result<(), Self> {
        match settings.limits.policy.clash(listed) {
            Some((user, line)) => Err(Self { user, line }),
            None => Ok(()),
        }
    }
}

impl Default for Changeable {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            refusal: Refusal::default(),
            log_starts: Telemetry::default().log_starts,
        }
    }
}

impl InForce {
    /// Those settings, until others are put in their place.
    #[must_use]
    pub fn new(settings: Changeable) -> Self {
        Self(RwLock::new(Arc::new(settings)))
    }

    /// What applies now.
    #[must_use]
    pub fn now(&self) -> Arc<Changeable> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the settings for everything that is decided from now on. The list of `limits.users_file` stays.
    ///
    /// # Errors
    /// A user is both in `limits.users` and in that list. Nothing has changed then.
    pub fn change(&self, mut settings: Changeable) -> Result<(), Clash> {
        let mut now = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let listed = Arc::clone(&now.limits.policy.listed);
        Clash::check(&settings, &listed)?;
        settings.limits.policy.listed = listed;
        *now = Arc::new(settings);
        Ok(())
    }

    /// Replaces the list of `limits.users_file`, and nothing else.
    ///
    /// # Errors
    /// A user is both in `limits.users` and in that list. Nothing has changed then.
    pub fn list(&self, listed: Arc<UserLimits>) -> Result<(), Clash> {
        let mut now = self.0.write().unwrap_or_else(PoisonError::into_inner);
        Clash::check(&now, &listed)?;
        let mut settings = Changeable::clone(&now);
        settings.limits.policy.listed = listed;
        *now = Arc::new(settings);
        Ok(())
    }
}
