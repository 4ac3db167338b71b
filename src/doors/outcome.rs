//! Turns the ledger's answer into the outcome that a door encodes, and logs lines that explain it.

use std::net::IpAddr;
use std::sync::Arc;

use tracing::info;

use crate::clock::{Clock, Timestamp};
use crate::config::{Changeable, OutageRule};
use crate::events::{Event, EventType, Events};
use crate::identity::{Claim, UserId};
use crate::ledger::{Basis, Decision, Outage};
use crate::problem::refusal_reason;
use crate::session::{Admission, AdmissionKind, Admitted, Refusal};
use crate::telemetry::metrics::{LabelValue, Verdict};
use crate::telemetry::{RefusalLog, RefusedStream, StartedStream, are_told};

/// The ledger's answer to a claim.
pub(crate) type LedgerAnswer = Result<Decision, Outage>;

/// Logs the decisions of one door. Lines are bounded per user, or per cause if the cause affects
/// everybody.
#[derive(Debug)]
pub struct DecisionLog {
    /// Bounds the lines about single users.
    refusals: RefusalLog<UserId>,
    /// Bounds the lines that affect everybody, by their cause.
    mistakes: RefusalLog<String>,
    /// The clock for both.
    clock: Arc<dyn Clock>,
    /// Tells operators the same; none if nobody can listen.
    events: Option<Arc<Events>>,
}

/// What the log says about a request for a stream, and the settings that decide it.
#[derive(Debug)]
pub(crate) struct RequestContext {
    /// The request's id, as in its answer; empty if it has none.
    pub(crate) request_id: String,
    /// The settings in force when the request arrived; they decide everything about it.
    pub(crate) settings: Arc<Changeable>,
    /// Whether a refusal reaches the client. In a dry run a refused stream is let in without a
    /// slot, and counted as if it had been refused.
    pub(crate) enforces: bool,
    /// The gateway's address that the viewer connected to, with its port; none if no gateway asked.
    pub(crate) gateway: Option<String>,
    /// The viewer's address, as seen by the gateway.
    pub(crate) client: Option<IpAddr>,
}

/// The outcome that a door encodes.
#[derive(Debug)]
pub(crate) enum DecisionOutcome {
    /// The stream starts or continues.
    LetIn {
        /// The session.
        admitted: Admitted,
        /// Whose decision it is.
        basis: Basis,
        /// How many streams the user may watch.
        limit: u32,
    },
    /// In a dry run the stream continues without a slot, although it was refused or the store could
    /// not answer.
    DryRun {
        /// The user's live sessions, as far as the refusal named them.
        active: usize,
        /// How many streams the user may watch.
        limit: u32,
    },
    /// The stream is refused.
    Refused {
        /// The refusal.
        refusal: Refusal,
        /// Whose decision it is.
        basis: Basis,
    },
    /// The store could not answer, and the outage rule denies.
    Undecided(Outage),
}

