//! The cookie of ours, for players that say nothing: what it holds, which playback that names, and how it is written. Pure.
//!
//! The cookie is a random number, and the playback's id is made out of that and the user's name by a hash that can't be undone. So nothing
//! has to be kept or shared: every instance reads every cookie, before and after a restart. Another user's cookie names another playback, one
//! of its bearer's own. And who only sees an id (it is in refusals, lists and logs) has no cookie of it.
//!
//! What is no cookie of ours is none at all, where everything else that is malformed is refused: the viewer can't mend it, and gains
//! nothing by it, since the cookie is where one looks last.

use std::fmt;

use sha2::{Digest, Sha256};

use super::attributes::CheckedRequest;
use super::claim::ClaimError;
use super::id::{SessionId, UserId};
use super::key::{Kind, SessionKey};
use super::routes::RouteLists;
use super::source::Source;

/// How a route asks for the cookie.
const ROUTE_ISSUE: &str = "streamgate.issue";

/// Where a route says which addresses share one.
const ROUTE_PATH: &str = "streamgate.cookie_path";

/// The name of the cookie, and that over TLS: browsers take the second from nobody who isn't asked over TLS himself.
const NAMES: [&str; 2] = ["streamgate", "__Secure-streamgate"];

/// The longest path that is written; browsers pass over longer ones.
const MAX_PATH: usize = 1000;

/// How long the cookie of a playback that was ended against its viewer's will is kept, and so how long its player is told. Players try
/// again by themselves, in another quality and for sound and picture apart; had they no cookie at once, they would begin anew unasked.
const TOLD_FOR_SECONDS: u32 = 5;

/// What sets the hashes apart from each other and from all others.
const SESSION_OF: &[u8] = b"streamgate: the session of a cookie\0";
const SUCCESSOR_OF: &[u8] = b"streamgate: the successor of a cookie\0";

/// A cookie, and how it is written for the one who asked.
#[derive(Debug)]
pub(crate) struct Cookie {
    /// What it holds.
    secret: Secret,
    /// Whether its bearer brought it along.
    pub(crate) origin: CookieOrigin,
    /// For which addresses it is.
    path: String,
    /// Whether it came, and so is to be sent, over TLS alone.
    over_tls: bool,
}

/// Where a cookie comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CookieOrigin {
    /// The request brought it.
    Brought,
    /// It is new and random: nobody has it yet.
    New,
    /// It follows on one that the request brought, as for every other request that brings that one.
    Successor,
}

/// What a cookie holds: whoever knows it can play under its session, as long as he is its user.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Secret(u128);

/// Whether the route asks for the cookie.
pub(crate) fn is_issued(request: &impl CheckedRequest) -> Result<bool, ClaimError> {
    match request.context(ROUTE_ISSUE) {
        None => Ok(false),
        Some("cookie") => Ok(true),
        Some(other) => {
            let flaw = format!("got {other:?}; allowed: cookie");
            Err(ClaimError::Misconfigured(ROUTE_ISSUE, flaw))
        }
    }
}

/// The cookie that the request brings, or else a new one of that number; `None` where the route's pattern finds no path.
pub(crate) fn cookie(
    request: &impl CheckedRequest,
    routes: &RouteLists,
    new: impl FnOnce() -> u128,
) -> Result<Option<Cookie>, ClaimError> {
    let Some(path) = path(request, routes)? else {
        return Ok(None);
    };
    let over_tls = is_over_tls(request);
    let brought = brought(request, name(over_tls));
    let origin = brought.map_or(CookieOrigin::New, |_| CookieOrigin::Brought);
    Ok(Some(Cookie {
        secret: brought.unwrap_or_else(|| Secret(new())),
        origin,
        path: path.to_owned(),
        over_tls,
    }))
}

// === impl Cookie ===

impl Cookie {
    /// The playback that it names.
    pub(crate) fn session(&self, user: &UserId) -> SessionKey {
        // No name has a control character, so the name's end is plain.
        let parts = [SESSION_OF, user.as_str().as_bytes(), b"\0"];
        SessionKey {
            kind: Kind::Playback,
            id: SessionId::from_number(self.secret.hashed(&parts)),
        }
    }

    /// The successor of this cookie, for a player that starts anew after its playback has ended. `None` unless it does, and for a cookie that
    /// is itself a successor or new: otherwise each end would lead to another.
    pub(crate) fn after(&self, starts_anew: bool) -> Option<Self> {
        (starts_anew && self.origin == CookieOrigin::Brought).then(|| Self {
            secret: Secret(self.secret.hashed(&[SUCCESSOR_OF])),
            origin: CookieOrigin::Successor,
            path: self.path.clone(),
            over_tls: self.over_tls,
        })
    }

    /// What sets it, where its bearer hasn't got it.
    pub(crate) fn to_set(&self) -> Option<String> {
        (self.origin != CookieOrigin::Brought).then(|| self.written())
    }

