//! The attacker's list: what a viewer may try for a stream more than the limit, or for somebody
//! else's slot, and what it gets. Mallory attacks; anna is who could lose by it. Each on the
//! embedded store and on a Redis, or through a real Envoy where that is part of the answer.
//!
//! | what is tried | what it gets |
//! |---|---|
//! | a request id made up, another's or one's own once more | Envoy's own id: a slot of one's own for each stream |
//! | another user's session id: start, heartbeat, release, takeover | a session of one's own of that name |
//! | a running stream's id as a playback's, and the other way round | a session more of one's own, and no longer life for the stream |
//! | release of one's own running `request` | 409, and it counts; a back end's word frees it until it is next seen running |
//! | release of one's own playback, playing on | refused at its next request |
//! | a new id for each request | the limit's worth of them |
//! | two ids in one request: headers, parameters, cookies | 400 |
//! | another's cookie, where cookies name sessions | a session of one's own of that name |
//! | another's cookie, where cookies name users | that user's slots and no more: its holder *is* that user |
//! | a flood of ends | what 64 ends are remembered by; ids of one's own, free to be used again within one's limit |
//! | periodic entries, replayed or forged | nothing after the end; at most 32 above the limit, of that user alone |
//!
//! Beside these: `e2e::bad_input` (names that are none; a foreign request id through Envoy),
//! `e2e::api` (viewers' scripts and other users' addresses), `e2e::leavers` (leaving during Check),
//! `http_access` (roles), `authz` (repeated checks), `floods` (what floods cost).

use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use testkit::api::{Api, on_both};
use testkit::app::{TestApp, TokensFile};
use testkit::gateway::session_from;
use testkit::gateway_client::{Answer, Check, Gateway, end, periodic};
use testkit::stack::Stack;
use testkit::watch::eventually;

const TOKENS: &str =
    "back-end-token client\nmallorys-token client mallory\noperators-token operator\n";

/// A gateway's check, which has to be let in.
async fn is_let_in(gateway: &Gateway, check: Check) -> Answer {
    let answer = gateway.check(check).await;
    assert!(answer.is_allowed(), "{answer:?}");
    answer
}

/// A gateway's check, which has to be refused for that reason.
async fn is_refused(gateway: &Gateway, check: Check, reason: &str) {
    let answer = gateway.check(check).await;
    assert_eq!((answer.kind, answer.reason()), ("denied", reason));
}

/// Waits until everything in the access log has reached the store.
async fn all_is_told(app: &TestApp) {
    eventually("all is told", async || {
        app.metric("streamgate_releaser_pending").await == 0
    })
    .await;
}

