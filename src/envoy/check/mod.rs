//! The `ext_authz` door: decode, ask the ledger, encode.
//!
//! No operation on the store is interrupted ([`Uninterrupted`]). If the call is cancelled before its
//! answer goes out (the client left, or Envoy timed out), nobody will ever report that this stream
//! has ended; so the [`StartRollback`] undoes this call's start.

pub(super) mod claim;
#[cfg(test)]
pub(super) mod tests;
pub(super) mod verdict;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status};
use tracing::{info, warn};

use super::wire::denial;
use super::wire::request::CheckRequest;
use super::wire::response::{self, EncodedResponse};
use crate::clock::Stopwatch;
use crate::config::InForce;
use crate::doors::{DecisionLog, DecisionOutcome, LedgerAnswer, StartRollback, Uninterrupted};
use crate::identity::claim::{CheckKind, ClaimError};
use crate::identity::cookie::{Cookie, CookieOrigin};
use crate::identity::{Claim, Identity, Kind, RouteLists, UserId};
use crate::ledger::{CacheLookup, CallerDeadline, Decision, Ledger};
use crate::outbox::Outbox;
use crate::session::{Admission, EndCause, Refusal};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::{LabelValue, Verdict};
use claim::CheckContext;

/// Answers Envoy's checks.
#[derive(Debug)]
pub struct CheckDoor {
    /// The sources of users and sessions.
    pub identity: Identity,
    /// The routes' own lists of sources.
    pub routes: RouteLists,
    /// The settings; each check takes one snapshot of them.
    pub in_force: Arc<InForce>,
    /// The ledger.
    pub ledger: Arc<Ledger>,
    /// Delivers the undo of cancelled calls.
    pub outbox: Outbox,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// Logs decisions.
    pub log: DecisionLog,
    /// Tracks the operations on the store, which a shutdown waits for.
    pub tasks: TaskTracker,
}

/// What became of a check so far.
pub(super) enum CheckStep {
    /// It is answered.
    Answered(EncodedResponse),
    /// It is about a stream that the ledger must decide. Boxed, because most checks are answered.
    Start(Box<UndecidedStart>),
}

/// A check about a stream that the ledger must decide.
pub(super) struct UndecidedStart {
    /// When it arrived.
    asked: Stopwatch,
    /// The other facts about it.
    context: CheckContext,
    /// What it asks for.
    claim: Claim,
    /// The cookie that names its stream, if nothing else does.
    cookie: Option<Cookie>,
    /// What the lease cache knows about it.
    lookup: CacheLookup,
}

/// The answer to a check.
struct CheckAnswer {
    /// The response for Envoy.
    response: EncodedResponse,
    /// The verdict for the metrics.
    verdict: Verdict,
    /// How long the start waited for a slot, which is not part of the check's duration.
    waited: Duration,
}

impl CheckAnswer {
    /// An answer without a wait.
    fn at_once(response: impl Into<EncodedResponse>, verdict: Verdict) -> Self {
        Self {
            response: response.into(),
            verdict,
            waited: Duration::ZERO,
        }
    }
}

impl CheckDoor {
    /// Answers a check.
    pub(super) async fn check(
        self: &Arc<Self>,
        request: Request<Bytes>,
    ) -> Result<Response<EncodedResponse>, Status> {
        let (metadata, _, message) = request.into_parts();
        let answer = match self.begin(metadata.as_ref(), &message)? {
            CheckStep::Answered(answer) => answer,
            CheckStep::Start(start) => self.finish(*start).await?,
        };
        Ok(Response::new(answer))
    }

    /// Decodes a check, and answers it unless the ledger must decide. `headers` are those of the
    /// call.
    pub(super) fn begin(&self, headers: &HeaderMap, message: &[u8]) -> Result<CheckStep, Status> {
        let asked = Stopwatch::start();
        let request = CheckRequest::read(message);
        let request = request.map_err(|error| Status::internal(error.to_string()))?;
        let lost = |fact, loss| self.metrics.fact_lost(fact, loss);
        let answer = match claim::decode(&request, &self.identity, &self.routes, rand::random, lost)
        {
            Ok(CheckKind::Preflight) => CheckAnswer::at_once(response::pass(), Verdict::Preflight),
            Ok(CheckKind::Head) => CheckAnswer::at_once(response::pass(), Verdict::Head),
            Ok(CheckKind::Stream(claim, cookie, enforce)) => match self.ledger.lookup(&claim) {
                CacheLookup::Good { .. } => {
                    let allow = EncodedResponse::allow(&claim.user, &claim.key, None);
                    CheckAnswer::at_once(allow, Verdict::Held)
                }
                lookup => {
                    let (settings, deadline) = (self.in_force.now(), grpc_timeout(headers));
                    let context = CheckContext::of(&request, enforce, settings, deadline);
                    return Ok(CheckStep::Start(Box::new(UndecidedStart {
                        asked,
                        context,
                        claim,
                        cookie,
                        lookup,
                    })));
                }
            },
            Err(error) => self.reject(&error, &request),
        };
        Ok(CheckStep::Answered(self.counted(asked, answer)))
    }

