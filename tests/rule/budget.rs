//! Displacing is budgeted: fresh ids and a takeover get a user a burst, then one start for each
//! lease of a playback.

use std::collections::HashSet;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use streamgate::clock::ManualClock;
use streamgate::config::FullRule;

use super::{LONG, Pair, TOKENS, by_the_clock, clock};
use testkit::api::{Api, Told, on_both};
use testkit::app::{Plan, TestApp, TokensFile};
use testkit::gateway_client::{Answer, Check, Gateway};

/// What became of a start.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    LetIn,
    /// Refused as `full`, and whether the refusal says when to try again.
    Full(bool),
}

impl Outcome {
    fn of_check(answer: &Answer) -> Self {
        if answer.is_allowed() {
            assert!(answer.metadata.contains_key("session"), "{answer:?}");
            return Self::LetIn;
        }
        assert_eq!((answer.http, answer.reason()), (429, "full"), "{answer:?}");
        Self::Full(answer.header("retry-after").is_some())
    }

    fn of_call(told: &Told) -> Self {
        if told.status == 201 {
            return Self::LetIn;
        }
        told.is_problem(429, "full");
        Self::Full(!told.header("retry-after").is_empty())
    }
}

/// The starts that each user makes.
const STARTS: usize = 12;

/// The first start, and at limit 1 as many as the limit and 5 that displace.
const BURST: usize = 1 + 1 + 5;

/// Makes the starts one after the other; the n-th is to go through instance n % 2.
async fn outcomes(start: impl AsyncFn(usize) -> Outcome) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for number in 0..STARTS {
        outcomes.push(start(number).await);
    }
    outcomes
}

/// A burst is let in, and every later start learns when to retry.
fn is_budgeted(door: &str, outcomes: &[Outcome]) {
    let (burst, rest) = outcomes.split_at(BURST);
    assert!(
        burst.iter().all(|outcome| *outcome == Outcome::LetIn),
        "{door}: {outcomes:?}"
    );
    assert!(
        rest.iter().all(|outcome| *outcome == Outcome::Full(true)),
        "{door}: {outcomes:?}"
    );
}

/// Two instances with one slot for each user.
async fn pair(when_full: FullRule, change: impl Fn(Plan) -> Plan) -> Pair {
    Pair::start(|plan| change(plan.limit(1).when_full(when_full).leases(LONG, LONG))).await
}

/// Both instances' connections for checks.
async fn gateways(pair: &Pair) -> [Gateway; 2] {
    let [one, other] = &pair.apps;
    [one.gateway().await, other.gateway().await]
}

/// A video is started by that user.
async fn post(api: &Api<'_>, user: &str, video: &str) -> Told {
    let request = api.request(Method::POST, &format!("/?id={video}"));
    Told::by(request.basic_auth(user, Some("any password"))).await
}

#[tokio::test]
async fn fresh_ids_displace_a_burst_and_no_more_at_each_door() {
    let pair = pair(FullRule::DisplaceOldest, |plan| plan).await;
    let (gateways, apis) = (gateways(&pair).await, pair.apps.each_ref().map(Api::of));
    let checks = outcomes(async |number| {
        let check = Check::of_playback("checks", &format!("p{number}"));
        Outcome::of_check(&gateways[number % 2].check(check).await)
    });
    is_budgeted("ext_authz", &checks.await);
    let puts = outcomes(async |number| {
        let id = format!("p{number}");
        Outcome::of_call(&apis[number % 2].put("puts", &id, json!({})).await)
    });
    is_budgeted("HTTP", &puts.await);
    let videos = outcomes(async |number| {
        Outcome::of_call(&post(&apis[number % 2], "videos", &format!("v{number}")).await)
    });
    is_budgeted("the small API", &videos.await);
    // The doors share one budget: what one has spent another has not.
    let mixed = outcomes(async |number| {
        let (id, at) = (format!("p{number}"), number % 2);
        match number % 3 {
            0 => Outcome::of_check(&gateways[at].check(Check::of_playback("mixed", &id)).await),
            1 => Outcome::of_call(&apis[at].put("mixed", &id, json!({})).await),
            _ => Outcome::of_call(&post(&apis[at], "mixed", &id).await),
        }
    });
    is_budgeted("all doors", &mixed.await);
    for user in ["checks", "puts", "videos", "mixed"] {
        assert_eq!(apis[0].live(user).await.len(), 1, "{user}");
    }
    pair.stop().await;
}

