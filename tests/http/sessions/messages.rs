//! Ends and takeovers with a message to the viewer.

use reqwest::Method;
use serde_json::{Value, json};

use streamgate::store::faulty::FaultyStore;
use testkit::api::{Api, Told, on_both};
use testkit::app::TestApp;
use testkit::app::TokensFile;

use super::was_not_asked;

/// All of anna's sessions.
const ALL: &str = "/v1/users/anna/sessions";

/// Ends what is at that path, with that body.
async fn end(api: &Api<'_>, path: &str, body: Value) -> Told {
    api.call(Method::DELETE, path, Some(body)).await
}

/// A start that is refused because its session was ended, with that message.
async fn assert_told(api: &Api<'_>, session: &str, reason: &str, message: &str) {
    let refused = api.put("anna", session, json!({})).await;
    refused.is_problem(410, reason);
    let told = (&refused.body["detail"], &refused.body["message"]);
    assert_eq!(told, (&json!(message), &json!(message)), "{refused:?}");
}

#[tokio::test]
async fn an_operator_tells_a_viewer_why_a_session_has_ended() {
    on_both(async |plan| {
        let app = plan.limit(9).start().await;
        let api = Api::of(&app);
        for id in ["p1", "p2", "p3", "p4"] {
            assert_eq!(api.put("anna", id, json!({})).await.status, 201);
        }
        let message = "Your \"plan\" <b>has</b> ended & \u{6620}\u{753b}.";
        let one = format!("{ALL}/p1");
        for _ in 0..2 {
            assert_eq!(
                end(&api, &one, json!({"message": message})).await.status,
                204
            );
        }
        assert_told(&api, "p1", "operator", message).await;
        // Without a message it is the release that it was.
        assert_eq!(end(&api, &format!("{ALL}/p2"), json!({})).await.status, 204);
        let released = api.put("anna", "p2", json!({})).await;
        released.is_problem(410, "ended");
        assert_eq!(released.body["message"], Value::Null);

        let longest = "\u{1f4fa}".repeat(200);
        let all = end(&api, ALL, json!({"message": longest})).await;
        assert_eq!(all.status, 200);
        assert_eq!(all.body["ended"].as_array().map(Vec::len), Some(2));
        assert_told(&api, "p3", "operator", &longest).await;
        assert_told(&api, "p4", "operator", &longest).await;
        app.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_takeover_tells_the_viewer_who_loses_the_slot() {
    on_both(async |plan| {
        let app = plan.limit(1).start().await;
        let api = Api::of(&app);
        assert_eq!(api.put("anna", "tv", json!({})).await.status, 201);
        let taking = json!({"takeover": "tv", "message": "You watch on your phone now."});
        assert_eq!(api.put("anna", "phone", taking).await.status, 201);
        assert_told(&api, "tv", "displaced", "You watch on your phone now.").await;
        let silent = json!({"takeover": "phone"});
        assert_eq!(api.put("anna", "tablet", silent).await.status, 201);
        let refused = api.put("anna", "phone", json!({})).await;
        refused.is_problem(410, "displaced");
        assert_eq!(refused.body["message"], Value::Null);
        app.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_message_that_cannot_be_sent_says_why() {
    let store = FaultyStore::new();
    let app = TestApp::plan().store(store.clone()).start().await;
    let api = Api::of(&app);
    let one = format!("{ALL}/p1");
    for (message, expected) in [
        (json!(""), "\"message\" is empty"),
        (json!("x".repeat(201)), "has 201 characters; at most 200"),
        (json!("a\nb"), "has a control character at character 1"),
        (json!("a\u{9b}b"), "has a control character at character 1"),
        (json!(1), "The field \"message\" is invalid"),
    ] {
        let taking = json!({"takeover": "tv", "message": message});
        for told in [
            end(&api, ALL, json!({"message": message})).await,
            end(&api, &one, json!({"message": message})).await,
            api.put("anna", "p1", taking).await,
        ] {
            told.is_problem(400, "bad_request");
            let detail = told.body["detail"].as_str().unwrap_or_default();
            assert!(detail.contains(expected), "{message} gave {detail}");
        }
    }
    end(&api, ALL, json!({"reason": "x"}))
        .await
        .is_problem(400, "bad_request");
    was_not_asked(&store);
    app.stop().await;
}

#[tokio::test]
async fn only_who_may_speaks_to_a_viewer() {
    let file = TokensFile::of("back-end client\noperator operator\nannas client anna\n");
    let app = TestApp::plan().limit(1).tokens(&file).start().await;
    let api = Api::of(&app);
    let [back_end, operator, anna] =
        ["back-end", "operator", "annas"].map(|token| api.with_token(token));
    assert_eq!(back_end.put("anna", "tv", json!({})).await.status, 201);
    let one = format!("{ALL}/tv");
    for client in [&back_end, &anna] {
        for path in [ALL, &one] {
            let told = end(client, path, json!({"message": "Stopped by the service."})).await;
            told.is_problem(403, "forbidden");
        }
    }
    let taking = json!({"takeover": "tv", "message": "Stopped by the service."});
    let told = anna.put("anna", "phone", taking.clone()).await;
    told.is_problem(403, "forbidden");
    assert_eq!(back_end.put("anna", "phone", taking).await.status, 201);
    assert_told(&operator, "tv", "displaced", "Stopped by the service.").await;
    let one = format!("{ALL}/phone");
    let ended = end(&operator, &one, json!({"message": "Ended by the service."})).await;
    assert_eq!(ended.status, 204);
    assert_told(&operator, "phone", "operator", "Ended by the service.").await;
    // A stream inside Envoy can't be stopped, whatever it is told.
    let app_of_envoy = format!("{ALL}/r1?kind=request");
    let told = end(
        &operator,
        &app_of_envoy,
        json!({"message": "Ended by the service."}),
    )
    .await;
    assert_eq!(told.status, 204, "it isn't live");
    app.stop().await;
}
