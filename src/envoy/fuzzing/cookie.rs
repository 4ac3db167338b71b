//! Properties of our cookie, for any request. See [`crate::fuzzing`].

use crate::envoy::check::claim;
use crate::envoy::wire::attributes::CheckAttributes;
use crate::envoy::wire::request::{self, CheckRequest, Pair};
use crate::identity::attributes::RequestAttributes;
use crate::identity::claim::CheckKind;
use crate::identity::cookie::{Cookie, CookieOrigin};
use crate::identity::{Claim, Identity, RouteLists};
use crate::identity::{Kind, SessionKey, UserId};

/// The number of a new cookie in the properties.
pub(in crate::envoy) const NEW: u128 = 7;

/// The attributes after the path, without TLS.
const PLAIN: [&str; 2] = ["HttpOnly", "SameSite=Lax"];

/// The attributes after the path, over TLS.
const OVER_TLS: [&str; 4] = ["HttpOnly", "Secure", "SameSite=None", "Partitioned"];

/// A check that got a cookie, and the result.
pub(in crate::envoy) struct WithCookie<'a> {
    /// The check.
    pub(in crate::envoy) request: &'a CheckRequest<'a>,
    /// The sources it was read with.
    pub(in crate::envoy) identity: &'a Identity,
    /// The routes' own lists.
    pub(in crate::envoy) routes: &'a RouteLists,
    /// What it asks for.
    pub(in crate::envoy) claim: &'a Claim,
    /// The cookie.
    pub(in crate::envoy) cookie: &'a Cookie,
}

