//! Web pages in browsers, at a port without tokens.
//!
//! A browser sends requests to any address on behalf of any page on the web. A page can't read the
//! answer across origins, but the call takes effect all the same. A page whose name resolves to
//! this machine (DNS rebinding) can even read the answer. Browsers reveal both: they say which page
//! asks, and by what name it knows us. With tokens none of this is needed, because no page has one.

use std::net::IpAddr;

use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, Uri, header};

use super::caller::VIEWER;
use crate::config::Origins;

/// The header in which a browser says how the requesting page is related to us.
const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The header in which a browser says how a page makes the request. Scripts can't set it, and
/// browsers omit it over plain HTTP.
const MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// The beginning of every browser's user agent. In Firefox and Safari a script can send another
/// one.
const BROWSER: &[u8] = b"Mozilla/";

/// Why a page may not make a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::http) enum ForeignPage {
    /// It has another origin.
    #[error(
        "Pages of the origin {0:?} may not call this API; add the origin to http.cors_origins, or set http.tokens_file."
    )]
    Origin(String),
    /// It belongs to another site and doesn't say which.
    #[error(
        "A page of another site made this request; add its origin to http.cors_origins, or set http.tokens_file."
    )]
    Site,
    /// It uses a host name for us that anybody may own.
    #[error(
        "Browsers may not use the host name {0:?}; add it to http.hosts, use localhost or an IP address, or set http.tokens_file."
    )]
    Host(String),
}

/// Refuses requests from other sites' pages. `origins` and `hosts` are `http.cors_origins` and
/// `http.hosts`.
///
/// A request with [`VIEWER`] comes from a gateway: a page of another origin can't send that header
/// without a preflight. A page that rebinds its own name can, and then act for any user it can
/// name. Only tokens prevent that.
pub(in crate::http) fn check(
    parts: &Parts,
    origins: &Origins,
    hosts: &[String],
) -> Result<(), ForeignPage> {
    let headers = &parts.headers;
    if headers.contains_key(VIEWER) {
        return Ok(());
    }
    let asked = asked(parts);
    if !is_allowed(headers, origins) {
        let mut sent = headers.get_all(header::ORIGIN).iter();
        if let Some(origin) = sent.find(|it| !is_own(it.as_bytes(), asked.as_ref())) {
            let origin = String::from_utf8_lossy(origin.as_bytes()).into_owned();
            return Err(ForeignPage::Origin(origin));
        }
        if headers.get_all(SITE).iter().any(|it| it == "cross-site") {
            return Err(ForeignPage::Site);
        }
    }
    if is_browser(headers) && !asked.as_ref().is_some_and(|host| is_known(host, hosts)) {
        let host = asked.map_or_else(String::new, |host| host.to_string());
        return Err(ForeignPage::Host(host));
    }
    Ok(())
}

/// The name and port in the request: HTTP/2's `:authority`, or HTTP/1's `Host`.
fn asked(parts: &Parts) -> Option<Authority> {
    let host = || Authority::try_from(parts.headers.get(header::HOST)?.as_bytes()).ok();
    parts.uri.authority().cloned().or_else(host)
}

/// Whether the configuration allows the page's origin.
fn is_allowed(headers: &HeaderMap, origins: &Origins) -> bool {
    match origins {
        Origins::Any => true,
        Origins::These(these) => {
            let mut sent = headers.get_all(header::ORIGIN).iter().peekable();
            sent.peek().is_some() && sent.all(|origin| these.iter().any(|it| origin == it.as_str()))
        }
    }
}

/// Whether an origin is our own. Only a proxy in front of us may know whether the client uses TLS.
fn is_own(origin: &[u8], asked: Option<&Authority>) -> bool {
    let (Ok(origin), Some(asked)) = (Uri::try_from(origin), asked) else {
        return false;
    };
    let usual = match origin.scheme_str() {
        Some("http") => 80,
        Some("https") => 443,
        _ => return false,
    };
    let port = |port: Option<u16>| port.unwrap_or(usual);
    origin.host().is_some_and(|host| {
        host.eq_ignore_ascii_case(asked.host()) && port(origin.port_u16()) == port(asked.port_u16())
    })
}

