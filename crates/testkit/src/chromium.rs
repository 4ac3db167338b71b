//! Owns a headless Chromium, driven over the Chrome `DevTools` protocol: tabs that are opened,
//! reloaded, left, gone back in and closed.
//!
//! That protocol leaves the back-forward cache as users have it, with no flag.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::process::{Process, command};
use crate::tools::tool;
use crate::watch::{SLOWLY, eventually_within, within};

/// A Chromium takes a core while it starts, so starting more at once only delays all of them.
static CHROMIUMS: Semaphore = Semaphore::const_new(2);

/// Switches off drawing, updates from the network and the environment's proxy. Its sandbox doesn't
/// work as root, and all pages are ours.
const FLAGS: [&str; 11] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
];

/// Runs first in each page. Stores a token where the page looks for it (about:blank has no
/// storage), and records the calls that the page makes and whether each showing came from the
/// cache.
const BEFOREHAND: &str = r#"
    try { sessionStorage.setItem("token", TOKEN); } catch {}
    window.shown = [];
    addEventListener("pageshow", (event) => window.shown.push(event.persisted));
    window.asked = [];
    const real = window.fetch;
    window.fetch = (url, options) => { window.asked.push(`${options.method} ${url}`); return real(url, options); };
"#;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A running Chromium.
#[derive(Debug)]
pub struct Chromium {
    socket: Mutex<Socket>,
    calls: AtomicU64,
    _process: Process,
    _profile: TempDir,
    _turn: SemaphorePermit<'static>,
}

/// One of its tabs.
#[derive(Debug)]
pub struct Tab<'c> {
    chromium: &'c Chromium,
    target: String,
    session: String,
}

/// `STREAMGATE_TEST_CHROMIUM`, else the system's.
fn binary() -> PathBuf {
    let named = std::env::var_os("STREAMGATE_TEST_CHROMIUM");
    named.map_or_else(|| tool("chromium", "chromium"), PathBuf::from)
}

// === impl Chromium ===

impl Chromium {
    /// Starts it, and returns when it can be driven.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same with more arguments.
    pub async fn start_with(arguments: &[&str]) -> Self {
        let turn = CHROMIUMS.acquire().await.unwrap();
        let profile = tempfile::tempdir().unwrap();
        let mut chromium = command(binary());
        chromium.args(FLAGS).args(arguments).arg("about:blank");
        let folder = profile.path().display();
        chromium.arg(format!("--user-data-dir={folder}"));
        let mut process = Process::start("chromium", chromium);
        let told = profile.path().join("DevToolsActivePort");
        let address = process.says("Chromium listens", |_| {
            let told = std::fs::read_to_string(&told).ok()?;
            let (port, path) = told.split_once('\n')?;
            (!path.is_empty()).then(|| format!("ws://127.0.0.1:{port}{path}"))
        });
        let (socket, _) = connect_async(address.await).await.unwrap();
        Self {
            socket: Mutex::new(socket),
            calls: AtomicU64::new(0),
            _process: process,
            _profile: profile,
            _turn: turn,
        }
    }

    /// Opens a page in a new tab with its user's token. Each tab has its own window, because a
    /// covered one doesn't play.
    pub async fn open(&self, url: &str, token: &str) -> Tab<'_> {
        let target = self
            .done(
                "Target.createTarget",
                json!({"url": "about:blank", "newWindow": true}),
                None,
            )
            .await;
        let target = text(&target, "targetId");
        let params = json!({"targetId": target, "flatten": true});
        let session = self.done("Target.attachToTarget", params, None).await;
        let tab = Tab {
            chromium: self,
            target,
            session: text(&session, "sessionId"),
        };
        tab.done("Page.enable", json!({})).await;
        let source = BEFOREHAND.replace("TOKEN", &json!(token).to_string());
        let params = json!({"source": source});
        tab.done("Page.addScriptToEvaluateOnNewDocument", params)
            .await;
        tab.go(url).await;
        tab
    }

    /// Calls a method; its result.
    async fn done(&self, method: &str, params: Value, session: Option<&str>) -> Value {
        let answer = self.call(method, params, session).await;
        answer.unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// Calls a method; returns its result, or the error. Ignores events that arrive meanwhile.
    async fn call(
        &self,
        method: &str,
        params: Value,
        session: Option<&str>,
    ) -> Result<Value, Value> {
        let id = self.calls.fetch_add(1, Ordering::Relaxed);
        let mut call = json!({"id": id, "method": method, "params": params});
        if let Some(session) = session {
            call["sessionId"] = session.into();
        }
        let answering = async {
            let mut socket = self.socket.lock().await;
            socket.send(call.to_string().into()).await.unwrap();
            loop {
                let message = socket.next().await.expect("Chromium runs").unwrap();
                let Message::Text(text) = message else {
                    continue;
                };
                let mut told: Value = serde_json::from_str(&text).unwrap();
                if told["id"] == id {
                    let error = told["error"].take();
                    let result = told["result"].take();
                    return if error.is_null() {
                        Ok(result)
                    } else {
                        Err(error)
                    };
                }
            }
        };
        within(SLOWLY, method, answering).await
    }
}

// === impl Tab ===

