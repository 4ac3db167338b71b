//! Judges what the instances answer while a history is played.

use streamgate::config::{Changeable, OutageRule};
use streamgate::identity::{Claim, Kind};
use streamgate::ledger::{Basis, Decision, Outage};
use streamgate::session::{Admission, AdmissionKind, Admitted, Refusal, Renewal};

use super::history::Viewer;
use super::shared_store::Answer;
use super::trial::Trial;

impl Trial {
    /// Whether the viewer's part of the store has always answered the viewer's instance.
    fn is_well(&self, viewer: &Viewer) -> bool {
        let witness = &self.instances[viewer.instance].witness;
        witness.is_well(&self.users[viewer.user])
    }

    /// An instance has let a stream go on without a question.
    pub(super) fn judge_good(&self, viewer: &Viewer, claim: &Claim) {
        let now = self.shared.now();
        let mut notes = self.notes();
        let until = notes.sure_until(viewer.instance, &claim.user, &claim.key);
        notes.count("goes on unasked");
        notes.log(now, &format!("{viewer:?} goes on, at most until {until:?}"));
        if until.is_none_or(|until| until <= now) {
            notes.wrong(format!(
                "{viewer:?} goes on unasked at {now:?}, though granted until {until:?}"
            ));
        }
    }

    /// An instance has decided, after `since` answers of the store.
    pub(super) fn judge(
        &self,
        viewer: &Viewer,
        claim: &Claim,
        settings: &Changeable,
        since: usize,
        answer: &Result<Decision, Outage>,
    ) {
        let limit = settings.limits.policy.default;
        let flaw = match answer {
            Err(_) if self.is_well(viewer) => Some("there is no outage"),
            Err(_) => None,
            Ok(decision) if decision.limit != limit => Some("the limit is another"),
            Ok(decision) => match decision.basis {
                Basis::Store => self.flaw_of_store(viewer, claim, since, decision),
                Basis::HeldLease => self.flaw_of_held(viewer, claim, decision),
                Basis::Rule(rule) => self.flaw_of_rule(viewer, rule, decision),
            },
        };
        if let Some(flaw) = flaw {
            self.wrong(format!(
                "{viewer:?}, with a limit of {limit}, got {answer:?}, but {flaw}"
            ));
        }
    }

    /// What is wrong with a decision that is said to be the store's.
    fn flaw_of_store(
        &self,
        viewer: &Viewer,
        claim: &Claim,
        since: usize,
        decision: &Decision,
    ) -> Option<&'static str> {
        if let Admission::Admitted(admitted) = &decision.admission
            && admitted.entry == AdmissionKind::Started
            && admitted.active > usize::try_from(decision.limit).unwrap()
        {
            return Some("that is more than the limit");
        }
        let notes = self.notes();
        let mut answers = notes.answers_since(since, viewer.instance, &claim.user, &claim.key);
        let said_so = answers.any(|answer| match (answer, &decision.admission) {
            (Answer::Admission(answer), admission) if answer == admission => true,
            (
                Answer::Renewal(
                    Renewal::Renewed { .. } | Renewal::PutBack { .. } | Renewal::Provisional { .. },
                ),
                Admission::Admitted(admitted),
            ) => admitted.entry == AdmissionKind::Renewed,
            (
                Answer::Admission(Admission::Refused(Refusal::Full { holders, .. })),
                Admission::Refused(Refusal::NotStoppable),
            ) => holders
                .iter()
                .any(|holder| holder.key.kind == Kind::Request),
            _ => false,
        });
        (!said_so).then_some("the store has not said so")
    }

    /// What is wrong with a decision to let a session go on while the store is out.
    fn flaw_of_held(
        &self,
        viewer: &Viewer,
        claim: &Claim,
        decision: &Decision,
    ) -> Option<&'static str> {
        let Admission::Admitted(Admitted { session, .. }) = &decision.admission else {
            return Some("a held lease refuses nothing");
        };
        let notes = self.notes();
        let until = notes.kept_until(viewer.instance, &claim.user, &claim.key);
        if self.is_well(viewer) {
            Some("there is no outage")
        } else if session.expires_at <= self.shared.now() {
            Some("that is past")
        } else if until.is_none_or(|until| until < session.expires_at) {
            Some("that was not granted")
        } else {
            None
        }
    }

    /// What is wrong with a decision of the outage rule.
    fn flaw_of_rule(
        &self,
        viewer: &Viewer,
        rule: OutageRule,
        decision: &Decision,
    ) -> Option<&'static str> {
        let limit = usize::try_from(decision.limit).unwrap();
        match &decision.admission {
            _ if self.is_well(viewer) => Some("there is no outage"),
            _ if rule != self.rule || rule == OutageRule::Deny => Some("that is not the rule"),
            Admission::Refused(Refusal::Full { .. }) if rule == OutageRule::Allow && limit > 0 => {
                Some("the rule allows it")
            }
            Admission::Admitted(admitted)
                if rule == OutageRule::Local
                    && admitted.entry == AdmissionKind::Started
                    && admitted.active > limit =>
            {
                Some("that is more than the limit here")
            }
            Admission::Admitted(_) | Admission::Refused(_) => None,
        }
    }
}

/// What is counted of a decision.
pub(super) const fn name_of(answer: &Result<Decision, Outage>) -> &'static str {
    match answer {
        Err(_) => "outage",
        Ok(decision) => match (decision.basis, &decision.admission) {
            (Basis::HeldLease, _) => "goes on in an outage",
            (Basis::Rule(_), Admission::Admitted(_)) => "let in by the outage rule",
            (Basis::Rule(_), Admission::Refused(_)) => "refused by the outage rule",
            (Basis::Store, Admission::Admitted(admitted)) => match admitted.entry {
                AdmissionKind::Started if admitted.displaced.is_empty() => "started",
                AdmissionKind::Started => "started in place of another",
                AdmissionKind::Renewed => "renewed",
            },
            (Basis::Store, Admission::Refused(refusal)) => match refusal {
                Refusal::Full { .. } => "full",
                Refusal::Ended(..) => "ended",
                Refusal::NotStoppable => "not stoppable",
            },
        },
    }
}
