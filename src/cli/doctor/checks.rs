//! The checks as pure functions from facts to findings.

use std::collections::BTreeSet;

use super::counts::Counts;
use super::{CheckReport, CheckStatus, Instance, InstanceReply, Silence, store};

/// After this many checks that let a stream in, one stream should have ended or been reported.
const ENOUGH: u64 = 10;

/// The finding if instances can't be compared, since one did not answer.
pub(super) const INCOMPLETE: &str = "not every instance answered; see its line `instance`";

/// The result of a check, and its text.
pub(super) type CheckResult = (CheckStatus, String);

/// The findings about one instance by itself.
pub(super) fn each(asked: &InstanceReply) -> Vec<CheckReport> {
    let finding = |check, (state, told): CheckResult| CheckReport {
        state,
        instance: Some(asked.url.clone()),
        check,
        told,
    };
    let mut findings = vec![finding("instance", instance(asked))];
    let is_elsewhere = matches!(
        asked.instance,
        Err(Silence::Absent(_) | Silence::Strange(_))
    );
    if is_elsewhere && asked.counts.is_none() {
        return findings;
    }
    findings.push(finding("gateway", gateway(asked.counts)));
    if let Ok(instance) = &asked.instance {
        findings.push(finding("grpc port", port(instance)));
        let store = &instance.store;
        findings.push(finding("store", store::answers(store)));
        if store.shared {
            findings.push(finding("eviction", store::eviction(store)));
        }
        if !store.masters.is_empty() {
            findings.push(finding("coverage", store::coverage(&store.masters)));
        }
    }
    findings
}

/// The findings about all instances together.
pub(super) fn all_together(asked: &[InstanceReply]) -> Vec<CheckReport> {
    let finding = |check, (state, told): CheckResult| CheckReport {
        state,
        instance: None,
        check,
        told,
    };
    let counts = asked.iter().filter_map(|asked| asked.counts);
    let instances: Vec<_> = asked
        .iter()
        .filter_map(|asked| Some((asked.url.as_str(), asked.instance.as_ref().ok()?)))
        .collect();
    let mut findings = Vec::new();
    if let Some(counts) = counts.reduce(Counts::plus) {
        let log = AccessLogCheck::of(&instances, counts);
        findings.push(finding("ends", log.ends()));
        findings.push(finding("periodic entries", log.periodic()));
        findings.push(finding("mark", log.mark()));
    }
    if asked.len() > 1 {
        let is_whole = instances.len() == asked.len();
        findings.push(finding("one store", store::is_one(&instances, is_whole)));
        let settings = settings(&instances, is_whole);
        findings.extend(settings.into_iter().map(|told| finding("settings", told)));
    }
    findings
}

/// Whether the instance answers and serves.
fn instance(asked: &InstanceReply) -> CheckResult {
    match &asked.instance {
        Err(Silence::Absent(why)) => (
            CheckStatus::Wrong,
            format!("{why}; start it, or correct --url"),
        ),
        Err(Silence::Refused(why)) => {
            let told = format!(
                "it refuses to describe itself: {why}; pass an operator's token with --token-file"
            );
            (CheckStatus::Unknown, told)
        }
        Err(Silence::Old) => {
            let told = "this version has no /v1/instance; upgrade it";
            (CheckStatus::Unknown, told.to_owned())
        }
        Err(Silence::Strange(told)) => (CheckStatus::Wrong, told.clone()),
        Ok(told) if told.phase == "serving" => {
            (CheckStatus::Ok, format!("version {}", told.version))
        }
        Ok(told) => {
            let told = format!(
                "it is {} and accepts no requests; wait for it, or restart it",
                told.phase
            );
            (CheckStatus::Wrong, told)
        }
    }
}

/// Whether an Envoy is connected.
fn gateway(counts: Option<Counts>) -> CheckResult {
    const LOOK: &str = "send a request through Envoy, and if that doesn't help, check the endpoints of the cluster `streamgate` in Envoy's \
                        configuration and the network in between";
    match counts {
        None => (
            CheckStatus::Unknown,
            "/metrics can't be read; check --url and any proxy in between".to_owned(),
        ),
        Some(Counts {
            connections: 0,
            checks,
            ..
        }) => {
            // If only the HTTP API is used, no client ever connects here.
            let state = if checks == 0 { CheckStatus::Unknown } else { CheckStatus::Wrong };
            let told = format!("no client is connected to the gRPC port, after {checks} checks; {LOOK}");
            (state, told)
        }
        Some(Counts { checks: 0, .. }) => (
            CheckStatus::Unknown,
            "a client is connected to the gRPC port, but no check has come; send a request through Envoy, and if that doesn't help, add the \
             ext_authz filter of envoy/envoy.yaml"
                .to_owned(),
        ),
        Some(Counts {
            connections,
            checks,
            ..
        }) => (
            CheckStatus::Ok,
            format!("{connections} connections, {checks} checks"),
        ),
    }
}

