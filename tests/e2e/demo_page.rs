//! The demo's page in a real Chromium, with a real Envoy: four players of one account, three of which may play.

use serde_json::{Value, json};

use testkit::axe::assert_no_barriers;
use testkit::chromium::{Chromium, Tab};
use testkit::gateway::{Gateway, Setup};
use testkit::origin::Origin;
use testkit::streamgate::Streamgate;
use testkit::watch::{SLOWLY, eventually_within};

const TV: (&str, &str) = ("Living room TV", "Evening news");
const TABLET: (&str, &str) = ("Tablet", "Cartoons");
const PHONE: (&str, &str) = ("Phone", "Cup final");
const LAPTOP: (&str, &str) = ("Laptop", "A long film");

/// The demo without its program.
struct Demo {
    gateway: Gateway,
    streamgate: Streamgate,
    _origin: Origin,
}

impl Demo {
    async fn start() -> Self {
        let origin = Origin::start().await;
        let streamgate = Streamgate::start(&[]).await;
        let setup = Setup::demo(&[streamgate.grpc], origin.address)
            .cluster("streamgate_http", &[streamgate.http]);
        Self {
            gateway: setup.start().await,
            streamgate,
            _origin: origin,
        }
    }

    /// Opens the page, and waits until three players play and the fourth is refused.
    async fn opened<'c>(&self, chromium: &'c Chromium) -> Tab<'c> {
        let page = format!("http://{}/", self.gateway.address);
        let tab = chromium.open(&page, "").await;
        for (device, _) in [TV, TABLET, PHONE] {
            becomes(&tab, device, "playing").await;
        }
        becomes(&tab, LAPTOP.0, "refused").await;
        tab
    }

    /// Waits until streamgate counts these streams of alice, and no others.
    async fn counts(&self, expected: &[(&str, &str)]) {
        let url = format!("http://{}/v1/users/alice/sessions", self.streamgate.http);
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let what = format!("alice watches {expected:?}");
        eventually_within(SLOWLY, &what, async || {
            let told: Value = client.get(&url).send().await.ok()?.json().await.ok()?;
            let fact = |session: &Value, name: &str| session[name].as_str().map(str::to_owned);
            let sessions = told["sessions"].as_array()?.iter();
            let mut found: Vec<_> = sessions
                .map(|session| (fact(session, "device"), fact(session, "content")))
                .collect();
            let own = |text: &str| Some(text.to_owned());
            let expected = expected.iter();
            let mut expected: Vec<_> = expected
                .map(|(device, content)| (own(device), own(content)))
                .collect();
            found.sort();
            expected.sort();
            (found == expected).then_some(())
        })
        .await;
    }
}

/// Of that device's player, as an expression of JavaScript.
fn of(device: &str, property: &str) -> String {
    format!(
        "[...document.querySelectorAll('article')].find((it) => it.querySelector('h3').textContent === {}).{property}",
        json!(device)
    )
}

/// Waits until a player is in that state. One that plays shows another moment of its video each time.
async fn becomes(tab: &Tab<'_>, device: &str, state: &str) {
    let what = format!("the {device} is {state}");
    eventually_within(SLOWLY, &what, async || {
        (tab.evaluate(&of(device, "className")).await? == state).then_some(())
    })
    .await;
    if state == "playing" {
        let moment = async || {
            let moment = tab
                .evaluate(&of(device, "querySelector('video').currentTime"))
                .await?;
            moment.as_f64()
        };
        let before = eventually_within(SLOWLY, &what, moment).await;
        eventually_within(SLOWLY, &what, async || {
            (moment().await? > before).then_some(())
        })
        .await;
    }
}

/// What the player says.
async fn text(tab: &Tab<'_>, device: &str) -> String {
    let text = tab.evaluate(&of(device, "innerText")).await;
    text.unwrap().as_str().unwrap().to_owned()
}

/// Goes through the page by the Tab key until a button with that text has the focus, and presses it.
async fn press_by_keyboard(tab: &Tab<'_>, button: &str) {
    for _ in 0..40 {
        tab.key("Tab").await;
        let focused = tab.evaluate("document.activeElement.textContent").await;
        if focused.unwrap() == button {
            return tab.key("Enter").await;
        }
    }
    panic!("no button {button:?} by the Tab key");
}

#[tokio::test]
async fn three_play_and_the_fourth_sees_who_and_takes_over_by_keyboard() {
    let demo = Demo::start().await;
    let chromium = Chromium::start().await;
    let tab = demo.opened(&chromium).await;
    demo.counts(&[TV, TABLET, PHONE]).await;
    let refused = text(&tab, LAPTOP.0).await;
    assert!(refused.contains("3 are in use"), "{refused}");
    for (device, content) in [TV, TABLET, PHONE] {
        let offer = format!("Take over from the {device} ({content})");
        assert!(refused.contains(&offer), "{refused}");
    }
    assert_no_barriers(&tab).await;

    press_by_keyboard(&tab, "Take over from the Phone (Cup final)").await;
    becomes(&tab, LAPTOP.0, "playing").await;
    demo.counts(&[TV, TABLET, LAPTOP]).await;
    becomes(&tab, PHONE.0, "refused").await;
    let displaced = text(&tab, PHONE.0).await;
    assert!(
        displaced.contains("another stream on the same account"),
        "{displaced}"
    );
    press_by_keyboard(&tab, "Watch on the Phone").await;
    becomes(&tab, PHONE.0, "refused").await;
}

#[tokio::test]
async fn a_player_that_is_stopped_frees_its_slot_and_a_page_that_is_closed_all() {
    let demo = Demo::start().await;
    let chromium = Chromium::start().await;
    let tab = demo.opened(&chromium).await;
    tab.press("Stop the Tablet").await;
    demo.counts(&[TV, PHONE]).await;
    let free = |text: &str| text.contains("alice uses 2 of 3 slots").then_some(());
    tab.says("a slot is free", free).await;
    tab.press("Watch on the Laptop").await;
    becomes(&tab, LAPTOP.0, "playing").await;
    demo.counts(&[TV, PHONE, LAPTOP]).await;
    tab.close().await;
    demo.counts(&[]).await;
}
