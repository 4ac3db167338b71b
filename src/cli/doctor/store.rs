//! The checks of the store: one server, or the masters of a cluster.

use std::collections::BTreeSet;

use super::checks::{CheckResult, INCOMPLETE};
use super::{CheckStatus, Instance, Master, StoreStatus};

/// What to do about a Redis that evicts.
const SET_POLICY: &str = "set it to noeviction";

/// The other reason for a fact that Redis didn't tell, next to a missing right.
const TOO_SLOW: &str = "it gave no answer within store.timeout";

/// Whether the store answers, or which of its shards don't.
pub(super) fn answers(store: &StoreStatus) -> CheckResult {
    let server = store.server.as_deref().unwrap_or("its own memory");
    match (&store.shards, &store.trouble) {
        (Some(shards), Some(_)) if !shards.troubles.is_empty() => {
            let each = shards.troubles.iter();
            let each: Vec<_> = each
                .map(|it| format!("{}: {}", it.shard, it.trouble))
                .collect();
            let (count, known) = (each.len(), shards.known);
            let told = format!(
                "{count} of {known} shards are in trouble, and store.outage decides about their users: {}; see docs/redis-trouble.md",
                each.join(", ")
            );
            (CheckStatus::Wrong, told)
        }
        (_, Some(trouble)) => (
            CheckStatus::Wrong,
            format!("{trouble}; see docs/redis-trouble.md"),
        ),
        (_, None) if !store.up => (
            CheckStatus::Wrong,
            "it does not answer; check store.redis.urls and the network".to_owned(),
        ),
        (Some(shards), None) => (CheckStatus::Ok, format!("{} shards answer", shards.known)),
        (None, None) => (CheckStatus::Ok, format!("{server} answers")),
    }
}

/// Whether Redis, or each master, keeps our keys when its memory is full.
pub(super) fn eviction(store: &StoreStatus) -> CheckResult {
    let whole = [("", &store.eviction_policy)];
    let masters = store.masters.iter();
    let masters = masters.map(|it| (it.address.as_str(), &it.eviction_policy));
    let policies: Vec<_> = if store.masters.is_empty() {
        whole.into_iter().collect()
    } else {
        masters.collect()
    };
    let evicting = policies.iter().find_map(|(address, policy)| {
        let policy = policy.as_deref().filter(|policy| *policy != "noeviction");
        Some((*address, policy?))
    });
    match evicting {
        Some(("", policy)) => (
            CheckStatus::Wrong,
            format!(
                "maxmemory-policy is {policy}: Redis forgets streams when its memory is full; {SET_POLICY}"
            ),
        ),
        Some((address, policy)) => (
            CheckStatus::Wrong,
            format!(
                "maxmemory-policy of {address} is {policy}: it forgets streams when its memory is full; {SET_POLICY} on every server of the cluster"
            ),
        ),
        None if policies.iter().any(|(_, policy)| policy.is_none()) => (
            CheckStatus::Unknown,
            format!(
                "Redis doesn't reveal its maxmemory-policy: {TOO_SLOW}, or the ACL forbids CONFIG GET and INFO; run doctor again, and if it is no better, allow one of them, and {SET_POLICY}"
            ),
        ),
        None => (CheckStatus::Ok, "maxmemory-policy is noeviction".to_owned()),
    }
}

/// Whether the masters of a cluster go on when one of them is dead.
pub(super) fn coverage(masters: &[Master]) -> CheckResult {
    let requires = |wanted| {
        let some = masters
            .iter()
            .filter(move |it| it.requires_full_coverage == wanted);
        let some: Vec<_> = some.map(|it| it.address.as_str()).collect();
        some.join(", ")
    };
    let (strict, silent) = (requires(Some(true)), requires(None));
    if !strict.is_empty() {
        let told = format!(
            "cluster-require-full-coverage is yes at {strict}, so one dead master stops all others; set it to no on every server of the cluster"
        );
        return (CheckStatus::Wrong, told);
    }
    if !silent.is_empty() {
        let told = format!(
            "{silent} can't tell cluster-require-full-coverage: {TOO_SLOW}, or the ACL forbids CONFIG GET or INFO; run doctor again, and if it is no better, allow both, and set it to no"
        );
        return (CheckStatus::Unknown, told);
    }
    let told = "cluster-require-full-coverage is no".to_owned();
    (CheckStatus::Ok, told)
}

