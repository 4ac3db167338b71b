//! `deploy/streamgate.http`: sent from top to bottom, each request gets the status above it, and no
//! call is missing.

use std::collections::{BTreeSet, HashMap};

use axum::extract::State;
use axum::http::{Method, Uri};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use reqwest::header::{HeaderName, HeaderValue};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use testkit::docs;
use testkit::gateway::Setup;
use testkit::origin::Origin;
use testkit::process::command;
use testkit::streamgate::Streamgate;

const COLLECTION: &str = include_str!("../../deploy/streamgate.http");

/// A request of the collection, with its variables filled in.
#[derive(Debug)]
struct Request {
    /// The text after `###`.
    title: String,
    method: Method,
    url: String,
    headers: Vec<(HeaderName, String)>,
    body: String,
}

/// Identifies a request, apart from its host.
type Call = (String, String, Value);

/// Reads a collection: variables, and requests separated by `###`. `instead` replaces values of
/// variables.
fn read(text: &str, instead: &[(&str, &str)]) -> Vec<Request> {
    let mut parts = text.split("\n### ");
    let mut variables = HashMap::new();
    for line in parts.next().unwrap().lines() {
        if let Some((name, value)) = line.strip_prefix('@').and_then(|it| it.split_once('=')) {
            variables.insert(name.trim().to_owned(), value.trim().to_owned());
        }
    }
    for (name, value) in instead {
        let known = variables.insert((*name).to_owned(), (*value).to_owned());
        assert!(known.is_some(), "{name} is a variable");
    }
    parts
        .map(|part| request(&filled(part, &variables)))
        .collect()
}

fn filled(text: &str, variables: &HashMap<String, String>) -> String {
    let mut text = text.to_owned();
    for (name, value) in variables {
        text = text.replace(&format!("{{{{{name}}}}}"), value);
    }
    assert!(!text.contains("{{"), "a variable has no value: {text}");
    text
}

fn request(text: &str) -> Request {
    let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
    let mut lines = head.lines();
    let title = lines.next().unwrap().to_owned();
    let (method, url) = lines.next().unwrap().split_once(' ').unwrap();
    let headers = lines.map(|line| {
        let (name, value) = line.split_once(": ").unwrap();
        (name.parse().unwrap(), credentials(value))
    });
    Request {
        title,
        method: method.parse().unwrap(),
        url: url.to_owned(),
        headers: headers.collect(),
        body: body.trim().to_owned(),
    }
}

/// `Basic NAME PASSWORD` stands for what the clients send, which is encoded.
fn credentials(value: &str) -> String {
    match value.strip_prefix("Basic ") {
        Some(named) => format!(
            "Basic {}",
            BASE64_STANDARD.encode(named.replacen(' ', ":", 1))
        ),
        None => value.to_owned(),
    }
}

impl Request {
    /// What its title promises.
    fn status(&self) -> u16 {
        let (status, _) = self.title.split_once(": ").unwrap();
        status.parse().unwrap()
    }

    /// Its path and query, without the host.
    fn path(&self) -> String {
        let uri: Uri = self.url.parse().unwrap();
        uri.path_and_query().unwrap().to_string()
    }

    fn call(&self) -> Call {
        (self.method.to_string(), self.path(), json(&self.body))
    }

    /// Sends it; returns the status and the body.
    async fn send(&self, client: &reqwest::Client) -> (u16, String) {
        let mut request = client.request(self.method.clone(), &self.url);
        for (name, value) in &self.headers {
            request = request.header(name, HeaderValue::from_str(value).unwrap());
        }
        if !self.body.is_empty() {
            request = request.body(self.body.clone());
        }
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }
}

fn json(body: &str) -> Value {
    serde_json::from_str(body).unwrap_or_default()
}

#[tokio::test]
async fn each_request_of_the_collection_brings_the_status_that_stands_above_it() {
    let (origin, streamgate) = (Origin::start().await, Streamgate::start(&[]).await);
    let setup = Setup::file("envoy/envoy.yaml")
        .streamgates(&[streamgate.grpc])
        .cluster("origin", &[origin.address])
        .cluster("streamgate_http", &[streamgate.http]);
    let envoy = setup.start().await;
    let api = format!("http://{}", streamgate.http);
    let gateway = format!("http://{}", envoy.address);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for request in read(COLLECTION, &[("api", &api), ("gateway", &gateway)]) {
        let (status, told) = request.send(&client).await;
        assert_eq!(status, request.status(), "{request:?}: {told}");
    }
    let left = client.get(format!("{api}/v1/users/alice/sessions")).send();
    let left: Value = left.await.unwrap().json().await.unwrap();
    assert_eq!(left["active"], 0, "nothing is left behind: {left}");
}