impl Tab<'_> {
    /// Opens another page in it, and waits until that is there.
    pub async fn go(&self, url: &str) {
        self.done("Page.navigate", json!({"url": url})).await;
        self.is_at(url).await;
    }

    /// Waits until it shows the page at that address.
    pub async fn is_at(&self, url: &str) {
        let what = format!("{url} is shown");
        let there = "document.readyState === 'complete' && location.href";
        eventually_within(SLOWLY, &what, async || {
            (self.evaluate(there).await? == url).then_some(())
        })
        .await;
    }

    /// Loads the page again.
    pub async fn reload(&self) {
        self.done("Page.reload", json!({})).await;
    }

    /// Goes back to the page before this one.
    pub async fn back(&self) {
        let history = self.done("Page.getNavigationHistory", json!({})).await;
        let before = history["currentIndex"].as_u64().unwrap() - 1;
        let before = &history["entries"][usize::try_from(before).unwrap()];
        let params = json!({"entryId": before["id"]});
        self.done("Page.navigateToHistoryEntry", params).await;
    }

    /// Closes it, and waits until it is gone.
    pub async fn close(self) {
        let params = json!({"targetId": self.target});
        let close = self.chromium.done("Target.closeTarget", params, None);
        close.await;
        eventually_within(SLOWLY, "the tab is gone", async || {
            let all = self.chromium.done("Target.getTargets", json!({}), None);
            let all = all.await["targetInfos"].take();
            let mut ids = all.as_array()?.iter().map(|target| &target["targetId"]);
            ids.all(|id| *id != self.target).then_some(())
        })
        .await;
    }

    /// What an expression comes to; nothing while a page makes way for another.
    pub async fn evaluate(&self, expression: &str) -> Option<Value> {
        let params = json!({"expression": expression, "returnByValue": true, "userGesture": true});
        let evaluated = self
            .chromium
            .call("Runtime.evaluate", params, Some(&self.session))
            .await;
        let mut evaluated = evaluated.ok()?;
        Some(evaluated["result"]["value"].take())
    }

    /// Gives its window that width in pixels, and its user that preference: `light` or `dark`.
    pub async fn looks(&self, width: u32, scheme: &str) {
        let size = json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false});
        self.done("Emulation.setDeviceMetricsOverride", size).await;
        let preference = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.done("Emulation.setEmulatedMedia", preference).await;
    }

    /// Presses a key: `Tab` or `Enter`.
    pub async fn key(&self, name: &str) {
        // Its window may be behind others.
        let focused = json!({"enabled": true});
        self.done("Emulation.setFocusEmulationEnabled", focused)
            .await;
        let (code, text) = if name == "Enter" { (13, "\r") } else { (9, "") };
        for kind in ["keyDown", "keyUp"] {
            let event = json!({"type": kind, "key": name, "code": name, "windowsVirtualKeyCode": code, "text": text});
            self.done("Input.dispatchKeyEvent", event).await;
        }
    }

    /// Presses a button that has this in its text, when there is one.
    pub async fn press(&self, label: &str) {
        let label = json!(label);
        let press = format!(
            "{{ const it = [...document.querySelectorAll('button')].find((it) => it.textContent.includes({label})); it?.click(); !!it }}"
        );
        let what = format!("there is a button {label}");
        eventually_within(SLOWLY, &what, async || {
            (self.evaluate(&press).await? == true).then_some(())
        })
        .await;
    }

    /// Waits until the page says something in which that is found.
    pub async fn says<T>(&self, what: &str, find: impl Fn(&str) -> Option<T>) -> T {
        eventually_within(SLOWLY, what, async || {
            let text = self.evaluate("document.body.innerText").await?;
            find(text.as_str()?)
        })
        .await
    }

    /// Waits until the page says that it plays, and not as that; the id.
    pub async fn plays_anew(&self, other_than: &str) -> String {
        let find = |text: &str| {
            let (_, rest) = text.split_once("Playing as ")?;
            let id = rest.split_whitespace().next()?;
            (id != other_than).then(|| id.to_owned())
        };
        self.says("the page plays", find).await
    }

    /// The same where it hasn't played before.
    pub async fn plays(&self) -> String {
        self.plays_anew("").await
    }

    /// Waits until this page has been shown that often; each entry says whether it came out of the
    /// back-forward cache.
    pub async fn was_shown(&self, from_cache: &[bool]) {
        let (what, expected) = (format!("shown as {from_cache:?}"), json!(from_cache));
        eventually_within(SLOWLY, &what, async || {
            let shown = self.evaluate("window.shown").await?;
            let enough = shown.as_array()?.len() >= from_cache.len();
            enough.then(|| assert_eq!(shown, expected, "{}", self.session))
        })
        .await;
    }

    /// The last call that this page made, once there is one: its method, and the id in its address.
    pub async fn asked_last(&self) -> (String, String) {
        eventually_within(SLOWLY, "the page has asked", async || {
            let call = self.evaluate("window.asked.at(-1)").await?;
            let (method, address) = call.as_str()?.split_once(' ')?;
            let (_, id) = address.rsplit_once('/')?;
            Some((method.to_owned(), id.to_owned()))
        })
        .await
    }

    /// All cookies that the browser keeps.
    pub async fn cookies(&self) -> Vec<Value> {
        let all = self.chromium.done("Storage.getCookies", json!({}), None);
        let all = all.await["cookies"].take();
        serde_json::from_value(all).unwrap()
    }

    async fn done(&self, method: &str, params: Value) -> Value {
        self.chromium
            .done(method, params, Some(&self.session))
            .await
    }
}

fn text(told: &Value, name: &str) -> String {
    told[name].as_str().expect(name).to_owned()
}
