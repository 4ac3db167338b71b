//! The console at `/console`, for operators with a browser: files in the binary, which hold no
//! data. Their scripts call the API as any client does, with a token where tokens are set.

use axum::http::{HeaderName, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use super::error::ApiError;
use crate::http::openapi::responses::{NoName, TooMuch};

/// Where the console is, seen from `/`. Relative, so that a proxy may add a prefix.
const PLACE: &str = "console";

/// What the console's page may load, and what it may call: this server alone. No page may frame it,
/// and nothing on it may be sent to another address.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Its page.
const PAGE: Asset = Asset {
    name: "index.html",
    media: "text/html; charset=utf-8",
    content: include_str!("assets/index.html"),
};

/// The media type of scripts.
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// What the page loads.
const ASSETS: [Asset; 13] = [
    Asset {
        name: "console.css",
        media: "text/css; charset=utf-8",
        content: include_str!("assets/console.css"),
    },
    Asset::script("api.js", include_str!("assets/api.js")),
    Asset::script("app.js", include_str!("assets/app.js")),
    Asset::script("dom.js", include_str!("assets/dom.js")),
    Asset::script("ending.js", include_str!("assets/ending.js")),
    Asset::script("lately.js", include_str!("assets/lately.js")),
    Asset::script("model.js", include_str!("assets/model.js")),
    Asset::script("numbers.js", include_str!("assets/numbers.js")),
    Asset::script("strings.js", include_str!("assets/strings.js")),
    Asset::script("time.js", include_str!("assets/time.js")),
    Asset::script("user.js", include_str!("assets/user.js")),
    Asset::script("watching.js", include_str!("assets/watching.js")),
    Asset::script("wiring.js", include_str!("assets/wiring.js")),
];

/// A file of the console.
#[derive(Debug, Clone, Copy)]
struct Asset {
    /// Its name.
    name: &'static str,
    /// Its media type.
    media: &'static str,
    /// Its text.
    content: &'static str,
}

impl Asset {
    /// A script.
    const fn script(name: &'static str, content: &'static str) -> Self {
        Self {
            name,
            media: SCRIPT,
            content,
        }
    }
}

impl IntoResponse for Asset {
    fn into_response(self) -> Response {
        let headers = [
            (header::CONTENT_TYPE, self.media),
            (header::CONTENT_SECURITY_POLICY, POLICY),
            // A new version of the binary has new files by the same names.
            (header::CACHE_CONTROL, "no-cache"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
            (
                HeaderName::from_static("cross-origin-resource-policy"),
                "same-origin",
            ),
            (
                HeaderName::from_static("cross-origin-opener-policy"),
                "same-origin",
            ),
        ];
        (headers, self.content).into_response()
    }
}

/// Leads a browser that opens `/` to the console.
pub(super) fn redirect() -> Response {
    (StatusCode::SEE_OTHER, [(header::LOCATION, PLACE)]).into_response()
}

/// Open the console
///
/// A page for operators: who is watching, who is refused, and how the installation is wired. The
/// page holds no data; its scripts call this API.
#[utoipa::path(
    get,
    operation_id = "console",
    path = "/console",
    tag = "operator",
    responses((status = 200, description = "The page.", body = String, content_type = "text/html"), TooMuch),
)]
pub(super) async fn page() -> Response {
    PAGE.into_response()
}

/// Get a file of the console
#[utoipa::path(
    get,
    operation_id = "console_file",
    path = "/console/{file}",
    tag = "operator",
    params(("file" = String, Path, pattern = "^(console\\.css|(api|app|dom|ending|lately|model|numbers|strings|time|user|watching|wiring)\\.js)$", example = "app.js", description = "The name of a script or a style of the page.")),
    responses(
        (status = 200, description = "The file.", content((String = "text/javascript"), (String = "text/css"))),
        NoName, TooMuch,
    ),
)]
pub(super) async fn file(uri: Uri) -> Result<Response, ApiError> {
    // None of them needs a percent in its address.
    let name = uri.path().rsplit('/').next();
    let file = ASSETS.iter().find(|asset| Some(asset.name) == name);
    Ok(file.ok_or(ApiError::NotFound)?.into_response())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The names of files that a text refers to, after that prefix and up to a quote.
    fn named<'t>(text: &'t str, prefix: &'t str) -> impl Iterator<Item = &'t str> {
        let rest = text.split(prefix).skip(1);
        rest.filter_map(|rest| rest.split('"').next())
    }

    #[test]
    fn the_page_and_its_scripts_load_each_file_and_no_other() {
        let scripts = ASSETS.iter().flat_map(|it| named(it.content, "from \"./"));
        let loaded: BTreeSet<_> = named(PAGE.content, "=\"console/").chain(scripts).collect();
        assert_eq!(loaded, ASSETS.iter().map(|it| it.name).collect());
    }

    #[test]
    fn the_document_names_each_file() {
        let document: serde_json::Value = serde_json::from_str(crate::http::document()).unwrap();
        let file = "/paths/~1console~1{file}/get/parameters/0/schema/pattern";
        let pattern = document.pointer(file).and_then(|it| it.as_str()).unwrap();
        let pattern = regex::Regex::new(pattern).unwrap();
        assert!(ASSETS.iter().all(|it| pattern.is_match(it.name)));
        assert_eq!(pattern.as_str().matches('|').count() + 1, ASSETS.len());
    }

    #[test]
    fn no_file_has_markup_made_of_texts_or_an_address_outside() {
        for Asset { name, content, .. } in ASSETS.iter().chain([&PAGE]) {
            for forbidden in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "Function(",
                "localStorage",
                "sessionStorage",
                "document.cookie",
                "://",
                " style=",
                " onclick=",
            ] {
                // The namespace of SVG is a name, and no address that is loaded.
                let content = content.replace("http://www.w3.org/2000/svg", "");
                assert!(!content.contains(forbidden), "{name}: {forbidden}");
            }
        }
    }

    #[test]
    fn each_word_of_the_page_is_one_that_the_strings_have() {
        let strings = include_str!("assets/strings.js");
        for word in named(PAGE.content, "data-text=\"") {
            assert!(strings.contains(&format!("\n  {word}: ")), "{word}");
        }
    }
}
