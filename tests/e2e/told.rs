//! Answers through the shipped gateway to clients that don't just read a response: a gRPC client, a
//! WebSocket, and the type of a problem as a link.

use std::time::Duration;

use reqwest::Url;
use serde_json::{Value, json};
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_types::StatusExt;

use super::shipped_files::{shipped, shipped_with, token};
use testkit::gateway::{Gateway, Setup, session_from};
use testkit::viewers::Viewers;
use testkit::watch::eventually_within;

const BOUND: Duration = Duration::from_secs(10);

/// The way to an endless gRPC stream: that of streamgate's own health service.
fn with_a_grpc_stream(setup: Setup) -> Setup {
    setup.route(json!({
        "match": {"path": "/grpc.health.v1.Health/Watch"},
        "route": {"cluster": "streamgate", "timeout": "0s"},
        "typed_per_filter_config": session_from("request"),
    }))
}

/// A client of gRPC, over HTTP/2 through the gateway.
async fn grpc(gateway: &Gateway) -> HealthClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{}", gateway.address)).unwrap();
    HealthClient::new(endpoint.connect().await.unwrap())
}

/// Opens the stream as whom that token names, and sees it begin.
async fn watch(
    client: &mut HealthClient<Channel>,
    token: &str,
) -> Result<Streaming<HealthCheckResponse>, Status> {
    let mut request = Request::new(HealthCheckRequest::default());
    let token = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", token);
    let mut stream = client.watch(request).await?.into_inner();
    stream.message().await?;
    Ok(stream)
}

fn text<'a>(metadata: &'a MetadataMap, name: &str) -> &'a str {
    let value = metadata.get(name);
    value.map_or("", |value| value.to_str().unwrap())
}

/// The problem in a status, and its reason in capitals.
fn problem(status: &Status) -> (String, Value) {
    let info = status.get_details_error_info().unwrap();
    assert_eq!(info.domain, "streamgate");
    let problem = serde_json::from_str(&info.metadata["problem"]).unwrap();
    (info.reason, problem)
}