#[test]
fn the_collection_has_each_call_of_the_openapi_document() {
    let document: Value = serde_json::from_str(include_str!("../fixtures/openapi.json")).unwrap();
    let requests = read(COLLECTION, &[]);
    let made_by = |method: &str, template: &str| {
        requests.iter().any(|request| {
            let path = request.path();
            let (path, _) = path.split_once('?').unwrap_or((&path, ""));
            request.method.as_str().eq_ignore_ascii_case(method) && matches(template, path)
        })
    };
    let mut calls = 0;
    for (template, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            // A stream of events never ends, and what sends the collection waits for each answer.
            if method != "parameters" && template != "/v1/events" {
                assert!(made_by(method, template), "no {method} {template}");
                calls += 1;
            }
        }
    }
    assert_eq!(calls, 24, "a document without calls would be covered too");
}

/// Whether a path is one of those that a template such as `/users/{user}` stands for.
fn matches(template: &str, path: &str) -> bool {
    let (wanted, found) = (template.split('/'), path.split('/'));
    wanted.clone().count() == found.clone().count()
        && wanted
            .zip(found)
            .all(|(wanted, found)| wanted == found || wanted.starts_with('{'))
}

#[tokio::test]
async fn the_collection_has_each_request_that_the_documents_curl_lines_send() {
    let collected = read(COLLECTION, &[]);
    let calls: Vec<Call> = collected.iter().map(Request::call).collect();
    let mut sent = Vec::new();
    for heading in ["Try it", "The small API"] {
        let script = docs::example("docs/http-api.md", heading, "sh");
        sent.extend(sent_by(script).await);
    }
    assert_eq!(sent.len(), 17, "{sent:?}");
    for call in sent {
        assert!(calls.contains(&call), "{call:?} is not in the collection");
    }

    let told: BTreeSet<(&str, String)> = collected
        .iter()
        .map(|request| (request.method.as_str(), request.path()))
        .collect();
    let mut lines = 0;
    for (method, path) in docs::all().iter().flat_map(|it| curl_lines(&it.text)) {
        // What they call their sessions and channels is theirs.
        let parent = |path: &str| path.rsplit_once('/').map(|(parent, _)| parent.to_owned());
        let found = told
            .iter()
            .any(|(its, at)| *its == method && parent(at) == parent(&path));
        assert!(found, "{method} {path} is not in the collection");
        lines += 1;
    }
    assert!(lines >= 5, "{lines}");
}

/// What a script of the documents sends to an API that answers everything.
async fn sent_by(script: &str) -> Vec<Call> {
    let (sender, mut received) = mpsc::unbounded_channel();
    let record = async |State(sender): State<mpsc::UnboundedSender<Call>>,
                        method: Method,
                        uri: Uri,
                        body: String| {
        let path = uri.path_and_query().unwrap().to_string();
        sender
            .send((method.to_string(), path, json(&body)))
            .unwrap();
    };
    let recorder = axum::Router::new().fallback(record).with_state(sender);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api = format!("http://{}", listener.local_addr().unwrap());
    let mut serving = JoinSet::new();
    serving.spawn(async { axum::serve(listener, recorder).await });
    let mut run = command("sh");
    run.args(["-c", script])
        .env("API", api)
        .env("NO_PROXY", "*");
    let ran = run.env_remove("TOKEN").kill_on_drop(true).output().await;
    assert!(ran.unwrap().status.success(), "{script}");
    drop(serving);
    let mut calls = Vec::new();
    while let Ok(call) = received.try_recv() {
        calls.push(call);
    }
    calls
}

/// Method and path of each line with curl that has an address of ours in it.
fn curl_lines(text: &'static str) -> impl Iterator<Item = (&'static str, String)> {
    text.lines().filter_map(|line| {
        let (_, rest) = line.split_once("curl ")?;
        let (before, address) = rest.split_once("http://127.0.0.1:")?;
        let method = before
            .split_once("-X ")
            .map_or("GET", |(_, method)| method.split(' ').next().unwrap());
        let path = address.split([' ', '`', '"', '}']).next()?;
        let (_, path) = path.split_once('/')?;
        Some((method, format!("/{path}")))
    })
}
