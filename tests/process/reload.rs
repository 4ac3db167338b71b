//! The process follows its configuration: limits, dry run, the content of refusals and the log's
//! level. A file with a mistake changes nothing, and a key that needs a restart is reported.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use streamgate::clock::Stopwatch;

use testkit::gateway_client::{Answer, Check, Gateway};
use testkit::streamgate::Streamgate;
use testkit::watch::eventually;

/// A running streamgate, and the file that it follows.
struct Followed {
    streamgate: Streamgate,
    gateway: Gateway,
    folder: TempDir,
}

impl Followed {
    async fn start(text: &str, settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("streamgate.yaml");
        std::fs::write(&file, text).unwrap();
        let mut all = vec![("config", file.to_str().unwrap())];
        all.extend(settings);
        let streamgate = Streamgate::start(&all).await;
        let gateway = Gateway::connect(streamgate.grpc).await;
        Self {
            streamgate,
            gateway,
            folder,
        }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("streamgate.yaml")
    }

    fn write(&self, text: &str) {
        std::fs::write(self.file(), text).unwrap();
    }

    /// Waits until the configuration has been reloaded that often, with that outcome.
    async fn was_read(&self, outcome: &str, times: f64) -> Duration {
        let labels = [("file", "config"), ("outcome", outcome)];
        let name = "streamgate_reloads_total";
        self.streamgate
            .metric_becomes(name, &labels, |count| count == times)
            .await
    }