impl WithCookie<'_> {
    /// A cookie is issued only if the route asks for it. Brought back, it names the same playback,
    /// and only for its user. It is one cookie, for a path from the request, with only our
    /// attributes; anything that we wouldn't write is ignored.
    pub(in crate::envoy) fn assert(&self) {
        let evidence = CheckAttributes::of(self.request);
        assert!(evidence.is_some(), "a check on an HTTP request");
        let Some(evidence) = evidence else { return };
        assert_eq!(evidence.context("streamgate.issue"), Some("cookie"));
        let kept_for = self.cookie.to_forget();
        let written = kept_for.strip_suffix("; Max-Age=5").unwrap_or_default();
        let is_brought = self.cookie.origin == CookieOrigin::Brought;
        let to_set = (!is_brought).then(|| written.to_owned());
        assert_eq!(self.cookie.to_set(), to_set);
        let pair = assert_written(written, &evidence);
        self.assert_origin(pair, &evidence);
        self.assert_is_its_user_s();
        // A route that names sessions by cookies may use ours.
        let own_list = evidence.context("streamgate.session").unwrap_or_default();
        if !own_list.to_ascii_lowercase().contains("cookie") {
            self.assert_comes_back(pair);
        }
        self.assert_successor(written);
    }

    /// It is the first valid one that the request brings, or else a new one.
    fn assert_origin(&self, pair: &str, evidence: &CheckAttributes<'_>) {
        let (name, _) = pair.split_once('=').unwrap_or_default();
        let lines = evidence.raw_lines("cookie");
        let mut pairs = lines.flat_map(|line| line.split(|byte| b";,".contains(byte)));
        let brought = pairs.find_map(|pair| {
            let text = std::str::from_utf8(pair.trim_ascii()).ok()?;
            let (_, value) = text.split_once('=')?;
            let number = u128::from_str_radix(value, 16).ok()?;
            (text == format!("{name}={number:032x}")).then_some(text)
        });
        let new = format!("{name}={NEW:032x}");
        assert_eq!(pair, brought.unwrap_or(&new));
        let origin = brought.map_or(CookieOrigin::New, |_| CookieOrigin::Brought);
        assert_eq!(self.cookie.origin, origin);
    }

    /// It names a playback of the user who sends it.
    fn assert_is_its_user_s(&self) {
        let user = &self.claim.user;
        assert_eq!(self.claim.key, self.cookie.session(user));
        assert_eq!(self.claim.key.kind, Kind::Playback);
        let others = ["anna", "ben", "carl"].map(UserId::parse);
        let others = others.iter().flatten().filter(|other| *other != user);
        let keys: Vec<_> = others.map(|other| self.cookie.session(other)).collect();
        assert!(keys.len() >= 2 && !keys.contains(&self.claim.key));
    }

    /// Brought back it names the same playback and isn't set again; damaged it is ignored; and a
    /// session id is not a valid cookie.
    fn assert_comes_back(&self, pair: &str) {
        let key = &self.claim.key;
        let known = Some((key.clone(), CookieOrigin::Brought));
        assert_eq!(self.brought(pair), known);
        let unread = Some((key.clone(), self.cookie.origin));
        let shorter = pair.get(..pair.len() - 1).unwrap_or_default();
        for damaged in [shorter, &format!("{pair}0"), &format!("{shorter}A")] {
            assert_eq!(self.brought(damaged), unread, "{damaged}");
        }
        let (name, _) = pair.split_once('=').unwrap_or_default();
        let seen = self.brought(&format!("{name}={}", key.id.as_str()));
        assert!(seen.is_some_and(|(other, _)| other != *key));
    }

    /// It has a successor if the request brought it, only once, and only for a player that wants to
    /// continue.
    fn assert_successor(&self, written: &str) {
        let user = &self.claim.user;
        assert!(self.cookie.after(false).is_none());
        let after = self.cookie.after(true);
        assert_eq!(after.is_some(), self.cookie.origin == CookieOrigin::Brought);
        let Some(next) = after else { return };
        assert_ne!(next.session(user), self.claim.key);
        let set = next.to_set().unwrap_or_default();
        let cut = |text: &str| text.split_once(';').map(|(_, rest)| rest.to_owned());
        assert_eq!(cut(&set), cut(written));
        assert!(next.after(true).is_none());
    }

    /// What the same check names if it brings that before all other cookies, and the origin of its
    /// cookie.
    fn brought(&self, pair: &str) -> Option<(SessionKey, CookieOrigin)> {
        let sent = &self.request.http.as_ref()?.headers;
        let others = request::text(sent, "cookie").unwrap_or_default();
        let first = [pair.as_bytes(), b"; ", others].concat();
        let mut request = self.request.clone();
        let http = request.http.as_mut()?;
        if let Some(raw) = &mut http.header_map {
            let line = Pair {
                name: b"cookie",
                text: pair.as_bytes(),
            };
            raw.insert(0, line);
        } else {
            let line = Pair {
                name: b"cookie",
                text: &first,
            };
            http.headers.push(line);
        }
        match claim::decode(&request, self.identity, self.routes, || NEW, |_, _| {}) {
            Ok(CheckKind::Stream(claim, Some(cookie), _)) => Some((claim.key, cookie.origin)),
            _ => None,
        }
    }
}

