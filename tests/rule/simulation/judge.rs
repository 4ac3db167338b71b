//! What is wrong with an answer, if anything is.

use streamgate::clock::Timestamp;
use streamgate::config::OutageRule;
use streamgate::ledger::{Basis, Decision, Outage};
use streamgate::session::{Admission, AdmissionKind, Refusal};

use super::truth::INTERVAL;
use super::viewer::{Asked, Device, Heard};

impl Device<'_> {
    /// Notes an answer, and what is wrong with it, if anything is.
    pub(super) fn judge(&self, asked: &Asked, sent: Timestamp, heard: &Heard, now: Timestamp) {
        let flaw = match heard {
            Heard::Nothing | Heard::FromMemory => None,
            Heard::Answer(answer, _) => self.flaw(asked, sent, answer, now),
        };
        let told = match heard {
            Heard::Nothing => "nothing".to_owned(),
            Heard::FromMemory => "from memory".to_owned(),
            Heard::Answer(Err(outage), _) => format!("{outage}"),
            Heard::Answer(Ok(decision), _) => match &decision.admission {
                Admission::Admitted(it) => format!("{:?} by {:?}", it.entry, decision.basis),
                Admission::Refused(Refusal::Full { holders, .. }) => {
                    let holders: Vec<String> =
                        holders.iter().map(|it| it.key.to_string()).collect();
                    format!("full of {holders:?} by {:?}", decision.basis)
                }
                Admission::Refused(it) => format!("{it:?} by {:?}", decision.basis),
            },
        };
        let (place, key) = (asked.place, &self.claim.key);
        self.town
            .log(&format!("{} {key} at {place:?}: {told}", self.user));
        if let Some(flaw) = flaw {
            self.town.wrong(&format!(
                "{} {key} at {place:?} got {told}, but {flaw}",
                self.user
            ));
        }
    }

    /// What is wrong with an answer that came at `now`.
    fn flaw(
        &self,
        asked: &Asked,
        sent: Timestamp,
        answer: &Result<Decision, Outage>,
        now: Timestamp,
    ) -> Option<String> {
        let state = self.town.state();
        let (user, key) = (&state.users[self.user], &self.claim.key);
        let gateway = &state.gateways[asked.place.0];
        if gateway.place != asked.place {
            return None;
        }
        let (least, most) = state.limits(sent.before(INTERVAL));
        let is_troubled = gateway.has_trouble(sent) || gateway.has_trouble(now);
        let stream = &user.streams[key];
        let must_go_on =
            stream.watches && state.must_go_on((self.user, stream), key, gateway, sent, now);
        let decision = match answer {
            Err(_) if must_go_on => return Some(format!("it must go on: {stream:?}")),
            Err(_) if !is_troubled => return Some("there is no outage".to_owned()),
            Err(_) if gateway.rule == OutageRule::Allow => {
                return Some("the rule allows it".to_owned());
            }
            Err(_) => return None,
            Ok(decision) => decision,
        };
        match (&decision.admission, decision.basis) {
            (Admission::Refused(_), _) if must_go_on => Some(format!("it must go on: {stream:?}")),
            (_, Basis::Rule(_) | Basis::HeldLease) if !is_troubled => {
                Some("there is no outage".to_owned())
            }
            (_, Basis::Rule(rule)) if rule != gateway.rule || rule == OutageRule::Deny => {
                Some(format!("the rule is {:?}", gateway.rule))
            }
            (Admission::Refused(Refusal::Full { .. }), Basis::Rule(OutageRule::Allow)) => {
                Some("the rule allows it".to_owned())
            }
            (Admission::Admitted(admitted), Basis::Rule(OutageRule::Local))
                if admitted.entry == AdmissionKind::Started && admitted.active > most =>
            {
                Some("that is more than the limit here".to_owned())
            }
            (Admission::Admitted(admitted), Basis::Store)
                if admitted.entry == AdmissionKind::Started =>
            {
                // Whom it displaces has given way.
                let surely = user.surely(key, now.after(INTERVAL));
                let surely = surely.saturating_sub(admitted.displaced.len());
                (surely >= most).then(|| format!("{surely} others surely count"))
            }
            (Admission::Refused(Refusal::Full { .. }), Basis::Store) => {
                let perhaps = user.perhaps(key, &*state, sent);
                (perhaps < least).then(|| format!("at most {perhaps} others count"))
            }
            _ => None,
        }
    }
}
