//! `events.webhooks_file`: who gets events, signed with which secrets.
//!
//! Each line has a receiver's secrets, its address and, if it doesn't want all events, their types.
//! The secrets come first: a line that was cut off within one is never valid.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::Uri;
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::Error as NotAType;
use sha2::{Digest, Sha256};

use super::signature::SigningSecret;
use crate::events::{Event, EventType};
use crate::reload::Files;
use crate::util::hex;

/// How many webhooks there may be: each keeps up to 4 MiB of events.
const MAX_WEBHOOKS: usize = 8;

/// How many secrets one webhook may have. To replace one takes two.
const MAX_SECRETS: usize = 4;

/// The types that a webhook can choose. It always hears that events are missing.
const CHOICES: [EventType; 8] = [
    EventType::Started,
    EventType::Ended,
    EventType::Refused,
    EventType::Displaced,
    EventType::OutageBegun,
    EventType::OutageOver,
    EventType::ConfigurationChanged,
    EventType::OperatorCall,
];

/// The webhooks of a file.
#[derive(Debug, Default)]
pub struct WebhookTargets(pub(super) Vec<Arc<WebhookTarget>>);

/// One webhook: where its events go, and which.
pub(super) struct WebhookTarget {
    /// The receiver's address. Its path may be a secret.
    pub(super) url: Uri,
    /// The line without its secrets, to tell whether it has changed.
    shown: String,
    /// The secrets that sign its events.
    pub(super) secrets: Vec<SigningSecret>,
    /// The types that it wants; all if there are none.
    types: Vec<EventType>,
}

// === impl WebhookTargets ===

impl WebhookTargets {
    /// The file at that path, from `events.webhooks_file`.
    #[must_use]
    pub fn file(path: &Path) -> Files<Self> {
        let shown = path.display().to_string();
        Files::new(vec![(super::KEY, path.to_owned())], move |contents| {
            let text = contents.first().map_or(&[][..], |text| text);
            Self::parse(text).map_err(|flaw| format!("{}: {shown}: {flaw}", super::KEY))
        })
        .guarded(without_secrets)
    }

    /// Parses a file: secrets, an address and optionally types on each line. Empty lines are
    /// ignored, and so are those that begin with `#`.
    fn parse(text: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(text).map_err(|_| "it is not UTF-8".to_owned())?;
        let mut targets: Vec<(usize, Arc<WebhookTarget>)> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let (line, number) = (line.trim(), index + 1);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let at_line = |flaw: String| format!("line {number}: {flaw}");
            let target = WebhookTarget::parse(line).map_err(at_line)?;
            let same = targets.iter().find(|(_, other)| other.url == target.url);
            if let Some((before, _)) = same {
                return Err(at_line(format!(
                    "line {before} has the same address; put all of its secrets and types into one line"
                )));
            }
            targets.push((number, Arc::new(target)));
            if targets.len() > MAX_WEBHOOKS {
                return Err(format!("it has more than {MAX_WEBHOOKS} webhooks"));
            }
        }
        Ok(Self(
            targets.into_iter().map(|(_, target)| target).collect(),
        ))
    }

    /// How many are new or changed in comparison with these.
    pub(super) fn unlike(&self, before: &Self) -> usize {
        let is_same =
            |target: &&Arc<WebhookTarget>| before.0.iter().any(|other| other.shown == target.shown);
        self.0.len() - self.0.iter().filter(is_same).count()
    }
}

// === impl WebhookTarget ===

impl WebhookTarget {
    /// Parses a line.
    pub(super) fn parse(line: &str) -> Result<Self, String> {
        let mut words = line.split_ascii_whitespace();
        let secrets: Vec<_> = words.next().unwrap_or_default().split(',').collect();
        if secrets.len() > MAX_SECRETS {
            return Err(format!("a webhook has at most {MAX_SECRETS} secrets"));
        }
        let secrets = secrets.into_iter().map(SigningSecret::parse);
        let secrets = secrets.collect::<Result<_, _>>().map_err(|flaw| {
            format!("it begins with the receiver's secrets, joined by commas; {flaw}")
        })?;
        let url = words.next().and_then(address).ok_or_else(|| {
            "after the secrets comes the receiver's address, an http:// or https:// URL without \
             user, password or #"
                .to_owned()
        })?;
        let types = words.next().map_or(Some(Vec::new()), types);
        let (Some(types), None) = (types, words.next()) else {
            let choices = CHOICES.map(EventType::as_str).join(", ");
            return Err(format!(
                "after the address comes only types=, with some of {choices}, joined by commas"
            ));
        };
        let shown =
            String::from_utf8_lossy(&without_secrets(&Bytes::copy_from_slice(line.as_bytes())))
                .into_owned();
        Ok(Self {
            url,
            shown,
            secrets,
            types,
        })
    }