impl DecisionLog {
    /// A log without lines yet; `clock` times the last line of each kind.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            refusals: RefusalLog::default(),
            mistakes: RefusalLog::default(),
            clock,
            events: None,
        }
    }

    /// Tells operators who listen about each decision from now on.
    #[must_use]
    pub fn telling(self, events: Arc<Events>) -> Self {
        Self {
            events: Some(events),
            ..self
        }
    }

    /// Whether a line about that user is due; if so, how many were left out before it.
    pub(crate) fn line_of_user(&self, user: &UserId) -> Option<u64> {
        self.refusals.admit(user, self.clock.now())
    }

    /// The same for a line that concerns no single user, by its cause.
    pub(crate) fn line_of_cause(&self, cause: &str) -> Option<u64> {
        self.mistakes.admit(&cause.to_owned(), self.clock.now())
    }

    /// Logs the ledger's answer, and applies the dry run.
    pub(crate) fn outcome(
        &self,
        request: &RequestContext,
        claim: &Claim,
        answer: LedgerAnswer,
    ) -> DecisionOutcome {
        let decision = match answer {
            Ok(decision) => decision,
            Err(outage) => {
                self.log_outage(request, claim, &outage);
                self.tell_refused(request, claim, None, Verdict::Outage.as_str());
                return if request.enforces {
                    DecisionOutcome::Undecided(outage)
                } else {
                    let policy = &request.settings.limits.policy;
                    let limit = policy.allowance(&claim.user, claim.plan.as_ref()).limit;
                    DecisionOutcome::DryRun { active: 0, limit }
                };
            }
        };
        self.tell(request, claim, &decision.admission);
        let (basis, limit) = (decision.basis, decision.limit);
        match decision.admission {
            Admission::Admitted(admitted) => {
                if let Basis::Rule(rule) = basis {
                    self.log_rule(request, claim, rule);
                }
                if admitted.entry == AdmissionKind::Started
                    && are_told(request.settings.log_starts, &claim.user)
                {
                    request.log_start(claim, admitted.active, limit);
                }
                DecisionOutcome::LetIn {
                    admitted,
                    basis,
                    limit,
                }
            }
            Admission::Refused(refusal) => {
                self.log_refusal(request, claim, (&refusal, basis), limit);
                if request.enforces {
                    return DecisionOutcome::Refused { refusal, basis };
                }
                let active = match &refusal {
                    Refusal::Full { holders, .. } => holders.len(),
                    Refusal::Ended(..) | Refusal::NotStoppable => 0,
                };
                DecisionOutcome::DryRun { active, limit }
            }
        }
    }

    /// Tells operators who listen what was decided, unless a stream just goes on.
    fn tell(&self, request: &RequestContext, claim: &Claim, admission: &Admission) {
        match admission {
            Admission::Admitted(admitted) if admitted.entry == AdmissionKind::Renewed => {}
            Admission::Admitted(admitted) => {
                if let Some(events) = &self.events {
                    let about = || started(request, claim, admitted);
                    events.tell(Some(admitted.decided_at), about);
                }
            }
            Admission::Refused(refusal) => {
                let at = match refusal {
                    Refusal::Full { decided_at, .. } => Some(*decided_at),
                    Refusal::Ended(..) | Refusal::NotStoppable => None,
                };
                self.tell_refused(request, claim, at, refusal_reason(refusal).as_str());
            }
        }
    }

    /// Tells operators who listen that a stream was refused.
    fn tell_refused(
        &self,
        request: &RequestContext,
        claim: &Claim,
        at: Option<Timestamp>,
        reason: &str,
    ) {
        if let Some(events) = &self.events {
            events.tell(at, || {
                let refused = Event::about(EventType::Refused, &claim.user, &claim.key);
                [Event {
                    reason: Some(reason.to_owned()),
                    gateway: request.gateway.clone(),
                    // So that nobody takes it for a viewer who was turned away.
                    detail: (!request.enforces).then(|| "dry run".to_owned()),
                    ..refused.with_facts(&claim.facts)
                }]
            });
        }
    }

    /// Logs one line that explains a refusal, bounded per user.
    fn log_refusal(
        &self,
        request: &RequestContext,
        claim: &Claim,
        (refusal, basis): (&Refusal, Basis),
        limit: u32,
    ) {
        if let Some(left_out) = self.line_of_user(&claim.user) {
            let refused = RefusedStream {
                request_id: request.request_id.clone(),
                user: &claim.user,
                key: &claim.key,
                refusal,
                limit,
                by_this_instance_alone: matches!(basis, Basis::Rule(_)),
                enforced: request.enforces,
            };
            refused.tell(left_out);
        }
    }

    /// Logs one line that explains why the outage rule let a viewer in; bounded per rule, since an
    /// outage affects everybody.
    fn log_rule(&self, request: &RequestContext, claim: &Claim, rule: OutageRule) {
        let rule = rule.as_str();
        if let Some(left_out) = self.line_of_cause(rule) {
            info!(
                request.id = request.request_id.as_str(),
                user.id = claim.user.as_str(),
                session.key = claim.key.to_string(),
                rule,
                left_out,
                "a stream was let in by the outage rule"
            );
        }
    }

    /// Logs one line that explains a start that could not be decided; bounded per kind of failure.
    fn log_outage(&self, request: &RequestContext, claim: &Claim, outage: &Outage) {
        if let Some(left_out) = self.line_of_cause(outage.outcome().as_str()) {
            info!(
                request.id = request.request_id.as_str(),
                user.id = claim.user.as_str(),
                session.key = claim.key.to_string(),
                reason = Verdict::Outage.as_str(),
                left_out,
                "a stream could not be decided: {outage}"
            );
        }
    }
}

/// The events of a start: the sessions that it displaced, and itself.
fn started(request: &RequestContext, claim: &Claim, admitted: &Admitted) -> Vec<Event> {
    let displaced = admitted.displaced.iter().map(|session| {
        let displaced = Event::about(EventType::Displaced, &claim.user, &session.key);
        Event {
            by: Some(claim.key.id.to_string()),
            ..displaced.with_facts(&session.facts)
        }
    });
    let started = Event::about(EventType::Started, &claim.user, &claim.key);
    let started = Event {
        gateway: request.gateway.clone(),
        ..started.with_facts(&claim.facts)
    };
    displaced.chain([started]).collect()
}

impl RequestContext {
    /// Logs one line that says where and when a slot was taken.
    fn log_start(&self, claim: &Claim, count: usize, limit: u32) {
        let started = StartedStream {
            request_id: self.request_id.clone(),
            user: &claim.user,
            key: &claim.key,
            count,
            limit,
            gateway: self.gateway.clone(),
            client: self.client,
        };
        started.tell();
    }
}