/// Whether other machines reach the gRPC port without showing a certificate.
fn port(instance: &Instance) -> CheckResult {
    match &instance.grpc.exposed {
        None => (
            CheckStatus::Ok,
            format!(
                "{} is not reachable from other machines without a certificate",
                instance.grpc.listen
            ),
        ),
        Some(exposed) => {
            let told = format!("{exposed}; listen on loopback, or set grpc.tls with client_ca");
            (CheckStatus::Wrong, told)
        }
    }
}

/// The facts about the access log. All entries may go to one of the instances.
struct AccessLogCheck {
    /// Whether an instance reports that it doesn't arrive.
    is_missing: bool,
    /// Whether an instance reports that it arrives.
    arrives: bool,
    /// The counts of all instances together.
    counts: Counts,
}

/// How to connect the access log.
const WIRE: &str = "add both access_log entries and access_log_options of envoy/envoy.yaml to the HTTP connection manager that asks streamgate";

impl AccessLogCheck {
    fn of(instances: &[(&str, &Instance)], counts: Counts) -> Self {
        let any = |state| instances.iter().any(|(_, it)| it.access_log.state == state);
        Self {
            is_missing: any("missing"),
            arrives: any("arrives"),
            counts,
        }
    }

    /// Whether streams surely ran. If not, missing entries may only mean that nobody played.
    const fn has_seen_enough(&self) -> bool {
        self.is_missing || self.counts.let_in >= ENOUGH
    }

    /// Whether ends arrive.
    fn ends(&self) -> CheckResult {
        match self.counts.ends {
            0 if self.is_missing => (
                CheckStatus::Wrong,
                format!(
                    "none arrives, so streams that start are neither ended nor renewed, and the limit does not hold; {WIRE}"
                ),
            ),
            // An instance that saw only entries of running streams can't tell about ends.
            0 if self.arrives && self.counts.periodic == 0 => (
                CheckStatus::Ok,
                "they go to another instance, which --url does not name".to_owned(),
            ),
            0 => (CheckStatus::Unknown, self.none_yet("when a stream ends")),
            ends => (CheckStatus::Ok, format!("{ends} entries")),
        }
    }

    /// Whether entries of running streams arrive.
    fn periodic(&self) -> CheckResult {
        match self.counts {
            Counts { periodic: 1.., .. } => {
                (CheckStatus::Ok, format!("{} entries", self.counts.periodic))
            }
            Counts { ends: 0, .. } if self.is_missing => {
                (CheckStatus::Wrong, format!("none arrives; {WIRE}"))
            }
            Counts { lapsed: 1.., .. } => (
                CheckStatus::Wrong,
                format!(
                    "none arrives, and {} streams have outlived their lease; set access_log_flush_interval to a third of leases.request or less \
                     in Envoy's access_log_options",
                    self.counts.lapsed
                ),
            ),
            _ => (
                CheckStatus::Unknown,
                self.none_yet("every access_log_flush_interval while a request runs"),
            ),
        }
    }

    /// Whether entries have our mark.
    fn mark(&self) -> CheckResult {
        match self.counts {
            Counts { marked: 1.., .. } => (CheckStatus::Ok, format!("on {} entries", self.counts.marked)),
            Counts {
                ends: 0,
                periodic: 0,
                ..
            } => (CheckStatus::Unknown, "no entry has come yet".to_owned()),
            // An entry of a playback that already plays changes nothing, and is counted as ignored.
            _ if self.arrives => (CheckStatus::Ok, "entries are recognised by it".to_owned()),
            _ if self.has_seen_enough() => (
                CheckStatus::Wrong,
                "entries come without it, so they can't be matched to streams; put the access logger into the same HTTP connection \
                 manager as the ext_authz filter, which leaves the mark as dynamic metadata"
                    .to_owned(),
            ),
            _ => (
                CheckStatus::Unknown,
                "no entry has it yet; play a stream through Envoy to its end and run this again"
                    .to_owned(),
            ),
        }
    }

    /// The finding if no entry has come.
    fn none_yet(&self, when: &str) -> String {
        let let_in = self.counts.let_in;
        format!(
            "none has come to these instances, after {let_in} checks that let a stream start or continue; one comes {when}: play one and run this again, \
             and name every instance by --url, since all entries may go to one of them; if that changes nothing, {WIRE}"
        )
    }
}

/// Whether the settings that must be equal are equal: a finding for each that differs.
pub(super) fn settings(instances: &[(&str, &Instance)], is_whole: bool) -> Vec<CheckResult> {
    let keys: BTreeSet<&String> = instances
        .iter()
        .flat_map(|(_, it)| it.settings.keys())
        .collect();
    let mut told: Vec<CheckResult> = keys
        .into_iter()
        .filter_map(|key| difference(instances, key))
        .collect();
    if !is_whole {
        told.push((CheckStatus::Unknown, INCOMPLETE.to_owned()));
    } else if told.is_empty() {
        told.push((CheckStatus::Ok, "equal on all instances".to_owned()));
    }
    told
}

