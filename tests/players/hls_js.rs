//! hls.js in Chromium.

use super::stage::{Named, Stage};
use testkit::chromium::{Chromium, Tab};
use testkit::watch::{SLOWLY, eventually_within};

/// What a page's script has to do for hls.js to name its playbacks, by CMCD in the query.
const CMCD_QUERY: &str = "plays({ cmcd: {}, xhrSetup: login });";
/// The same in headers.
const CMCD_HEADERS: &str = "plays({ cmcd: { useHeaders: true }, xhrSetup: login });";
/// The same under a name that the tab keeps.
const CMCD_KEPT: &str = "
    const sessionId = sessionStorage.playback ??= crypto.randomUUID();
    plays({ cmcd: { sessionId }, xhrSetup: login });";
/// A header of one's own.
const HEADER: &str = r#"
    const id = sessionStorage.playback ??= crypto.randomUUID();
    plays({ xhrSetup: (xhr) => { login(xhr); xhr.setRequestHeader("x-playback-session-id", id); } });"#;
/// A query parameter of one's own.
const QUERY: &str = r#"
    const id = sessionStorage.playback ??= crypto.randomUUID();
    plays({ xhrSetup: (xhr, url) => { xhr.open("GET", `${url}?session=${id}`); login(xhr); } });"#;
/// Nothing but leave to keep cookies.
const COOKIE: &str = "plays({ xhrSetup: (xhr) => { xhr.withCredentials = true; } });";
/// No options.
const NOTHING: &str = "plays({ xhrSetup: login });";

/// Does something in a page.
pub(super) async fn does(tab: &Tab<'_>, what: &str) {
    let script = format!("{what}, 'done'");
    eventually_within(SLOWLY, what, async || {
        (tab.evaluate(&script).await? == "done").then_some(())
    })
    .await;
}

/// Waits until a page has had that trouble.
pub(super) async fn has_trouble(tab: &Tab<'_>, trouble: &str) {
    eventually_within(SLOWLY, trouble, async || {
        let had = tab.evaluate("troubles.join('; ')").await?;
        had.as_str()?.contains(trouble).then_some(())
    })
    .await;
}

/// A playing tab seeks, and pauses until its lease has expired; it stays one and the same playback.
pub(super) async fn seeks_and_pauses(stage: &Stage, user: &str, tab: &Tab<'_>) -> String {
    let id = stage.plays(user).await;
    let before = stage.asked(user).len();
    does(tab, "video.currentTime = 300").await;
    assert_eq!(stage.goes_on_since(user, before).await, id);
    stage.becomes(user, &[&id]).await;
    does(tab, "video.pause()").await;
    stage.becomes(user, &[]).await;
    let before = stage.asked(user).len();
    does(tab, "video.play()").await;
    assert_eq!(stage.goes_on_since(user, before).await, id);
    stage.becomes(user, &[&id]).await;
    id
}

/// Reloads a tab, and waits until it plays again; the playback as which it does so.
pub(super) async fn reloads(stage: &Stage, user: &str, tab: &Tab<'_>) -> String {
    let before = stage.asked(user).len();
    tab.reload().await;
    stage.begins_anew_since(user, before).await
}

#[tokio::test]
async fn hls_js_is_one_playback_by_its_cmcd_and_another_after_a_reload() {
    let stage = &Stage::set(Named::AsShipped).await;
    let chromium = Chromium::start().await;
    let open = async |user, token, script| {
        let tab = chromium.open(&stage.site.page(token, script), "").await;
        let id = seeks_and_pauses(stage, user, &tab).await;
        (tab, id)
    };
    let ((query, by_query), (headers, by_headers)) = tokio::join!(
        open("alice", "alice", CMCD_QUERY),
        open("carol", "carol_premium", CMCD_HEADERS),
    );
    stage.moves();
    assert_eq!(stage.goes_on_elsewhere("alice").await, by_query);
    assert_eq!(stage.goes_on_elsewhere("carol").await, by_headers);
    let reload = async |user, tab: Tab<'_>, old: String| {
        let new = reloads(stage, user, &tab).await;
        assert_ne!(new, old);
        stage.becomes(user, &[&new]).await;
    };
    tokio::join!(
        reload("alice", query, by_query),
        reload("carol", headers, by_headers),
        names_nothing(stage, &chromium),
        are_refused(stage, &chromium, &[CMCD_QUERY]),
    );
}

/// A player that names nothing doesn't play.
async fn names_nothing(stage: &Stage, chromium: &Chromium) {
    let page = stage.site.page("dave_basic", NOTHING);
    let unnamed = chromium.open(&page, "").await;
    has_trouble(&unnamed, "manifestLoadError 400").await;
    stage.refuses("dave", 400).await;
}

/// Nor do any of these at a full limit; they stop.
async fn are_refused(stage: &Stage, chromium: &Chromium, scripts: &[&str]) {
    let _watching = stage.bob_watches().await;
    for script in scripts {
        let refused = chromium.open(&stage.site.page("bob", script), "").await;
        has_trouble(&refused, "manifestLoadError 429, stops").await;
        stage.refuses("bob", 429).await;
        refused.close().await;
    }
}

#[tokio::test]
async fn hls_js_under_a_new_name_after_a_reload_has_to_wait_for_its_old_slot_at_a_full_limit() {
    let stage = &Stage::set_with_shipped_lease(Named::AsShipped).await;
    let chromium = Chromium::start().await;
    let tab = chromium.open(&stage.site.page("bob", CMCD_QUERY), "").await;
    let old = stage.plays("bob").await;
    tab.reload().await;
    has_trouble(&tab, "manifestLoadError 429").await;
    stage.refuses("bob", 429).await;
    assert_eq!(stage.live("bob").await, [old].into());
}

#[tokio::test]
async fn hls_js_is_one_playback_across_reloads_under_a_name_that_its_page_keeps() {
    let stage = &Stage::set(Named::AsShipped).await;
    let chromium = Chromium::start().await;
    let lives = async |user, token, script| {
        let tab = chromium.open(&stage.site.page(token, script), "").await;
        let id = seeks_and_pauses(stage, user, &tab).await;
        assert_eq!(reloads(stage, user, &tab).await, id);
        stage.becomes(user, &[&id]).await;
        (tab, id)
    };
    let named = tokio::join!(
        lives("alice", "alice", CMCD_KEPT),
        lives("carol", "carol_premium", HEADER),
        lives("dave", "dave_basic", QUERY),
    );
    stage.moves();
    for (user, (_, id)) in [("alice", &named.0), ("carol", &named.1), ("dave", &named.2)] {
        assert_eq!(stage.goes_on_elsewhere(user).await, *id);
    }
    are_refused(stage, &chromium, &[CMCD_KEPT, HEADER, QUERY]).await;
}

#[tokio::test]
async fn hls_js_is_one_playback_by_our_cookie_across_reloads() {
    let stage = &Stage::set(Named::OrIssued).await;
    let chromium = Chromium::start().await;
    let tab = chromium.open(&stage.site.page("alice", COOKIE), "").await;
    let id = seeks_and_pauses(stage, "alice", &tab).await;
    assert_eq!(reloads(stage, "alice", &tab).await, id);
    stage.becomes("alice", &[&id]).await;
    stage.moves();
    assert_eq!(stage.goes_on_elsewhere("alice").await, id);
    tab.close().await;
    are_refused(stage, &chromium, &[COOKIE]).await;
    // Without leave to keep cookies each request is another playback.
    let forgetful = chromium
        .open(&stage.site.page("carol_premium", NOTHING), "")
        .await;
    stage.refuses("carol", 429).await;
    forgetful.close().await;
}
