//! Decisions while the store can't answer: the one place where `store.outage` applies to starts.

use super::Ledger;
use super::attempt::{Mode, StartAttempt};
use super::decision::{Basis, Decision, Outage, UndoHint};
use crate::config::OutageRule;
use crate::session::{Admission, AdmissionKind, Admitted, Session, Start, StartRules};

impl Ledger {
    /// Decides a start that the store can't, because of that `outage`: the only place that applies
    /// `store.outage`.
    ///
    /// A session with a held lease continues until it ends, whatever the rule.
    pub(super) fn by_rule(
        &self,
        attempt: &StartAttempt<'_>,
        outage: Outage,
    ) -> Result<Decision, Outage> {
        let StartAttempt {
            user, start, rules, ..
        } = attempt;
        let limit = attempt.limit;
        let decision = |admission, basis, undo| Decision {
            admission,
            basis,
            limit,
            undo,
            waited: outage.waited,
        };
        if let Some(mut admitted) = self.cache.admitted(user, &start.key) {
            // It was seen running, and the store doesn't know.
            self.cache.seen(user, &start.key, start.lease);
            admitted.session.facts.update(&start.facts);
            let admission = Admission::Admitted(admitted);
            return Ok(decision(admission, Basis::HeldLease, UndoHint::Nothing));
        }
        if attempt.mode == Mode::GoOn && !self.cache.counts(user, &start.key) {
            return Err(outage);
        }
        let applied = match self.rule {
            OutageRule::Deny => {
                // It is no longer watching, and must not be reported as if it were.
                self.cache.forget(user, &start.key);
                return Err(outage);
            }
            OutageRule::Allow if limit > 0 => u32::MAX,
            OutageRule::Allow | OutageRule::Local => limit,
        };
        let applied_rules = StartRules {
            limit: applied,
            ..rules.clone()
        };
        let admission = match self.cache.admit(user, start, limit, &applied_rules) {
            Some(admission) => admission,
            // There is no room to remember it, which is no reason to refuse it.
            None if applied == u32::MAX => Admission::Admitted(self.unheld(start)),
            None => return Err(outage),
        };
        let undo = match (&admission, start.ticket, outage.doubtful) {
            (Admission::Admitted(_), Some(ticket), _) => UndoHint::Started(ticket),
            (Admission::Refused(_), _, Some(ticket)) => UndoHint::Doubtful(ticket),
            _ => UndoHint::Nothing,
        };
        Ok(decision(admission, Basis::Rule(self.rule), undo))
    }

    /// The answer for a session that is let in although nothing is known about it.
    fn unheld(&self, start: &Start) -> Admitted {
        let decided_at = self.cache.now();
        Admitted {
            entry: AdmissionKind::Started,
            session: Session::starting(start, decided_at.after(start.lease), decided_at),
            active: 1,
            displaced: Vec::new(),
            decided_at,
            limit_override: None,
        }
    }
}