/// How the instances differ in a setting, if they do so.
fn difference(instances: &[(&str, &Instance)], key: &str) -> Option<CheckResult> {
    let value = |instance: &Instance| {
        let value = instance.settings.get(key);
        value.map_or("nothing", String::as_str).to_owned()
    };
    let values: BTreeSet<_> = instances.iter().map(|(_, it)| value(it)).collect();
    if values.len() < 2 {
        return None;
    }
    let each: Vec<_> = instances
        .iter()
        .map(|(url, it)| format!("{} at {url}", value(it)))
        .collect();
    let told = format!(
        "{key} differs: {}; see docs/instances.md, and make it equal",
        each.join(", ")
    );
    Some((CheckStatus::Wrong, told))
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    /// A finding about the access log by what was counted, and what the instance says of it.
    fn states(state: &str, counts: Counts) -> [CheckStatus; 3] {
        let log = AccessLogCheck {
            is_missing: state == "missing",
            arrives: state == "arrives",
            counts,
        };
        [log.ends().0, log.periodic().0, log.mark().0]
    }

    #[test]
    fn unknowable_facts_about_the_access_log_are_reported_as_unknown() {
        use CheckStatus::{Ok, Unknown, Wrong};
        let none = Counts::default();
        let let_in = Counts {
            let_in: ENOUGH,
            ..none
        };
        let unmarked = Counts { ends: 5, ..let_in };
        let marked = Counts {
            marked: 5,
            ..unmarked
        };
        for (state, counts, expected) in [
            ("unknown", none, [Unknown; 3]),
            ("unknown", let_in, [Unknown; 3]),
            ("arrives", let_in, [Ok, Unknown, Unknown]),
            ("missing", let_in, [Wrong, Wrong, Unknown]),
            ("unknown", unmarked, [Ok, Unknown, Wrong]),
            (
                "unknown",
                Counts { ends: 5, ..none },
                [Ok, Unknown, Unknown],
            ),
            ("missing", Counts { ends: 5, ..none }, [Ok, Unknown, Wrong]),
            ("arrives", marked, [Ok, Unknown, Ok]),
            (
                "arrives",
                Counts {
                    lapsed: 1,
                    ..marked
                },
                [Ok, Wrong, Ok],
            ),
            (
                "arrives",
                Counts {
                    periodic: 1,
                    ..marked
                },
                [Ok; 3],
            ),
            // Running streams alone say nothing of ends.
            (
                "arrives",
                Counts {
                    periodic: 3,
                    marked: 3,
                    ..let_in
                },
                [Unknown, Ok, Ok],
            ),
            // Entries of playbacks that are known to be playing are counted as ignored.
            ("arrives", unmarked, [Ok, Unknown, Ok]),
        ] {
            assert_eq!(states(state, counts), expected, "{state} {counts:?}");
        }
    }

    #[test]
    fn a_gateway_is_there_when_it_asks() {
        let counts = |connections, checks| Counts {
            connections,
            checks,
            ..Counts::default()
        };
        for (counts, expected) in [
            (None, CheckStatus::Unknown),
            (Some(counts(0, 0)), CheckStatus::Unknown),
            (Some(counts(0, 9)), CheckStatus::Wrong),
            (Some(counts(1, 0)), CheckStatus::Unknown),
            (Some(counts(1, 9)), CheckStatus::Ok),
        ] {
            assert_eq!(gateway(counts).0, expected, "{counts:?}");
        }
    }

    #[test]
    fn an_answer_is_judged_by_its_status() {
        for (status, has_metrics, state, told) in [
            (
                401,
                true,
                CheckStatus::Unknown,
                "it refuses to describe itself: X; pass",
            ),
            (
                403,
                false,
                CheckStatus::Unknown,
                "it refuses to describe itself: X; pass",
            ),
            (
                404,
                true,
                CheckStatus::Unknown,
                "this version has no /v1/instance",
            ),
            (404, false, CheckStatus::Wrong, "X"),
            (302, true, CheckStatus::Wrong, "X"),
            (500, true, CheckStatus::Wrong, "X"),
            (503, true, CheckStatus::Wrong, "X"),
            (200, true, CheckStatus::Wrong, "X"),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let asked = InstanceReply {
                url: String::new(),
                instance: Err(Silence::of(status, "X".to_owned(), has_metrics)),
                counts: has_metrics.then(Counts::default),
            };
            let found = instance(&asked);
            assert_eq!(found.0, state, "{status} {has_metrics}");
            assert!(found.1.starts_with(told), "{status}: {}", found.1);
            assert!(!found.1.contains("start it"), "{status}: {}", found.1);
        }
    }
}
