//! curl, Python and Node: each example of the documents, unchanged, against the service.

use std::time::Duration;

use serde_json::{Value, json};
use streamgate::config::OutageRule;
use tempfile::TempDir;
use tokio::process::Command;

use super::scene::{OPERATOR, Scene, TOKEN};
use streamgate::store::faulty::{Fault, FaultyStore};
use testkit::app::TestApp;
use testkit::docs;
use testkit::process::{Process, command};
use testkit::tools::tool;
use testkit::watch::{PATIENCE, eventually, within};

/// An example that is a program.
#[derive(Debug, Clone, Copy)]
enum Language {
    Python,
    Node,
}

/// A running example.
struct Client {
    process: Process,
    _folder: TempDir,
}

// === impl Language ===

impl Language {
    /// Both of them.
    const ALL: [Self; 2] = [Self::Python, Self::Node];

    /// What it calls itself in its sessions' `device`.
    fn device(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Node => "node",
        }
    }

    /// How to run the example, which lies in that folder then.
    fn command(self, folder: &TempDir) -> Command {
        let (program, package, name) = match self {
            Self::Python => ("python3", "python3", "playback.py"),
            Self::Node => ("node", "nodejs", "playback.mjs"),
        };
        let file = folder.path().join(name);
        std::fs::write(&file, docs::file(&format!("docs/clients/{name}"))).unwrap();
        let mut run = command(tool(program, package));
        run.arg(file).env("NO_PROXY", "*").env("no_proxy", "*");
        run.env_remove("USER_ID").env_remove("TAKEOVER");
        run
    }
}

// === impl Client ===

impl Client {
    fn start(language: Language, environment: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut run = language.command(&folder);
        run.env_remove("TOKEN").envs(environment.iter().copied());
        Self {
            process: Process::start(language.device(), run),
            _folder: folder,
        }
    }

    /// Starts it for alice, with her token.
    fn of(scene: &Scene, language: Language, takeover: Option<&str>) -> Self {
        let api = scene.api();
        let mut environment = vec![("API", api.as_str()), ("TOKEN", TOKEN)];
        environment.extend(takeover.map(|takeover| ("TAKEOVER", takeover)));
        Self::start(language, &environment)
    }

    /// Waits until it says that it plays; the id of its playback.
    async fn plays(&mut self) -> String {
        let find = |output: &str| {
            let (line, _) = output.split_once("playing as ")?.1.split_once('\n')?;
            Some(line.trim().to_owned())
        };
        self.process.says("it plays", find).await
    }

    /// Waits until it ends without being stopped; returns its exit code, and the problem that it
    /// printed.
    async fn ended(mut self) -> (Option<i32>, Value) {
        let code = self.process.ended().await.code();
        let output = self.process.output();
        let problem = output.find("{\n").map(|at| &output[at..]);
        let problem = problem.map(|text| serde_json::from_str(text).unwrap());
        (code, problem.unwrap_or_default())
    }

    /// Asks it to end, and waits until it has, as it should.
    async fn terminate(self) {
        self.process.signal("TERM").await;
        let ended = self.ended().await;
        assert_eq!(ended, (Some(0), Value::Null));
    }
}

/// The statuses that the comments of a shell script promise, in their order.
fn promised(script: &str) -> Vec<&str> {
    let comments = script.lines().filter_map(|line| line.split_once(" # "));
    let numbers = comments.flat_map(|(_, comment)| comment.split(|it: char| !it.is_ascii_digit()));
    numbers.filter(|number| number.len() == 3).collect()
}

