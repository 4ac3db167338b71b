//! Where a request has its user, session and other facts. Each key is a list of [`Source`]s; the
//! first that has a value wins.

use crate::config::load::form::{Form, list};
use crate::config::load::section::{Key, Keys};
use crate::config::load::value::{RawValue, Shape, Wrong};
use crate::identity::source::{NAMED_KINDS, PLAIN_KINDS, REQUEST_KIND};
use crate::identity::{Identity, Source, SourceError};

/// Which lists a key allows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// At least one source.
    Needed,
    /// At least one source, and `request` may be one.
    NeededOrRequest,
    /// An empty list too.
    Optional,
}

/// Declares the keys of `identity`.
pub(in crate::config) fn keys(identity: &mut Identity, keys: &mut impl Keys) {
    keys.key(
        Key::new(
            "identity.user",
            "Where the user is named. **Only from a source that Envoy has verified**, see \
             [where the user comes from][envoy].",
        )
        .shared(),
        lists(Rule::Needed),
        &mut identity.user,
    );
    keys.key(
        Key::new(
            "identity.session",
            "Where the session's id is. The first source that is present decides the kind.",
        )
        .shared(),
        lists(Rule::NeededOrRequest),
        &mut identity.session,
    );
    keys.key(
        Key::new("identity.plan", "Where the plan is named.").shared(),
        lists(Rule::Optional),
        &mut identity.plan,
    );
    optional_keys(identity, keys);
}

/// Declares the keys of the facts that change how a start is decided or shown.
fn optional_keys(identity: &mut Identity, keys: &mut impl Keys) {
    keys.key(
        Key::new(
            "identity.device",
            "Where the device is named. Viewers who are refused see it; starts from the same device \
             displace each other without budget.",
        )
        .shared(),
        lists(Rule::Optional),
        &mut identity.device,
    );
    keys.key(
        Key::new(
            "identity.content",
            "Where the content is named. Viewers who are refused see it.",
        ),
        lists(Rule::Optional),
        &mut identity.content,
    );
    keys.key(
        Key::new(
            "identity.takeover",
            "Where a playback says whose slot it wants if all are taken: the id of a session, or \
             `oldest`.",
        )
        .shared(),
        lists(Rule::Optional),
        &mut identity.takeover,
    );
    keys.key(
        Key::new(
            "identity.fresh",
            "The session sources for which a player makes a new id for each playback. All other ids \
             are [derived][rule]: players reuse them, so they may start again after their end. An id \
             joined by `+` is fresh if one of its parts is; `request` and our cookie are always fresh.",
        )
        .shared(),
        lists(Rule::Optional),
        &mut identity.fresh,
    );
}

/// The form of a list of sources.
fn lists(rule: Rule) -> Form<'static, Vec<Source>> {
    let (values, more): (_, &[_]) = match rule {
        Rule::Needed => ("a list of sources, at least one", &[]),
        Rule::NeededOrRequest => (
            "a list of sources, at least one; `request` too",
            &[REQUEST_KIND],
        ),
        Rule::Optional => ("a list of sources", &[]),
    };
    Form::new(
        values,
        move |written| sources(written, rule),
        |sources| list(sources),
    )
    .of_words([&NAMED_KINDS[..], &PLAIN_KINDS, more].concat())
}

fn sources(written: &RawValue, rule: Rule) -> Result<Vec<Source>, Wrong> {
    let items = match &written.shape {
        // A pattern may contain commas.
        Shape::Text(text) if !text.trim().is_empty() => {
            Some(written.parts(Source::split_list(text).into_iter()))
        }
        _ => written.items(),
    };
    let items =
        items.ok_or_else(|| written.wrong("a list of sources, such as [header:x-user-id]"))?;
    if items.is_empty() && rule != Rule::Optional {
        return Err(written.wrong("at least one source, such as header:x-user-id"));
    }
    items.iter().map(|item| source(item, rule)).collect()
}

fn source(item: &RawValue, rule: Rule) -> Result<Source, Wrong> {
    let text = item
        .scalar()
        .ok_or_else(|| item.wrong("a source, such as header:x-user-id"))?;
    let source = text.parse().map_err(|error: SourceError| {
        if item.may_hold_a_secret() {
            item.wrong("a source, such as header:x-user-id")
        } else {
            item.refuse(error)
        }
    })?;
    if source == Source::Request && rule != Rule::NeededOrRequest {
        return Err(item.wrong("any other source; request is only for identity.session"));
    }
    Ok(source)
}
