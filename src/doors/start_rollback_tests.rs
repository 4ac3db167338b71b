//! What a call undoes when nobody waits for it.

use std::sync::Arc;
use std::time::Duration;

use super::{LedgerAnswer, StartRollback};
use crate::clock::{SystemClock, Timestamp};
use crate::identity::{Claim, Facts, Kind, SessionId, SessionKey, UserId};
use crate::ledger::{Basis, Decision, Ledger, Outage, Settings, UndoHint};
use crate::outbox::{Delivery, Outbox, outbox};
use crate::policy::Policy;
use crate::session::{
    Admission, AdmissionKind, Admitted, EndCause, Refusal, Session, Start, StartRules, Terms,
    Ticket, WhenFull,
};
use crate::store::faulty::FaultyStore;
use crate::store::{Store, StoreError};
use crate::telemetry::Metrics;

/// A claim in front of a store in which its session has started, with ticket 7.
struct Bench {
    store: Arc<FaultyStore>,
    metrics: Arc<Metrics>,
    delivery: Delivery,
    outbox: Outbox,
    claim: Arc<Claim>,
}

impl Bench {
    async fn new(kind: Kind) -> Self {
        let store = FaultyStore::new();
        let metrics = Arc::new(Metrics::new());
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
        let claim = Claim {
            user,
            plan: None,
            key: start.key,
            facts: start.facts,
            takeover: None,
            message: None,
            derived: false,
            free: false,
        };
        Self {
            store,
            metrics,
            delivery,
            outbox,
            claim: Arc::new(claim),
        }
    }

    /// Ends the rollback of that answer; returns whether the session is still live, and whether the
    /// check counts as cancelled.
    async fn after(self, answer: &LedgerAnswer, end: impl FnOnce(StartRollback)) -> (bool, bool) {
        let is_alone = self.claim.key.kind == Kind::Request;
        let (outbox, metrics) = (self.outbox.clone(), Arc::clone(&self.metrics));
        end(StartRollback::of(
            answer, self.claim, is_alone, outbox, metrics,
        ));
        self.outbox.close();
        self.delivery.run().await;
        let cancelled = "streamgate_checks_total{decision=\"error\",reason=\"cancelled\"} 1";
        (
            !self.store.live("anna").await.is_empty(),
            self.metrics.render().contains(cancelled),
        )
    }
}

/// The start of a session, with ticket 7.
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
        limit_override: None,
    };
    decided(Admission::Admitted(admitted), undo)
}

fn outage(doubtful: Option<Ticket>) -> LedgerAnswer {
    Err(Outage {
        error: StoreError::Timeout(Duration::from_millis(50)),
        doubtful,
        waited: Duration::ZERO,
    })
}

#[tokio::test]
async fn a_call_takes_back_what_it_started_itself_and_no_playback() {
    let refused_leaving = |undo| {
        let ended = Refusal::Ended(EndCause::Released, None, None);
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
        let ended = Bench::new(kind).await.after(&answer, drop).await;
        assert_eq!(
            ended,
            (live_if_cancelled, true),
            "{kind} {answer:?}, cancelled"
        );
        let bench = Bench::new(kind).await;
        let ended = bench.after(&answer, StartRollback::answered).await;
        assert_eq!(
            ended,
            (live_if_answered, false),
            "{kind} {answer:?}, answered"
        );
    }
}
