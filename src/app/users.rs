//! `limits.users_file`: read at startup, then followed, and never in conflict with `limits.users`.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use tracing::info;

use crate::config::{Config, InForce, user_limits};
use crate::events::{Event, EventType, Events};
use crate::policy::{TwoLimits, UserLimits};
use crate::reload::{Applied, Files, Reloaded, Unusable};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::ReloadedFile;

/// The key that names the file.
const KEY: &str = "limits.users_file";

/// The largest file, with room for a million names of 60 bytes. Larger ones would take more memory
/// than an instance should.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// The file at that path, from `limits.users_file`.
fn file(path: &Path) -> Files<UserLimits> {
    let shown = path.display().to_string();
    let files = Files::new(vec![(KEY, path.to_owned())], move |contents| {
        let text = contents.first().cloned().unwrap_or_default();
        user_limits(&text).map_err(|flaw| format!("{KEY}: {shown}: {flaw}"))
    });
    files.guarded(Bytes::clone).up_to(MAX_BYTES)
}

/// What is wrong with the configured file, if there is one.
pub(crate) fn unusable(config: &Config) -> Option<Unusable> {
    let path = config.limits.users_file.as_ref()?;
    match file(path).read() {
        Err(unusable) => Some(unusable),
        Ok(listed) => {
            let checked = config.limits.policy.check_against(&listed);
            checked
                .err()
                .map(|flaw| Unusable::new(in_file(path, &flaw)))
        }
    }
}

/// Reads the file and puts it into force, now and after each change.
pub(super) fn follow(
    path: &Path,
    in_force: &Arc<InForce>,
    metrics: &Arc<Metrics>,
    events: &Arc<Events>,
) -> Result<Reloaded<UserLimits>, Unusable> {
    let reloaded = Reloaded::load(ReloadedFile::Users, file(path), Arc::clone(metrics))?;
    in_force
        .list(reloaded.current())
        .map_err(|flaw| Unusable::new(in_file(path, &flaw)))?;
    let (path, in_force) = (path.to_owned(), Arc::clone(in_force));
    let events = Arc::clone(events);
    Ok(reloaded.accepted_by(move |listed, before| {
        in_force
            .list(Arc::clone(listed))
            .map_err(|flaw| in_file(&path, &flaw))?;
        let (added, changed) = listed.unlike(before);
        let removed = before.len() + added - listed.len();
        info!(
            users = listed.len(),
            added, changed, removed, "the limits in limits.users_file have changed"
        );
        events.tell(None, || {
            let told = format!("{KEY}: {added} added, {changed} changed, {removed} removed");
            [Event::saying(EventType::ConfigurationChanged, told)]
        });
        Ok(Applied::Whole)
    }))
}

/// The error that a user has a second limit.
fn in_file(path: &Path, flaw: &TwoLimits) -> String {
    format!("{KEY}: {}: {flaw}", path.display())
}