    async fn plays(&self, user: &str, id: &str) -> Answer {
        self.gateway.check(Check::of_playback(user, id)).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_changes_under_load_takes_effect_and_no_check_fails() {
    let followed = Followed::start("limits: {default: 3, grace: 0s}", &[]).await;
    let (going, asked) = (AtomicBool::new(true), AtomicUsize::new(0));
    let load = async |worker: usize| {
        let mut number = 0;
        while going.load(Ordering::SeqCst) {
            number += 1;
            let user = format!("w{worker}-{}", number / 2);
            let answer = followed.plays(&user, &format!("p{number}")).await;
            assert!(
                answer.is_allowed() || answer.reason() == "full",
                "{answer:?}"
            );
            asked.fetch_add(1, Ordering::SeqCst);
        }
    };
    let change = async {
        eventually("there is load", async || asked.load(Ordering::SeqCst) > 200).await;
        followed.write("limits: {default: 1, grace: 0s}");
        let tries = AtomicUsize::new(0);
        let applies = async || {
            let user = format!("probe-{}", tries.fetch_add(1, Ordering::SeqCst));
            Box::pin(followed.plays(&user, "p1")).await;
            Box::pin(followed.plays(&user, "p2")).await.reason() == "full"
        };
        let waiting = Stopwatch::start();
        eventually("the new limit applies", applies).await;
        let took = waiting.elapsed();
        going.store(false, Ordering::SeqCst);
        took
    };
    let (took, ..) = tokio::join!(change, load(0), load(1), load(2), load(3));
    println!(
        "measured: a changed limit applies after {} ms, under {} checks of which none failed",
        took.as_millis(),
        asked.into_inner()
    );
    assert_eq!(followed.streamgate.checks("outage").await, 0.0);
}

#[tokio::test]
async fn a_broken_file_changes_nothing_is_told_of_once_and_heals_by_itself() {
    let followed = Followed::start("limits: {default: 1, grace: 0s}", &[]).await;
    assert!(followed.plays("anna", "p1").await.is_allowed());
    for (times, broken) in [
        (1.0, "limits: {default: 2, grace: 0s, plans: {gold: many}}"),
        (2.0, "limits: {default: 2"),
        (3.0, "limits: {defalt: 2}"),
    ] {
        followed.write(broken);
        followed.was_read("failed", times).await;
        assert_eq!(
            followed.plays("anna", "p2").await.reason(),
            "full",
            "{broken}"
        );
    }
    std::fs::remove_file(followed.file()).unwrap();
    followed.was_read("failed", 4.0).await;
    assert_eq!(followed.plays("anna", "p2").await.reason(), "full");
    let unusable = "the changed files can't be used; what was read before stays in force";
    let told = followed.streamgate.told(unusable, 4).await;
    assert_eq!(told.len(), 4, "{told:?}");
    let problem = told[0]["problem"].as_str().unwrap();
    assert!(
        problem.contains("limits.plans.gold: got \"many\""),
        "{problem}"
    );
    followed.write("limits: {default: 2, grace: 0s}");
    followed.was_read("ok", 1.0).await;
    assert!(followed.plays("anna", "p2").await.is_allowed());
}

#[tokio::test]
async fn all_that_may_change_changes_and_what_may_not_says_so() {
    let followed = Followed::start("limits: {default: 1, grace: 0s}", &[]).await;
    assert!(followed.plays("anna", "p1").await.is_allowed());
    let refused = followed.plays("anna", "p2").await;
    assert!(refused.body["sessions"][0].get("session").is_some());
    followed.write(
        "limits: {default: 1, grace: 0s, users: {ben: 2}, plans: {gold: 3}, when_full: displace_oldest}\n\
         refusal: {show: []}\n\
         telemetry: {log_level: debug, log_starts: 1}\n\
         leases: {playback: 60s}\n\
         identity: {device: []}\n",
    );
    followed.was_read("ok", 1.0).await;
    // Who is displaced hears of it, without by whom.
    assert!(followed.plays("anna", "p2").await.is_allowed());
    let displaced = followed.plays("anna", "p1").await;
    assert_eq!(
        (displaced.reason(), displaced.body.get("displaced_by")),
        ("displaced", None)
    );
    for id in ["p1", "p2"] {
        assert!(followed.plays("ben", id).await.is_allowed());
    }
    // Earlier starts were not logged.
    let starts = followed.streamgate.told("a stream has started", 3).await;
    let users: Vec<_> = starts.iter().map(|line| line["user.id"].as_str()).collect();
    assert_eq!(users, [Some("anna"), Some("ben"), Some("ben")]);
    let later = "some configuration changes take effect only after a restart";
    let restart = followed.streamgate.told(later, 1).await;
    assert_eq!(restart.len(), 1);
    assert_eq!(restart[0]["sections"], json!("leases, identity"));
    let (read, in_force) = (
        "the changed files have been read",
        "the changed files have been read and are in force",
    );
    followed.streamgate.told(read, 1).await;
    assert!(followed.streamgate.lines(in_force).is_empty());
    eventually("it tells more", async || {
        !followed.streamgate.lines("a start was decided").is_empty()
    })
    .await;
    followed.write("limits: {default: 1, grace: 0s, enforce: false}");
    followed.was_read("ok", 2.0).await;
    followed.streamgate.told(in_force, 1).await;
    assert_eq!(
        followed.streamgate.metric("streamgate_enforces", &[]).await,
        0.0
    );
    for id in ["p3", "p4"] {
        assert!(followed.plays("carl", id).await.is_allowed());
    }
    assert_eq!(followed.streamgate.checks("would_refuse").await, 1.0);
}

#[tokio::test]
async fn what_refusals_tell_follows_the_file_at_both_doors_and_a_word_that_is_none_changes_nothing()
{
    let limits = "limits: {default: 1, grace: 0s}\n";
    let followed = Followed::start(limits, &[]).await;
    assert!(followed.plays("anna", "p1").await.is_allowed());
    let url = format!(
        "http://{}/v1/users/anna/sessions/p2",
        followed.streamgate.http
    );
    let client = reqwest::Client::new();
    let told = async || {
        let over_http = client.put(&url).send().await.unwrap();
        let over_http: Value = over_http.json().await.unwrap();
        let full = [followed.plays("anna", "p2").await.body, over_http];
        let missing = followed.gateway.check(Check::of("", "r1")).await.body;
        let missing_path = format!("http://{}/nowhere", followed.streamgate.http);
        let not_found = client.get(missing_path).send().await.unwrap();
        let not_found: Value = not_found.json().await.unwrap();
        (full, [missing["type"].clone(), not_found["type"].clone()])
    };
    let here = ["/v1/problems#no_user", "/v1/problems#not_found"];
    let there = [
        "https://a.example/p#no_user",
        "https://a.example/p#not_found",
    ];
    for (times, refusal, fields, kinds) in [
        (
            1.0,
            "refusal: {show: [device, started_at], problems: 'https://a.example/p'}",
            vec!["started_at"],
            there,
        ),
        (2.0, "refusal: {show: []}", vec![], here),
        (3.0, "refusal: {show: session}", vec!["session"], here),
    ] {
        followed.write(&format!("{limits}{refusal}"));
        followed.was_read("ok", times).await;
        let (full, found) = told().await;
        for problem in full {
            let holder = problem["sessions"][0].as_object().unwrap();
            assert_eq!(holder.keys().collect::<Vec<_>>(), fields, "{refusal}");
        }
        assert_eq!(found, kinds, "{refusal}");
    }
    followed.write(&format!("{limits}refusal: {{show: [session, user]}}"));
    followed.was_read("failed", 1.0).await;
    assert_eq!(told().await.0[0]["sessions"], json!([{"session": "p1"}]));
}

#[tokio::test]
async fn a_variable_beats_the_changed_file_too() {
    let followed = Followed::start("limits: {grace: 0s}", &[("limits.default", "1")]).await;
    followed.write("limits: {default: 9, grace: 0s, users: {ben: 2}}");
    followed.was_read("ok", 1.0).await;
    assert!(followed.plays("anna", "p1").await.is_allowed());
    assert_eq!(followed.plays("anna", "p2").await.reason(), "full");
    for id in ["p1", "p2"] {
        assert!(followed.plays("ben", id).await.is_allowed());
    }
}

#[tokio::test]
async fn sighup_has_the_file_looked_at_at_once_and_ends_nothing() {
    let followed = Followed::start("limits: {default: 1, grace: 0s}", &[]).await;
    assert!(followed.plays("anna", "p1").await.is_allowed());
    followed.write("limits: {default: 2, grace: 0s}");
    followed.streamgate.signal("HUP").await;
    followed.was_read("ok", 1.0).await;
    assert!(followed.plays("anna", "p2").await.is_allowed());
    // Without a change it does nothing.
    followed.streamgate.signal("HUP").await;
    let message = "reload requested: checking for changed files";
    eventually("it is heard", async || {
        followed.streamgate.lines(message).len() == 2
    })
    .await;
    assert!(followed.plays("anna", "p1").await.is_allowed());
    followed.was_read("ok", 1.0).await;
}
