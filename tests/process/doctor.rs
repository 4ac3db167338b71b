//! `doctor` on real installations: what works, what is wrong, and what it can't find out.

use serde_json::Value;

use testkit::app::{TestApp, TokensFile};
use testkit::envoy_files::{CONNECTION_MANAGER, at_mut};
use testkit::gateway::Setup;
use testkit::origin::Origin;
use testkit::redis::RedisServer;
use testkit::stack::Stack;
use testkit::streamgate::run;
use testkit::streamgate::{Setting, Streamgate};
use testkit::viewers::Viewers;
use testkit::watch::{SLOWLY, eventually_within};

/// What `doctor --json` has found, and how it ended.
struct Found {
    code: i32,
    findings: Vec<Value>,
}

impl Found {
    /// By that doctor about these instances.
    async fn about(instances: &[&Streamgate]) -> Self {
        let urls: Vec<_> = instances
            .iter()
            .map(|instance| format!("http://{}", instance.http))
            .collect();
        Self::at(&urls, &[]).await
    }

    async fn at(urls: &[String], environment: &[(&str, &str)]) -> Self {
        let mut arguments = vec!["doctor", "--json"];
        for url in urls {
            arguments.extend(["--url", url]);
        }
        let (code, out, errors) = run(&arguments, environment).await;
        assert_eq!(errors, "");
        let lines = out.lines().map(serde_json::from_str);
        let findings = lines.collect::<Result<_, _>>().unwrap();
        Self { code, findings }
    }

    /// Those of a check, as `state: told`.
    fn of(&self, check: &str) -> Vec<String> {
        let those = self.findings.iter().filter(|found| found["check"] == check);
        those
            .map(|found| {
                let text = |key: &str| found[key].as_str().unwrap();
                format!("{}: {}", text("state"), text("told"))
            })
            .collect()
    }

    /// Whether each finding of that check begins so, and there is one.
    fn has(&self, check: &str, beginning: &str) -> bool {
        let told = self.of(check);
        let is_so = told.iter().all(|told| told.starts_with(beginning));
        is_so && !told.is_empty()
    }

    /// Fails unless each finding of that check begins so, and there is one.
    #[track_caller]
    fn assert(&self, check: &str, beginning: &str) {
        assert!(self.has(check, beginning), "{check}: {:#?}", self.findings);
    }

    /// Waits until the doctor ends with that code and finds all of that. A question to Redis that is
    /// answered after `store.timeout` is a fault, so on a busy machine one look proves nothing.
    async fn becomes(instances: &[&Streamgate], code: i32, expected: &[(&str, &str)]) -> Self {
        let mut shown = Vec::new();
        eventually_within(SLOWLY, "the doctor finds what it should", async || {
            let found = Self::about(instances).await;
            let has = |&(check, beginning): &(&str, &str)| found.has(check, beginning);
            if found.code == code && expected.iter().all(has) {
                return Some(found);
            }
            if shown != found.findings {
                println!("code {}: {:#?}", found.code, found.findings);
                shown = found.findings;
            }
            None
        })
        .await
    }
}