/// Whether all instances use the same store.
pub(super) fn is_one(instances: &[(&str, &Instance)], is_whole: bool) -> CheckResult {
    let ids: BTreeSet<_> = instances.iter().map(|(_, it)| &it.instance).collect();
    if ids.len() < instances.len() {
        let told = "two addresses reach the same instance; pass each instance's own address";
        return (CheckStatus::Unknown, told.to_owned());
    }
    if let Some((url, _)) = instances.iter().find(|(_, it)| !it.store.shared) {
        let told = format!(
            "{url} counts in its own memory, so each instance allows the full limit; set store.backend to redis"
        );
        return (CheckStatus::Wrong, told);
    }
    let servers: Option<Vec<_>> = instances.iter().map(|(_, it)| servers(&it.store)).collect();
    match servers {
        Some(servers) if !are_one(&servers) => {
            let each: Vec<_> = instances
                .iter()
                .map(|(url, it)| format!("{url} in {}", shown(&it.store)))
                .collect();
            let told = format!(
                "the instances count separately, so each allows the full limit: {}; give all the same store.redis.urls",
                each.join(", ")
            );
            (CheckStatus::Wrong, told)
        }
        Some(_) if is_whole => {
            let store = instances.first().map(|(_, it)| shown(&it.store));
            (CheckStatus::Ok, store.unwrap_or_default())
        }
        _ if !is_whole => (CheckStatus::Unknown, INCOMPLETE.to_owned()),
        _ => (
            CheckStatus::Unknown,
            format!(
                "an instance can't tell which Redis it counts in: {TOO_SLOW}, or the ACL forbids INFO; run doctor again, and if it is no better, allow INFO"
            ),
        ),
    }
}

/// The database of a store, and the ids of its servers: one, or those of a cluster's masters that
/// could tell. None if nothing could.
fn servers(store: &StoreStatus) -> Option<(i64, BTreeSet<&str>)> {
    let masters = store.masters.iter().filter_map(|it| it.run_id.as_deref());
    let ids: BTreeSet<_> = masters.chain(store.run_id.as_deref()).collect();
    (!ids.is_empty()).then_some((store.database?, ids))
}

/// Whether these are one store: each shares a server with the first. During a failover two instances
/// may see different masters of one cluster, but never all of them.
fn are_one(stores: &[(i64, BTreeSet<&str>)]) -> bool {
    let Some((first, others)) = stores.split_first() else {
        return true;
    };
    others
        .iter()
        .all(|store| store.0 == first.0 && !store.1.is_disjoint(&first.1))
}

