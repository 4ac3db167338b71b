//! The `ext_authz` door: decode, ask the ledger, encode.
//!
//! The ledger is asked in a task of its own, so that an operation on the store is never cut off in the middle. If the call is
//! cancelled before its answer goes out (the client left, Envoy lost patience), nobody will ever say that this stream has ended:
//! then the [`Grant`] takes back what this very call has started.

pub(super) mod claim;
mod start_rollback;
#[cfg(test)]
mod tests;
pub(super) mod verdict;
#[cfg(test)]
mod verdict_tests;

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::service::auth::v3::CheckResponse;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};
use tracing::{info, warn};

use crate::clock::{Clock, Stopwatch};
use crate::config::Changeable;
use crate::envoy::wire::request::CheckRequest;
use crate::envoy::wire::response::Written;
use crate::identity::claim::{Ask, Unclaimed};
use crate::identity::cookie::{Cookie, Origin};
use crate::identity::{Claim, Identity, RouteLists};
use crate::ledger::{Basis, CallerDeadline, Decision, Ledger, Outage};
use crate::outbox::Outbox;
use crate::session::{Admission, AdmissionKind, EndCause, Kind, Refusal, UserId};
use crate::telemetry::metrics::{LabelValue, Verdict};
use crate::telemetry::{Metrics, RefusalLog, RefusedStream, StartedStream, are_told};
use start_rollback::{Grant, Hold};
use verdict::Telling;

/// Answers Envoy's checks.
#[derive(Debug)]
pub struct CheckDoor {
    /// Where users and sessions are named.
    pub identity: Identity,
    /// What routes say instead of that.
    pub routes: RouteLists,
    /// Whom it asks.
    pub ledger: Arc<Ledger>,
    /// What takes back the starts of cancelled calls.
    pub outbox: Outbox,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Bounds the lines about refusals.
    pub refusals: RefusalLog<UserId>,
    /// Bounds the lines that are no single user's, by what is wrong.
    pub mistakes: RefusalLog<String>,
    /// Tells the time to that.
    pub clock: Arc<dyn Clock>,
    /// Waits for the tasks at shutdown.
    pub tasks: TaskTracker,
}

/// What the ledger said.
pub(in crate::envoy) type Answer = Result<Decision, Outage>;

impl CheckDoor {
    /// Answers a check.
    pub(in crate::envoy) async fn check(
        &self,
        request: Request<CheckRequest>,
    ) -> Result<Response<Written>, Status> {
        let asked = Stopwatch::start();
        let deadline = grpc_timeout(request.metadata());
        let request = request.into_inner();
        let lost = |fact, loss| self.metrics.fact_lost(fact, loss);
        let ask = claim::decode(&request, &self.identity, &self.routes, rand::random, lost);
        if let Ok(Ask::Stream(claim, _)) = &ask
            && self.ledger.recalls(claim)
        {
            let allowed = Written::allow(&claim.user, &claim.key);
            return Ok(self.answered(allowed, Verdict::Held, asked.elapsed()));
        }
        let (answer, verdict, waited) = match ask {
            Ok(Ask::Preflight) => (verdict::pass(), Verdict::Preflight, Duration::ZERO),
            Ok(Ask::Head) => (verdict::pass(), Verdict::Head, Duration::ZERO),
            Ok(Ask::Stream(mut claim, cookie)) => {
                // Nothing else makes a start at this door free, so it also tells whether a refusal is passed on.
                claim.free = !self.enforces(&request);
                self.start(claim, cookie, &request, deadline).await?
            }
            Err(unclaimed) => self.reject(&unclaimed, &request),
        };
        let took = asked.elapsed().saturating_sub(waited);
        Ok(self.answered(answer.into(), verdict, took))
    }

    /// Counts a check that is answered so, and took so long.
    fn answered(&self, answer: Written, verdict: Verdict, took: Duration) -> Response<Written> {
        self.metrics.check(verdict);
        self.metrics.check_took(took);
        Response::new(answer)
    }

    /// Decides a stream that isn't known to be held.
    async fn start(
        &self,
        claim: Claim,
        cookie: Option<Cookie>,
        request: &CheckRequest,
        deadline: Option<Duration>,
    ) -> Result<(CheckResponse, Verdict, Duration), Status> {
        let Some(cookie) = cookie else {
            let is_alone = claim.key.kind == Kind::Request;
            let answer = self.ask(&claim, is_alone, deadline).await?;
            return Ok(self.encode(&claim, answer, request));
        };
        self.by_cookie(claim, cookie, request, deadline).await
    }