/// The header value is one cookie, as browsers parse it: its name and value, which are returned, a
/// path, and only our attributes.
fn assert_written<'w>(written: &'w str, evidence: &CheckAttributes<'_>) -> &'w str {
    let is_plain = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
    assert!(written.bytes().all(is_plain), "{written:?}");
    let (pair, attributes) = written.split_once(';').unwrap_or_default();
    let (path, others) = attributes.split_once(';').unwrap_or_default();
    let others: Vec<_> = others.split(';').map(str::trim).collect();
    let is_secure = pair.starts_with("__Secure-streamgate=");
    assert!(is_secure || pair.starts_with("streamgate="), "{pair}");
    let expected: &[&str] = if is_secure { &OVER_TLS } else { &PLAIN };
    assert_eq!(others, expected);
    if let Ok(Some(forwarded)) = evidence.header("x-forwarded-proto") {
        assert!(is_secure || forwarded != "https");
        assert!(!is_secure || forwarded != "http");
    }
    let path = path.trim().strip_prefix("Path=").unwrap_or_default();
    assert!(path.starts_with('/') && path.len() <= 1000, "{path}");
    assert!(!path.contains(' '), "{path}");
    let asked = evidence.path().split('?').next().unwrap_or_default();
    let is_below = asked.strip_prefix(path);
    match evidence.context("streamgate.cookie_path") {
        Some(said) if said.starts_with('/') => assert_eq!(path, said),
        Some(_) => assert!(path == "/" || is_below.is_some(), "{path}"),
        // Otherwise browsers wouldn't send it back.
        None => assert!(path == "/" || is_below.is_some_and(|rest| rest.starts_with('/'))),
    }
    pair
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::Path;

    use super::*;
    use crate::envoy::fuzzing::request::read;
    use crate::envoy::fuzzing::{IDENTITIES, check};
    use crate::identity::claim::ClaimError;

    /// The cases of the cookie that a check covers, with that identity.
    fn cases(request: &CheckRequest<'_>, identity: &Identity) -> Vec<&'static str> {
        let Some(evidence) = CheckAttributes::of(request) else {
            return Vec::new();
        };
        if evidence.context("streamgate.issue").is_none() {
            return Vec::new();
        }
        let decoded = claim::decode(request, identity, &RouteLists::default(), || NEW, |_, _| {});
        let cookie = match decoded {
            Ok(CheckKind::Stream(_, Some(cookie), _)) => cookie,
            Ok(CheckKind::Stream(_, None, _)) => return vec!["another name goes before it"],
            Err(ClaimError::NoSession) => return vec!["its pattern finds no path"],
            Err(ClaimError::Misconfigured("streamgate.cookie_path", _)) => {
                return vec!["its path is wrong"];
            }
            _ => return Vec::new(),
        };
        let lines: Vec<_> = evidence.raw_lines("cookie").collect();
        let lines = lines.concat();
        let all = String::from_utf8_lossy(&lines);
        let is_named = all.contains("streamgate=");
        let is_secure = cookie.to_forget().starts_with("__Secure-");
        let is_plain_only = is_named && !all.contains("__Secure-");
        let path = evidence.context("streamgate.cookie_path");
        let origin = match cookie.origin {
            CookieOrigin::Brought => "brought back",
            CookieOrigin::New if is_secure && is_plain_only => "brought from without TLS",
            CookieOrigin::New if is_named => "damaged",
            CookieOrigin::New => "new",
            CookieOrigin::Successor => "never",
        };
        let path = match path {
            None => "for the first folder",
            Some(said) if said.starts_with('/') => "for a path that is said",
            Some(_) => "for a path that is found",
        };
        let tls = if is_secure { "over TLS" } else { "without TLS" };
        let is_beside =
            cookie.origin == CookieOrigin::Brought && std::str::from_utf8(&lines).is_err();
        let beside = is_beside.then_some("brought beside what is no text");
        [origin, path, tls].into_iter().chain(beside).collect()
    }

    #[test]
    fn the_corpus_of_checks_reaches_every_case_of_the_cookie() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/claim");
        let mut reached: BTreeMap<&str, u32> = BTreeMap::new();
        let mut bearers: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for file in std::fs::read_dir(folder).unwrap() {
            let data = std::fs::read(file.unwrap().path()).unwrap();
            let Some(message) = check(&data) else {
                continue;
            };
            let request = read(&message);
            for identity in IDENTITIES.iter() {
                for case in cases(&request, identity) {
                    *reached.entry(case).or_default() += 1;
                }
                let decoded = claim::decode(
                    &request,
                    identity,
                    &RouteLists::default(),
                    || NEW,
                    |_, _| {},
                );
                if let Ok(CheckKind::Stream(claim, Some(cookie), _)) = decoded
                    && cookie.origin == CookieOrigin::Brought
                {
                    let written = cookie.to_forget();
                    let (pair, _) = written.split_once(';').unwrap();
                    let users = bearers.entry(pair.to_owned()).or_default();
                    users.insert(claim.user.as_str().to_owned());
                }
            }
        }
        for case in [
            "new",
            "brought back",
            "brought beside what is no text",
            "brought from without TLS",
            "damaged",
            "for the first folder",
            "for a path that is said",
            "for a path that is found",
            "its pattern finds no path",
            "its path is wrong",
            "over TLS",
            "without TLS",
            "another name goes before it",
        ] {
            assert!(reached.contains_key(case), "{case}: {reached:?}");
        }
        let is_shared = bearers.values().any(|users| users.len() > 1);
        assert!(is_shared, "another user's: {bearers:?}");
    }
}
