//! The facts about a session in addition to its key.

use super::fact::FactName;
use super::id::{ContentId, DeviceId};

/// A way in. Kept with the session, so that a list of sessions shows how each came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Door {
    /// Envoy's `ext_authz` check.
    ExtAuthz,
    /// Envoy's access log.
    AccessLog,
    /// The HTTP API.
    Http,
}

/// The facts about a session in addition to its key, all optional.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Facts {
    /// The device it plays on.
    pub device: Option<DeviceId>,
    /// What the viewer is watching.
    pub content: Option<ContentId>,
    /// The door it came through.
    pub door: Option<Door>,
    /// Where in the content the viewer is, in whole seconds from its start.
    pub position_seconds: Option<u32>,
    /// The origin according to a joined id.
    pub joined: Option<JoinedOrigin>,
}

/// A digest of all parts of a joined session id except its path: equal for one device's playbacks
/// of different content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct JoinedOrigin(pub u64);

/// The result of comparing two sessions' origins. A session's origin is its device, unless its text
/// had to be shortened, because two long texts may begin alike. It also includes the parts of a
/// joined id other than its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SameOrigin {
    /// Both sessions have the device or the joined origin, and it is equal.
    Yes,
    /// The facts that both sessions have differ.
    No,
    /// The sessions have no such fact in common.
    Unknown,
}

impl Facts {
    /// Whether another session comes from the same device as this one.
    #[must_use]
    pub fn same_origin(&self, other: &Self) -> SameOrigin {
        let device = self.origin_device().zip(other.origin_device());
        let joined = self.joined.zip(other.joined);
        let equal = device.is_some_and(|(one, another)| one == another)
            || joined.is_some_and(|(one, another)| one == another);
        match (equal, device.is_some() || joined.is_some()) {
            (true, _) => SameOrigin::Yes,
            (false, true) => SameOrigin::No,
            (false, false) => SameOrigin::Unknown,
        }
    }

    /// The part of the facts that identifies the origin.
    #[must_use]
    pub fn origin(&self) -> Self {
        Self {
            device: self.origin_device().cloned(),
            joined: self.joined,
            ..Self::default()
        }
    }

    /// The device, if it distinguishes devices.
    fn origin_device(&self) -> Option<&DeviceId> {
        self.device.as_ref().filter(|device| !device.is_shortened())
    }

    /// Takes over the facts that `newer` has, and keeps the rest. The door stays that of the
    /// session's start.
    pub fn update(&mut self, newer: &Self) {
        if newer.device.is_some() {
            self.device.clone_from(&newer.device);
        }
        if newer.content.is_some() {
            self.content.clone_from(&newer.content);
        }
        self.door = self.door.or(newer.door);
        self.position_seconds = newer.position_seconds.or(self.position_seconds);
        self.joined = newer.joined.or(self.joined);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::MAX_ID_BYTES;
    use crate::session::tests::facts;

    #[test]
    fn newer_facts_replace_known_ones_and_keep_the_rest() {
        let none = Facts::default();
        let older = facts("tv", "news", Door::ExtAuthz, 7);
        let newer = facts("phone", "film", Door::Http, 0);
        let newer_by_the_old_door = facts("phone", "film", Door::ExtAuthz, 0);
        for (known, told, expected) in [
            (&none, &none, &none),
            (&none, &newer, &newer),
            (&older, &none, &older),
            (&older, &newer, &newer_by_the_old_door),
        ] {
            let mut facts = known.clone();
            facts.update(told);
            assert_eq!(&facts, expected);
        }
    }

    #[test]
    fn a_shortened_device_is_no_origin() {
        let long = format!("{}ä", "x".repeat(300));
        let of = |device: &str, joined: Option<u64>| Facts {
            device: DeviceId::keep(Some(device), &|_, _| {}),
            joined: joined.map(JoinedOrigin),
            ..Facts::default()
        };
        let longest = "x".repeat(MAX_ID_BYTES);
        for (one, other, expected) in [
            (of("tv", None), of("tv", None), SameOrigin::Yes),
            (of("tv", None), of("phone", None), SameOrigin::No),
            (of(&longest, None), of(&longest, None), SameOrigin::Yes),
            (of(&long, None), of(&long, None), SameOrigin::Unknown),
            (of(&long, None), of("tv", None), SameOrigin::Unknown),
            (of(&long, Some(1)), of(&long, Some(1)), SameOrigin::Yes),
            (of(&long, Some(1)), of(&long, Some(2)), SameOrigin::No),
        ] {
            assert_eq!(one.same_origin(&other), expected, "{one:?} {other:?}");
            assert_eq!(one.origin().same_origin(&other), expected, "{one:?}");
        }
        assert_eq!(of(&long, None).origin(), Facts::default());
    }
}
