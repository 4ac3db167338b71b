//! How a check decodes its caller's deadline, and which settings decide it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::service::auth::v3::CheckResponse;
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use http::HeaderMap;
use prost::Message;
use testkit::log::Log;
use tokio_util::task::TaskTracker;
use tonic::Request;

use super::{CheckDoor, grpc_timeout};
use crate::clock::{Clock, SystemClock};
use crate::config::Changeable;
use crate::doors::DecisionLog;
use crate::envoy::tests::fixtures::Check;
use crate::identity::{Identity, RouteLists};
use crate::ledger::{Ledger, Settings};
use crate::outbox::outbox;
use crate::policy::Policy;
use crate::session::Terms;
use crate::store::faulty::FaultyStore;
use crate::telemetry::Metrics;

/// A door in front of that store, where a user may watch one stream and a start waits for a slot.
pub(in crate::envoy) fn door(store: &Arc<FaultyStore>) -> CheckDoor {
    let metrics = Arc::new(Metrics::new());
    let settings = Settings::with_grace(Policy::new(1), Duration::from_millis(250));
    let in_force = Arc::clone(&settings.in_force);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    let ledger = Ledger::new(
        Arc::<FaultyStore>::clone(store),
        settings,
        Arc::clone(&clock),
        Arc::clone(&metrics),
    );
    let ledger = Arc::new(ledger);
    let terms = Terms::new(Duration::from_secs(30), Duration::from_millis(50));
    let (outbox, _delivery) = outbox(Arc::clone(&ledger), terms, Arc::clone(&metrics));
    CheckDoor {
        identity: Identity::default(),
        routes: RouteLists::default(),
        in_force,
        ledger,
        outbox,
        metrics,
        log: DecisionLog::new(clock),
        tasks: TaskTracker::new(),
    }
}

/// The answer to a request of anna's.
async fn answer(door: &Arc<CheckDoor>, id: &str) -> HttpResponse {
    let headers = [("x-user-id", "anna"), ("x-request-id", id)];
    let check = Check::on("GET", "/live/1").headers(&headers);
    let answer = door.check(Request::new(check.message())).await.unwrap();
    let answer = CheckResponse::decode(answer.get_ref().message()).unwrap();
    answer.http_response.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_reload_while_a_start_waits_changes_nothing_of_its_decision() {
    let (log, _listening) = Log::listen();
    let store = FaultyStore::new();
    let door = Arc::new(door(&store));
    answer(&door, "r1").await;
    let reload = async {
        store.asked("admit", 2).await;
        let mut changed = Changeable::clone(&door.in_force.now());
        (changed.limits.enforce, changed.limits.policy.default) = (false, 5);
        changed.refusal.show = BTreeSet::new();
        door.in_force.change(changed).unwrap();
    };
    let (refused, ()) = tokio::join!(answer(&door, "r2"), reload);

    let HttpResponse::DeniedResponse(denied) = refused else {
        panic!("it was let in");
    };
    let problem: serde_json::Value = serde_json::from_str(&denied.body).unwrap();
    assert_eq!(
        (&problem["limit"], &problem["active"]),
        (&1.into(), &1.into())
    );
    assert_eq!(problem["sessions"][0]["session"], "r1");
    assert_eq!(log.counts("a stream was refused"), 1);
    assert_eq!(log.counts("limit=1"), 1);
    assert_eq!(log.counts("would have been"), 0);
    // The settings in force now decide the next start.
    assert!(matches!(
        answer(&door, "r3").await,
        HttpResponse::OkResponse(_)
    ));
    let counted = door.metrics.render();
    for (decision, reason, count) in [
        ("allow", "started", 2),
        ("deny", "full", 1),
        ("allow", "would_refuse", 0),
    ] {
        let series = format!("{{decision=\"{decision}\",reason=\"{reason}\"}} {count}\n");
        assert!(counted.contains(&series), "{series}: {counted}");
    }
}

#[test]
fn a_grpc_timeout_is_parsed() {
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
        let mut headers = HeaderMap::new();
        if let Ok(value) = text.parse() {
            headers.insert("grpc-timeout", value);
        }
        assert_eq!(grpc_timeout(&headers), expected, "{text}");
    }
    assert_eq!(grpc_timeout(&HeaderMap::new()), None);
}
