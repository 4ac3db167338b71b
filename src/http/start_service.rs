//! Makes and decides starts and heartbeats, for every call that brings one. Changes run in a task
//! of their own, so that a client that hangs up doesn't interrupt them.

use std::sync::Arc;

use axum::response::Response;
use tokio_util::sync::CancellationToken;

use super::error::{ApiError, tell_quota};
use super::layers::RequestId;
use super::{ApiState, HttpDoor};
use crate::config::Changeable;
use crate::doors::{DecisionOutcome, LedgerAnswer, RequestContext, StartRollback};
use crate::identity::Claim;
use crate::ledger::CallerDeadline;
use crate::session::{AdmissionKind, Session, Start};

/// The answer to a stream that may continue.
#[derive(Debug)]
pub(super) struct Granted {
    /// Whether it takes a slot now or already had one.
    pub(super) entry: AdmissionKind,
    /// The session after the call.
    pub(super) session: Session,
    /// The number of the user's live sessions, including this one.
    pub(super) active: usize,
    /// How many the user may watch at once.
    pub(super) limit: u32,
    /// Whether it may continue only because of a dry run.
    pub(super) would_refuse: bool,
}

/// Marks an answer that only a dry run allows, for the metrics.
#[derive(Debug, Clone, Copy)]
pub(super) struct WouldRefuse;

impl Granted {
    /// Adds headers with the limit, and with what remains of it.
    pub(super) fn tell_quota(&self, response: &mut Response) {
        let remaining = left(self.limit, self.active);
        tell_quota(response.headers_mut(), self.limit, remaining);
        if self.would_refuse {
            response.extensions_mut().insert(WouldRefuse);
        }
    }
}

/// How many more streams may start.
pub(super) fn left(limit: u32, active: usize) -> u32 {
    limit.saturating_sub(u32::try_from(active).unwrap_or(u32::MAX))
}

/// Starts a stream, or renews it.
pub(super) async fn start(
    door: &ApiState,
    request: &RequestId,
    mut claim: Claim,
) -> Result<Granted, ApiError> {
    let settings = door.ledger.in_force();
    claim.free |= !settings.limits.enforce;
    let claim = Arc::new(claim);
    let gone = CancellationToken::new();
    let caller = CallerDeadline {
        deadline: None,
        gone: gone.clone(),
    };
    let _gone_with_this_request = gone.drop_guard();
    let (asking, asked, snapshot) = (Arc::clone(door), Arc::clone(&claim), Arc::clone(&settings));
    let answer = detached(door, async move {
        let answer = asking.ledger.heartbeat(&asked, &snapshot, &caller).await;
        // An admitted stream keeps its slot even if the client has hung up.
        let (outbox, metrics) = (asking.outbox.clone(), Arc::clone(&asking.metrics));
        StartRollback::of(&answer, asked, false, outbox, metrics).answered();
        Ok(answer)
    });
    granted(door, request, &claim, settings, answer.await?)
}

/// Renews a stream, if it is live.
pub(super) async fn refresh(
    door: &ApiState,
    request: &RequestId,
    claim: Claim,
) -> Result<Granted, ApiError> {
    let (settings, claim) = (door.ledger.in_force(), Arc::new(claim));
    let (asking, asked, snapshot) = (Arc::clone(door), Arc::clone(&claim), Arc::clone(&settings));
    let answer = detached(door, async move {
        Ok(asking.ledger.refresh(&asked, &snapshot).await)
    });
    let answer = match answer.await? {
        Ok(decision) => Ok(decision.ok_or(ApiError::NotLive)?),
        Err(outage) => Err(outage),
    };
    granted(door, request, &claim, settings, answer)
}

/// Translates the ledger's answer for the client.
fn granted(
    door: &ApiState,
    request: &RequestId,
    claim: &Claim,
    settings: Arc<Changeable>,
    answer: LedgerAnswer,
) -> Result<Granted, ApiError> {
    let request = RequestContext {
        request_id: request.as_str().to_owned(),
        enforces: settings.limits.enforce,
        settings,
        gateway: None,
        client: None,
    };
    match door.log.outcome(&request, claim, answer) {
        DecisionOutcome::LetIn {
            admitted, limit, ..
        } => Ok(Granted {
            entry: admitted.entry,
            session: admitted.session,
            active: admitted.active,
            limit,
            would_refuse: false,
        }),
        DecisionOutcome::DryRun { active, limit } => Ok(without_slot(door, claim, active, limit)),
        DecisionOutcome::Refused { refusal, .. } => {
            Err(ApiError::refused(&refusal, &request.settings.refusal.show))
        }
        DecisionOutcome::Undecided(outage) => Err(ApiError::Outage(outage)),
    }
}

/// The answer to a stream that only a dry run lets in: it holds no slot, so each call decides
/// again.
fn without_slot(door: &HttpDoor, claim: &Claim, active: usize, limit: u32) -> Granted {
    let now = door.ledger.now();
    let lease = door.ledger.lease_of(claim.key.kind);
    let start = Start {
        key: claim.key.clone(),
        facts: claim.facts.clone(),
        lease,
        ticket: None,
        derived: false,
    };
    Granted {
        entry: AdmissionKind::Started,
        session: Session::starting(&start, now.after(lease), now),
        active,
        limit,
        would_refuse: true,
    }
}

/// Runs an operation to its end, even if nobody waits for it.
pub(super) async fn detached<T: Send + 'static>(
    door: &ApiState,
    doing: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    let done = door.tasks.spawn(doing).await;
    done.unwrap_or(Err(ApiError::Internal))
}