    /// Whether it gets that event.
    pub(super) fn wants(&self, event: &Event) -> bool {
        self.types.is_empty() || event.kind == EventType::Gap || self.types.contains(&event.kind)
    }

    /// What logs call it: its address without path and query, which may be secret.
    pub(super) fn name(&self) -> String {
        let scheme = self.url.scheme_str().unwrap_or_default();
        let authority = self.url.authority().map_or("", |it| it.as_str());
        format!("{scheme}://{authority}")
    }

    /// Whether others on the way could read its events.
    pub(super) fn is_exposed(&self) -> bool {
        let host = self.url.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let is_near = host == "localhost"
            || host
                .parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.is_loopback());
        self.url.scheme_str() == Some("http") && !is_near
    }
}

impl fmt::Debug for WebhookTarget {
    /// Shows neither secrets nor the path.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WebhookTarget({})", self.name())
    }
}

/// The address of a receiver, if the text is one.
fn address(text: &str) -> Option<Uri> {
    let url: Uri = text.parse().ok()?;
    let host = url.authority()?;
    let is_web = matches!(url.scheme_str(), Some("http" | "https"));
    let is_good = is_web && !host.host().is_empty() && !host.as_str().contains('@');
    (is_good && !text.contains('#')).then_some(url)
}

/// The types that a webhook wants, if the text names some.
fn types(text: &str) -> Option<Vec<EventType>> {
    let names = text.strip_prefix("types=")?.split(',');
    names
        .map(|name| {
            let name = IntoDeserializer::<NotAType>::into_deserializer(name);
            let chosen = EventType::deserialize(name).ok()?;
            CHOICES.contains(&chosen).then_some(chosen)
        })
        .collect()
}

