//! One webhook: takes its events out of its queue, and sends them batch by batch until the receiver
//! has got them or they are given up.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::client::{Post, PostAnswer};
use super::queue::{TakenEvents, WebhookQueue};
use super::retry::{RetryPlan, retry_after};
use super::signature::signatures;
use super::targets::WebhookTarget;
use crate::clock::Clock;
use crate::events::{Event, EventType};
use crate::problem::rfc3339;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::{PostFailure, WebhookOutcome};
use crate::util::{Throttle, lock};

/// How often one webhook's refused events are logged.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// Who sends.
const USER_AGENT: &str = concat!("streamgate/", env!("CARGO_PKG_VERSION"));

/// What all webhooks share.
#[derive(Debug)]
pub(super) struct Courier {
    /// Sends POSTs.
    pub(super) post: Box<dyn Post>,
    /// Tells the time.
    pub(super) clock: Arc<dyn Clock>,
    /// Counts.
    pub(super) metrics: Arc<Metrics>,
    /// The id of this instance, which its messages' ids begin with.
    pub(super) instance: String,
    /// The number of the last message.
    pub(super) number: AtomicU64,
    /// Cancelled when each batch is sent once more at most.
    pub(super) closing: CancellationToken,
}

/// One webhook.
#[derive(Debug)]
pub(super) struct Webhook {
    /// Where its events go.
    target: Mutex<Arc<WebhookTarget>>,
    /// Those that wait.
    queue: Mutex<WebhookQueue>,
    /// Notified when one comes.
    arrived: Notify,
    /// Whether the receiver wants no more.
    is_gone: AtomicBool,
    /// Whether its last batch has failed so far.
    is_failing: AtomicBool,
    /// Cancelled when the webhook is removed.
    removed: CancellationToken,
    /// Cancelled when nothing more is sent.
    pub(super) ended: CancellationToken,
    /// Limits how often refused events are logged.
    refusals: Throttle,
    /// What it shares with others.
    courier: Arc<Courier>,
}

/// A POST that may be sent several times.
struct WebhookMessage {
    /// Its id, the same each time.
    id: String,
    /// Its body.
    body: Bytes,
}

/// What follows from an answer.
enum Judgement {
    /// The receiver has the events.
    Delivered,
    /// It will never take them.
    Refused,
    /// It wants no more, ever.
    Gone,
    /// It may take them later, perhaps not before that time has passed.
    Again(PostFailure, Option<Duration>),
}

// === impl Courier ===

impl Courier {
    /// The message with these events.
    fn message(&self, taken: &TakenEvents) -> WebhookMessage {
        let number = self.number.fetch_add(1, Ordering::Relaxed) + 1;
        let now = self.clock.now();
        let mut events = taken.events.join(",");
        if taken.missing > 0 {
            let told = format!("{} events could not be delivered", taken.missing);
            let gap = Event {
                at: now,
                instance: Some(self.instance.clone()),
                ..Event::saying(EventType::Gap, told)
            };
            events = format!("{},{events}", gap.to_json());
        }
        let mut body = String::with_capacity(events.len() + 128);
        // To write to a string can't fail.
        let _ = write!(
            body,
            r#"{{"type":"streamgate.events","timestamp":"{}","data":{{"events":[{events}]}}}}"#,
            rfc3339(now)
        );
        WebhookMessage {
            id: format!("{}-{number}", self.instance),
            body: body.into(),
        }
    }

    /// The request with that message, signed now.
    fn request(&self, target: &WebhookTarget, message: &WebhookMessage) -> Option<Request<Bytes>> {
        let WebhookMessage { id, body } = message;
        let second = self.clock.now().as_millis() / 1000;
        let request = Request::builder()
            .method(Method::POST)
            .uri(&target.url)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, USER_AGENT)
            .header("webhook-id", id)
            .header("webhook-timestamp", second)
            .header(
                "webhook-signature",
                signatures(&target.secrets, id, second, body),
            );
        request.body(body.clone()).ok()
    }

    /// What follows from an answer.
    fn judge(&self, answer: &PostAnswer) -> Judgement {
        let (status, after) = match answer {
            PostAnswer::Status(status, after) => (*status, after.as_ref()),
            PostAnswer::Late => return Judgement::Again(PostFailure::Timeout, None),
            PostAnswer::Failed(_) => return Judgement::Again(PostFailure::Connection, None),
        };
        match status {
            StatusCode::GONE => Judgement::Gone,
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
                Judgement::Again(PostFailure::Status, self.asked(after))
            }
            _ if status.is_success() => Judgement::Delivered,
            _ if status.is_server_error() => {
                Judgement::Again(PostFailure::Status, self.asked(after))
            }
            _ => Judgement::Refused,
        }
    }

    /// How long the receiver asks us to wait.
    fn asked(&self, after: Option<&HeaderValue>) -> Option<Duration> {
        retry_after(after?.to_str().ok()?, self.clock.now())
    }
}

// === impl Webhook ===

impl Webhook {
    /// A webhook without events.
    pub(super) fn new(target: Arc<WebhookTarget>, courier: Arc<Courier>) -> Self {
        Self {
            target: Mutex::new(target),
            queue: Mutex::default(),
            arrived: Notify::new(),
            is_gone: AtomicBool::new(false),
            is_failing: AtomicBool::new(false),
            removed: CancellationToken::new(),
            ended: CancellationToken::new(),
            refusals: Throttle::every(LOG_EVERY),
            courier,
        }
    }