#[tokio::test]
async fn a_refused_grpc_call_gets_a_status_that_is_not_tried_again_a_sentence_and_the_problem() {
    let settings = [("limits.default", "1"), ("limits.grace", "0s")];
    let (gateway, streamgate, _origin) = shipped_with(&settings, with_a_grpc_stream).await;
    let mut client = grpc(&gateway).await;
    let alice = token("alice");
    let first = watch(&mut client, &alice).await.unwrap();

    let refused = watch(&mut client, &alice).await.unwrap_err();
    let sentence =
        "This account can watch 1 stream at once, and it is in use. Stop it to watch here.";
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::ResourceExhausted, sentence)
    );
    let metadata = refused.metadata();
    assert_eq!(text(metadata, "ratelimit"), "\"streams\";r=0");
    let after: u64 = text(metadata, "retry-after").parse().unwrap();
    let delay = refused.get_details_retry_info().unwrap().retry_delay;
    assert_eq!(delay, Some(Duration::from_secs(after)));
    let (reason, problem) = problem(&refused);
    assert_eq!((&*reason, &problem["reason"]), ("FULL", &json!("full")));
    assert_eq!(
        (&problem["limit"], &problem["active"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(problem["sessions"].as_array().unwrap().len(), 1);
    println!("measured: a gRPC client reads {refused:?}");

    drop(first);
    let again = eventually_within(BOUND, "its slot is free", async || {
        watch(&mut client.clone(), &alice).await.ok()
    });
    drop(again.await);
    assert!(streamgate.checks("full").await >= 1.0);
}

#[tokio::test]
async fn a_grpc_client_reads_the_reason_however_many_streams_there_are() {
    let settings = [("limits.default", "60"), ("limits.grace", "0s")];
    let (gateway, streamgate, _origin) = shipped_with(&settings, with_a_grpc_stream).await;
    let api = reqwest::Client::new();
    for number in 0..60 {
        let url = format!(
            "http://{}/v1/users/alice/sessions/{number:0>256}",
            streamgate.http
        );
        let facts = json!({"device": "d".repeat(256), "content": "\"".repeat(256)});
        let answer = api.put(url).json(&facts).send().await.unwrap();
        assert_eq!(answer.status(), 201);
    }
    let refused = watch(&mut grpc(&gateway).await, &token("alice"))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    let (_, problem) = problem(&refused);
    assert_eq!(
        (&problem["limit"], &problem["active"]),
        (&json!(60), &json!(60))
    );
}

#[tokio::test]
async fn a_grpc_call_in_an_outage_or_without_a_name_is_told_by_its_own_status() {
    let settings = [
        ("store.backend", "redis"),
        ("store.redis.urls", "redis://127.0.0.1:1"),
        ("store.outage", "deny"),
    ];
    let (gateway, streamgate, _origin) = shipped_with(&settings, with_a_grpc_stream).await;
    let mut client = grpc(&gateway).await;
    let outage = watch(&mut client, &token("alice")).await.unwrap_err();
    assert_eq!(outage.code(), Code::Unavailable);
    assert_eq!(
        (&*problem(&outage).0, text(outage.metadata(), "retry-after")),
        ("OUTAGE", "1")
    );
    let nameless = watch(&mut client, &token("no_subject")).await.unwrap_err();
    let told = (nameless.code(), nameless.message());
    assert_eq!(
        told,
        (
            Code::Unauthenticated,
            "You are not signed in. Sign in to watch."
        )
    );
    assert_eq!(problem(&nameless).0, "NO_USER");

    // Envoy itself refuses these.
    let stranger = watch(&mut client, "no token").await.unwrap_err();
    assert_eq!(stranger.code(), Code::Unauthenticated);
    drop(streamgate);
    gateway.sees(0).await;
    let unasked = watch(&mut client, &token("alice")).await.unwrap_err();
    assert_eq!(unasked.code(), Code::Unavailable);
    for status in [stranger, unasked] {
        assert!(status.details().is_empty(), "{status:?}");
    }
}

#[tokio::test]
async fn a_refused_websocket_gets_the_problem_in_the_answer_to_its_handshake() {
    let settings = [("limits.default", "1"), ("limits.grace", "0s")];
    let (gateway, _streamgate, _origin) = shipped(&settings).await;
    let viewers = &Viewers::of(gateway.address);
    let alice = format!("Bearer {}", token("alice"));
    let first = viewers
        .websocket_with("authorization", &alice)
        .await
        .unwrap();

    let refusal = viewers
        .websocket_with("authorization", &alice)
        .await
        .unwrap_err();
    assert_eq!((refusal.status.as_u16(), refusal.reason()), (429, "full"));
    assert_eq!(refusal.header("content-type"), "application/problem+json");
    assert!(!refusal.header("retry-after").is_empty());
    assert_eq!(refusal.holders().len(), 1);

    // What a page can ask, which can't read that answer.
    let can_start = async || {
        let url = format!("http://{}/v1/users/alice/sessions", gateway.address);
        let asked = reqwest::Client::new()
            .get(url)
            .header("authorization", &alice);
        let told: Value = asked.send().await.unwrap().json().await.unwrap();
        told["can_start"].as_bool().unwrap()
    };
    assert!(!can_start().await);
    first.close().await;
    let freed = eventually_within(BOUND, "a slot is free", async || {
        can_start().await.then_some(())
    });
    freed.await;
    viewers
        .websocket_with("authorization", &alice)
        .await
        .unwrap();
}

#[tokio::test]
async fn through_the_shipped_gateway_a_problem_s_type_leads_to_the_page_too() {
    let (gateway, _streamgate, _origin) = shipped(&[]).await;
    let viewers = &Viewers::of(gateway.address);
    let nameless = viewers.anonymous("/vod/demo/index.m3u8");
    let refusal = viewers.refused(nameless.bearer_auth(token("alice"))).await;
    assert_eq!(refusal.reason(), "no_session");
    let base = format!("http://{}/vod/demo/index.m3u8", gateway.address);
    let kind = refusal.problem["type"].as_str().unwrap();
    let page = base.parse::<Url>().unwrap().join(kind).unwrap();
    assert_eq!(page.fragment(), Some("no_session"));
    // The page needs no token.
    let page = reqwest::get(page).await.unwrap();
    assert_eq!(page.status(), 200);
    assert!(
        page.text()
            .await
            .unwrap()
            .contains("<h3 id=\"no_session\">")
    );
    let other = format!("http://{}/v1/problems/x", gateway.address);
    assert_eq!(reqwest::get(other).await.unwrap().status(), 401);
}