#[tokio::test]
async fn takeovers_draw_on_the_same_budget_at_each_door() {
    let pair = pair(FullRule::Refuse, |plan| plan).await;
    let (gateways, apis) = (gateways(&pair).await, pair.apps.each_ref().map(Api::of));
    // Whether a takeover names the oldest, or the very session that is live.
    for by_name in [false, true] {
        let takeover = |number: usize| match number.checked_sub(1) {
            Some(before) if by_name => format!("p{}", before.min(BURST - 1)),
            _ => "oldest".to_owned(),
        };
        let user = format!("checks {by_name}");
        let checks = outcomes(async |number| {
            let check = Check::of_playback(&user, &format!("p{number}"));
            let check = check.header("x-streamgate-takeover", &takeover(number));
            Outcome::of_check(&gateways[number % 2].check(check).await)
        });
        is_budgeted("ext_authz", &checks.await);
        let user = format!("puts-{by_name}");
        let puts = outcomes(async |number| {
            let body = json!({"takeover": takeover(number)});
            let id = format!("p{number}");
            Outcome::of_call(&apis[number % 2].put(&user, &id, body).await)
        });
        is_budgeted("HTTP", &puts.await);
    }
    pair.stop().await;
}

#[tokio::test]
async fn a_client_s_token_is_budgeted_and_an_operator_s_is_not() {
    let file = TokensFile::of(TOKENS);
    let pair = pair(FullRule::Refuse, |plan| plan.tokens(&file)).await;
    let starts = async |user: &str, token: &str| {
        let apis = pair
            .apps
            .each_ref()
            .map(|app| Api::of(app).with_token(token));
        outcomes(async |number| {
            let body = json!({"takeover": "oldest"});
            let id = format!("p{number}");
            Outcome::of_call(&apis[number % 2].put(user, &id, body).await)
        })
        .await
    };
    is_budgeted("a user's token", &starts("mallory", "mallorys-token").await);
    is_budgeted(
        "a back end's token",
        &starts("anna", "back-end-token").await,
    );
    let by_operator = starts("ben", "operators-token").await;
    let let_in = by_operator.iter().filter(|it| **it == Outcome::LetIn);
    assert_eq!(let_in.count(), STARTS, "{by_operator:?}");
    // What an operator did has cost the user nothing.
    let api = Api::of(&pair.apps[0]).with_token("back-end-token");
    for number in 0..BURST - 1 {
        let (id, body) = (format!("q{number}"), json!({"takeover": "oldest"}));
        assert_eq!(api.put("ben", &id, body).await.status, 201, "{number}");
    }
    let told = api.put("ben", "one too many", json!({"takeover": "oldest"}));
    told.await.is_problem(429, "full");
    pair.stop().await;
}

