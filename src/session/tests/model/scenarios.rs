//! Which messages each scenario has, and how long its gateways can wait.

use super::*;

/// A playback at a gateway with leases of a minute is ended through one with leases of three
/// seconds.
pub(super) const ENDS: Scenario = Scenario {
    name: "ends",
    settings: [(60, 1), (3, 2)],
    displacements: 5,
    letters: &[
        Begin(One, "playback:a"),
        Played(One, "playback:a"),
        Renew(One, "playback:a"),
        Release(Other, "playback:a"),
        Operator(Other, "playback:a"),
        Begin(Other, "playback:b"),
    ],
    sent: 4,
    waits: &[2, 30],
    waited: 2,
    forgets: false,
    variant: None,
};

/// The same, while ends of strangers come in a flood.
pub(super) const FLOOD: Scenario = Scenario {
    name: "flood",
    letters: &[
        Begin(One, "playback:a"),
        Played(One, "playback:a"),
        Renew(One, "playback:a"),
        Release(Other, "playback:a"),
        Flood(One),
    ],
    sent: 5,
    waits: &[2],
    waited: 1,
    ..ENDS
};

/// A playback is displaced by another gateway's, and both keep asking.
pub(super) const DISPLACED: Scenario = Scenario {
    name: "displaced",
    settings: [(60, 2), (3, 1)],
    letters: &[
        Begin(One, "playback:a"),
        Played(One, "playback:a"),
        Renew(One, "playback:a"),
        Displace(Other, "playback:b"),
        Played(Other, "playback:b"),
        Renew(Other, "playback:b"),
        Release(Other, "playback:b"),
    ],
    ..ENDS
};

/// A derived id is released and begins again at either gateway.
pub(super) const AGAIN: Scenario = Scenario {
    name: "begins again",
    settings: [(60, 1), (3, 1)],
    letters: &[
        Begin(One, "playback:d"),
        Displace(Other, "playback:d"),
        Renew(One, "playback:d"),
        Release(One, "playback:d"),
        Operator(Other, "playback:d"),
        Displace(Other, "playback:b"),
    ],
    waits: &[2, 21],
    ..ENDS
};

/// A start that displaced another fails, or has played.
pub(super) const FAILURES: Scenario = Scenario {
    name: "failures",
    settings: [(60, 1), (3, 1)],
    letters: &[
        Begin(One, "playback:a"),
        Played(One, "playback:a"),
        Renew(One, "playback:a"),
        Failed(One, "playback:a"),
        Displace(Other, "playback:b"),
        Played(Other, "playback:b"),
        Failed(Other, "playback:b"),
    ],
    waits: &[2, 20],
    ..ENDS
};

/// New ids displace each other until the budget is spent.
pub(super) const ZAPPING: Scenario = Scenario {
    name: "budget",
    settings: [(10, 1), (10, 1)],
    displacements: 0,
    letters: &[
        Displace(One, "playback:a"),
        Displace(Other, "playback:b"),
        Displace(One, "playback:c"),
        Failed(One, "playback:c"),
    ],
    waits: &[1, 9],
    ..ENDS
};

/// A response runs on inside Envoy after its playback was ended.
pub(super) const RESPONSES: Scenario = Scenario {
    name: "responses",
    letters: &[
        Begin(One, "playback:a"),
        Periodic(One, "playback:a"),
        Periodic(Other, "playback:a"),
        Release(Other, "playback:a"),
        Operator(Other, "playback:a"),
        Displace(Other, "playback:b"),
    ],
    ..ENDS
};

/// The store forgets everything, and gateways renew what they hold.
pub(super) const FORGETTING: Scenario = Scenario {
    name: "forgets",
    settings: [(60, 1), (30, 2)],
    letters: &[
        Begin(One, "playback:a"),
        Played(One, "playback:a"),
        Renew(One, "playback:a"),
        Begin(Other, "playback:b"),
        Renew(Other, "playback:b"),
        Periodic(Other, "playback:b"),
    ],
    sent: 5,
    waits: &[10],
    waited: 3,
    forgets: true,
    ..ENDS
};

pub(super) const SCENARIOS: [Scenario; 8] = [
    ENDS, FLOOD, DISPLACED, AGAIN, FAILURES, ZAPPING, RESPONSES, FORGETTING,
];
