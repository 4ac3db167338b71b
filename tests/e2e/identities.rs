//! Users who are named by something else than a header: by `Authorization: Basic`, and by the certificate that their connection has shown.

use std::sync::Arc;

use rcgen::SanType;
use reqwest::RequestBuilder;
use rustls::ClientConfig;
use serde_json::{Value, json};

use super::shipped_files::shipped_with;
use testkit::envoy_files::{CONNECTION_MANAGER, LISTENER, at_mut, set};
use testkit::gateway::Setup;
use testkit::origin::Origin;
use testkit::pki::{Authority, Folder, client, connect};
use testkit::stack::Stack;
use testkit::streamgate::Streamgate;
use testkit::talk::ask;
use testkit::viewers::Viewers;

/// The ids of a user's live sessions.
async fn live(streamgate: &Streamgate, user: &str) -> Vec<String> {
    let url = format!("http://{}/v1/users/{user}/sessions", streamgate.http);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let told: Value = client.get(url).send().await.unwrap().json().await.unwrap();
    let sessions = told["sessions"].as_array().unwrap().iter();
    let ids = sessions.map(|session| session["session"].as_str().unwrap().to_owned());
    ids.collect()
}

#[tokio::test]
async fn a_user_named_by_basic_is_counted_and_a_malformed_or_missing_name_is_refused() {
    let settings = [("identity.user", "basic"), ("limits.default", "1")];
    let Stack {
        viewers,
        streamgate,
        ..
    } = &Stack::start(&settings).await;
    // What used to name them means nothing here.
    let of = |user: &str, path: &str| {
        let request = viewers.http1("mallory", path);
        request.basic_auth(user, Some("secret"))
    };
    let playing = viewers.watch(of("alice", "/live/news")).await;
    assert_eq!(live(streamgate, "alice").await, [&*playing.session]);
    let refused = viewers.refused(of("alice", "/live/sports")).await;
    refused.assert_full(&[&playing]);
    viewers.watch(of("bob", "/live/news")).await;
    assert_eq!(live(streamgate, "mallory").await, [""; 0]);

    let refused = async |request: RequestBuilder, status: u16, reason: &str| {
        let refusal = viewers.refused(request).await;
        let told = (refusal.status.as_u16(), refusal.reason());
        assert_eq!(told, (status, reason), "{refusal}");
        assert_eq!(streamgate.checks(reason).await, 1.0);
    };
    let malformed = viewers.http1("mallory", "/live/news");
    let malformed = malformed.header("authorization", "Basic bm8gY29sb24");
    refused(malformed, 400, "malformed").await;
    refused(viewers.http1("mallory", "/live/news"), 401, "no_user").await;
}

/// A key and a token that is signed with it, whose claims are `{"iss": "https://login.example", "aud": "streams", "exp": 4102444800,
/// "https://hasura.io/jwt/claims": {"x-hasura-user-id": "anna", "x-hasura-plan": "duo"}}`.
const HASURA_KEY: &str = "c3RyZWFtZ2F0ZS10ZXN0LWtleS1vZi0zMi1ieXRlcyE";
const HASURA_TOKEN: &str = "eyJhbGciOiJIUzI1NiIsImtpZCI6InRlc3QiLCJ0eXAiOiJKV1QifQ.eyJpc3MiOiJodHRwczovL2xvZ2luLmV4YW1wbGUiLCJhdWQiOiJzdHJlYW1zIiwiZXhwIjo0MTAyNDQ0ODAwLCJodHRwczovL2hhc3VyYS5pby9qd3QvY2xhaW1zIjp7IngtaGFzdXJhLXVzZXItaWQiOiJhbm5hIiwieC1oYXN1cmEtcGxhbiI6ImR1byJ9fQ.q6FkkPQUS691z9OR1thL1QdOM6Za9a9GxMeayCl6ofg";