/// An instance that counts in that Redis.
async fn counting_in(redis: &RedisServer, more: &[Setting<'_>]) -> Streamgate {
    let url = redis.url();
    let mut settings = vec![
        ("store.backend", "redis"),
        ("store.redis.urls", url.as_str()),
    ];
    settings.extend(more);
    Streamgate::start(&settings).await
}

#[tokio::test]
async fn two_instances_on_one_redis_behind_an_envoy_are_well() {
    let redis = RedisServer::start();
    let (one, two) = tokio::join!(counting_in(&redis, &[]), counting_in(&redis, &[]));
    let origin = Origin::start().await;
    let setup = Setup::demo(&[one.grpc, two.grpc], origin.address).flush_interval("0.5s");
    let gateway = setup.start().await;
    let viewers = Viewers::of(gateway.address);
    let _running = viewers.watch(viewers.http1("alice", "/live/1")).await;
    drop(viewers.watch(viewers.http1("alice", "/live/2")).await);
    let of_each = ["instance", "grpc port", "store", "eviction"];
    let of_all = ["ends", "periodic entries", "mark", "one store", "settings"];
    let well: Vec<_> = of_each
        .into_iter()
        .chain(of_all)
        .map(|it| (it, "ok: "))
        .collect();
    // With this code no finding is wrong, those about the gateway either: it may have asked one alone.
    let found = Found::becomes(&[&one, &two], 0, &well).await;
    for check in of_each {
        assert_eq!(found.of(check).len(), 2, "{check}");
    }
    // The same for a person.
    let url = format!("http://{}", one.http);
    let line = format!("ok       {url}  eviction: maxmemory-policy is noeviction\n");
    eventually_within(SLOWLY, "a person reads the same", async || {
        let (code, out, _) = run(&["doctor", "--url", &url], &[]).await;
        (code == 0 && out.contains(&line)).then_some(())
    })
    .await;
    // Two addresses of one instance prove nothing.
    Found::about(&[&one, &one])
        .await
        .assert("one store", "unknown: ");
}

#[tokio::test]
async fn an_envoy_is_checked_where_its_administrator_is_told() {
    let streamgate = Streamgate::start(&[]).await;
    let origin = Origin::start().await;
    let setup = Setup::demo(&[streamgate.grpc], origin.address);
    let unwell = setup
        .clone()
        .manager(serde_json::json!({"normalize_path": false}));
    for (setup, code, beginning) in [(setup, 0, "ok: nothing is missing"), (unwell, 1, "wrong: ")] {
        let gateway = setup.start().await;
        let admin = format!("http://{}", gateway.admin);
        let url = format!("http://{}", streamgate.http);
        let arguments = ["doctor", "--json", "--url", &url, "--envoy-admin", &admin];
        let arguments = [&arguments[..], &["--envoy-user", "header:x-user-id"]].concat();
        let (ended, out, errors) = run(&arguments, &[]).await;
        assert_eq!((ended, &*errors), (code, ""), "{out}");
        let findings = out.lines().map(serde_json::from_str);
        let findings = findings.collect::<Result<_, _>>().unwrap();
        let found = Found { code, findings };
        found.assert("envoy", beginning);
        assert_eq!(found.of("envoy").len(), 1, "{out}");
    }
}

#[tokio::test]
async fn instances_that_count_apart_or_differ_are_wrong() {
    let (redis, other) = (RedisServer::start(), RedisServer::start());
    let (one, two) = tokio::join!(
        counting_in(&redis, &[]),
        counting_in(
            &other,
            &[
                ("limits.default", "5"),
                ("identity.user", "header:x-account")
            ]
        )
    );
    let apart = ("one store", "wrong: the instances count separately");
    let found = Found::becomes(&[&one, &two], 1, &[apart]).await;
    let settings = found.of("settings");
    let [user, limit] = &settings[..] else {
        panic!("{settings:?}");
    };
    assert!(user.starts_with("wrong: identity.user differs: "), "{user}");
    let (first, second) = (one.http, two.http);
    let expected = format!(
        "wrong: limits.default differs: 3 at http://{first}, 5 at http://{second}; \
         see docs/instances.md, and make it equal"
    );
    assert_eq!(*limit, expected);
    // No gateway has ever come: it may be that none is meant to.
    found.assert("gateway", "unknown: no client is connected");
    // Another database of the same server is another store.
    let elsewhere = format!("{}/1", redis.url().trim_end_matches('/'));
    let settings = [
        ("store.backend", "redis"),
        ("store.redis.urls", elsewhere.as_str()),
    ];
    let third = Streamgate::start(&settings).await;
    Found::becomes(&[&one, &third], 1, &[apart, ("settings", "ok: ")]).await;
    // And so is an instance's own memory.
    let alone = Streamgate::start(&[]).await;
    let found = Found::about(&[&one, &alone]).await;
    found.assert("one store", "wrong: ");
}

#[tokio::test]
async fn a_redis_that_evicts_and_an_open_port_are_wrong() {
    let redis = RedisServer::start_with(&["--maxmemory-policy", "allkeys-lru"]);
    let one = counting_in(&redis, &[]).await;
    let evicting = ("eviction", "wrong: maxmemory-policy is allkeys-lru");
    Found::becomes(&[&one], 1, &[evicting, ("grpc port", "ok: ")]).await;
    // It checks again each time.
    redis.run::<()>(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    Found::becomes(&[&one], 0, &[("eviction", "ok: ")]).await;
    redis.stop();
    Found::becomes(&[&one], 1, &[("store", "wrong: ")]).await;
    let open = Streamgate::start_open(&[]).await;
    let found = Found::about(&[&open]).await;
    found.assert(
        "grpc port",
        "wrong: grpc.listen: 0.0.0.0:0 is open beyond this machine",
    );
}

#[tokio::test]
async fn an_envoy_whose_access_log_is_not_wired_is_found_out() {
    let settings = [("leases.request", "6s"), ("limits.grace", "0s")];
    let unwired = |setup: Setup| {
        setup.edit(|config| {
            let manager = at_mut(config, CONNECTION_MANAGER).as_object_mut().unwrap();
            manager.remove("access_log").unwrap();
        })
    };
    let stack = Stack::start_with(&settings, unwired).await;
    let (viewers, streamgate) = (&stack.viewers, &stack.streamgate);
    let found = Found::about(&[streamgate]).await;
    assert_eq!(found.code, 0, "{:#?}", found.findings);
    found.assert("ends", "unknown: ");
    found.assert("periodic entries", "unknown: ");
    found.assert("mark", "unknown: no entry has come yet");

    let _running = viewers.watch(viewers.http1("alice", "/live/1")).await;
    drop(viewers.watch(viewers.http1("alice", "/live/2")).await);
    let becomes = async |value: f64| {
        let missing = "streamgate_access_log_missing";
        let is_so = |now: f64| (now - value).abs() < 0.1;
        streamgate.metric_becomes(missing, &[], is_so).await;
    };
    becomes(1.0).await;
    let warning = "Envoy's access log does not arrive: the request streams that started here were neither renewed nor ended";
    assert_eq!(streamgate.log().matches(warning).count(), 1);
    let ready: Value = reqwest::get(format!("http://{}/readyz", streamgate.http))
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(ready["ready"], true, "{ready}");
    assert_eq!(ready["access_log"]["state"], "missing", "{ready}");
    let trouble = ready["access_log"]["trouble"].as_str().unwrap();
    assert!(trouble.starts_with(warning), "{trouble}");
    let found = Found::about(&[streamgate]).await;
    assert_eq!(found.code, 1);
    found.assert("ends", "wrong: none arrives");
    found.assert("periodic entries", "wrong: none arrives");

    // A wired gateway makes it good again.
    let origin = Origin::start().await;
    let wired = Setup::demo(&[streamgate.grpc], origin.address);
    let gateway = wired.start_beside().await;
    let viewers = Viewers::of(gateway.address);
    drop(viewers.watch(viewers.http1("ben", "/live/1")).await);
    becomes(0.0).await;
    let found = Found::about(&[streamgate]).await;
    found.assert("ends", "ok: ");
    found.assert("mark", "ok: ");
    assert_eq!(streamgate.log().matches(warning).count(), 1);
}

#[tokio::test]
async fn a_refused_caller_learns_which_token_to_use_and_no_secret() {
    let tokens = TokensFile::of("boss operator\nplayer client\ntv operator anna\n");
    let app = TestApp::plan().tokens(&tokens).start().await;
    let url = app.url("");
    for (token, state) in [
        ("player", "unknown: "),
        ("tv", "unknown: "),
        ("boss", "ok: "),
    ] {
        let environment = [("STREAMGATE_TOKEN", token)];
        let found = Found::at(std::slice::from_ref(&url), &environment).await;
        found.assert("instance", state);
        // Metrics are open to all.
        found.assert("gateway", "unknown: no client is connected");
    }
    let asked = reqwest::Client::new().get(app.url("/v1/instance"));
    assert_eq!(asked.send().await.unwrap().status(), 401);
}

#[tokio::test]
async fn who_is_not_there_is_wrong_and_not_unknown() {
    let app = TestApp::plan().start().await;
    let url = app.url("");
    app.stop().await;
    let found = Found::at(&[url.clone(), url], &[]).await;
    assert_eq!(found.code, 1);
    found.assert("instance", "wrong: no answer from");
    let (code, _, errors) = run(&["doctor", "--url", "127.0.0.1:8080"], &[]).await;
    assert_eq!(code, 2, "{errors}");
}
