//! The plan of a gateway: the arguments, once they are known to fit together.

use super::args::{EnvoyConfigArgs, Part};
use super::place::{EnvoyPlace, RoutePath};
use crate::identity::Source;

/// Who verifies the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Login {
    /// This Envoy, by tokens.
    Jwt(Jwt),
    /// This Envoy, by passwords.
    Basic,
    /// This Envoy's listener, by client certificates.
    Principal,
    /// A proxy in front, which writes this header (in lower case).
    Header(String),
    /// A proxy in front, which lets through only cookies of this name that it has verified.
    Cookie(String),
}

/// How tokens are verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Jwt {
    /// The claim that names the user.
    pub(super) claim: String,
    /// Who issues them, and where their keys are; `None` for the example.
    pub(super) issuer: Option<(String, TokenKeys)>,
    /// Whom they are for; `None` for the example.
    pub(super) audience: Option<String>,
}

/// Where the keys of tokens are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TokenKeys {
    /// The URL as given.
    pub(super) url: String,
    /// Its host.
    pub(super) host: String,
    /// Where that is reached.
    pub(super) place: EnvoyPlace,
    /// Whether that speaks TLS.
    pub(super) tls: bool,
}

/// What one stream is on a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RouteKind {
    /// Nothing: it is open to anybody.
    Open,
    /// The request.
    Live,
    /// The request, which may be silent for long.
    WebSocket,
    /// What the player names.
    Playback,
    /// What the player names, or our cookie.
    Issued,
}

/// A gateway to write.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    /// The arguments.
    pub(super) args: &'a EnvoyConfigArgs,
    /// Who verifies the user.
    pub(super) login: Login,
    /// The routes, in the order in which Envoy has to look at them.
    pub(super) routes: Vec<(RouteKind, RoutePath)>,
}

/// Why the arguments don't fit together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum PlanError {
    /// A source that says nothing about users.
    #[error("--user: got {0}; allowed: jwt:CLAIM, header:NAME, cookie:NAME, basic, principal")]
    NotAUser(String),
    /// A token without somebody who issues it.
    #[error("--user jwt:{0} also needs --issuer and --jwks")]
    NoIssuer(String),
    /// An issuer where there are no tokens.
    #[error("--issuer, --jwks and --audience are for --user jwt:CLAIM; leave them out")]
    NoToken,
    /// A claim that Envoy can't put into a header.
    #[error(
        "--user jwt:{0}: Envoy writes only claims into a header whose names have no / and no :; \
         write the file for another claim, delete claim_to_headers, and set identity.user [jwt:{0}]"
    )]
    Claim(String),
    /// A URL that nothing can be fetched from.
    #[error("--jwks: got {0:?}; allowed: http://HOST[:PORT]/PATH, or https://NAME[:PORT]/PATH")]
    Keys(String),
    /// The same path twice.
    #[error("the path {0} is given twice; allowed: once")]
    Twice(String),
    /// The API's own path.
    #[error(
        "the path {0} is taken by viewers' way to the API; choose another one, or add --without api"
    )]
    Taken(String),
    /// A text that has no place in a file.
    #[error("{0}: got a control character, or nothing; allowed: text")]
    NotText(&'static str),
}

impl<'a> Plan<'a> {
    /// The plan that the arguments describe.
    pub(super) fn of(args: &'a EnvoyConfigArgs) -> Result<Self, PlanError> {
        check_texts(args)?;
        let login = Login::of(args)?;
        let plan = Self {
            args,
            login,
            routes: routes(args)?,
        };
        if plan.has_api() {
            let taken = plan.routes.iter().find(|(_, path)| {
                let below = path.stem().strip_prefix("/v1/users");
                below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            });
            if let Some((_, path)) = taken {
                return Err(PlanError::Taken(path.as_str().to_owned()));
            }
        }
        Ok(plan)
    }

    /// Whether viewers reach the HTTP API: its route needs a header that names the user.
    pub(super) fn has_api(&self) -> bool {
        !self.args.without.contains(&Part::Api) && self.login.user_header().is_some()
    }

    /// Whether pages of other origins are served.
    pub(super) fn has_cors(&self) -> bool {
        !self.args.without.contains(&Part::Cors)
    }

    /// Whether some route issues a cookie.
    pub(super) fn issues(&self) -> bool {
        self.routes
            .iter()
            .any(|(kind, _)| *kind == RouteKind::Issued)
    }

    /// How many proxies in front are believed.
    pub(super) fn trusted_hops(&self) -> u8 {
        let is_behind = matches!(self.login, Login::Header(_) | Login::Cookie(_));
        self.args.trusted_hops.unwrap_or(u8::from(is_behind))
    }
}