#[tokio::test]
async fn another_users_session_id_is_a_name_for_a_session_of_ones_own() {
    on_both(async |plan| {
        let file = TokensFile::of(TOKENS);
        let app = plan.limit(1).tokens(&file).start().await;
        let back_end = Api::of(&app).with_token("back-end-token");
        let mallory = Api::of(&app).with_token("mallorys-token");
        let annas = back_end.put("anna", "p1", json!({"device": "tv"})).await;
        assert_eq!(annas.status, 201);
        let own = mallory.put("mallory", "p1", json!({})).await;
        assert_eq!((own.status.as_u16(), &own.body["active"]), (201, &json!(1)));
        assert_eq!(own.body["device"], json!(null));
        for told in [
            mallory.put("anna", "p1", json!({})).await,
            mallory.delete("/v1/users/anna/sessions/p1").await,
            mallory.get("/v1/users/anna/sessions/p1").await,
        ] {
            told.is_problem(403, "forbidden");
        }
        let both = json!([{"user": "mallory", "session": "p1"}, {"user": "anna", "session": "p1"}]);
        let release = mallory.call(Method::POST, "/v1/release", Some(both));
        release.await.is_problem(403, "forbidden");
        // Nothing of a list is done if one of it may not be.
        assert_eq!(mallory.live("mallory").await, ["p1"]);
        let own = json!({"user": "mallory", "session": "p1"});
        let release = mallory.call(Method::POST, "/v1/release", Some(own)).await;
        assert_eq!(release.status, 204);
        assert_eq!(mallory.put("mallory", "p2", json!({})).await.status, 201);
        let takeover = mallory.put("mallory", "p3", json!({"takeover": "p1"}));
        takeover.await.is_problem(429, "full");
        assert_eq!(back_end.live("anna").await, ["p1"]);
        assert_eq!(back_end.put("anna", "p1", json!({})).await.status, 200);
        app.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_running_streams_id_as_a_playbacks_is_another_session_and_no_life_for_the_stream() {
    on_both(async |plan| {
        let lease = Duration::from_secs(2);
        let app = plan.leases(lease, lease * 5).limit(2).start().await;
        let (api, gateway) = (Api::of(&app), app.gateway().await);
        is_let_in(&gateway, Check::of("mallory", "r1")).await;
        is_let_in(&gateway, Check::of_playback("mallory", "r1")).await;
        is_refused(&gateway, Check::of("mallory", "r2"), "full").await;
        assert_eq!(api.live("mallory").await, ["r1", "r1"]);
        let released = api.delete("/v1/users/mallory/sessions/r1").await;
        assert_eq!(released.status, 204);
        assert_eq!(api.live("mallory").await, ["r1"], "it runs on");
        assert_eq!(api.put("mallory", "p2", json!({})).await.status, 201);
        // Heartbeats in the stream's name are heartbeats of the playback that has ended.
        let heartbeat = api.put("mallory", "r1", json!({})).await;
        heartbeat.is_problem(410, "ended");
        eventually("the stream's lease runs out", async || {
            api.live("mallory").await == ["p2"]
        })
        .await;
        app.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_running_request_counts_even_if_its_viewer_releases_it() {
    on_both(async |plan| {
        let file = TokensFile::of(TOKENS);
        let app = plan.limit(1).tokens(&file).start().await;
        let back_end = Api::of(&app).with_token("back-end-token");
        let mallory = Api::of(&app).with_token("mallorys-token");
        let gateway = app.gateway().await;
        let running = is_let_in(&gateway, Check::of("mallory", "r1")).await;
        let body = || json!({"user": "mallory", "session": "r1", "kind": "request"});
        for told in [
            mallory
                .call(Method::POST, "/v1/release", Some(body()))
                .await,
            mallory
                .delete("/v1/users/mallory/sessions/r1?kind=request")
                .await,
        ] {
            told.is_problem(409, "not_stoppable");
        }
        let all = mallory.delete("/v1/users/mallory/sessions").await;
        all.is_problem(403, "forbidden");
        // As a playback it can be named, which is another session; one that has never been.
        let as_playback = json!({"user": "mallory", "session": "r1"});
        let told = mallory.call(Method::POST, "/v1/release", Some(as_playback));
        assert_eq!(told.await.status, 204);
        is_refused(&gateway, Check::of("mallory", "r2"), "full").await;
        // A misled back end: the stream counts again at its next sign of life, in addition to what
        // got in meanwhile.
        let told = back_end.call(Method::POST, "/v1/release", Some(body()));
        assert_eq!(told.await.status, 204);
        let second = is_let_in(&gateway, Check::of("mallory", "r2")).await;
        let mut log = gateway.access_log().await;
        log.send(vec![periodic("r1", &running)]);
        eventually("it counts again", async || {
            back_end.live("mallory").await == ["r2", "r1"]
        })
        .await;
        log.send(vec![end("r2", &second)]);
        eventually("the second has ended", async || {
            back_end.live("mallory").await == ["r1"]
        })
        .await;
        is_refused(&gateway, Check::of("mallory", "r3"), "full").await;
        app.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_released_playback_is_refused_at_its_next_request() {
    on_both(async |plan| {
        let app = plan.limit(1).start().await;
        let (api, gateway) = (Api::of(&app), app.gateway().await);
        is_let_in(&gateway, Check::of_playback("mallory", "p1")).await;
        // Answered from memory, as most are.
        is_let_in(&gateway, Check::of_playback("mallory", "p1")).await;
        let hook = json!({"user": "mallory", "session": "p1"});
        let told = api.call(Method::POST, "/v1/release", Some(hook)).await;
        assert_eq!(told.status, 204);
        is_let_in(&gateway, Check::of_playback("mallory", "p2")).await;
        for _ in 0..5 {
            is_refused(&gateway, Check::of_playback("mallory", "p1"), "ended").await;
        }
        assert_eq!(api.live("mallory").await, ["p2"]);
        app.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_new_id_for_each_request_gets_as_many_as_the_limit_and_no_more() {
    on_both(async |plan| {
        let app = plan.start().await;
        let (api, gateway) = (Api::of(&app), app.gateway().await);
        let mut let_in = 0;
        for n in 0..100 {
            let check = match n % 2 {
                0 => Check::of_playback("mallory", &format!("p{n}")),
                _ => Check::of("mallory", &format!("r{n}")),
            };
            let_in += usize::from(gateway.check(check).await.is_allowed());
        }
        assert_eq!(let_in, 3);
        assert_eq!(api.live("mallory").await, ["p0", "r1", "p2"]);
        app.stop().await;
    })
    .await;
}

#[tokio::test]
async fn another_users_cookie_names_a_session_of_ones_own_where_cookies_name_sessions() {
    on_both(async |plan| {
        let plan = plan.named_by("header:x-user-id", "cookie:sid");
        let app = plan.limit(1).start().await;
        let (api, gateway) = (Api::of(&app), app.gateway().await);
        let check = |user: &str, cookie: &str| Check::of(user, "any").header("cookie", cookie);
        is_let_in(&gateway, check("anna", "lang=en; sid=a1")).await;
        is_let_in(&gateway, check("mallory", "sid=a1")).await;
        is_refused(&gateway, check("mallory", "sid=m1"), "full").await;
        for cookies in ["sid=m1; sid=a1", "sid=a1; sid=\"m1\"; sid=a1", "sid=a\u{1}"] {
            is_refused(&gateway, check("mallory", cookies), "malformed").await;
        }
        for cookies in ["", "sid=", "sid", "SID=a1", "xsid=a1", "sid2=a1"] {
            is_refused(&gateway, check("mallory", cookies), "no_session").await;
        }
        let hook = json!({"user": "mallory", "session": "a1"});
        let told = api.call(Method::POST, "/v1/release", Some(hook)).await;
        assert_eq!(told.status, 204);
        // The site's cookie names each playback, so the id may start again; hers is not affected.
        is_let_in(&gateway, check("mallory", "sid=a1")).await;
        is_let_in(&gateway, check("anna", "sid=a1")).await;
        assert_eq!(api.live("anna").await, ["a1"]);
        app.stop().await;
    })
    .await;
}

#[tokio::test]
async fn another_users_cookie_is_worth_that_users_slots_and_no_more_where_cookies_name_users() {
    on_both(async |plan| {
        let plan = plan.named_by("cookie:uid", "request");
        let app = plan.limit(1).start().await;
        let (api, gateway) = (Api::of(&app), app.gateway().await);
        let check = |cookie: &str, id: &str| Check::of("nobody asks", id).header("cookie", cookie);
        is_let_in(&gateway, check("uid=anna", "r1")).await;
        is_refused(&gateway, check("uid=anna", "r2"), "full").await;
        is_let_in(&gateway, check("uid=mallory", "r3")).await;
        // Both together identify no user.
        for cookies in ["uid=mallory; uid=anna", "uid=anna; uid=mallory"] {
            is_refused(&gateway, check(cookies, "r4"), "malformed").await;
        }
        is_refused(&gateway, check("uid=", "r5"), "no_user").await;
        assert_eq!(api.live("anna").await, ["r1"]);
        assert_eq!(api.live("mallory").await, ["r3"]);
        app.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_flood_of_ends_frees_ids_of_ones_own_and_never_a_slot() {
    on_both(async |plan| {
        let app = plan.limit(2).start().await;
        let (api, gateway) = (Api::of(&app), app.gateway().await);
        is_let_in(&gateway, Check::of("mallory", "r1")).await;
        is_let_in(&gateway, Check::of_playback("mallory", "kicked")).await;
        let kicked = api.delete("/v1/users/mallory/sessions").await;
        assert_eq!(kicked.status, 200, "{kicked:?}");
        is_refused(
            &gateway,
            Check::of_playback("mallory", "kicked"),
            "operator",
        )
        .await;
        let ends: Vec<_> = (0..100)
            .map(|n| json!({"user": "mallory", "session": format!("x{n}")}))
            .collect();
        let told = api.call(Method::POST, "/v1/release", Some(json!(ends)));
        assert_eq!(told.await.status, 204);
        // What the operator had ended is remembered apart, and stays out.
        let kicked = Check::of_playback("mallory", "kicked");
        is_refused(&gateway, kicked, "operator").await;
        is_let_in(&gateway, Check::of_playback("mallory", "p2")).await;
        is_refused(&gateway, Check::of_playback("mallory", "p3"), "full").await;
        assert_eq!(api.live("mallory").await, ["r1", "p2"]);
        app.stop().await;
    })
    .await;
}

#[tokio::test]
async fn periodic_entries_that_are_replayed_or_forged_count_nothing_that_has_ended_and_32_above_the_limit()
 {
    on_both(async |plan| {
        let app = plan.start().await;
        let (api, gateway) = (Api::of(&app), app.gateway().await);
        let ended = is_let_in(&gateway, Check::of("mallory", "r1")).await;
        let running = is_let_in(&gateway, Check::of("mallory", "r2")).await;
        is_let_in(&gateway, Check::of("anna", "r1")).await;
        let mut log = gateway.access_log().await;
        log.send(vec![end("r1", &ended)]);
        eventually("the first has ended", async || {
            api.live("mallory").await == ["r2"]
        })
        .await;
        for _ in 0..20 {
            log.send(vec![periodic("r1", &ended), periodic("r2", &running)]);
        }
        log.finish().await;
        all_is_told(&app).await;
        assert_eq!(api.live("mallory").await, ["r2"]);
        // A client that reaches the port meant for gateways can make up streams, and so take slots;
        // this many.
        let mut log = gateway.access_log().await;
        let forged = (0..500).map(|n| {
            let mut answer = running.clone();
            let id = format!("forged-{n}");
            answer.metadata.insert("session".to_owned(), id.clone());
            periodic(&id, &answer)
        });
        log.send(forged.collect());
        log.finish().await;
        all_is_told(&app).await;
        assert_eq!(api.live("mallory").await.len(), 3 + 32);
        assert_eq!(api.live("anna").await, ["r1"]);
        app.stop().await;
    })
    .await;
}

// === Through Envoy ===

#[tokio::test]
async fn a_request_id_of_ones_own_making_is_not_believed_not_even_ones_own() {
    let Stack { viewers, .. } = &Stack::start(&[("limits.default", "2")]).await;
    let first = viewers.watch(viewers.http1("mallory", "/live/1")).await;
    let spoofed = || {
        viewers
            .http2("mallory", "/live/1")
            .header("x-request-id", &first.session)
            .header("x-streamgate-session", &first.session)
    };
    let second = viewers.watch(spoofed()).await;
    assert_ne!(first.session, second.session);
    viewers
        .refused(spoofed())
        .await
        .assert_full(&[&first, &second]);
}

#[tokio::test]
async fn two_ids_in_one_request_are_refused_and_a_list_in_one_header_is_one_name() {
    let Stack {
        viewers,
        streamgate,
        ..
    } = &Stack::start_with(&[("limits.default", "1")], |setup| {
        setup.route(json!({
            "match": {"path_separated_prefix": "/live"},
            "route": {"cluster": "backend", "timeout": "0s"},
            "typed_per_filter_config": session_from("cookie:sid"),
        }))
    })
    .await;
    let status = async |path: &str, lines: &[&str]| {
        let mut answer = viewers.raw_get("mallory", path, lines).await;
        (
            answer.status().await,
            answer.header("x-streamgate-session").unwrap_or_default(),
        )
    };
    let header = |id: &str| format!("x-playback-session-id: {id}");
    let playback = "/vod/demo/index.m3u8";
    for (path, lines) in [
        (playback, vec![header("a"), header("b")]),
        (playback, vec![header("b"), header("a"), header("b")]),
        ("/vod/demo/index.m3u8?session=a&session=b", vec![]),
        ("/vod/demo/index.m3u8?session=a&%73ession=b", vec![]),
        (
            playback,
            vec![
                "cmcd-session: sid=\"a\"".to_owned(),
                "cmcd-request: sid=\"b\"".to_owned(),
            ],
        ),
        ("/live/1", vec!["cookie: sid=a; sid=b".to_owned()]),
        (
            "/live/1",
            vec!["cookie: sid=a".to_owned(), "cookie: sid=b".to_owned()],
        ),
    ] {
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        assert_eq!(status(path, &lines).await.0, Some(400), "{path} {lines:?}");
    }
    assert_eq!(streamgate.checks("malformed").await, 7.0);
    assert_eq!(streamgate.checks("started").await, 0.0);
    let (let_in, named) = status(playback, &[&header("a,b")]).await;
    assert_eq!((let_in, &*named), (Some(200), &b"a,b"[..]));
    for id in ["a", "b", "a, b", "b,a"] {
        assert_eq!(status(playback, &[&header(id)]).await.0, Some(429), "{id}");
    }
}