/// The file's text with digests in place of its secrets.
fn without_secrets(text: &Bytes) -> Bytes {
    let mut kept = Vec::with_capacity(text.len());
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let rest = line.trim_ascii_start();
        let gap = rest.iter().position(u8::is_ascii_whitespace);
        let (secrets, rest) = rest.split_at(gap.unwrap_or(rest.len()));
        if secrets.is_empty() || secrets.starts_with(b"#") {
            kept.extend(line);
        } else {
            kept.extend(hex(&Sha256::digest(secrets)).into_bytes());
            kept.extend(rest);
        }
    }
    kept.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    #[test]
    fn a_line_has_secrets_an_address_and_perhaps_types() {
        let text = format!(
            "# ours\n{SECRET} https://a.example/in?key=hunter2\n\n\
             {SECRET},{SECRET}\thttp://[::1]:80/ types=started,ended\n# end\n"
        );
        let targets = WebhookTargets::parse(text.as_bytes()).unwrap().0;
        let [all, some] = &targets[..] else {
            panic!("{targets:?}");
        };
        assert_eq!((all.secrets.len(), some.secrets.len()), (1, 2));
        let names = (all.name(), some.name());
        assert_eq!(
            names,
            ("https://a.example".into(), "http://[::1]:80".into())
        );
        assert!(!format!("{targets:?}").contains("hunter2"));
        for (kind, is_wanted) in [
            (EventType::Started, true),
            (EventType::Gap, true),
            (EventType::Refused, false),
        ] {
            assert!(all.wants(&Event::new(kind)));
            assert_eq!(some.wants(&Event::new(kind)), is_wanted, "{kind:?}");
        }
        assert!(WebhookTargets::parse(b"# end\n").unwrap().0.is_empty());
    }

    /// Files with a mistake, `S` in the place of a secret, and what the error begins with.
    const WRONG: &[(&str, &str)] = &[
        (
            "https://hunter2/",
            "line 1: it begins with the receiver's secrets, joined by commas; a secret is whsec_ followed by 24 to 64 random bytes in base64 (openssl rand -base64 32)",
        ),
        ("whsec_c2hvcnQ= https://hunter2/", "line 1: it begins with"),
        ("S,,S https://hunter2/", "line 1: it begins with"),
        (
            "S,S,S,S,S https://a/",
            "line 1: a webhook has at most 4 secrets",
        ),
        (
            "#\nS",
            "line 2: after the secrets comes the receiver's address, an http:// or https:// URL without user, password or #",
        ),
        ("S hunter2.example/in", "line 1: after the secrets comes"),
        (
            "S https://anna:hunter2@a.example/",
            "line 1: after the secrets comes",
        ),
        (
            "S https://a.example/#hunter2",
            "line 1: after the secrets comes",
        ),
        ("S ftp://hunter2/", "line 1: after the secrets comes"),
        (
            "S http://a/ started",
            "line 1: after the address comes only types=, with some of started, ended, refused, displaced, outage_begun, outage_over, configuration_changed, operator_call, joined by commas",
        ),
        ("S http://a/ types=", "line 1: after the address comes"),
        (
            "S http://a/ types=started,gap",
            "line 1: after the address comes",
        ),
        (
            "S http://a/ types=ended # hunter2",
            "line 1: after the address comes",
        ),
        (
            "S http://a/\n\nS http://a/ types=ended",
            "line 3: line 1 has the same address; put all of its secrets and types into one line",
        ),
        (
            "S http://1/\nS http://2/\nS http://3/\nS http://4/\nS http://5/\nS http://6/\nS http://7/\nS http://8/\nS http://9/",
            "it has more than 8 webhooks",
        ),
    ];

    #[test]
    fn a_bad_line_is_named_with_what_belongs_there_but_not_repeated() {
        for (text, told) in WRONG {
            let text = text.replace('S', SECRET);
            let flaw = WebhookTargets::parse(text.as_bytes()).unwrap_err();
            assert!(flaw.starts_with(told), "{text}: {flaw}");
            assert!(
                !flaw.contains("hunter2") && !flaw.contains(SECRET),
                "{flaw}"
            );
        }
        let flaw = WebhookTargets::parse(b"\xff").unwrap_err();
        assert_eq!(flaw, "it is not UTF-8");
    }

    #[test]
    fn what_is_kept_of_a_file_has_no_secret_and_shows_a_cut() {
        let text = format!("# {SECRET}?\n  {SECRET} http://a/in\n{SECRET}");
        let kept = without_secrets(&Bytes::from(text));
        let kept = std::str::from_utf8(&kept).unwrap();
        assert_eq!(
            kept.matches("whsec_").count(),
            1,
            "only the comment: {kept}"
        );
        let whole = without_secrets(&Bytes::from(format!(
            "{SECRET} http://a/in/b types=ended\n"
        )));
        let cut = without_secrets(&Bytes::from(format!("{SECRET} http://a/in")));
        assert!(whole.starts_with(&cut));
    }

    #[test]
    fn only_plain_http_to_another_machine_is_exposed() {
        for (url, is_exposed) in [
            ("http://a.example/", true),
            ("http://10.0.0.1/", true),
            ("https://a.example/", false),
            ("http://localhost:80/", false),
            ("http://127.0.0.1/", false),
            ("http://[::1]:8080/", false),
        ] {
            let target = WebhookTarget::parse(&format!("{SECRET} {url}")).unwrap();
            assert_eq!(target.is_exposed(), is_exposed, "{url}");
        }
    }

    #[test]
    fn changed_lines_are_counted() {
        let parse = |text: &str| WebhookTargets::parse(text.as_bytes()).unwrap();
        let before = parse(&format!("{SECRET} http://a/\n{SECRET} http://b/\n"));
        let after = parse(&format!(
            "{SECRET},{SECRET} http://a/\n{SECRET} http://b/\n{SECRET} http://c/"
        ));
        assert_eq!((after.unlike(&before), after.unlike(&after)), (2, 0));
    }
}
