//! The settings that may change while the process runs: limits, and what a refusal tells, and whose starts are logged.

use std::sync::{Arc, PoisonError, RwLock};

use super::{Config, Limits, Refusal, Share, Telemetry};

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

    /// Puts others in their place, for everything that is decided from now on.
    pub fn change(&self, settings: Changeable) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }
}