    /// Has the ledger decide.
    pub(super) async fn finish(
        self: &Arc<Self>,
        start: UndecidedStart,
    ) -> Result<EncodedResponse, Status> {
        let UndecidedStart {
            asked,
            context,
            claim,
            cookie,
            lookup,
        } = start;
        let answer = self.start(&context, claim, cookie, lookup).await?;
        Ok(self.counted(asked, answer))
    }

    /// Counts an answer.
    fn counted(&self, asked: Stopwatch, answer: CheckAnswer) -> EncodedResponse {
        let took = asked.elapsed().saturating_sub(answer.waited);
        self.metrics.check(answer.verdict, Some(took));
        answer.response
    }

    /// Decides a stream that this instance can't let in from memory.
    async fn start(
        self: &Arc<Self>,
        context: &CheckContext,
        mut claim: Claim,
        cookie: Option<Cookie>,
        lookup: CacheLookup,
    ) -> Result<CheckAnswer, Status> {
        // At this door nothing else makes a start free.
        claim.free = !context.request.enforces;
        let claim = Arc::new(claim);
        if let Some(cookie) = cookie {
            return self.by_cookie(context, claim, cookie, lookup).await;
        }
        let is_alone = claim.key.kind == Kind::Request;
        let asked = self.ask(context, &claim, lookup, is_alone, context.deadline);
        let answer = asked.await?;
        Ok(self.encode(context, &claim, answer, None))
    }

    /// Asks for a stream that a cookie names. If that one has ended and its player may continue,
    /// asks for the next.
    async fn by_cookie(
        self: &Arc<Self>,
        context: &CheckContext,
        mut claim: Arc<Claim>,
        mut cookie: Cookie,
        lookup: CacheLookup,
    ) -> Result<CheckAnswer, Status> {
        let asked = Stopwatch::start();
        let is_new = |cookie: &Cookie| cookie.origin == CookieOrigin::New;
        let first = self.ask(context, &claim, lookup, is_new(&cookie), context.deadline);
        let mut answer = first.await?;
        if let Some(ended) = ended(&answer)
            && let Some(next) = cookie.after(starts_anew(ended, claim.takeover.is_some()))
        {
            let key = next.session(&claim.user);
            Arc::make_mut(&mut claim).key = key;
            cookie = next;
            let (lookup, spent) = (self.ledger.lookup(&claim), asked.elapsed());
            let left = context.deadline.map(|all| all.saturating_sub(spent));
            let second = self.ask(context, &claim, lookup, is_new(&cookie), left);
            answer = second.await?;
        }
        let forgotten = ended(&answer).map(|_| cookie.to_forget());
        let is_let_in =
            matches!(&answer, Ok(decision) if matches!(decision.admission, Admission::Admitted(_)));
        let set = forgotten.or_else(|| cookie.to_set().filter(|_| is_let_in));
        Ok(self.encode(context, &claim, answer, set.as_deref()))
    }

    /// Asks the ledger. `is_alone` says that only this call's request plays under its session.
    async fn ask(
        self: &Arc<Self>,
        context: &CheckContext,
        claim: &Arc<Claim>,
        lookup: CacheLookup,
        is_alone: bool,
        deadline: Option<Duration>,
    ) -> Result<LedgerAnswer, Status> {
        let (door, asked) = (Arc::clone(self), Arc::clone(claim));
        let settings = Arc::clone(&context.request.settings);
        let gone = CancellationToken::new();
        let caller = CallerDeadline {
            deadline,
            gone: gone.clone(),
        };
        let gone_with_this_call = gone.drop_guard();
        let answered = Uninterrupted::new(&self.tasks, async move {
            let answer = door.ledger.admit(&asked, lookup, &settings, &caller).await;
            // If nobody waits for the answer any more, it is dropped together with the rollback.
            let (outbox, metrics) = (door.outbox.clone(), Arc::clone(&door.metrics));
            let rollback = StartRollback::of(&answer, asked, is_alone, outbox, metrics);
            (answer, rollback)
        });
        let died = |_| Status::internal("the operation that asks the store has died");
        let (answer, rollback) = answered.await.map_err(died)?;
        // Nobody waits any more, so there is nobody to tell that the caller has gone.
        gone_with_this_call.disarm();
        rollback.answered();
        Ok(answer)
    }