/// The store, for display.
fn shown(store: &StoreStatus) -> String {
    let masters: Vec<_> = store.masters.iter().map(|it| it.address.as_str()).collect();
    if !masters.is_empty() {
        return format!("the cluster of {}", masters.join(", "));
    }
    let server = store.server.as_deref().unwrap_or("no Redis");
    format!("{server} database {}", store.database.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::checks::settings;
    use super::*;

    /// An instance that could be asked, and counts in that Redis.
    fn instance_of(name: &str, run_id: Option<&str>) -> Instance {
        let store = json!({"shared": true, "up": true, "run_id": run_id, "database": 0});
        instance_with(name, &store)
    }

    /// An instance with that store.
    fn instance_with(name: &str, store: &Value) -> Instance {
        serde_json::from_value(json!({
            "instance": name,
            "version": "1",
            "phase": "serving",
            "grpc": {"listen": "127.0.0.1:50051"},
            "store": store,
            "access_log": {"state": "unknown"},
            "settings": {},
        }))
        .unwrap()
    }

    #[test]
    fn who_gave_no_answer_is_not_blamed_on_redis() {
        let (known, other) = (instance_of("a", Some("r")), instance_of("b", Some("r")));
        let mute = instance_of("c", None);
        for (instances, is_whole, expected) in [
            (
                vec![("a", &known), ("b", &other)],
                true,
                (CheckStatus::Ok, "no Redis"),
            ),
            (
                vec![("a", &known)],
                false,
                (CheckStatus::Unknown, INCOMPLETE),
            ),
            (
                vec![("c", &mute)],
                false,
                (CheckStatus::Unknown, INCOMPLETE),
            ),
            (vec![], false, (CheckStatus::Unknown, INCOMPLETE)),
            (
                vec![("a", &known), ("c", &mute)],
                true,
                (
                    CheckStatus::Unknown,
                    "an instance can't tell which Redis it counts in: it gave no answer within",
                ),
            ),
        ] {
            let (state, told) = is_one(&instances, is_whole);
            assert_eq!(state, expected.0, "{told}");
            assert!(told.starts_with(expected.1), "{told}");
        }
        assert_eq!(settings(&[("a", &known)], false)[0].1, INCOMPLETE);
    }

    /// A store that is a cluster of masters with these ids, of which these are in trouble.
    fn cluster(run_ids: &[&str], troubles: &[&str]) -> Value {
        let masters = run_ids.iter().enumerate().map(|(number, run_id)| {
            json!({
                "address": format!("s{number}:6379"),
                "run_id": run_id,
                "eviction_policy": "noeviction",
                "requires_full_coverage": false,
            })
        });
        let troubles = troubles.iter();
        let troubles: Vec<_> = troubles
            .map(|shard| json!({"shard": shard, "trouble": "no answer"}))
            .collect();
        let trouble = (!troubles.is_empty()).then_some("some are in trouble");
        json!({
            "shared": true,
            "up": true,
            "database": 0,
            "trouble": trouble,
            "shards": {"known": run_ids.len(), "up": run_ids.len(), "troubles": troubles},
            "masters": masters.collect::<Vec<_>>(),
        })
    }

    fn status(store: Value) -> StoreStatus {
        serde_json::from_value(store).unwrap()
    }

    #[test]
    fn shards_in_trouble_are_named() {
        assert_eq!(
            answers(&status(cluster(&["a", "b", "c"], &[]))),
            (CheckStatus::Ok, "3 shards answer".to_owned())
        );
        let (state, told) = answers(&status(cluster(&["a", "b", "c"], &["s1:6379", "unowned"])));
        assert_eq!(state, CheckStatus::Wrong);
        assert!(told.starts_with("2 of 3 shards"), "{told}");
        assert!(
            told.contains("s1:6379: no answer, unowned: no answer"),
            "{told}"
        );
    }

    #[test]
    fn one_master_that_evicts_or_stops_the_others_is_enough() {
        for (key, value, state, told) in [
            (
                "eviction_policy",
                json!("noeviction"),
                CheckStatus::Ok,
                "maxmemory-policy is noeviction",
            ),
            (
                "eviction_policy",
                json!("allkeys-lru"),
                CheckStatus::Wrong,
                "maxmemory-policy of s1:6379",
            ),
            (
                "eviction_policy",
                json!(null),
                CheckStatus::Unknown,
                "Redis doesn't reveal its maxmemory-policy: it gave no answer within store.timeout, or",
            ),
            (
                "requires_full_coverage",
                json!(false),
                CheckStatus::Ok,
                "cluster-require-full-coverage is no",
            ),
            (
                "requires_full_coverage",
                json!(true),
                CheckStatus::Wrong,
                "cluster-require-full-coverage is yes at s1:6379,",
            ),
            (
                "requires_full_coverage",
                json!(null),
                CheckStatus::Unknown,
                "s1:6379 can't tell cluster-require-full-coverage: it gave no answer within store.timeout, or",
            ),
        ] {
            let mut store = cluster(&["a", "b", "c"], &[]);
            store["masters"][1][key] = value;
            let store = status(store);
            let found = match key {
                "eviction_policy" => eviction(&store),
                _ => coverage(&store.masters),
            };
            assert_eq!(found.0, state, "{}", found.1);
            assert!(found.1.starts_with(told), "{}", found.1);
        }
    }

    #[test]
    fn instances_of_one_cluster_may_see_different_masters() {
        for (others, expected) in [
            (&["a", "b", "c"][..], CheckStatus::Ok),
            (&["a", "b", "d"], CheckStatus::Ok),
            (&["c"], CheckStatus::Ok),
            (&["d", "e", "f"], CheckStatus::Wrong),
        ] {
            let known = instance_with("a", &cluster(&["a", "b", "c"], &[]));
            let other = instance_with("b", &cluster(others, &[]));
            let (state, told) = is_one(&[("a", &known), ("b", &other)], true);
            assert_eq!(state, expected, "{others:?}: {told}");
        }
    }
}
