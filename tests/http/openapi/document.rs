//! The document is the same everywhere, it is complete, and everything it describes exists.

use std::collections::{BTreeMap, BTreeSet};

use reqwest::{Client, Method, Response};
use serde_json::Value;
use streamgate::problem::Reason;

use testkit::app::TestApp;
use testkit::streamgate::run;

/// The committed document.
const SNAPSHOT: &str = include_str!("../../fixtures/openapi.json");

/// Fails if the document isn't the committed one.
#[track_caller]
fn assert_committed(document: &str, whence: &str) {
    // Not `assert_eq`, which would print both of them.
    assert!(
        document == SNAPSHOT,
        "{whence} gives another document than tests/fixtures/openapi.json. If it is meant to: cargo run -- openapi > tests/fixtures/openapi.json"
    );
}

/// The committed one, to look into.
fn document() -> Value {
    serde_json::from_str(SNAPSHOT).unwrap()
}

/// The calls: path, method and description.
fn operations(document: &Value) -> Vec<(&str, Method, &Value)> {
    let paths = document["paths"].as_object().unwrap();
    let each = paths.iter().flat_map(|(path, item)| {
        let methods = item.as_object().unwrap().iter();
        methods.map(move |(method, operation)| {
            let method = method.to_uppercase().parse().unwrap();
            (path.as_str(), method, operation)
        })
    });
    each.collect()
}

/// A path with names in it, and the parameters without which there is no answer.
fn address(path: &str, operation: &Value) -> String {
    let names = [
        ("{user}", "anna"),
        ("{session}", "p1"),
        ("{file}", "app.js"),
    ];
    let path = names.iter().fold(path.to_owned(), |path, (name, text)| {
        path.replace(name, text)
    });
    let parameters = operation["parameters"].as_array();
    let needed = parameters
        .into_iter()
        .flatten()
        .filter(|it| it["in"] == "query" && it["required"] == true);
    let query: Vec<String> = needed
        .map(|it| format!("{}=film-7", it["name"].as_str().unwrap()))
        .collect();
    format!("{path}?{}", query.join("&"))
}

async fn call(app: &TestApp, method: Method, address: &str) -> Response {
    let request = Client::new().request(method, app.url(address));
    request.basic_auth("anna", Some("")).send().await.unwrap()
}

#[tokio::test]
async fn the_document_is_the_committed_one_wherever_it_is_to_be_had() {
    let (code, printed, errors) = run(&["openapi"], &[]).await;
    assert_eq!((code, errors.as_str()), (0, ""));
    assert_committed(&printed, "streamgate openapi");
    let app = TestApp::plan().start().await;
    let answer = app.get("/openapi.json").await;
    assert_eq!(answer.headers()["content-type"], "application/json");
    assert_committed(&answer.text().await.unwrap(), "GET /openapi.json");
    app.stop().await;
}

#[tokio::test]
async fn an_address_knows_the_methods_that_the_document_tells_of_and_no_others() {
    let app = TestApp::plan().start().await;
    let document = document();
    let mut documented: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (path, method, _) in operations(&document) {
        let of_path = documented
            .entry(path)
            .or_insert_with(|| BTreeSet::from(["OPTIONS".to_owned()]));
        if method == Method::GET {
            of_path.insert("HEAD".to_owned());
        }
        of_path.insert(method.to_string());
    }
    for (path, methods) in documented {
        let answer = call(&app, Method::OPTIONS, &address(path, &Value::Null)).await;
        let allowed = answer.headers()["allow"].to_str().unwrap().split(',');
        let allowed: BTreeSet<String> = allowed.map(|it| it.trim().to_owned()).collect();
        assert_eq!(
            (answer.status().as_u16(), allowed),
            (204, methods),
            "{path}"
        );
    }
    app.stop().await;
}

#[tokio::test]
async fn each_documented_operation_is_there_and_answers_a_documented_status() {
    let app = TestApp::plan().start().await;
    let document = document();
    for (path, method, operation) in operations(&document) {
        let answer = call(&app, method.clone(), &address(path, operation)).await;
        let status = answer.status().as_u16();
        let responses = operation["responses"].as_object().unwrap();
        assert!(
            responses.contains_key(&status.to_string()),
            "{method} {path}: {status}"
        );
        if path == "/v1/events" {
            // It goes on until its client leaves.
            continue;
        }
        let told = answer.text().await.unwrap();
        for missing in ["\"not_found\"", "\"method_not_allowed\""] {
            // These two tell of all reasons.
            let is_about_it = ["/openapi.json", "/v1/problems"].contains(&path);
            assert!(
                is_about_it || !told.contains(missing),
                "{method} {path}: {told}"
            );
        }
    }
    app.stop().await;
}

#[test]
fn each_operation_has_an_id_of_its_own_a_tag_and_a_summary() {
    let document = document();
    let tags = document["tags"].as_array().unwrap();
    let tags: BTreeSet<&str> = tags
        .iter()
        .map(|tag| tag["name"].as_str().unwrap())
        .collect();
    let mut ids = BTreeSet::new();
    for (path, method, operation) in operations(&document) {
        let id = operation["operationId"].as_str().unwrap();
        assert!(ids.insert(id), "{id} stands there twice");
        assert!(operation["summary"].is_string(), "{method} {path}");
        let of_operation = operation["tags"].as_array().unwrap();
        assert!(
            of_operation
                .iter()
                .all(|tag| tags.contains(tag.as_str().unwrap()))
        );
    }
}

#[test]
fn each_reason_is_in_the_document_and_explained_where_a_call_can_tell_it() {
    let document = document();
    let listed = document["components"]["schemas"]["Reason"]["enum"]
        .as_array()
        .unwrap();
    let explained = document["components"]["responses"].to_string() + &document["info"].to_string();
    for reason in Reason::ALL {
        let word = reason.as_str();
        assert!(listed.iter().any(|it| it == word), "{word} is not listed");
        let at_gateways_alone = matches!(
            reason,
            Reason::NoUser | Reason::NoSession | Reason::Malformed | Reason::Misconfigured
        );
        assert_eq!(
            explained.contains(&format!("`{word}`")),
            !at_gateways_alone,
            "{word}"
        );
    }
    assert_eq!(listed.len(), Reason::ALL.len());
}