    /// Encodes the ledger's answer. `set` is a cookie to set in addition.
    fn encode(
        &self,
        context: &CheckContext,
        claim: &Claim,
        answer: LedgerAnswer,
        set: Option<&str>,
    ) -> CheckAnswer {
        let waited = match &answer {
            Ok(decision) => decision.waited,
            Err(outage) => outage.waited,
        };
        let (response, verdict) = match self.log.outcome(&context.request, claim, answer) {
            DecisionOutcome::LetIn {
                admitted, basis, ..
            } => {
                let verdict = verdict::admitted(admitted.entry, basis);
                let response = EncodedResponse::allow(&claim.user, &claim.key, set);
                return CheckAnswer {
                    response,
                    verdict,
                    waited,
                };
            }
            DecisionOutcome::DryRun { .. } => (response::pass(), Verdict::WouldRefuse),
            DecisionOutcome::Refused { refusal, basis } => (
                denial::refuse(&refusal, context.style()),
                verdict::refused(&refusal, basis),
            ),
            DecisionOutcome::Undecided(_) => (denial::outage(context.style()), Verdict::Outage),
        };
        let response = match set {
            Some(set) => response::with_cookie(response, set),
            None => response,
        };
        CheckAnswer {
            waited,
            ..CheckAnswer::at_once(response, verdict)
        }
    }

    /// The answer to a request whose user or stream can't be determined.
    fn reject(&self, error: &ClaimError, request: &CheckRequest<'_>) -> CheckAnswer {
        let enforce = claim::enforce_of(request);
        let context = CheckContext::of(request, enforce, self.in_force.now(), None);
        let user = match error {
            ClaimError::NoSession | ClaimError::Malformed { .. } => {
                claim::user_of(request, &self.identity)
            }
            ClaimError::NoUser | ClaimError::Misconfigured(..) | ClaimError::NotHttp => None,
        };
        self.log_rejected(&context, error, user.as_ref());
        if context.request.enforces {
            let verdict = verdict::rejected(error);
            CheckAnswer::at_once(denial::reject(error, context.style()), verdict)
        } else {
            CheckAnswer::at_once(response::pass(), Verdict::WouldRefuse)
        }
    }

    /// Logs one line that explains a request that the ledger was not asked about. It is bounded per
    /// user, or per error if the user is unknown.
    fn log_rejected(&self, context: &CheckContext, error: &ClaimError, user: Option<&UserId>) {
        let reason = verdict::rejected(error).as_str();
        let request_id = context.request.request_id.as_str();
        let left_out = match (user, error) {
            (_, ClaimError::Misconfigured(..) | ClaimError::NotHttp) => {
                if let Some(left_out) = self.log.line_of_cause(&error.to_string()) {
                    warn!(request.id = request_id, reason, left_out, "{error}");
                }
                return;
            }
            (Some(user), _) => self.log.line_of_user(user),
            (None, ClaimError::Malformed { source_name, .. }) => {
                self.log.line_of_cause(&format!("{reason} {source_name}"))
            }
            (None, _) => self.log.line_of_cause(reason),
        };
        if let Some(left_out) = left_out {
            let was = if context.request.enforces {
                "was"
            } else {
                "would have been"
            };
            info!(
                request.id = request_id,
                user.id = user.map(UserId::as_str),
                reason,
                left_out,
                "a request {was} refused: {error}"
            );
        }
    }
}

/// Whether a player whose playback has ended this way starts the next one: after an end by itself,
/// or if it asks for another's slot.
pub(in crate::envoy) fn starts_anew(ended: &EndCause, is_takeover: bool) -> bool {
    is_takeover || *ended == EndCause::Released
}

/// Why the session has ended, if that is the answer.
const fn ended(answer: &LedgerAnswer) -> Option<&EndCause> {
    match answer {
        Ok(Decision {
            admission: Admission::Refused(Refusal::Ended(cause, ..)),
            ..
        }) => Some(cause),
        Ok(_) | Err(_) => None,
    }
}

/// How long Envoy waits for the answer (`grpc-timeout`): digits and a unit, as in the gRPC
/// protocol.
pub(in crate::envoy) fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(amount.saturating_mul(3600))),
        "M" => Some(Duration::from_secs(amount.saturating_mul(60))),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}