impl Login {
    /// Who verifies the user, by the arguments.
    fn of(args: &EnvoyConfigArgs) -> Result<Self, PlanError> {
        let has_token = args.issuer.is_some() || args.jwks.is_some() || args.audience.is_some();
        let login = match &args.user {
            None => {
                return Ok(Self::Jwt(Jwt {
                    claim: "sub".to_owned(),
                    issuer: None,
                    audience: None,
                }));
            }
            Some(Source::Jwt(claim)) => return Jwt::of(claim.as_str(), args).map(Self::Jwt),
            Some(Source::Basic) => Self::Basic,
            Some(Source::Principal) => Self::Principal,
            Some(Source::Header(name)) => Self::Header(name.as_str().to_owned()),
            Some(Source::Cookie(name)) => Self::Cookie(name.clone()),
            Some(other) => return Err(PlanError::NotAUser(other.to_string())),
        };
        if has_token {
            return Err(PlanError::NoToken);
        }
        Ok(login)
    }

    /// The header that names the verified user, if one does.
    pub(super) fn user_header(&self) -> Option<&str> {
        match self {
            Self::Jwt(_) | Self::Basic => Some("x-user-id"),
            Self::Header(name) => Some(name),
            Self::Principal | Self::Cookie(_) => None,
        }
    }
}

impl Jwt {
    fn of(claim: &str, args: &EnvoyConfigArgs) -> Result<Self, PlanError> {
        let (Some(issuer), Some(jwks)) = (&args.issuer, &args.jwks) else {
            return Err(PlanError::NoIssuer(claim.to_owned()));
        };
        if claim.contains(['/', ':']) {
            return Err(PlanError::Claim(claim.to_owned()));
        }
        let keys = TokenKeys::of(jwks).ok_or_else(|| PlanError::Keys(jwks.clone()))?;
        Ok(Self {
            claim: claim.to_owned(),
            issuer: Some((issuer.clone(), keys)),
            audience: args.audience.clone(),
        })
    }
}

impl TokenKeys {
    /// Where the keys behind a URL are fetched.
    fn of(url: &str) -> Option<Self> {
        let uri: http::Uri = url.parse().ok()?;
        let tls = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let authority = uri.authority()?;
        let place = format!("{}:{port}", uri.host()?).parse().ok()?;
        let is_ip = uri
            .host()?
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok();
        // A certificate is verified by a name.
        if authority.as_str().contains('@') || (tls && is_ip) {
            return None;
        }
        Some(Self {
            url: url.to_owned(),
            host: uri.host()?.trim_matches(['[', ']']).to_owned(),
            place,
            tls,
        })
    }
}

/// Checks that the texts can be written into a file.
fn check_texts(args: &EnvoyConfigArgs) -> Result<(), PlanError> {
    let tls = &args.tls;
    let origins = args
        .cors_origin
        .iter()
        .map(|it| ("--cors-origin", Some(it)));
    let texts = [
        ("--issuer", args.issuer.as_ref()),
        ("--audience", args.audience.as_ref()),
        ("--node", args.node.as_ref()),
        ("--tls-name", tls.tls_name.as_ref()),
        ("--tls-ca", tls.tls_ca.as_ref()),
        ("--tls-cert", tls.tls_cert.as_ref()),
        ("--tls-key", tls.tls_key.as_ref()),
    ];
    for (name, text) in texts.into_iter().chain(origins) {
        if text.is_some_and(|text| text.is_empty() || text.contains(char::is_control)) {
            return Err(PlanError::NotText(name));
        }
    }
    Ok(())
}

/// The routes in the order in which Envoy has to look at them: what lies below another path first.
fn routes(args: &EnvoyConfigArgs) -> Result<Vec<(RouteKind, RoutePath)>, PlanError> {
    let lists = [
        (RouteKind::Open, &args.open),
        (RouteKind::Live, &args.live),
        (RouteKind::WebSocket, &args.ws),
        (RouteKind::Playback, &args.hls),
        (RouteKind::Issued, &args.hls_cookie),
    ];
    let mut routes: Vec<_> = lists
        .into_iter()
        .flat_map(|(kind, paths)| paths.iter().map(move |path| (kind, path.clone())))
        .collect();
    if routes.is_empty() {
        let example = |kind, path: &str| Some((kind, path.parse().ok()?));
        routes.extend(example(RouteKind::Live, "/live"));
        routes.extend(example(RouteKind::WebSocket, "/ws"));
        routes.extend(example(RouteKind::Playback, "/vod"));
    }
    routes.sort_by_key(|(_, path)| std::cmp::Reverse(path.stem().matches('/').count()));
    let mut seen = std::collections::BTreeSet::new();
    let twice = routes.iter().find(|(_, path)| !seen.insert(path.as_str()));
    match twice {
        Some((_, path)) => Err(PlanError::Twice(path.as_str().to_owned())),
        None => Ok(routes),
    }
}