    /// What has it forgotten, soon.
    pub(crate) fn to_forget(&self) -> String {
        format!("{}; Max-Age={TOLD_FOR_SECONDS}", self.written())
    }

    /// Without a `Max-Age` it lasts as long as the browser: a pause may be longer than the lease, and what counts is the lease.
    fn written(&self) -> String {
        let (name, Secret(number), path) = (name(self.over_tls), self.secret, &self.path);
        // Players are often embedded in pages of other sites. It opens nothing, so it may go along with whatever they ask.
        let attributes = if self.over_tls {
            "; Secure; SameSite=None; Partitioned"
        } else {
            "; SameSite=Lax"
        };
        format!("{name}={number:032x}; Path={path}; HttpOnly{attributes}")
    }
}

// === impl Secret ===

impl Secret {
    /// What a cookie's value holds, if it is as we write it.
    fn read(value: &[u8]) -> Option<Self> {
        let is_digit = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
        if value.len() != 32 || !value.iter().all(is_digit) {
            return None;
        }
        let text = std::str::from_utf8(value).ok()?;
        u128::from_str_radix(text, 16).ok().map(Self)
    }

    /// Half of the hash of these and the secret.
    fn hashed(self, parts: &[&[u8]]) -> u128 {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update(part);
        }
        hash.update(self.0.to_be_bytes());
        let all = hash.finalize();
        let half = all.iter().take(16);
        half.fold(0, |number, byte| number << 8 | u128::from(*byte))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

// === what a request brings ===

/// The name of the cookie.
const fn name(over_tls: bool) -> &'static str {
    let [plain, secure] = NAMES;
    if over_tls { secure } else { plain }
}

/// The first cookie of ours: that for the longest path, as browsers send them. Looked for byte by byte, since other cookies may be no text,
/// and behind commas too, since Envoy joins lines by them where it doesn't send raw headers.
fn brought(request: &impl CheckedRequest, name: &str) -> Option<Secret> {
    let lines = request.raw_lines("cookie");
    let mut pairs = lines.flat_map(|line| line.split(|byte| matches!(byte, b';' | b',')));
    pairs.find_map(|pair| {
        let value = pair.trim_ascii().strip_prefix(name.as_bytes())?;
        Secret::read(value.strip_prefix(b"=")?)
    })
}

/// Whether the client speaks TLS, with Envoy or with what stands before it.
fn is_over_tls(request: &impl CheckedRequest) -> bool {
    let forwarded = request.header("x-forwarded-proto").ok().flatten();
    let scheme = forwarded.as_deref().unwrap_or(request.scheme());
    // Proxies that add their own put it behind that of the one before.
    let first = scheme.split(',').next().unwrap_or_default();
    first.trim().eq_ignore_ascii_case("https")
}

/// The addresses that share the cookie: what the route says, or else the first folder of the one that is asked for.
fn path<'e>(
    request: &'e impl CheckedRequest,
    routes: &RouteLists,
) -> Result<Option<&'e str>, ClaimError> {
    let asked = request.path().split('?').next().unwrap_or_default();
    let Some(said) = request.context(ROUTE_PATH) else {
        let folder = asked.strip_prefix('/').and_then(|rest| rest.find('/'));
        let folder = folder.and_then(|end| asked.get(..=end));
        return Ok(Some(sendable(folder.unwrap_or("/"))));
    };
    if said.starts_with('/') && sendable(said) == said {
        return Ok(Some(said));
    }
    let wrong = |flaw: &dyn fmt::Display| ClaimError::Misconfigured(ROUTE_PATH, flaw.to_string());
    let sources = routes.sources(said).map_err(|error| wrong(&error))?;
    let [Source::Path(pattern)] = &*sources else {
        let allowed = "a path that begins with / and has only visible ASCII characters and no semicolon, or path:REGEX";
        return Err(wrong(&format!("got {said:?}; allowed: {allowed}")));
    };
    match pattern.find(asked) {
        Some(found) if found.starts_with('/') && asked.starts_with(found) => {
            Ok(Some(sendable(found)))
        }
        Some(_) => Err(wrong(
            &"what the pattern finds is not the beginning of the path",
        )),
        None => Ok(None),
    }
}

/// A path, or the folder in it before what a cookie can't hold. A semicolon would begin another attribute.
fn sendable(path: &str) -> &str {
    let can_hold = |byte: u8| byte.is_ascii_graphic() && byte != b';';
    let bad = path.bytes().position(|byte| !can_hold(byte));
    let good = bad.unwrap_or(path.len()).min(MAX_PATH);
    if good == path.len() {
        return path;
    }
    let folder = path.get(..good).and_then(|good| good.rfind('/'));
    folder.and_then(|end| path.get(..=end)).unwrap_or("/")
}
