//! How a start or heartbeat is asked for and decided, whatever the call that brings it. What changes anything is done in a task of its own,
//! so that a client that hangs up doesn't cut it off in the middle.

use axum::response::Response;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::Door;
use super::HttpDoor;
use super::error::{ApiError, tell_quota};
use super::layers::RequestId;
use crate::identity::Claim;
use crate::ledger::{Basis, CallerDeadline, Decision, Ledger, Outage, UndoHint};
use crate::outbox::{Notice, Outbox};
use crate::session::{Admission, AdmissionKind, Refusal, Session, Start};
use crate::telemetry::metrics::{LabelValue, Verdict};
use crate::telemetry::{RefusedStream, StartedStream, are_told};

/// What a stream that may go on is told.
#[derive(Debug)]
pub(super) struct Granted {
    /// Whether it takes a slot from now on, or had it already.
    pub(super) entry: AdmissionKind,
    /// The session as it stands.
    pub(super) session: Session,
    /// The user's live sessions, this one included.
    pub(super) active: usize,
    /// How many the user may watch at once.
    pub(super) limit: u32,
    /// Whether it is a dry run alone that lets it go on.
    pub(super) would_refuse: bool,
}

/// Marks the answer to a stream that a dry run alone lets go on, for whoever counts.
#[derive(Debug, Clone, Copy)]
pub(super) struct WouldRefuse;

impl Granted {
    /// Tells of the limit, and of what is left below it.
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

/// Starts a stream, or says that it goes on.
pub(super) async fn start(
    door: &Door,
    request: &RequestId,
    mut claim: Claim,
) -> Result<Granted, ApiError> {
    claim.free |= !door.ledger.in_force().limits.enforce;
    let gone = CancellationToken::new();
    let caller = CallerDeadline {
        deadline: None,
        gone: gone.clone(),
    };
    let _gone_with_this_request = gone.drop_guard();
    let (ledger, outbox) = (door.ledger.clone(), door.outbox.clone());
    let asked = claim.clone();
    let answer = detached(door, async move {
        Ok(ask(&ledger, &outbox, &asked, &caller).await)
    })
    .await?;
    granted(door, request, &claim, answer)
}

/// Says that a stream goes on, if it is live.
pub(super) async fn refresh(
    door: &Door,
    request: &RequestId,
    claim: Claim,
) -> Result<Granted, ApiError> {
    let (ledger, asked) = (door.ledger.clone(), claim.clone());
    let answer = detached(door, async move { Ok(ledger.refresh(&asked).await) }).await?;
    let answer = answer.map(|decision| decision.ok_or(ApiError::NotLive));
    match answer {
        Ok(decision) => granted(door, request, &claim, Ok(decision?)),
        Err(outage) => granted(door, request, &claim, Err(outage)),
    }
}

/// Logs that a stream has started: how many its user watches now, of how many.
fn log_start(request: &RequestId, claim: &Claim, count: usize, limit: u32) {
    let started = StartedStream {
        request_id: request.to_string(),
        user: &claim.user,
        key: &claim.key,
        count,
        limit,
        gateway: None,
        client: None,
    };
    started.tell();
}

/// What an answer of the ledger's means for the client, with a line in the log where it is not what the client hoped for.
fn granted(
    door: &Door,
    request: &RequestId,
    claim: &Claim,
    answer: Result<Decision, Outage>,
) -> Result<Granted, ApiError> {
    let in_force = door.ledger.in_force();
    let enforces = in_force.limits.enforce;
    let decision = match answer {
        Ok(decision) => decision,
        Err(outage) => {
            log_outage(door, request, claim, &outage);
            return if enforces {
                Err(ApiError::Outage(outage))
            } else {
                let limit = door.ledger.limit_of(&claim.user, claim.plan.as_ref());
                Ok(without_slot(door, claim, 0, limit))
            };
        }
    };
    match decision.admission {
        Admission::Admitted(admitted) => {
            if admitted.entry == AdmissionKind::Started
                && are_told(in_force.log_starts, &claim.user)
            {
                log_start(request, claim, admitted.active, decision.limit);
            }
            Ok(Granted {
                entry: admitted.entry,
                session: admitted.session,
                active: admitted.active,
                limit: decision.limit,
                would_refuse: false,
            })
        }
        Admission::Refused(refusal) => {
            if let Some(left_out) = door.refusals.admit(&claim.user, door.clock.now()) {
                let refused = RefusedStream {
                    request_id: request.to_string(),
                    user: &claim.user,
                    key: &claim.key,
                    refusal: &refusal,
                    limit: decision.limit,
                    by_this_instance_alone: matches!(decision.basis, Basis::Rule(_)),
                    enforced: enforces,
                };
                refused.tell(left_out);
            }
            if enforces {
                Err(ApiError::refused(&refusal, &in_force.refusal.show))
            } else {
                let active = match &refusal {
                    Refusal::Full { holders, .. } => holders.len(),
                    Refusal::Ended(..) | Refusal::NotStoppable => 0,
                };
                Ok(without_slot(door, claim, active, decision.limit))
            }
        }
    }
}

/// What a stream is told that a dry run lets in: it holds no slot, and is asked about anew each time.
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

/// One line that explains a start that could not be decided; by kind, since an outage concerns everybody.
fn log_outage(door: &Door, request: &RequestId, claim: &Claim, outage: &Outage) {
    let kind = outage.outcome().as_str();
    if let Some(left_out) = door.mistakes.admit(&kind.to_owned(), door.clock.now()) {
        info!(
            request.id = request.as_str(),
            user.id = claim.user.as_str(),
            session.key = claim.key.to_string(),
            reason = Verdict::Outage.as_str(),
            left_out,
            "a stream could not be decided: {outage}"
        );
    }
}

/// Asks for a slot, and has taken back what that may have left behind if it was not allowed. What was let in stays, whoever has hung up.
async fn ask(
    ledger: &Ledger,
    outbox: &Outbox,
    claim: &Claim,
    caller: &CallerDeadline,
) -> Result<Decision, Outage> {
    let answer = ledger.heartbeat(claim, caller).await;
    let doubtful = match &answer {
        Ok(decision) => match decision.undo {
            UndoHint::Doubtful(ticket) => Some(ticket),
            UndoHint::Started(_) | UndoHint::Nothing => None,
        },
        Err(outage) => outage.doubtful,
    };
    if let Some(ticket) = doubtful {
        let notice = Notice::Undo(claim.key.clone(), ticket);
        outbox.submit(claim.user.clone(), notice);
    }
    answer
}

/// Does something to its end, whether or not anybody waits for it.
pub(super) async fn detached<T: Send + 'static>(
    door: &Door,
    doing: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    let done = door.tasks.spawn(doing).await;
    done.unwrap_or(Err(ApiError::Internal))
}