/// Whether the request looks like a browser's.
///
/// A page on plain HTTP that reads from its own name sends neither `Origin` nor `Sec-Fetch-Site`.
/// Its script may replace the user agent, but it can only change `Accept-Language`, not remove it.
/// Node also sends that header, but always with `Sec-Fetch-Mode`.
fn is_browser(headers: &HeaderMap) -> bool {
    let agent = headers.get(header::USER_AGENT);
    headers.contains_key(header::ORIGIN)
        || headers.contains_key(SITE)
        || agent.is_some_and(|agent| agent.as_bytes().starts_with(BROWSER))
        || (headers.contains_key(header::ACCEPT_LANGUAGE) && !headers.contains_key(MODE))
}

/// Whether no stranger can make that name resolve to us: it is an IP address, this machine's own
/// name, or a listed one.
fn is_known(asked: &Authority, hosts: &[String]) -> bool {
    let host = asked.host().to_ascii_lowercase();
    let ip = host.trim_start_matches('[').trim_end_matches(']');
    if ip.parse::<IpAddr>().is_ok() {
        return true;
    }
    let name = host.strip_suffix('.').unwrap_or(&host);
    name == "localhost" || name.ends_with(".localhost") || hosts.iter().any(|it| it == name)
}

#[cfg(test)]
mod tests {
    use axum::http::{Request, Version};

    use super::*;

    /// A request for a host and its other headers. `h2 ` before the host puts it into `:authority`,
    /// otherwise it is in `Host`.
    fn request(host: &str, headers: &[(&str, &str)]) -> Parts {
        let request = match host.strip_prefix("h2 ") {
            Some(authority) => Request::builder()
                .version(Version::HTTP_2)
                .uri(format!("http://{authority}/v1/sessions")),
            None => Request::builder().uri("/v1/sessions").header("host", host),
        };
        let request = headers.iter().fold(request, |request, (name, value)| {
            request.header(*name, *value)
        });
        request.body(()).unwrap().into_parts().0
    }

    /// The name of [`super::SITE`].
    const SITE: &str = "sec-fetch-site";

    /// The host that a request uses, its other headers, and why it is refused, if it is.
    type Row = (
        &'static str,
        &'static [(&'static str, &'static str)],
        &'static str,
    );

    /// The user agent of a browser.
    const MOZILLA: (&str, &str) = ("user-agent", "Mozilla/5.0 (X11; Linux x86_64)");