#[tokio::test]
async fn each_curl_call_brings_what_the_comment_behind_it_says() {
    tool("curl", "curl");
    let scene = Scene::start(&[]).await;
    for (heading, calls) in [
        ("Try it", 11),
        ("The limit of one user", 3),
        ("The small API", 6),
    ] {
        let script = docs::example("docs/http-api.md", heading, "sh");
        let mut run = command("sh");
        run.args(["-c", script]).env("API", scene.api());
        let token = match heading {
            "The limit of one user" => OPERATOR,
            _ => TOKEN,
        };
        run.env("TOKEN", token).env("NO_PROXY", "*");
        let ran = within(PATIENCE, "curl ends", run.kill_on_drop(true).output()).await;
        let ran = ran.unwrap();
        let told = String::from_utf8(ran.stdout).unwrap();
        let heads = told.lines().filter_map(|it| it.strip_prefix("HTTP/1.1 "));
        let statuses: Vec<&str> = heads.map(|head| &head[..3]).collect();
        assert_eq!(statuses, promised(script), "{told}");
        assert_eq!(statuses.len(), calls, "{told}");
        assert!(
            heading != "Try it" || told.contains(r#""displaced_by":{"session":"p4""#),
            "{told}"
        );
        assert_eq!(String::from_utf8_lossy(&ran.stderr), "");
    }
    scene.becomes(&[]).await;
}

#[tokio::test]
async fn an_example_is_counted_while_it_runs_and_released_when_it_is_told_to_end() {
    let scene = Scene::start(&[]).await;
    for language in Language::ALL {
        let mut client = Client::of(&scene, language, None);
        let id = client.plays().await;
        scene.becomes(&[&id]).await;
        let session = scene.session(&id).await.unwrap();
        let facts = (&session["device"], &session["content"]);
        assert_eq!(facts, (&language.device().into(), &"film-7".into()));
        scene.is_renewed(&id, 2).await;
        client.terminate().await;
        scene.has_ended(&id).await;
        scene.becomes(&[]).await;
    }
}

#[tokio::test]
async fn at_a_full_limit_an_example_says_who_watches_and_takes_over_the_one_it_is_told() {
    let scene = Scene::start(&[("limits.default", "1")]).await;
    let [python, node] = Language::ALL;
    for (first, second) in [(python, node), (node, python)] {
        let mut holder = Client::of(&scene, first, None);
        let held = holder.plays().await;

        let refused = Client::of(&scene, second, None);
        let (code, problem) = refused.ended().await;
        assert_eq!((code, &problem["reason"]), (Some(1), &"full".into()));
        assert_eq!(problem["sessions"][0]["session"], held, "{problem}");
        scene.becomes(&[&held]).await;

        let mut taker = Client::of(&scene, second, Some(&held));
        let taken = taker.plays().await;
        let (code, problem) = holder.ended().await;
        let told = (
            code,
            &problem["reason"],
            &problem["displaced_by"]["session"],
        );
        let expected = (Some(1), &"displaced".into(), &json!(taken));
        assert_eq!(told, expected, "{problem}");
        scene.becomes(&[&taken]).await;
        taker.terminate().await;
        scene.becomes(&[]).await;
    }
}

#[tokio::test]
async fn in_an_outage_an_example_waits_to_start_and_once_it_plays_it_goes_on() {
    let [python, node] = Language::ALL;
    tokio::join!(outage(python), outage(node));
}

/// Longer than a third of it and the five seconds until an example asks again.
const LEASE: Duration = Duration::from_secs(18);

async fn outage(language: Language) {
    let store = FaultyStore::new();
    let plan = TestApp::plan()
        .outage(OutageRule::Deny)
        .store(store.clone());
    let app = plan.leases(LEASE, LEASE).start().await;
    store.fails(&Fault::LosesCalls);
    let api = app.url("");
    let mut client = Client::start(language, &[("API", &api)]);
    store.asked("admit", 1).await;
    store.fails(&Fault::None);
    let id = client.plays().await;
    assert_eq!(store.live("alice").await, [id.as_str()]);

    // A heartbeat, whichever call it makes, fails once. If the store's own probes failed too, it
    // would not be called.
    let heartbeats = ["admit", "renew"];
    let calls = || -> usize { heartbeats.iter().map(|call| store.calls(call)).sum() };
    let before = calls();
    for call in heartbeats {
        store.fails_at(call, Fault::LosesCalls);
    }
    eventually("a heartbeat fails", async || calls() > before).await;
    store.fails(&Fault::None);
    let since = calls();
    eventually("another one follows", async || calls() > since).await;
    assert_eq!(store.live("alice").await, [id.as_str()]);
    client.terminate().await;
    assert!(store.live("alice").await.is_empty());
}
