//! Webhooks: this instance's own events, as signed POSTs to the receivers in
//! `events.webhooks_file`.
//!
//! Each instance sends what happened there, so every event has one sender, and instances need not
//! agree about anything. Events wait in memory, at most so many for each receiver. Nobody who
//! reports an event waits for any of this.
//!
//! - `targets` reads the file.
//! - `queue` keeps the events that wait for one receiver.
//! - `delivery` sends them, and decides by the answers what comes next.
//! - `retry` says when a POST is repeated.
//! - `signature` signs by the Standard Webhooks specification.
//! - `client` is the HTTP client.

mod client;
mod delivery;
mod queue;
mod retry;
mod signature;
mod targets;
#[cfg(test)]
mod tests;

pub use targets::WebhookTargets;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::clock::Clock;
use crate::events::{Event, EventSink, EventType, Events};
use crate::reload::{Applied, Reloaded, Unusable};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::{ReloadedFile, WebhookOutcome};
use crate::util::lock;
use client::{Post, WebhookClient};
use delivery::{Courier, Webhook};

/// The key that names the file.
const KEY: &str = "events.webhooks_file";

/// All webhooks of an instance.
#[derive(Debug)]
pub struct Webhooks {
    /// Those in force.
    all: Mutex<Vec<Arc<Webhook>>>,
    /// Those that don't run yet.
    new: Mutex<Vec<Arc<Webhook>>>,
    /// Notified when there is a new one.
    changed: Notify,
    /// What they share.
    courier: Arc<Courier>,
    /// Where the events come from.
    events: Arc<Events>,
}

// === impl Webhooks ===

impl Webhooks {
    /// Webhooks that send these events; none yet.
    ///
    /// # Errors
    /// TLS can't be used at all.
    pub fn of(
        events: Arc<Events>,
        instance: &str,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>, Unusable> {
        let client = WebhookClient::new();
        let client = client.map_err(|flaw| Unusable::new(format_args!("{KEY}: {flaw}")))?;
        Ok(Self::sent_by(
            Box::new(client),
            events,
            instance,
            clock,
            metrics,
        ))
    }

    /// The same with another client.
    fn sent_by(
        post: Box<dyn Post>,
        events: Arc<Events>,
        instance: &str,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let courier = Courier {
            post,
            clock,
            metrics,
            instance: instance.to_owned(),
            number: AtomicU64::new(0),
            closing: CancellationToken::new(),
        };
        let webhooks = Arc::new(Self {
            all: Mutex::default(),
            new: Mutex::default(),
            changed: Notify::new(),
            courier: Arc::new(courier),
            events,
        });
        let sink: Arc<Self> = Arc::clone(&webhooks);
        webhooks.events.pass_to(sink);
        webhooks
    }

    /// Puts the webhooks of a file into force, now and whenever it changes.
    ///
    /// # Errors
    /// The file can't be used.
    pub fn follow(
        self: &Arc<Self>,
        path: &std::path::Path,
    ) -> Result<Reloaded<WebhookTargets>, Unusable> {
        let file = WebhookTargets::file(path);
        let metrics = Arc::clone(&self.courier.metrics);
        let reloaded = Reloaded::load(ReloadedFile::Webhooks, file, metrics)?;
        self.apply(&reloaded.current());
        let webhooks = Arc::clone(self);
        Ok(reloaded.accepted_by(move |targets, before| {
            let changed = targets.unlike(before);
            webhooks.apply(targets);
            let count = targets.0.len();
            info!(webhooks = count, changed, "the webhooks have changed");
            webhooks.events.tell(None, || {
                let told = format!("{KEY}: {count} webhooks, {changed} of them new or changed");
                [Event::saying(EventType::ConfigurationChanged, told)]
            });
            Ok(Applied::Whole)
        }))
    }

    /// Puts these webhooks into force. One whose address stays keeps its events.
    fn apply(&self, targets: &WebhookTargets) {
        let mut all = lock(&self.all);
        let mut before = std::mem::take(&mut *all);
        for target in &targets.0 {
            if target.is_exposed() {
                warn!(
                    webhook = target.name(),
                    "events go to this receiver without TLS: others on the way can read who watches what"
                );
            }
            let known = before
                .iter()
                .position(|webhook| webhook.target().url == target.url);
            let webhook = match known.map(|at| before.swap_remove(at)) {
                Some(webhook) => {
                    webhook.change(Arc::clone(target));
                    webhook
                }
                None => {
                    let courier = Arc::clone(&self.courier);
                    let webhook = Arc::new(Webhook::new(Arc::clone(target), courier));
                    lock(&self.new).push(Arc::clone(&webhook));
                    webhook
                }
            };
            all.push(webhook);
        }
        before.iter().for_each(|webhook| webhook.remove());
        self.events.pass_on(!all.is_empty());
        self.changed.notify_one();
    }

    /// Sends events until dropped.
    pub async fn run(&self) {
        let mut running = FuturesUnordered::new();
        loop {
            let new = std::mem::take(&mut *lock(&self.new));
            running.extend(new.into_iter().map(Webhook::run));
            tokio::select! {
                () = self.changed.notified() => {}
                Some(()) = running.next() => {}
            }
        }
    }

    /// Tries to send everything that still waits, each batch once, while [`Self::run`] runs. What
    /// isn't delivered within the bound is lost.
    pub async fn finish(&self, bound: Duration) {
        let all = lock(&self.all).clone();
        if all.is_empty() {
            return;
        }
        let sending = async {
            self.events.passed_on().await;
            self.courier.closing.cancel();
            for webhook in &all {
                webhook.ended.cancelled().await;
            }
        };
        // What is left is counted either way.
        let _ = timeout(bound, sending).await;
        self.courier.closing.cancel();
        let lost = all
            .iter()
            .map(|webhook| webhook.drop_all(WebhookOutcome::Shutdown))
            .sum::<usize>();
        if lost > 0 {
            warn!(events = lost, "stopping: some events reach no webhook");
        }
    }
}

impl EventSink for Webhooks {
    fn take(&self, events: &[Event]) {
        let all = lock(&self.all);
        for event in events {
            let json: Arc<str> = event.to_json().into();
            let wanting = all.iter().filter(|webhook| webhook.target().wants(event));
            wanting.for_each(|webhook| webhook.push(&json));
        }
    }
}
