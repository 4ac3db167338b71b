//! Events of one instance, without a store.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use tokio::task::JoinSet;

use super::*;
use crate::clock::ManualClock;
use crate::identity::{Kind, SessionId, SessionKey};

/// Events whose worker runs.
struct Bench {
    events: Arc<Events>,
    metrics: Arc<Metrics>,
    _worker: JoinSet<()>,
}

fn bench() -> Bench {
    let metrics = Arc::new(Metrics::new());
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_800_000_000_000)));
    let (events, worker) = Events::open("feed", None, clock, Arc::clone(&metrics));
    let mut running = JoinSet::new();
    running.spawn(worker.run());
    Bench {
        events,
        metrics,
        _worker: running,
    }
}

fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

fn started(name: &str, session: &str) -> Event {
    let key = SessionKey {
        kind: Kind::Playback,
        id: SessionId::parse(session).unwrap(),
    };
    Event::about(EventType::Started, &user(name), &key)
}

impl Bench {
    fn listen(&self, user: Option<&str>, last: Option<&str>) -> EventListener {
        let user = user.map(|name| UserId::parse(name).unwrap());
        self.events.listen(user, last, None).unwrap()
    }

    fn tell(&self, name: &str, session: &str) {
        self.events.tell(None, || [started(name, session)]);
    }
}

/// What a listener hears next.
async fn next(listener: &mut EventListener) -> String {
    let heard = listener.next().await.unwrap().unwrap();
    String::from_utf8(heard.to_vec()).unwrap()
}

/// The id of the last frame.
fn id_of(frames: &str) -> &str {
    let mut ids = frames.lines().filter_map(|line| line.strip_prefix("id: "));
    ids.next_back().unwrap()
}

#[tokio::test(start_paused = true)]
async fn events_are_not_even_made_while_nobody_listens() {
    let bench = bench();
    bench
        .events
        .tell(None, || -> [Event; 1] { panic!("nobody listens") });
    let mut listener = bench.listen(None, None);
    assert_eq!(next(&mut listener).await, ":\n\n");
    bench.tell("anna", "p1");
    let heard = next(&mut listener).await;
    let expected = "id: 1800000000000-feed-1\nevent: started\ndata: {\"id\":\"1800000000000-feed-1\",\
        \"at\":\"2027-01-15T08:00:00.000Z\",\"type\":\"started\",\"user\":\"anna\",\"session\":\"p1\",\
        \"kind\":\"playback\",\"instance\":\"feed\"}\n\n";
    assert_eq!(heard, expected);
    assert!(
        bench
            .metrics
            .render()
            .contains("streamgate_event_listeners 1\n")
    );
    drop(listener);
    assert!(
        bench
            .metrics
            .render()
            .contains("streamgate_event_listeners 0\n")
    );
    tokio::time::sleep(feed::LINGER * 2).await;
    assert!(!bench.events.are_heard());
}

#[tokio::test(start_paused = true)]
async fn a_silence_is_filled_with_comments() {
    let bench = bench();
    let mut listener = bench.listen(None, None);
    for _ in 0..3 {
        assert_eq!(next(&mut listener).await, ":\n\n");
    }
}

#[tokio::test(start_paused = true)]
async fn a_listener_may_want_one_user_s_events() {
    let bench = bench();
    let mut of_anna = bench.listen(Some("anna"), None);
    next(&mut of_anna).await;
    for (name, session) in [
        ("ben", "b1"),
        ("anna", "a1"),
        ("annabel", "c1"),
        ("anna", "a2"),
    ] {
        bench.tell(name, session);
    }
    let heard = next(&mut of_anna).await;
    assert_eq!(heard.matches("\"user\":\"anna\"").count(), 2, "{heard}");
    assert_eq!(heard.matches("event: ").count(), 2, "{heard}");
}

