//! One refused viewer, explained: from the request id of the refusal to its holders, and to the gateways that they came through.

use serde_json::json;

use testkit::gateway::Setup;
use testkit::origin::Origin;
use testkit::streamgate::Streamgate;
use testkit::viewers::Viewers;

#[tokio::test]
async fn a_refusal_leads_to_its_holders_and_to_the_gateways_and_addresses_that_they_came_by() {
    let origin = Origin::start().await;
    let settings = [
        ("limits.default", "2"),
        ("limits.grace", "0s"),
        ("telemetry.log_starts", "1"),
    ];
    let streamgate = Streamgate::start(&settings).await;
    let setup = || Setup::demo(&[streamgate.grpc], origin.address);
    let (east, west) = (setup().start().await, setup().start().await);
    let (eastern, western) = (Viewers::of(east.address), Viewers::of(west.address));
    let first = eastern.watch(eastern.http1("alice", "/live/1")).await;
    let film = western
        .http1("alice", "/vod/demo/index.m3u8")
        .header("x-playback-session-id", "film");
    western.let_in(film).await;
    let refusal = western.refused(western.http2("alice", "/live/2")).await;

    let refused = streamgate.told("a stream was refused", 1).await;
    let its =
        |line: &&serde_json::Value| line["request.id"] == json!(refusal.header("x-request-id"));
    let refused: Vec<_> = refused.iter().filter(its).collect();
    assert_eq!(refused.len(), 1, "by the request's id");
    let holders = [
        format!("request:{}", first.session),
        "playback:film".to_owned(),
    ];
    let told = refused[0]["holders"].as_array().unwrap();
    let starts = streamgate.told("a stream has started", 2).await;
    assert_eq!(starts.len(), 2, "one for each start, and no more");
    for (holder, gateway) in holders.iter().zip([east.address, west.address]) {
        assert!(told.contains(&json!(holder)), "{told:?}");
        let mut its = starts
            .iter()
            .filter(|line| line["session.key"] == json!(holder));
        let start = its.next().unwrap();
        assert_eq!(start["gateway"], json!(gateway.to_string()), "{start}");
        assert_eq!(
            (&start["client"], &start["user.id"]),
            (&json!("127.0.0.1"), &json!("alice"))
        );
    }
}
