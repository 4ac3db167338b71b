//! What is counted about webhooks.

use super::{LabelValue, Metrics, PostFailure, WebhookOutcome};

impl Metrics {
    /// Counts what became of events for a webhook.
    pub fn webhook_events(&self, outcome: WebhookOutcome, count: usize) {
        if let Some(events) = self.webhook_events.0.get(outcome.index()) {
            events.increment(count as u64);
        }
    }

    /// Records that events joined a webhook's queue, and that others have left it.
    #[expect(clippy::cast_precision_loss, reason = "no queue is 2^52 long")]
    pub fn webhook_queued(&self, joined: usize, left: usize) {
        self.webhook_queued.increment(joined as f64 - left as f64);
    }

    /// Counts a POST to a webhook that has failed and is sent again.
    pub fn webhook_post_failed(&self, cause: PostFailure) {
        self.webhook_posts_failed.increment(cause);
    }
}
