//! What a check reads of its caller's deadline, and what it takes back when nobody waits for it.

use std::sync::Arc;
use std::time::Duration;

use tonic::metadata::MetadataMap;

use super::start_rollback::{Grant, Hold};
use super::{Answer, grpc_timeout};
use crate::clock::SystemClock;
use crate::ledger::{Basis, Decision, Ledger, Outage, Settings, UndoHint};
use crate::outbox::{Delivery, outbox};
use crate::policy::Policy;
use crate::session::{
    Admission, AdmissionKind, Admitted, EndCause, Facts, Kind, Refusal, Session, SessionId,
    SessionKey, Start, StartRules, Terms, Ticket, Timestamp, UserId, WhenFull,
};
use crate::store::faulty::FaultyStore;
use crate::store::{Store, StoreError};
use crate::telemetry::Metrics;

#[test]
fn a_deadline_is_read_as_grpc_writes_it() {
    for (text, expected) in [
        ("1H", Some(Duration::from_secs(3600))),
        ("2M", Some(Duration::from_secs(120))),
        ("3S", Some(Duration::from_secs(3))),
        ("198m", Some(Duration::from_millis(198))),
        ("500u", Some(Duration::from_micros(500))),
        ("99999999n", Some(Duration::from_nanos(99_999_999))),
        ("0m", Some(Duration::ZERO)),
        ("18446744073709551615H", Some(Duration::from_secs(u64::MAX))),
        ("18446744073709551616H", None),
        ("", None),
        ("m", None),
        ("198", None),
        ("198x", None),
        ("-1m", None),
        ("1.5S", None),
        ("1 m", None),
        ("1é", None),
    ] {
        let mut metadata = MetadataMap::new();
        if let Ok(value) = text.parse() {
            metadata.insert("grpc-timeout", value);
        }
        assert_eq!(grpc_timeout(&metadata), expected, "{text}");
    }
    assert_eq!(grpc_timeout(&MetadataMap::new()), None);
}

/// A grant before a store in which its session has started, by ticket 7.
struct Bench {
    store: Arc<FaultyStore>,
    metrics: Arc<Metrics>,
    delivery: Delivery,
    grant: Grant,
}

impl Bench {
    async fn new(kind: Kind) -> Self {
        let store = FaultyStore::new();
        let metrics = Arc::new(Metrics::new().unwrap());
        let (user, start) = (UserId::parse("anna").unwrap(), start(kind));
        let started = store
            .sound
            .admit(&user, &start, &StartRules::new(3, WhenFull::Refuse))
            .await;
        started.unwrap();
        let ledger = Ledger::new(
            Arc::<FaultyStore>::clone(&store),
            Settings::of(Policy::new(3)),
            Arc::new(SystemClock::start()),
            Arc::clone(&metrics),
        );
        let terms = Terms::new(Duration::from_secs(30), Duration::from_millis(50));
        let (outbox, delivery) = outbox(Arc::new(ledger), terms, Arc::clone(&metrics));
        let grant = Grant {
            user,
            key: start.key,
            is_alone: kind == Kind::Request,
            hold: Hold::Nothing,
            outbox,
            metrics: Arc::clone(&metrics),
        };
        Self {
            store,
            metrics,
            delivery,
            grant,
        }
    }

    /// The grant comes to its end; whether the session is still live, and whether the check counts as cancelled.
    async fn after(self, end: impl FnOnce(Grant)) -> (bool, bool) {
        let handle = self.grant.outbox.clone();
        end(self.grant);
        handle.close();
        self.delivery.run().await;
        let cancelled = "streamgate_checks_total{decision=\"error\",reason=\"cancelled\"} 1";
        (
            !self.store.live("anna").await.is_empty(),
            self.metrics.render().contains(cancelled),
        )
    }
}

/// The start of a session, by ticket 7.
fn start(kind: Kind) -> Start {
    Start {
        key: SessionKey {
            kind,
            id: SessionId::parse("s").unwrap(),
        },
        facts: Facts::default(),
        lease: Duration::from_secs(15),
        ticket: Ticket::new(7),
        derived: false,
    }
}

fn decided(admission: Admission, undo: UndoHint) -> Decision {
    Decision {
        admission,
        basis: Basis::Store,
        limit: 3,
        undo,
        waited: Duration::ZERO,
    }
}

fn admitted(entry: AdmissionKind) -> Decision {
    let undo = match entry {
        AdmissionKind::Started => UndoHint::Started(Ticket::new(7).unwrap()),
        AdmissionKind::Renewed => UndoHint::Nothing,
    };
    let (start, at) = (start(Kind::Request), Timestamp::default());
    let admitted = Admitted {
        entry,
        session: Session::starting(&start, at, at),
        active: 1,
        displaced: Vec::new(),
        decided_at: Timestamp::default(),
    };
    decided(Admission::Admitted(admitted), undo)
}

fn outage(doubtful: Option<Ticket>) -> Answer {
    Err(Outage {
        error: StoreError::Timeout(Duration::from_millis(50)),
        doubtful,
        waited: Duration::ZERO,
    })
}

#[tokio::test]
async fn a_call_takes_back_what_it_started_itself_and_no_playback() {
    let refused_leaving = |undo| {
        let ended = Refusal::Ended(EndCause::Released, None);
        Ok(decided(Admission::Refused(ended), undo))
    };
    let refused = || refused_leaving(UndoHint::Nothing);
    let doubted = |ticket| refused_leaving(UndoHint::Doubtful(Ticket::new(ticket).unwrap()));
    let (request, playback) = (Kind::Request, Kind::Playback);
    for (kind, answer, live_if_cancelled, live_if_answered) in [
        (request, Ok(admitted(AdmissionKind::Started)), false, true),
        (request, Ok(admitted(AdmissionKind::Renewed)), true, true),
        (request, refused(), true, true),
        (request, outage(Ticket::new(7)), false, false),
        (request, outage(Ticket::new(8)), true, true),
        (request, outage(None), true, true),
        (request, doubted(7), false, false),
        (request, doubted(8), true, true),
        (playback, Ok(admitted(AdmissionKind::Started)), true, true),
        (playback, Ok(admitted(AdmissionKind::Renewed)), true, true),
        (playback, outage(Ticket::new(7)), false, false),
    ] {
        let mut bench = Bench::new(kind).await;
        bench.grant.hold(&answer);
        let ended = bench.after(drop).await;
        assert_eq!(
            ended,
            (live_if_cancelled, true),
            "{kind} {answer:?}, cancelled"
        );
        let mut bench = Bench::new(kind).await;
        bench.grant.hold(&answer);
        let ended = bench.after(Grant::answered).await;
        assert_eq!(
            ended,
            (live_if_answered, false),
            "{kind} {answer:?}, answered"
        );
    }
}