    /// Asks for a stream that a cookie names. Where that one has ended and its player may go on, it is asked for the next.
    async fn by_cookie(
        &self,
        mut claim: Claim,
        mut cookie: Cookie,
        request: &CheckRequest,
        deadline: Option<Duration>,
    ) -> Result<(CheckResponse, Verdict, Duration), Status> {
        let asked = Stopwatch::start();
        let is_new = |cookie: &Cookie| cookie.origin == Origin::New;
        let mut answer = self.ask(&claim, is_new(&cookie), deadline).await?;
        if let Some(ended) = ended(&answer)
            && let Some(next) = cookie.after(starts_anew(ended, claim.takeover.is_some()))
        {
            claim.key = next.session(&claim.user);
            cookie = next;
            let left = deadline.map(|deadline| deadline.saturating_sub(asked.elapsed()));
            answer = self.ask(&claim, is_new(&cookie), left).await?;
        }
        let forgotten = ended(&answer).map(|_| cookie.to_forget());
        let is_let_in =
            matches!(&answer, Ok(decision) if matches!(decision.admission, Admission::Admitted(_)));
        let set = forgotten.or_else(|| cookie.to_set().filter(|_| is_let_in));
        let (response, verdict, waited) = self.encode(&claim, answer, request);
        let response = match set {
            Some(set) => verdict::with_cookie(response, &set),
            None => response,
        };
        Ok((response, verdict, waited))
    }

    /// What the ledger's answer comes to, what the metrics call it, and how long it waited for a slot.
    fn encode(
        &self,
        claim: &Claim,
        answer: Answer,
        request: &CheckRequest,
    ) -> (CheckResponse, Verdict, Duration) {
        match answer {
            Ok(decision) => {
                let response = match &decision.admission {
                    Admission::Admitted(admitted) => {
                        self.log_rule(claim, decision.basis, request);
                        if admitted.entry == AdmissionKind::Started {
                            self.log_start(claim, admitted.active, decision.limit, request);
                        }
                        verdict::allow(&claim.user, &claim.key)
                    }
                    Admission::Refused(refusal) => {
                        self.log_refusal(claim, refusal, &decision, request);
                        if claim.free {
                            return (verdict::pass(), Verdict::WouldRefuse, decision.waited);
                        }
                        let in_force = self.ledger.in_force();
                        verdict::refuse(refusal, telling(&in_force, request))
                    }
                };
                let verdict = verdict::verdict(&decision.admission, decision.basis);
                (response, verdict, decision.waited)
            }
            Err(outage) => {
                self.log_outage(claim, &outage, request);
                if claim.free {
                    return (verdict::pass(), Verdict::WouldRefuse, outage.waited);
                }
                let in_force = self.ledger.in_force();
                let response = verdict::outage(telling(&in_force, request));
                (response, Verdict::Outage, outage.waited)
            }
        }
    }

    /// Asks the ledger, in a task of its own. `is_alone` says that nothing but this call's request plays under its session.
    async fn ask(
        &self,
        claim: &Claim,
        is_alone: bool,
        deadline: Option<Duration>,
    ) -> Result<Answer, Status> {
        let (ledger, asked) = (Arc::clone(&self.ledger), claim.clone());
        let mut grant = Grant {
            user: claim.user.clone(),
            key: claim.key.clone(),
            is_alone,
            hold: Hold::Nothing,
            outbox: self.outbox.clone(),
            metrics: Arc::clone(&self.metrics),
        };
        let gone = CancellationToken::new();
        let caller = CallerDeadline {
            deadline,
            gone: gone.clone(),
        };
        let _gone_with_this_call = gone.drop_guard();
        let (send, receive) = oneshot::channel();
        self.tasks.spawn(async move {
            let answer = ledger.admit(&asked, &caller).await;
            grant.hold(&answer);
            // If nobody takes it, it is dropped here, and the grant with it.
            drop(send.send((answer, grant)));
        });
        let died = |_| Status::internal("the task that asks the store has died");
        let (answer, grant) = receive.await.map_err(died)?;
        grant.answered();
        Ok(answer)
    }

    /// The answer to a request that can't be told whose, or which stream's, it is.
    fn reject(
        &self,
        unclaimed: &Unclaimed,
        request: &CheckRequest,
    ) -> (CheckResponse, Verdict, Duration) {
        let enforces = self.enforces(request);
        self.log_unclaimed(unclaimed, request, enforces);
        if !enforces {
            return (verdict::pass(), Verdict::WouldRefuse, Duration::ZERO);
        }
        let in_force = self.ledger.in_force();
        (
            verdict::reject(unclaimed, telling(&in_force, request)),
            verdict::unclaimed_verdict(unclaimed),
            Duration::ZERO,
        )
    }

    /// Whether who is refused is told so. In a dry run they are let in without a slot, as if nobody had been asked: all that is counted is
    /// as it would be if they had been turned away.
    fn enforces(&self, request: &CheckRequest) -> bool {
        let configured = self.ledger.in_force().limits.enforce;
        claim::enforces(request, configured).unwrap_or(configured)
    }

