//! What becomes of events, by a receiver that answers as the test says. The clock is paused, so
//! waits take no time.

use std::collections::VecDeque;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::client::PostAnswer;
use super::*;
use crate::clock::SystemClock;

const LINE: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw http://a.example/in";

/// When a request came, and the request.
type Seen = (Instant, Request<Bytes>);

/// Answers in this order, then by 200.
#[derive(Debug, Clone, Default)]
struct Scripted {
    answers: Arc<Mutex<VecDeque<PostAnswer>>>,
    /// The requests that came.
    seen: Arc<Mutex<Vec<Seen>>>,
    /// Never answers.
    hangs: bool,
}

#[async_trait]
impl Post for Scripted {
    async fn post(&self, request: Request<Bytes>) -> PostAnswer {
        #[expect(clippy::disallowed_methods, reason = "a test's own time")]
        lock(&self.seen).push((Instant::now(), request));
        if self.hangs {
            std::future::pending::<()>().await;
        }
        let answer = lock(&self.answers).pop_front();
        answer.unwrap_or(PostAnswer::Status(StatusCode::OK, None))
    }
}

/// Webhooks at work, and their receiver.
struct Stage {
    webhooks: Arc<Webhooks>,
    receiver: Scripted,
    metrics: Arc<Metrics>,
    _running: JoinSet<()>,
}

fn status(status: u16) -> PostAnswer {
    PostAnswer::Status(StatusCode::from_u16(status).unwrap(), None)
}

fn targets(lines: &str) -> WebhookTargets {
    let lines = lines.lines();
    let parse = |line| Arc::new(targets::WebhookTarget::parse(line).unwrap());
    WebhookTargets(lines.map(parse).collect())
}

impl Stage {
    fn with(receiver: Scripted) -> Self {
        let metrics = Arc::new(Metrics::new());
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
        let (events, _) = Events::open("i", None, Arc::clone(&clock), Arc::clone(&metrics));
        let post = Box::new(receiver.clone());
        let webhooks = Webhooks::sent_by(post, events, "i", clock, Arc::clone(&metrics));
        webhooks.apply(&targets(LINE));
        let mut running = JoinSet::new();
        let runs = Arc::clone(&webhooks);
        running.spawn(async move { runs.run().await });
        Self {
            webhooks,
            receiver,
            metrics,
            _running: running,
        }
    }

    fn answering(answers: impl IntoIterator<Item = PostAnswer>) -> Self {
        let answers: VecDeque<_> = answers.into_iter().collect();
        Self::with(Scripted {
            answers: Arc::new(Mutex::new(answers)),
            ..Scripted::default()
        })
    }

    fn tell(&self, session: &str) {
        let event = Event {
            session: Some(session.to_owned()),
            ..Event::new(EventType::Started)
        };
        self.webhooks.take(&[event]);
    }

    /// The ids of the messages that came, and the sessions in each.
    fn seen(&self) -> Vec<(String, String)> {
        let seen = lock(&self.receiver.seen);
        let each = seen.iter().map(|(_, request)| {
            let id = request.headers()["webhook-id"].to_str().unwrap();
            let body: serde_json::Value = serde_json::from_slice(request.body()).unwrap();
            assert_eq!(body["type"], "streamgate.events");
            let events = body["data"]["events"].as_array().unwrap().iter();
            let told = events.map(|event| match event["detail"].as_str() {
                Some(detail) => detail.to_owned(),
                None => event["session"].as_str().unwrap().to_owned(),
            });
            (id.to_owned(), told.collect::<Vec<_>>().join(" "))
        });
        each.collect()
    }

    fn metric(&self, series: &str) -> u64 {
        let text = self.metrics.render();
        let line = text.lines().find_map(|line| line.strip_prefix(series));
        line.unwrap().trim().parse().unwrap()
    }

    fn events(&self, outcome: &str) -> u64 {
        self.metric(&format!(
            "streamgate_webhook_events_total{{outcome=\"{outcome}\"}}"
        ))
    }
}

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(start_paused = true)]
async fn what_may_work_later_is_sent_again_with_the_same_id() {
    let failed = PostAnswer::Failed("refused".to_owned());
    let stage = Stage::answering([
        failed,
        PostAnswer::Late,
        status(500),
        status(408),
        status(429),
    ]);
    stage.tell("p1");
    sleep(HOUR).await;
    let message = ("i-1".to_owned(), "p1".to_owned());
    assert_eq!(stage.seen(), vec![message; 6]);
    assert_eq!(stage.events("delivered"), 1);
    for (cause, count) in [("connection", 1), ("timeout", 1), ("status", 3)] {
        let series = format!("streamgate_webhook_posts_failed_total{{cause=\"{cause}\"}}");
        assert_eq!(stage.metric(&series), count, "{cause}");
    }
    assert_eq!(stage.metric("streamgate_webhook_events_queued"), 0);
    let seen = lock(&stage.receiver.seen);
    let seconds = seen
        .iter()
        .map(|(_, it)| it.headers()["webhook-timestamp"].clone());
    let seconds: std::collections::HashSet<_> = seconds.collect();
    assert!(seconds.len() > 3, "each attempt has its own time");
}

