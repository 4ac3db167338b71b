//! Our cookie, for players that send no id: what it holds, which playback it names, and how it is
//! written. Pure functions.
//!
//! The cookie is a random number. The playback's id is a one-way hash of that number and the user's
//! name. So nothing has to be stored or shared: every instance can read every cookie, before and
//! after a restart. Another user's cookie names another playback, which belongs to the user who
//! sends it. Ids appear in refusals, lists and logs, but nobody can derive a cookie from an id.
//!
//! An invalid cookie counts as absent, although any other malformed value is refused. The viewer
//! can't fix it, and gains nothing by it, because the cookie is the last source.

use std::fmt;

use sha2::{Digest, Sha256};

use super::attributes::CheckedRequest;
use super::claim::ClaimError;
use super::id::{SessionId, UserId};
use super::key::{Kind, SessionKey};
use super::routes::RouteLists;
use super::source::Source;

/// The context key by which a route asks for the cookie.
const ROUTE_ISSUE: &str = "streamgate.issue";

/// The context key by which a route says which paths share one.
const ROUTE_PATH: &str = "streamgate.cookie_path";

/// The cookie's name, and its name over TLS: browsers accept the second only from responses over
/// TLS.
const NAMES: [&str; 2] = ["streamgate", "__Secure-streamgate"];

/// The longest path that we write; browsers ignore longer ones.
const MAX_PATH: usize = 1000;

/// How long we keep the cookie of a playback that was ended against its viewer's will, and so how
/// long its player gets refusals. Players retry automatically, in another quality and separately
/// for sound and picture; without the cookie, such a retry would immediately start a new playback.
const TOLD_FOR_SECONDS: u32 = 5;

/// Separates these hashes from each other and from all others.
const SESSION_OF: &[u8] = b"streamgate: the session of a cookie\0";
const SUCCESSOR_OF: &[u8] = b"streamgate: the successor of a cookie\0";

/// A cookie, and how to write it for this client.
#[derive(Debug)]
pub(crate) struct Cookie {
    /// The cookie's value.
    secret: Secret,
    /// Whether the request brought it.
    pub(crate) origin: CookieOrigin,
    /// The path it applies to.
    path: String,
    /// Whether it came over TLS, and so must be sent only over TLS.
    over_tls: bool,
}

/// The origin of a cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CookieOrigin {
    /// The request brought it.
    Brought,
    /// It is new and random; nobody has it yet.
    New,
    /// It succeeds one that the request brought, and is the same for every request with that one.
    Successor,
}

/// A cookie's secret value: with it, its user can play under its session.
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

/// The cookie that the request brings, or else a new one with that number; `None` if the route's
/// pattern doesn't match the path.
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
        // No name has a control character, so this marks the name's end.
        let parts = [SESSION_OF, user.as_str().as_bytes(), b"\0"];
        SessionKey {
            kind: Kind::Playback,
            id: SessionId::from_number(self.secret.hashed(&parts)),
        }
    }

    /// This cookie's successor, for a player that starts again after its playback has ended. `None`
    /// if it doesn't start again, or if this cookie is itself a successor or new: otherwise each
    /// end would lead to another.
    pub(crate) fn after(&self, starts_anew: bool) -> Option<Self> {
        (starts_anew && self.origin == CookieOrigin::Brought).then(|| Self {
            secret: Secret(self.secret.hashed(&[SUCCESSOR_OF])),
            origin: CookieOrigin::Successor,
            path: self.path.clone(),
            over_tls: self.over_tls,
        })
    }

    /// The `Set-Cookie` value, if the client doesn't have the cookie yet.
    pub(crate) fn to_set(&self) -> Option<String> {
        (self.origin != CookieOrigin::Brought).then(|| self.written())
    }

    /// The `Set-Cookie` value that makes the client drop it soon.
    pub(crate) fn to_forget(&self) -> String {
        format!("{}; Max-Age={TOLD_FOR_SECONDS}", self.written())
    }

    /// Without `Max-Age` it lasts until the browser closes: a pause may be longer than the lease,
    /// and only the lease counts.
    fn written(&self) -> String {
        let (name, Secret(number), path) = (name(self.over_tls), self.secret, &self.path);
        // Players are often embedded in other sites' pages. The cookie grants no access, so it may
        // accompany all of their requests.
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
    /// Parses a cookie's value, if we wrote it.
    fn read(value: &[u8]) -> Option<Self> {
        let is_digit = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
        if value.len() != 32 || !value.iter().all(is_digit) {
            return None;
        }
        let text = std::str::from_utf8(value).ok()?;
        u128::from_str_radix(text, 16).ok().map(Self)
    }

    /// Half of the hash of these parts and the secret.
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

/// The first cookie of ours, which has the longest path, because browsers send it first. We search
/// bytes, because other cookies may not be text, and also after commas, because Envoy joins lines
/// with them unless it sends raw headers.
fn brought(request: &impl CheckedRequest, name: &str) -> Option<Secret> {
    let lines = request.raw_lines("cookie");
    let mut pairs = lines.flat_map(|line| line.split(|byte| matches!(byte, b';' | b',')));
    pairs.find_map(|pair| {
        let value = pair.trim_ascii().strip_prefix(name.as_bytes())?;
        Secret::read(value.strip_prefix(b"=")?)
    })
}

/// Whether the client uses TLS, with Envoy or with a proxy in front of it.
fn is_over_tls(request: &impl CheckedRequest) -> bool {
    let forwarded = request.header("x-forwarded-proto").ok().flatten();
    let scheme = forwarded.as_deref().unwrap_or(request.scheme());
    // A proxy appends its own scheme after that of the previous one.
    let first = scheme.split(',').next().unwrap_or_default();
    first.trim().eq_ignore_ascii_case("https")
}

/// The path that the cookie applies to: as the route says, or else the first folder of the
/// requested path.
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
            &"the pattern's match is not the beginning of the path",
        )),
        None => Ok(None),
    }
}

/// A path, shortened to the folder before the first character that a cookie can't hold. A semicolon
/// would begin another attribute.
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
