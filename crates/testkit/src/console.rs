//! Owns the console's page as its user handles it: what it shows, and what is pressed.

use serde_json::json;

use crate::chromium::Tab;
use crate::watch::{SLOWLY, eventually_within};

/// Waits until an expression about the page is true.
async fn is_so(tab: &Tab<'_>, what: &str, expression: &str) {
    eventually_within(SLOWLY, what, async || {
        (tab.evaluate(expression).await? == true).then_some(())
    })
    .await;
}

/// Waits until the element shows that text.
pub async fn shows(tab: &Tab<'_>, selector: &str, text: &str) {
    let (element, quoted) = (json!(selector), json!(text));
    let expression = format!(
        "(document.querySelector({element})?.checkVisibility() && document.querySelector({element}).textContent.includes({quoted})) ?? false"
    );
    is_so(tab, &format!("{selector} shows {text:?}"), &expression).await;
}

/// Waits until the list of streams has that session.
pub async fn row(tab: &Tab<'_>, session: &str) {
    let selector = format!("#sessions [data-session={}]", json!(session));
    let expression = format!("document.querySelector({}) !== null", json!(selector));
    is_so(tab, &format!("the session {session} is shown"), &expression).await;
}

/// Waits until no element is left.
pub async fn is_gone(tab: &Tab<'_>, selector: &str) {
    let expression = format!("document.querySelector({}) === null", json!(selector));
    is_so(tab, &format!("{selector} is gone"), &expression).await;
}

/// How many of these elements there are.
pub async fn count(tab: &Tab<'_>, selector: &str) -> u64 {
    let expression = format!("document.querySelectorAll({}).length", json!(selector));
    let found = tab.evaluate(&expression).await;
    found.and_then(|it| it.as_u64()).expect("a number")
}

/// Waits until there is such a button that can be pressed, and presses it.
pub async fn click(tab: &Tab<'_>, selector: &str) {
    let selector_text = json!(selector);
    let expression = format!(
        "{{ const it = document.querySelector({selector_text}); const can = it !== null && !it.disabled && it.checkVisibility(); if (can) it.click(); can }}"
    );
    is_so(tab, &format!("{selector} can be pressed"), &expression).await;
}

/// Writes a text into a field.
pub async fn types(tab: &Tab<'_>, selector: &str, text: &str) {
    let (field, text) = (json!(selector), json!(text));
    let expression = format!(
        "{{ const it = document.querySelector({field}); it.value = {text}; it.dispatchEvent(new Event('input', {{ bubbles: true }})); it.value === {text} }}"
    );
    is_so(tab, &format!("{selector} is filled"), &expression).await;
}