#[tokio::test(start_paused = true)]
async fn a_listener_continues_where_it_was() {
    let bench = bench();
    let mut listener = bench.listen(None, None);
    next(&mut listener).await;
    bench.tell("anna", "p1");
    bench.tell("anna", "p2");
    let heard = next(&mut listener).await;
    let first = heard.lines().next().unwrap().strip_prefix("id: ").unwrap();
    drop(listener);
    bench.tell("anna", "p3");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut again = bench.listen(None, Some(first));
    let missed = next(&mut again).await;
    assert!(
        missed.contains("\"p2\"") && !missed.contains("\"p1\""),
        "{missed}"
    );
    let rest = next(&mut again).await;
    assert!(rest.contains("\"p3\""), "{rest}");
    // Nothing is missing after the last, and an unknown one may be long ago.
    let mut up_to_date = bench.listen(None, Some(id_of(&rest)));
    assert_eq!(next(&mut up_to_date).await, ":\n\n");
    for unknown in ["1-feed-1", "", "\u{7f}"] {
        let mut lost = bench.listen(None, Some(unknown));
        let told = next(&mut lost).await;
        assert!(told.contains("event: gap\n"), "{told}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_listener_hears_why_it_is_dropped() {
    let bench = bench();
    let hangup = Hangup::default();
    let mut slow = bench
        .events
        .listen(None, None, Some(hangup.clone()))
        .unwrap();
    let mut quick = bench.listen(None, None);
    // One that reads stays, however much comes.
    let device = "x".repeat(250);
    for turn in 0..40 {
        for session in 0..250 {
            let event = Event {
                device: Some(device.clone()),
                ..started("anna", &format!("{turn}-{session}"))
            };
            bench.events.tell(None, || [event]);
        }
        loop {
            let heard = next(&mut quick).await;
            assert!(!heard.contains("event: dropped"), "{turn}");
            if heard.contains("event: started") {
                break;
            }
        }
    }
    assert_eq!(next(&mut slow).await, ":\n\n");
    let last = next(&mut slow).await;
    assert!(last.contains("event: dropped\n"), "{last}");
    assert!(slow.next().await.is_none());
    let dropped = "streamgate_event_listeners_dropped_total 1\n";
    assert!(bench.metrics.render().contains(dropped));
    assert!(!hangup.0.is_cancelled(), "it has heard why");
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_never_reads_is_hung_up_on() {
    let bench = bench();
    let hangup = Hangup::default();
    let _stuck = bench
        .events
        .listen(None, None, Some(hangup.clone()))
        .unwrap();
    let device = "x".repeat(250);
    while !hangup.0.is_cancelled() {
        for session in 0..250 {
            let event = Event {
                device: Some(device.clone()),
                ..started("anna", &session.to_string())
            };
            bench.events.tell(None, || [event]);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_is_cut_and_the_cut_is_told() {
    let bench = bench();
    let mut listener = bench.listen(None, None);
    next(&mut listener).await;
    for session in 0..=QUEUE {
        bench.tell("anna", &session.to_string());
    }
    let lost = "streamgate_events_lost_total{at=\"queue\"} 1\n";
    assert!(bench.metrics.render().contains(lost));
    let heard = next(&mut listener).await;
    assert!(heard.contains("event: gap\n"), "{heard}");
}

#[tokio::test(start_paused = true)]
async fn the_number_of_listeners_is_bounded() {
    let bench = bench();
    let listeners: Vec<_> = (0..MAX_LISTENERS)
        .map(|_| bench.listen(None, None))
        .collect();
    let full = bench.events.listen(None, None, None);
    assert_eq!(full.err(), Some(TooManyListeners(MAX_LISTENERS)));
    drop(listeners);
    drop(bench.listen(None, None));
}

#[tokio::test(start_paused = true)]
async fn all_streams_end_when_the_instance_stops() {
    let bench = bench();
    let mut listener = bench.listen(None, None);
    next(&mut listener).await;
    assert!(listener.next().now_or_never().is_none());
    bench.events.close();
    assert!(listener.next().await.is_none());
    let mut late = bench.listen(None, None);
    next(&mut late).await;
    assert!(late.next().await.is_none());
}

#[test]
fn events_of_other_instances_are_read_as_they_were_written() {
    let events: Vec<_> = (0..300)
        .map(|number| Event {
            id: number.to_string(),
            at: Timestamp::from_millis(1_800_000_000_000 + number),
            device: Some("\"quoted\"\n".repeat(40)),
            ..started("anna", "p1")
        })
        .collect();
    let messages = bus::messages("a", &events);
    assert!(messages.len() > 1);
    assert!(
        messages
            .iter()
            .all(|(_, message)| message.len() < 64 * 1024)
    );
    let read = messages
        .iter()
        .flat_map(|(_, message)| bus::events_in(message, "b"));
    assert_eq!(read.collect::<Vec<_>>(), events);
    assert!(
        messages
            .iter()
            .all(|(_, it)| bus::events_in(it, "a").is_empty())
    );
    // A newer version's events are skipped, and what is no message is nothing.
    let newer = br#"{"from":"c","more":1,"events":[{"type":"new","at":"2027-01-15T08:00:00Z"},{"type":"ended","at":"2027-01-15T08:00:00Z"}]}"#;
    assert_eq!(bus::events_in(newer, "b").len(), 1);
    assert!(bus::events_in(b"{", "b").is_empty());
}
