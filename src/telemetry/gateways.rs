//! Which gateways send their access logs to this instance, and since when each is silent.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::clock::Timestamp;
use crate::util::lock;

/// How many gateways are remembered; the one that has been silent longest makes room.
const MAX_GATEWAYS: usize = 1_000;

/// The longest name that is kept whole, in characters.
const MAX_NAME: usize = 128;

/// The gateways that have sent their access logs.
#[derive(Debug, Default)]
pub struct Gateways(Mutex<HashMap<GatewayLog, Arc<AtomicU64>>>);

/// A log of a gateway, as Envoy names both.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GatewayLog {
    /// The id of its node (`--service-node`); may be empty.
    pub node: String,
    /// The name of its log.
    pub log: String,
}

/// A stream of such a log, which notes when it was last heard.
#[derive(Debug, Clone)]
pub struct LogStream(Arc<AtomicU64>);

impl Gateways {
    /// The log that a stream announces.
    pub fn enter(&self, node: &str, log: &str) -> LogStream {
        let short = |name: &str| name.chars().take(MAX_NAME).collect();
        let name = GatewayLog {
            node: short(node),
            log: short(log),
        };
        let mut known = lock(&self.0);
        if known.len() >= MAX_GATEWAYS && !known.contains_key(&name) {
            let silent = known
                .iter()
                .min_by_key(|(_, last)| last.load(Ordering::Relaxed));
            if let Some(silent) = silent.map(|(name, _)| name.clone()) {
                known.remove(&silent);
            }
        }
        LogStream(Arc::clone(known.entry(name).or_default()))
    }

    /// All of them by name, each with the time of its last message.
    #[must_use]
    pub fn all(&self) -> Vec<(GatewayLog, Timestamp)> {
        let known = lock(&self.0);
        let all = known.iter().map(|(name, last)| {
            let last = Timestamp::from_millis(last.load(Ordering::Relaxed));
            (name.clone(), last)
        });
        let mut all: Vec<_> = all.collect();
        drop(known);
        all.sort();
        all
    }
}

impl LogStream {
    /// Notes that it was heard.
    pub fn heard(&self, now: Timestamp) {
        self.0.fetch_max(now.as_millis(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_silent_makes_room_for_a_new_one() {
        let gateways = Gateways::default();
        for number in 0..MAX_GATEWAYS {
            let gateway = gateways.enter(&format!("gw-{number}"), "fast");
            gateway.heard(Timestamp::from_millis(1_000 + number as u64));
        }
        gateways
            .enter("gw-0", "fast")
            .heard(Timestamp::from_millis(9_000));
        gateways
            .enter("new", "fast")
            .heard(Timestamp::from_millis(9_001));
        let all = gateways.all();
        let has = |node: &str| all.iter().any(|(name, _)| name.node == node);
        assert_eq!(all.len(), MAX_GATEWAYS);
        assert!(has("gw-0") && has("new") && !has("gw-1"));
    }

    #[test]
    fn a_log_is_one_however_often_its_stream_is_opened() {
        let gateways = Gateways::default();
        let (first, second) = (gateways.enter("a", "fast"), gateways.enter("a", "fast"));
        first.heard(Timestamp::from_millis(7));
        second.heard(Timestamp::from_millis(5));
        let name = GatewayLog {
            node: "a".to_owned(),
            log: "fast".to_owned(),
        };
        assert_eq!(gateways.all(), [(name, Timestamp::from_millis(7))]);
    }
}