    /// Where its events go now.
    pub(super) fn target(&self) -> Arc<WebhookTarget> {
        Arc::clone(&lock(&self.target))
    }

    /// Takes other secrets and types. A receiver that was gone gets another try.
    pub(super) fn change(&self, target: Arc<WebhookTarget>) {
        *lock(&self.target) = target;
        self.is_gone.store(false, Ordering::Relaxed);
    }

    /// Ends it.
    pub(super) fn remove(&self) {
        self.removed.cancel();
        self.drop_all(WebhookOutcome::Removed);
    }

    /// Adds an event, if the receiver wants it. Never waits.
    pub(super) fn push(&self, event: &Arc<str>) {
        let metrics = &self.courier.metrics;
        if self.is_gone.load(Ordering::Relaxed) {
            lock(&self.queue).miss();
            metrics.webhook_events(WebhookOutcome::Refused, 1);
            return;
        }
        let dropped = lock(&self.queue).push(Arc::clone(event));
        metrics.webhook_queued(1, dropped);
        if dropped > 0 {
            metrics.webhook_events(WebhookOutcome::QueueFull, dropped);
        }
        self.arrived.notify_one();
    }

    /// Drops everything that waits or is on its way; returns how many events that were.
    pub(super) fn drop_all(&self, outcome: WebhookOutcome) -> usize {
        let dropped = lock(&self.queue).clear();
        self.settle(outcome, dropped);
        dropped
    }

    /// Sends events until the webhook is removed, or until all are sent while the instance stops.
    pub(super) async fn run(self: Arc<Self>) {
        tokio::select! {
            () = self.deliver() => {}
            () = self.removed.cancelled() => {}
        }
        self.ended.cancel();
    }

    /// Sends batch by batch.
    async fn deliver(&self) {
        loop {
            let taken = lock(&self.queue).take();
            let Some(taken) = taken else {
                tokio::select! {
                    () = self.arrived.notified() => continue,
                    () = self.courier.closing.cancelled() => return,
                }
            };
            let outcome = self.send(&taken).await;
            let count = match outcome {
                WebhookOutcome::Delivered => lock(&self.queue).delivered(),
                // The caller counts it with the rest.
                WebhookOutcome::Shutdown => return,
                _ => lock(&self.queue).lost(taken.missing),
            };
            self.settle(outcome, count);
            if self.is_gone.load(Ordering::Relaxed) {
                self.drop_all(WebhookOutcome::Refused);
            }
        }
    }

    /// Sends one batch, as often as it takes.
    async fn send(&self, taken: &TakenEvents) -> WebhookOutcome {
        let courier = &self.courier;
        let message = courier.message(taken);
        let mut retries = RetryPlan::start();
        loop {
            let target = self.target();
            let is_last = courier.closing.is_cancelled();
            let answer = match courier.request(&target, &message) {
                Some(request) => courier.post.post(request).await,
                None => PostAnswer::Failed("the request can't be made".to_owned()),
            };
            let (failure, asked) = match courier.judge(&answer) {
                Judgement::Delivered => {
                    self.note_success(&target);
                    return WebhookOutcome::Delivered;
                }
                Judgement::Refused => {
                    self.note_refusal(&target, &answer);
                    return WebhookOutcome::Refused;
                }
                Judgement::Gone => {
                    self.is_gone.store(true, Ordering::Relaxed);
                    warn!(
                        webhook = target.name(),
                        "the receiver answered 410: it gets no more events until events.webhooks_file changes, or until a restart"
                    );
                    return WebhookOutcome::Refused;
                }
                Judgement::Again(failure, asked) => (failure, asked),
            };
            courier.metrics.webhook_post_failed(failure);
            self.note_failure(&target, &answer);
            if is_last {
                return WebhookOutcome::Shutdown;
            }
            let Some(wait) = retries.next(asked) else {
                return WebhookOutcome::Expired;
            };
            tokio::select! {
                () = sleep(wait) => {}
                () = courier.closing.cancelled() => {}
            }
        }
    }

    /// Counts events that need no more work.
    fn settle(&self, outcome: WebhookOutcome, count: usize) {
        let metrics = &self.courier.metrics;
        metrics.webhook_events(outcome, count);
        metrics.webhook_queued(0, count);
    }

    /// Logs that the receiver has recovered, if it had failed.
    fn note_success(&self, target: &WebhookTarget) {
        if self.is_failing.swap(false, Ordering::Relaxed) {
            info!(webhook = target.name(), "the receiver takes events again");
        }
    }

    /// Logs that the receiver fails, unless it did before.
    fn note_failure(&self, target: &WebhookTarget, answer: &PostAnswer) {
        if !self.is_failing.swap(true, Ordering::Relaxed) {
            warn!(webhook = target.name(), problem = %answer, "a receiver doesn't take events; they wait, and are sent again");
        }
    }

    /// Logs that the receiver refuses events.
    fn note_refusal(&self, target: &WebhookTarget, answer: &PostAnswer) {
        if self.refusals.is_due() {
            warn!(webhook = target.name(), problem = %answer, "a receiver refuses events; they are dropped");
        }
    }
}
