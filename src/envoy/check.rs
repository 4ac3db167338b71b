//! The `ext_authz` door: decode, ask the ledger, encode.
//!
//! The ledger is asked in a task of its own, so that an operation on the store is never cut off in the middle. If the call is
//! cancelled before its answer goes out (the client left, Envoy lost patience), nobody will ever say that this stream has ended:
//! then the [`Grant`] takes back what this very call has started.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::service::auth::v3::authorization_server::Authorization;
use envoy_types::pb::envoy::service::auth::v3::{CheckRequest, CheckResponse};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};
use tracing::{info, warn};

use super::claim::{self, Ask, Unclaimed};
use super::cookie::{Cookie, Origin};
use super::routes::RouteLists;
use super::verdict;
use crate::clock::{Clock, Stopwatch};
use crate::config::{Identity, Shown};
use crate::ledger::{Basis, Claim, Decision, Leaves, Ledger, Outage, Patience};
use crate::releaser::{Notice, Releaser};
use crate::session::{Admission, EndCause, Kind, Refusal, SessionKey, Ticket, UserId};
use crate::telemetry::metrics::{LabelValue, Verdict};
use crate::telemetry::{Metrics, RefusalLog, RefusedStream};

/// Answers Envoy's checks.
#[derive(Debug)]
pub struct CheckDoor {
    /// Where users and sessions are named.
    pub identity: Identity,
    /// What routes say instead of that.
    pub routes: RouteLists,
    /// What a refusal tells of the live sessions.
    pub show: BTreeSet<Shown>,
    /// Whom it asks.
    pub ledger: Arc<Ledger>,
    /// What takes back the starts of cancelled calls.
    pub releaser: Releaser,
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
pub(super) type Answer = Result<Decision, Outage>;

#[tonic::async_trait]
impl Authorization for CheckDoor {
    async fn check(
        &self,
        request: Request<CheckRequest>,
    ) -> Result<Response<CheckResponse>, Status> {
        let asked = Stopwatch::start();
        let deadline = grpc_timeout(request.metadata());
        let request = request.into_inner();
        let ask = claim::decode(&request, &self.identity, &self.routes, rand::random);
        let (answer, verdict, waited) = match ask {
            Ok(Ask::Preflight) => (verdict::pass(), Verdict::Preflight, Duration::ZERO),
            Ok(Ask::Head) => (verdict::pass(), Verdict::Head, Duration::ZERO),
            Ok(Ask::Stream(claim, _)) if self.ledger.recalls(&claim) => (
                verdict::allow(&claim.user, &claim.key),
                Verdict::Held,
                Duration::ZERO,
            ),
            Ok(Ask::Stream(claim, None)) => {
                let is_alone = claim.key.kind == Kind::Request;
                let answer = self.ask(&claim, is_alone, deadline).await?;
                self.encode(&claim, answer, &request)
            }
            Ok(Ask::Stream(claim, Some(cookie))) => {
                self.by_cookie(claim, cookie, &request, deadline).await?
            }
            Err(unclaimed) => self.reject(&unclaimed, &request),
        };
        self.metrics.check(verdict);
        self.metrics
            .check_took(asked.elapsed().saturating_sub(waited));
        Ok(Response::new(answer))
    }
}

impl CheckDoor {
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
            && let Some(next) = cookie.after(ended, claim.takeover.is_some())
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
                    Admission::Admitted(_) => {
                        self.log_rule(claim, decision.basis, request);
                        verdict::allow(&claim.user, &claim.key)
                    }
                    Admission::Refused(refusal) => {
                        self.log_refusal(claim, refusal, &decision, request);
                        verdict::refuse(refusal, &self.show)
                    }
                };
                let verdict = verdict::verdict(&decision.admission, decision.basis);
                (response, verdict, decision.waited)
            }
            Err(outage) => {
                self.log_outage(claim, &outage, request);
                (verdict::outage(), Verdict::Outage, outage.waited)
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
        let mut grant = Grant::new(self, claim, is_alone);
        let gone = CancellationToken::new();
        let patience = Patience {
            deadline,
            gone: gone.clone(),
        };
        let _gone_with_this_call = gone.drop_guard();
        let (send, receive) = oneshot::channel();
        self.tasks.spawn(async move {
            let answer = ledger.admit(&asked, &patience).await;
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
        self.log_unclaimed(unclaimed, request);
        (
            verdict::reject(unclaimed),
            verdict::unclaimed_verdict(unclaimed),
            Duration::ZERO,
        )
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
        };
        refused.tell(left_out);
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
    fn log_unclaimed(&self, unclaimed: &Unclaimed, request: &CheckRequest) {
        let (now, request_id) = (self.clock.now(), claim::request_id(request));
        let reason = verdict::unclaimed_verdict(unclaimed).as_str();
        let user = match unclaimed {
            Unclaimed::Misconfigured(_) | Unclaimed::NotHttp => {
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
            info!(
                request.id = request_id,
                user.id = user,
                reason,
                left_out,
                "a request was refused: {unclaimed}"
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

/// Why the session has ended, where that is the answer.
const fn ended(answer: &Answer) -> Option<&EndCause> {
    match answer {
        Ok(Decision {
            admission: Admission::Refused(Refusal::Ended(cause)),
            ..
        }) => Some(cause),
        Ok(_) | Err(_) => None,
    }
}

/// What a call may have left in the store, until its answer goes out.
#[derive(Debug)]
#[must_use]
pub(super) struct Grant {
    /// Whose start it is.
    pub(super) user: UserId,
    /// The session that may have started.
    pub(super) key: SessionKey,
    /// Whether nothing but this call's request plays under it.
    pub(super) is_alone: bool,
    /// What may have to be taken back.
    pub(super) hold: Hold,
    /// Takes it back.
    pub(super) releaser: Releaser,
    /// Counts the calls that nobody waited for.
    pub(super) metrics: Arc<Metrics>,
}

/// What a call may leave behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    /// Nothing that is to be taken back.
    Nothing,
    /// A session that it started.
    Started(Ticket),
    /// Perhaps a session: the store's answer did not come, and so the start is not allowed.
    Doubtful(Ticket),
    /// Nothing any more: the answer went out.
    Answered,
}

impl Grant {
    /// The grant of a call that has not been answered.
    fn new(door: &CheckDoor, claim: &Claim, is_alone: bool) -> Self {
        let (releaser, metrics) = (door.releaser.clone(), Arc::clone(&door.metrics));
        Self {
            user: claim.user.clone(),
            key: claim.key.clone(),
            is_alone,
            hold: Hold::Nothing,
            releaser,
            metrics,
        }
    }

    /// Notes what the answer leaves behind. The start of a playback that others may know is never taken back: its other requests count
    /// on it.
    pub(super) fn hold(&mut self, answer: &Answer) {
        self.hold = match answer {
            Ok(decision) => match decision.leaves {
                Leaves::Started(ticket) if self.is_alone => Hold::Started(ticket),
                Leaves::Started(_) | Leaves::Nothing => Hold::Nothing,
                Leaves::Doubtful(ticket) => Hold::Doubtful(ticket),
            },
            Err(outage) => outage.doubtful.map_or(Hold::Nothing, Hold::Doubtful),
        };
    }

    /// The answer goes out: from now on Envoy's access log tells of the stream's end. A doubtful start was not allowed, and has none.
    pub(super) fn answered(mut self) {
        if let Hold::Doubtful(ticket) = self.hold {
            self.take_back(ticket);
        }
        self.hold = Hold::Answered;
    }

    /// Has this call's start undone, should it have taken place and nobody have renewed it since.
    fn take_back(&self, ticket: Ticket) {
        self.releaser
            .submit(self.user.clone(), Notice::Undo(self.key.clone(), ticket));
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        match self.hold {
            Hold::Answered => return,
            Hold::Nothing => {}
            Hold::Started(ticket) | Hold::Doubtful(ticket) => self.take_back(ticket),
        }
        self.metrics.check(Verdict::Cancelled);
    }
}

/// What Envoy says is left of its patience: digits and a unit, by the gRPC protocol.
pub(super) fn grpc_timeout(metadata: &MetadataMap) -> Option<Duration> {
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
