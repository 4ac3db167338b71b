//! The guide to problems, for people who follow the type of one.

use std::sync::OnceLock;

use axum::http::header;
use axum::response::IntoResponse;
use pulldown_cmark::{Event, HeadingLevel, Parser, Tag, html};

use crate::http::openapi::responses::TooMuch;
use crate::problem::guide;

/// What stands around the page. No script, and nothing from elsewhere.
const HEAD: &str = "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n\
    <title>Problems</title>\n<style>body { max-width: 50em; margin: 2em auto; padding: 0 1em; font: 1em/1.5 sans-serif } :target { background: #ffeb99 }</style>\n";

/// What the page may load.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

/// The page in HTML, with an anchor at each reason's section.
fn as_html() -> &'static str {
    static HTML: OnceLock<String> = OnceLock::new();
    HTML.get_or_init(|| {
        let mut events: Vec<Event<'_>> = Parser::new(guide::TEXT).collect();
        let names: Vec<_> = events.windows(2).map(section).collect();
        for (event, name) in events.iter_mut().zip(names) {
            if let (Event::Start(Tag::Heading { id, .. }), Some(name)) = (event, name) {
                *id = Some(name.into());
            }
        }
        let mut page = HEAD.to_owned();
        html::push_html(&mut page, events.into_iter());
        page
    })
}

/// The name of the section that begins with those two events, if one does.
fn section(events: &[Event<'_>]) -> Option<String> {
    match events {
        [
            Event::Start(Tag::Heading {
                level: HeadingLevel::H3,
                ..
            }),
            Event::Text(name),
        ] => Some(name.to_string()),
        _ => None,
    }
}

/// See what problems mean
///
/// A page for people: what each `reason` means, what a viewer sees, what a client should do. The `type` of a problem leads to its section.
#[utoipa::path(
    get,
    operation_id = "problems",
    path = "/v1/problems",
    tag = "probes",
    responses((status = 200, description = "The page.", body = String, content_type = "text/html"), TooMuch),
)]
pub(super) async fn serve() -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
    ];
    (headers, as_html())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::{GUIDE, Reason};

    #[test]
    fn each_reason_s_type_leads_to_its_section() {
        for reason in Reason::ALL {
            let (path, fragment) = reason.kind().split_once('#').unwrap();
            assert_eq!(path, GUIDE);
            let anchor = format!("<h3 id=\"{fragment}\">{fragment}</h3>");
            assert_eq!(as_html().matches(&anchor).count(), 1, "{anchor}");
        }
    }
}