    /// One line that explains a refused viewer, bounded per user.
    fn log_refusal(
        &self,
        claim: &Claim,
        refusal: &Refusal,
        decision: &Decision,
        request: &CheckRequest,
    ) {
        let Some(left_out) = self.refusals.admit(&claim.user, self.clock.now()) else {
            return;
        };
        let refused = RefusedStream {
            request_id: claim::request_id(request),
            user: &claim.user,
            key: &claim.key,
            refusal,
            limit: decision.limit,
            by_this_instance_alone: matches!(decision.basis, Basis::Rule(_)),
            enforced: !claim.free,
        };
        refused.tell(left_out);
    }

    /// One line that says where and when a slot was taken, of those whose starts are told.
    fn log_start(&self, claim: &Claim, count: usize, limit: u32, request: &CheckRequest) {
        if !are_told(self.ledger.in_force().log_starts, &claim.user) {
            return;
        }
        let (gateway, client) = claim::ends(request);
        let started = StartedStream {
            request_id: claim::request_id(request),
            user: &claim.user,
            key: &claim.key,
            count,
            limit,
            gateway,
            client,
        };
        started.tell();
    }

    /// One line that explains a viewer who was let in without the store's word; by rule, since an outage concerns everybody.
    fn log_rule(&self, claim: &Claim, basis: Basis, request: &CheckRequest) {
        let Basis::Rule(rule) = basis else {
            return;
        };
        let rule = rule.as_str();
        if let Some(left_out) = self.mistakes.admit(&rule.to_owned(), self.clock.now()) {
            info!(
                request.id = claim::request_id(request),
                user.id = claim.user.as_str(),
                session.key = claim.key.to_string(),
                rule,
                left_out,
                "a stream was let in by the outage rule"
            );
        }
    }

    /// The same for a request that was not even asked of the store; by what is wrong with it where nobody knows whose it is.
    fn log_unclaimed(&self, unclaimed: &Unclaimed, request: &CheckRequest, enforces: bool) {
        let (now, request_id) = (self.clock.now(), claim::request_id(request));
        let reason = verdict::unclaimed_verdict(unclaimed).as_str();
        let user = match unclaimed {
            Unclaimed::Misconfigured(..) | Unclaimed::NotHttp => {
                if let Some(left_out) = self.mistakes.admit(&unclaimed.to_string(), now) {
                    warn!(request.id = request_id, reason, left_out, "{unclaimed}");
                }
                return;
            }
            Unclaimed::NoUser => None,
            Unclaimed::NoSession | Unclaimed::Malformed { .. } => {
                claim::user_of(request, &self.identity)
            }
        };
        let left_out = match (&user, unclaimed) {
            (Some(user), _) => self.refusals.admit(user, now),
            (None, Unclaimed::Malformed { source_name, .. }) => {
                self.mistakes.admit(&format!("{reason} {source_name}"), now)
            }
            (None, _) => self.mistakes.admit(&reason.to_owned(), now),
        };
        if let Some(left_out) = left_out {
            let user = user.as_ref().map(UserId::as_str);
            let was = if enforces { "was" } else { "would have been" };
            info!(
                request.id = request_id,
                user.id = user,
                reason,
                left_out,
                "a request {was} refused: {unclaimed}"
            );
        }
    }

    /// The same for a start that could not be decided; by kind, since an outage concerns everybody.
    fn log_outage(&self, claim: &Claim, outage: &Outage, request: &CheckRequest) {
        let kind = outage.outcome().as_str();
        if let Some(left_out) = self.mistakes.admit(&kind.to_owned(), self.clock.now()) {
            info!(
                request.id = claim::request_id(request),
                user.id = claim.user.as_str(),
                session.key = claim.key.to_string(),
                reason = Verdict::Outage.as_str(),
                left_out,
                "a stream could not be decided: {outage}"
            );
        }
    }
}

/// How that request's client is told.
fn telling<'a>(in_force: &'a Changeable, request: &CheckRequest) -> Telling<'a> {
    Telling {
        refusal: &in_force.refusal,
        is_grpc: claim::is_grpc(request),
    }
}

/// Whether a player whose playback has ended so starts the next one: what ended by itself, or asks for another's slot.
pub(in crate::envoy) fn starts_anew(ended: &EndCause, is_takeover: bool) -> bool {
    is_takeover || *ended == EndCause::Released
}

/// Why the session has ended, where that is the answer.
const fn ended(answer: &Answer) -> Option<&EndCause> {
    match answer {
        Ok(Decision {
            admission: Admission::Refused(Refusal::Ended(cause, _)),
            ..
        }) => Some(cause),
        Ok(_) | Err(_) => None,
    }
}

/// How long Envoy waits for the answer (`grpc-timeout`): digits and a unit, by the gRPC protocol.
pub(in crate::envoy) fn grpc_timeout(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
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
