//! Where the facts about a request are found. Each key is a list of [`Source`]s; the first that has a value wins.

use serde::Deserialize;

use crate::config::load::error::Report;
use crate::config::load::value::{Value, Written, Wrong};
use crate::config::load::yaml::Slot;
use crate::identity::{Identity, Source, SourceError};

/// `identity`, as written.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct RawIdentity {
    user: Option<Written>,
    session: Option<Written>,
    plan: Option<Written>,
    device: Option<Written>,
    content: Option<Written>,
    takeover: Option<Written>,
    fresh: Option<Written>,
}

/// What a list may be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// Without it nothing can be decided.
    Needed,
    /// Needed, and `request` is one of its sources.
    NeededOrRequest,
    /// May be empty.
    Optional,
}

impl RawIdentity {
    pub(in crate::config) fn slots(&mut self) -> Vec<Slot<'_>> {
        vec![
            ("identity.user", &mut self.user),
            ("identity.session", &mut self.session),
            ("identity.plan", &mut self.plan),
            ("identity.device", &mut self.device),
            ("identity.content", &mut self.content),
            ("identity.takeover", &mut self.takeover),
            ("identity.fresh", &mut self.fresh),
        ]
    }

    pub(in crate::config) fn check(&self, report: &mut Report) -> Identity {
        let default = Identity::default();
        let mut read = |key, written: &Option<Written>, default, rule| {
            report.read(key, written.as_ref(), default, |written| {
                sources(written, rule)
            })
        };
        Identity {
            user: read("identity.user", &self.user, default.user, Rule::Needed),
            session: read(
                "identity.session",
                &self.session,
                default.session,
                Rule::NeededOrRequest,
            ),
            plan: read("identity.plan", &self.plan, default.plan, Rule::Optional),
            device: read(
                "identity.device",
                &self.device,
                default.device,
                Rule::Optional,
            ),
            content: read(
                "identity.content",
                &self.content,
                default.content,
                Rule::Optional,
            ),
            takeover: read(
                "identity.takeover",
                &self.takeover,
                default.takeover,
                Rule::Optional,
            ),
            fresh: read("identity.fresh", &self.fresh, default.fresh, Rule::Optional),
        }
    }
}

fn sources(written: &Written, rule: Rule) -> Result<Vec<Source>, Wrong> {
    let items = match &written.value {
        // A pattern may have commas of its own.
        Value::Text(text) if !text.trim().is_empty() => {
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

fn source(item: &Written, rule: Rule) -> Result<Source, Wrong> {
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