#[tokio::test]
async fn a_user_and_a_plan_are_found_within_a_claim_whose_name_has_dots() {
    let keys = json!({"keys": [{"kty": "oct", "alg": "HS256", "kid": "test", "k": HASURA_KEY}]});
    let claims = "jwt:https://hasura.io/jwt/claims";
    let user = format!("{claims}.x-hasura-user-id");
    for (plan, limit, missing) in [("x-hasura-plan", 2, 0.0), ("plan", 1, 2.0)] {
        let plan = format!("{claims}.{plan}");
        let settings = [
            ("identity.user", &*user),
            ("identity.plan", &plan),
            ("limits.plans", "duo=2"),
            ("limits.default", "1"),
        ];
        let signed = |setup: Setup| {
            setup.edit(|envoy| {
                let filters = at_mut(envoy, &format!("{CONNECTION_MANAGER}/http_filters"));
                let mut filters = filters.as_array_mut().unwrap().iter_mut();
                let jwt = filters.find(|filter| filter["name"] == "envoy.filters.http.jwt_authn");
                let login = at_mut(jwt.unwrap(), "/typed_config/providers/login");
                set(
                    login,
                    json!({"local_jwks": {"inline_string": keys.to_string()}}),
                );
            })
        };
        let (gateway, streamgate, _origin) = shipped_with(&settings, signed).await;
        let viewers = &Viewers::of(gateway.address);
        let of = |path: &str| viewers.anonymous(path).bearer_auth(HASURA_TOKEN);
        let mut playing = Vec::new();
        for channel in 0..limit {
            playing.push(viewers.watch(of(&format!("/live/{channel}"))).await);
        }
        let refused = viewers.refused(of("/live/more")).await;
        refused.assert_full(&playing.iter().collect::<Vec<_>>());
        assert_eq!(live(&streamgate, "anna").await.len(), limit);
        let counted = streamgate.metric("streamgate_missing_plan_total", &[]);
        assert_eq!(counted.await, missing, "{plan}");
    }
}

/// The shipped gateway where it knows its clients by their certificates, and needs no token.
fn by_certificate(setup: Setup, folder: &Folder) -> Setup {
    let file = |name: &str| json!({"filename": folder.path(name)});
    let tls = json!({"filter_chains": [{"transport_socket": {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "require_client_certificate": true,
            "common_tls_context": {
                "tls_certificates": [{"certificate_chain": file("cert"), "private_key": file("key")}],
                "validation_context": {"trusted_ca": file("client_ca")},
            },
        },
    }}]});
    setup.edit(|envoy| {
        let chain = at_mut(envoy, &format!("{LISTENER}/filter_chains/0"));
        set(chain, tls["filter_chains"][0].clone());
        let filters = at_mut(envoy, &format!("{CONNECTION_MANAGER}/http_filters"));
        let filters = filters.as_array_mut().unwrap();
        filters.retain(|filter| filter["name"] != "envoy.filters.http.jwt_authn");
    })
}

#[tokio::test]
async fn two_client_certificates_are_two_users_and_without_one_there_is_no_connection() {
    let (ours, strangers) = (Authority::new("ours"), Authority::new("strangers"));
    let folder = Folder::with(&ours.issue(), &ours);
    let settings = [("identity.user", "principal"), ("limits.default", "1")];
    let streamgate = &Streamgate::start(&settings).await;
    let origin = Origin::start().await;
    let setup = Setup::file("envoy/envoy.yaml")
        .streamgates(&[streamgate.grpc])
        .cluster("origin", &[origin.address]);
    let gateway = by_certificate(setup, &folder).start().await;
    let gets = async |client: &Arc<ClientConfig>, session: &str| {
        let mut connection = connect(gateway.address, client).await?;
        let path = format!("/vod/demo/index.m3u8?session={session}");
        ask(&mut connection, &path).await
    };

    let uri = SanType::URI("spiffe://tv.example/box/42".try_into().unwrap());
    let dns = SanType::DnsName("box-43.tv.example".try_into().unwrap());
    let boxes = [
        (uri, "spiffe:%2F%2Ftv.example%2Fbox%2F42", "p1"),
        (dns, "box-43.tv.example", "p2"),
    ];
    for (name, user, session) in boxes {
        let client = client(&ours, Some(&ours.issue_to(name)), &[]);
        let told = gets(&client, session).await.unwrap();
        assert_eq!(told.status, 200, "{}", told.body);
        assert_eq!(live(streamgate, user).await, [session]);
        let told = gets(&client, "p3").await.unwrap();
        assert_eq!(told.status, 429, "{}", told.body);
        let problem: Value = serde_json::from_str(&told.body).unwrap();
        assert_eq!(problem["sessions"][0]["session"], session, "{problem}");
    }

    let unknown = strangers.issue_to(SanType::DnsName("box-43.tv.example".try_into().unwrap()));
    for shown in [None, Some(&unknown)] {
        let nobody = client(&ours, shown, &[]);
        assert!(gets(&nobody, "p2").await.is_err());
    }
    assert_eq!(streamgate.metric("streamgate_checks_total", &[]).await, 4.0);
}