#[tokio::test]
async fn a_dry_run_displaces_for_free() {
    on_both(async |plan| {
        let plan = plan.limit(1).leases(LONG, LONG).dry_run();
        let app = plan.when_full(FullRule::DisplaceOldest).start().await;
        let (gateway, api) = (app.gateway().await, Api::of(&app));
        for number in 0..STARTS {
            let id = format!("p{number}");
            let answer = gateway.check(Check::of_playback("checks", &id)).await;
            assert_eq!(Outcome::of_check(&answer), Outcome::LetIn);
            assert_eq!(api.live("checks").await, [id.as_str()]);
            let told = api.put("puts", &id, json!({})).await;
            assert_eq!(Outcome::of_call(&told), Outcome::LetIn);
            assert_eq!(api.live("puts").await, [id.as_str()]);
            let told = post(&api, "videos", &id).await;
            assert_eq!(Outcome::of_call(&told), Outcome::LetIn);
            assert_eq!(api.live("videos").await, [id.as_str()]);
        }
        app.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_dry_run_on_one_route_leaves_the_budget_to_others() {
    on_both(async |plan| {
        let plan = plan.limit(1).leases(LONG, LONG);
        let app = plan.when_full(FullRule::DisplaceOldest).start().await;
        let (gateway, api) = (app.gateway().await, Api::of(&app));
        for number in 0..STARTS {
            let id = format!("dry-{number}");
            let check = Check::of_playback("anna", &id).route("streamgate.enforce", "false");
            let answer = gateway.check(check).await;
            assert_eq!(Outcome::of_check(&answer), Outcome::LetIn);
            assert_eq!(api.live("anna").await, [id]);
        }
        let enforced = outcomes(async |number| {
            let check = Check::of_playback("anna", &format!("p{number}"));
            Outcome::of_check(&gateway.check(check).await)
        })
        .await;
        // The first of these displaces too.
        let let_in = enforced.iter().filter(|it| **it == Outcome::LetIn);
        assert_eq!(let_in.count(), BURST - 1, "{enforced:?}");
        app.stop().await;
    })
    .await;
}

// === Ten minutes ===

const SEGMENT: Duration = Duration::from_secs(10);
const SEGMENTS: usize = 60;
const PLAYERS: usize = 10;

/// How many displacements come back in ten minutes: one for each lease of 30 s.
const REFILLS: usize = 20;

/// How the ten players name what they play.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Naming {
    /// A new id for each segment.
    Fresh,
    /// The same, and each asks for the oldest one's slot.
    Takeover,
    /// Our cookie, which they never bring back.
    CookieDropped,
    /// Our cookie, kept regardless of its expiry.
    CookieKept,
    /// Our cookie, which is gone once a refusal has had it forgotten.
    CookieForgotten,
}

/// Ten players of one user, by what they were given.
struct Household {
    naming: Naming,
    cookies: [Option<String>; PLAYERS],
}

impl Household {
    fn check(&self, player: usize, segment: usize) -> Check {
        let id = format!("{player}-{segment}");
        match self.naming {
            Naming::Fresh => Check::of_playback("anna", &id),
            Naming::Takeover => {
                Check::of_playback("anna", &id).header("x-streamgate-takeover", "oldest")
            }
            Naming::CookieDropped | Naming::CookieKept | Naming::CookieForgotten => {
                let check = Check::of("anna", "any").route("streamgate.issue", "cookie");
                match &self.cookies[player] {
                    Some(cookie) => check.header("cookie", cookie),
                    None => check,
                }
            }
        }
    }

    /// Handles the cookie in an answer. A refusal's lasts five seconds, less than a segment.
    fn keep(&mut self, player: usize, answer: &Answer) {
        let Some(set) = answer.cookies.first() else {
            return;
        };
        let is_forgotten = set.ends_with("; Max-Age=5") && self.naming != Naming::CookieKept;
        let cookie = set.split(';').next().map(str::to_owned);
        self.cookies[player] = match self.naming {
            Naming::CookieKept | Naming::CookieForgotten if !is_forgotten => cookie,
            _ => None,
        };
    }
}

/// What ten minutes come to: the sessions that have started, and those that lapsed.
async fn ten_minutes(naming: Naming, plan: Plan, clock: &ManualClock) -> (usize, usize) {
    let when_full = match naming {
        Naming::Takeover => FullRule::Refuse,
        _ => FullRule::DisplaceOldest,
    };
    let app = plan.limit(1).when_full(when_full).start().await;
    let (gateway, api) = (app.gateway().await, Api::of(&app));
    let mut household = Household {
        naming,
        cookies: [const { None }; PLAYERS],
    };
    let (mut started, mut lapsed) = (HashSet::new(), 0);
    let mut live: Vec<String> = Vec::new();
    for segment in 0..SEGMENTS {
        let still_live = api.live("anna").await;
        lapsed += live.iter().filter(|id| !still_live.contains(id)).count();
        for player in 0..PLAYERS {
            let answer = gateway.check(household.check(player, segment)).await;
            household.keep(player, &answer);
            if answer.is_allowed() {
                started.insert(answer.metadata["session"].clone());
            }
        }
        live = api.live("anna").await;
        assert_eq!(live.len(), 1);
        clock.advance(SEGMENT);
    }
    app.stop().await;
    (started.len(), lapsed)
}

#[tokio::test]
async fn ten_players_with_new_ids_start_little_in_ten_minutes() {
    let stays_within = async |naming, plan: Plan, clock: &ManualClock| {
        let (started, lapsed) = ten_minutes(naming, plan, clock).await;
        let most = BURST + REFILLS + lapsed;
        println!("{naming:?}: {started} starts, {lapsed} lapses, at most {most}");
        assert!(
            (BURST..=most).contains(&started),
            "{naming:?}: {started} of {most}"
        );
    };
    for naming in [
        Naming::Takeover,
        Naming::CookieKept,
        Naming::CookieForgotten,
    ] {
        let clock = clock();
        let plan = TestApp::plan().clock(clock.clone());
        stays_within(naming, plan, &clock).await;
    }
    for naming in [Naming::Fresh, Naming::CookieDropped] {
        by_the_clock(async |plan, clock| stays_within(naming, plan, clock).await).await;
    }
}

/// The same over HTTP, where every start names whose slot it takes.
#[tokio::test]
async fn ten_clients_with_new_ids_start_little_in_ten_minutes() {
    let clock = clock();
    let app = TestApp::plan().clock(clock.clone()).limit(1).start().await;
    let api = Api::of(&app);
    let (mut started, mut lapsed) = (0, 0);
    let mut live: Vec<String> = Vec::new();
    for segment in 0..SEGMENTS {
        let still_live = api.live("anna").await;
        lapsed += live.iter().filter(|id| !still_live.contains(id)).count();
        for player in 0..PLAYERS {
            let body: Value = json!({"takeover": "oldest"});
            let told = api.put("anna", &format!("{player}-{segment}"), body).await;
            started += usize::from(Outcome::of_call(&told) == Outcome::LetIn);
        }
        live = api.live("anna").await;
        clock.advance(SEGMENT);
    }
    let most = BURST + REFILLS + lapsed;
    println!("{started} starts, {lapsed} lapses, at most {most}");
    assert!((BURST..=most).contains(&started), "{started} of {most}");
    app.stop().await;
}

/// What was spent comes back, one for each lease, and lets in exactly one start.
#[tokio::test]
async fn one_displacement_comes_back_with_each_lease() {
    by_the_clock(async |plan, clock| {
        let plan = plan.limit(1).when_full(FullRule::DisplaceOldest);
        let app: TestApp = plan.start().await;
        let gateway = app.gateway().await;
        let plays = async |id: &str| gateway.check(Check::of_playback("anna", id)).await;
        for number in 0..BURST {
            assert!(plays(&format!("p{number}")).await.is_allowed());
        }
        let mut last = format!("p{}", BURST - 1);
        for round in 0..5 {
            let next = format!("q{round}");
            for _ in 0..3 {
                assert_eq!(plays(&next).await.reason(), "full", "{round}");
                assert!(plays(&last).await.is_allowed(), "{round}");
                clock.advance(SEGMENT);
            }
            assert!(plays(&next).await.is_allowed(), "{round}");
            last = next;
        }
        app.stop().await;
    })
    .await;
}