    /// Each criterion with its edge cases.
    #[rustfmt::skip]
    const ROWS: &[Row] = &[
        // Not a browser.
        ("streamgate:8080",        &[], ""),
        ("evil.test:8080",         &[("user-agent", "curl/8.5")], ""),
        ("evil.test",              &[("accept-language", "*"), ("sec-fetch-mode", "cors")], ""),
        ("",                       &[], ""),
        ("h2 evil.test",           &[], ""),
        // A browser, at an address or name that only we have.
        ("127.0.0.1:8080",         &[(SITE, "none")], ""),
        ("10.1.2.3",               &[(SITE, "same-origin"), MOZILLA], ""),
        ("[::1]:8080",             &[("origin", "http://[::1]:8080"), (SITE, "same-origin")], ""),
        ("[2001:db8::7]",          &[MOZILLA], ""),
        ("h2 [::1]:8080",          &[("origin", "http://[::1]:8080")], ""),
        ("localhost:8080",         &[("origin", "http://localhost:8080")], ""),
        ("LocalHost.",             &[MOZILLA], ""),
        ("tv.localhost",           &[(SITE, "none")], ""),
        ("streams.example",        &[("origin", "https://streams.example")], ""),
        ("Streams.Example.:8080",  &[MOZILLA], ""),
        ("h2 streams.example",     &[("origin", "https://streams.example"), (SITE, "same-origin")], ""),
        // The scheme's default port may be present or not.
        ("streams.example:443",    &[("origin", "https://streams.example")], ""),
        ("streams.example",        &[("origin", "http://streams.example:80")], ""),
        ("STREAMS.example",        &[("origin", "http://streams.EXAMPLE")], ""),
        // A name that anybody may own.
        ("evil.test:8080",         &[MOZILLA], "Host"),
        ("evil.test:8080",         &[("origin", "http://evil.test:8080")], "Host"),
        ("evil.test:8080",         &[("origin", "http://evil.test:8080"), (SITE, "same-origin")], "Host"),
        ("evil.test",              &[(SITE, "none")], "Host"),
        // A script has replaced the user agent, and the languages.
        ("evil.test",              &[("user-agent", "x"), ("accept-language", "de")], "Host"),
        ("evil.test",              &[("user-agent", ""), ("accept-language", "")], "Host"),
        ("evil.test",              &[("accept-language", "*")], "Host"),
        ("h2 evil.test",           &[("user-agent", "x"), ("accept-language", "de")], "Host"),
        ("127.0.0.1:8080",         &[("user-agent", "x"), ("accept-language", "de")], ""),
        ("h2 evil.test",           &[(SITE, "same-origin")], "Host"),
        ("localhost.evil.test",    &[MOZILLA], "Host"),
        ("notlocalhost",           &[MOZILLA], "Host"),
        ("127.0.0.1.evil.test",    &[MOZILLA], "Host"),
        ("my.streams.example",     &[MOZILLA], "Host"),
        ("streams.example.evil.test", &[MOZILLA], "Host"),
        ("",                       &[MOZILLA], "Host"),
        ("a b",                    &[MOZILLA], "Host"),
        ("evil.test",              &[("origin", "https://app.example"), (SITE, "cross-site")], "Host"),
        // Another origin.
        ("127.0.0.1:8080",         &[("origin", "https://evil.test"), (SITE, "cross-site")], "Origin"),
        ("127.0.0.1:8080",         &[("origin", "http://127.0.0.1:3000"), (SITE, "same-site")], "Origin"),
        ("localhost:8080",         &[("origin", "http://localhost"), (SITE, "same-site")], "Origin"),
        ("localhost:8080",         &[("origin", "http://127.0.0.1:8080")], "Origin"),
        ("127.0.0.1:8080",         &[("origin", "null")], "Origin"),
        ("127.0.0.1:8080",         &[("origin", "")], "Origin"),
        ("127.0.0.1:8080",         &[("origin", "file://")], "Origin"),
        ("",                       &[("origin", "http://evil.test")], "Origin"),
        ("streams.example:443",    &[("origin", "http://streams.example")], "Origin"),
        ("127.0.0.1",              &[("origin", "http://127.0.0.1"), ("origin", "https://evil.test")], "Origin"),
        // Another site, without an origin: an image, a link.
        ("127.0.0.1:8080",         &[(SITE, "cross-site")], "Site"),
        ("localhost",              &[("origin", "http://localhost"), (SITE, "cross-site")], "Site"),
        ("127.0.0.1:8080",         &[(SITE, "same-site")], ""),
        // A listed origin, with its port or without.
        ("127.0.0.1:8080",         &[("origin", "https://app.example"), (SITE, "cross-site")], ""),
        ("streams.example",        &[("origin", "http://app.example:3000"), (SITE, "cross-site")], ""),
        ("h2 127.0.0.1",           &[("origin", "https://app.example"), (SITE, "cross-site")], ""),
        ("127.0.0.1:8080",         &[("origin", "http://app.example")], "Origin"),
        ("127.0.0.1:8080",         &[("origin", "https://app.example:3000")], "Origin"),
        ("127.0.0.1:8080",         &[("origin", "https://app.example.evil.test")], "Origin"),
        ("127.0.0.1:8080",         &[("origin", "https://app.example"), ("origin", "https://evil.test")], "Origin"),
        // A gateway has let a viewer through.
        ("tv.example",             &[("x-streamgate-user", "anna"), ("origin", "https://www.example"), (SITE, "cross-site"), MOZILLA], ""),
    ];

    #[test]
    fn a_page_may_ask_only_where_its_origin_and_our_name_are_known() {
        let listed = Origins::These(vec![
            "https://app.example".to_owned(),
            "http://app.example:3000".to_owned(),
        ]);
        let hosts = ["streams.example".to_owned()];
        for (host, headers, refused) in ROWS {
            let told = check(&request(host, headers), &listed, &hosts);
            let told = told.err().map(|why| format!("{why:?}"));
            let told = told
                .as_deref()
                .map_or("", |why| why.split('(').next().unwrap_or_default());
            assert_eq!(told, *refused, "{host:?} {headers:?}");
        }
        let any = [("origin", "null"), (SITE, "cross-site")];
        assert_eq!(check(&request("[::1]", &any), &Origins::Any, &[]), Ok(()));
        let image = [(SITE, "cross-site")];
        assert_eq!(check(&request("[::1]", &image), &Origins::Any, &[]), Ok(()));
        assert_ne!(
            check(&request("evil.test", &any), &Origins::Any, &[]),
            Ok(())
        );
    }
}
