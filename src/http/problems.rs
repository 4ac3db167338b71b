//! Serves the guide to problems, for people who follow a problem's type.

use std::sync::OnceLock;

use axum::response::Response;
use pulldown_cmark::{Event, HeadingLevel, Parser, Tag, html as markdown};

use super::html;
use crate::http::openapi::responses::TooMuch;
use crate::problem::guide;

/// The navigation, which stays in view while you scroll.
const NAVIGATION: &str = "<nav aria-label=\"Page\"><a href=\"/console\">Console</a> · <a href=\"#contents\">Contents</a></nav>\n";

/// The page in HTML. Each chapter and each reason's section has an anchor.
fn as_html() -> &'static str {
    static HTML: OnceLock<String> = OnceLock::new();
    HTML.get_or_init(|| {
        let text = with_contents(guide::TEXT);
        let mut events: Vec<Event<'_>> = Parser::new(&text).collect();
        let anchors: Vec<_> = events.windows(2).map(anchor_of).collect();
        for (event, anchor) in events.iter_mut().zip(anchors) {
            if let (Event::Start(Tag::Heading { id, .. }), Some(anchor)) = (event, anchor) {
                *id = Some(anchor.into());
            }
        }
        let mut main = String::new();
        markdown::push_html(&mut main, events.into_iter());
        html::page("Problems", NAVIGATION, &main)
    })
}

/// Puts a table of contents before the first chapter.
fn with_contents(guide: &str) -> String {
    let (intro, chapters) = guide.split_at(guide.find("\n## ").unwrap_or(guide.len()));
    let entries = chapters.lines().filter_map(|line| {
        let (marks, name) = line.split_once(' ')?;
        let indent = match marks {
            "##" => "",
            "###" => "  ",
            _ => return None,
        };
        Some(format!("{indent}- [{name}](#{})\n", anchor(name)))
    });
    let contents: String = entries.collect();
    format!("{intro}\n## Contents\n\n{contents}{chapters}")
}

/// The anchor of the heading that begins with those two events, if they begin one.
fn anchor_of(events: &[Event<'_>]) -> Option<String> {
    match events {
        [
            Event::Start(Tag::Heading {
                level: HeadingLevel::H2 | HeadingLevel::H3,
                ..
            }),
            Event::Text(name),
        ] => Some(anchor(name)),
        _ => None,
    }
}

/// The anchor of a heading. A reason is its own anchor.
fn anchor(name: &str) -> String {
    name.to_lowercase().replace(' ', "-")
}

/// See what problems mean
///
/// A page for people: what each `reason` means, what a viewer sees, and what a client should do.
/// The `type` of a problem links to its section.
#[utoipa::path(
    get,
    operation_id = "problems",
    path = "/v1/problems",
    tag = "probes",
    responses((status = 200, description = "The page.", body = String, content_type = "text/html"), TooMuch),
)]
pub(super) async fn serve() -> Response {
    html::response(as_html())
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

    #[test]
    fn the_contents_lead_to_each_heading() {
        let page = as_html();
        let links: Vec<&str> = page.split("href=\"#").skip(1).collect();
        for link in &links {
            let (anchor, _) = link.split_once('"').unwrap();
            assert!(page.contains(&format!(" id=\"{anchor}\"")), "{anchor}");
        }
        // Two chapters, and the link to the contents.
        assert_eq!(links.len(), Reason::ALL.len() + 3);
        assert_eq!(page.matches("<h1").count(), 1);
    }
}