#[tokio::test(start_paused = true)]
async fn the_receiver_says_how_long_to_wait() {
    let after = Some(HeaderValue::from_static("240"));
    let stage = Stage::answering([PostAnswer::Status(StatusCode::TOO_MANY_REQUESTS, after)]);
    stage.tell("p1");
    sleep(HOUR).await;
    let seen = lock(&stage.receiver.seen);
    let waited = seen[1].0 - seen[0].0;
    assert!(waited.as_secs().abs_diff(240) <= 1, "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_is_dropped_and_the_next_batch_says_so() {
    for refusal in [status(400), status(404), status(301)] {
        let stage = Stage::answering([refusal]);
        stage.tell("p1");
        sleep(HOUR).await;
        stage.tell("p2");
        sleep(HOUR).await;
        let seen = stage.seen();
        assert_eq!(seen[0], ("i-1".into(), "p1".into()));
        let told = "1 events could not be delivered p2";
        assert_eq!(seen[1], ("i-2".into(), told.into()));
        assert_eq!((stage.events("refused"), stage.events("delivered")), (1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_fails_for_long_loses_a_batch() {
    let stage = Stage::answering((0..60).map(|_| status(503)));
    stage.tell("p1");
    sleep(HOUR / 3).await;
    assert_eq!(stage.events("expired"), 1);
    assert_eq!(stage.metric("streamgate_webhook_events_queued"), 0);
    lock(&stage.receiver.answers).clear();
    stage.tell("p2");
    sleep(HOUR).await;
    let (_, told) = stage.seen().pop().unwrap();
    assert_eq!(told, "1 events could not be delivered p2");
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_is_gone_gets_no_more_until_the_file_changes() {
    let stage = Stage::answering([status(410)]);
    (0..150).for_each(|_| stage.tell("p1"));
    sleep(HOUR).await;
    stage.tell("p2");
    sleep(HOUR).await;
    assert_eq!(stage.seen().len(), 1);
    assert_eq!(stage.events("refused"), 151);
    assert_eq!(stage.metric("streamgate_webhook_events_queued"), 0);
    stage
        .webhooks
        .apply(&targets(&format!("{LINE} types=started")));
    stage.tell("p3");
    sleep(HOUR).await;
    let (_, told) = stage.seen().pop().unwrap();
    assert_eq!(told, "151 events could not be delivered p3");
}

#[tokio::test(start_paused = true)]
async fn a_webhook_that_stays_keeps_its_events_and_another_loses_them() {
    let stage = Stage::answering([]);
    let other = LINE.replace("a.example", "b.example");
    stage.webhooks.apply(&targets(&format!("{LINE}\n{other}")));
    stage.tell("p1");
    stage.webhooks.apply(&targets(LINE));
    sleep(HOUR).await;
    assert_eq!(stage.seen(), [("i-1".into(), "p1".into())]);
    assert_eq!((stage.events("delivered"), stage.events("removed")), (1, 1));
    assert_eq!(stage.metric("streamgate_webhook_events_queued"), 0);
    assert!(stage.webhooks.events.are_heard());
    stage.webhooks.apply(&WebhookTargets::default());
    assert!(!stage.webhooks.events.are_heard());
}

#[tokio::test(start_paused = true)]
async fn at_the_end_each_batch_is_sent_once_more() {
    let stage = Stage::answering([status(500), status(500)]);
    (0..150).for_each(|_| stage.tell("p"));
    // The first attempt has failed, and the next one is a while away.
    sleep(Duration::from_millis(1)).await;
    stage.webhooks.finish(Duration::from_secs(2)).await;
    assert_eq!(stage.events("shutdown"), 150);
    let stage = Stage::answering([]);
    (0..150).for_each(|_| stage.tell("p"));
    stage.webhooks.finish(Duration::from_secs(2)).await;
    assert_eq!(stage.events("delivered"), 150);
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_hangs_delays_the_end_no_longer_than_allowed() {
    let stage = Stage::with(Scripted {
        hangs: true,
        ..Scripted::default()
    });
    stage.tell("p1");
    let ending = stage.webhooks.finish(Duration::from_secs(2));
    timeout(Duration::from_secs(3), ending).await.unwrap();
    assert_eq!(stage.events("shutdown"), 1);
    assert_eq!(stage.metric("streamgate_webhook_events_queued"), 0);
}
