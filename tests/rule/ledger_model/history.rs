//! What happens in one history: viewers ask, Envoy reports, clients release, the store fails or
//! forgets, the settings change. Few users and few ids, so that streams meet their own past.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use streamgate::config::{FullRule, OutageRule};
use streamgate::identity::{Kind, SessionKey};
use streamgate::session::Ending;

use super::witness::{Delay, Failure, SHARDS};
use testkit::streams::key;

/// How many instances share the store.
pub(super) const INSTANCES: usize = 2;

/// How many users there are.
pub(super) const USERS: usize = 3;

/// All that happens, and by which settings.
#[derive(Debug, Clone)]
pub(super) struct History {
    /// `store.outage` of all instances.
    pub(super) rule: OutageRule,
    /// The settings at the beginning.
    pub(super) limits: Limits,
    /// How long calls to the store and their answers take, in turn.
    pub(super) delays: Vec<Delay>,
    /// What happens, each so long after the one before. What takes longer goes on meanwhile.
    pub(super) steps: Vec<(Duration, Step)>,
}

/// The part of `limits` that differs.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    pub(super) limit: u32,
    pub(super) when_full: FullRule,
    pub(super) grace: Duration,
    pub(super) displacements: u32,
}

/// A stream, and the instance that its gateway asks.
#[derive(Debug, Clone)]
pub(super) struct Viewer {
    pub(super) instance: usize,
    pub(super) user: usize,
    pub(super) key: SessionKey,
}

/// One thing that happens.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// A stream asks to start, or to go on.
    Ask(Viewer, Manner),
    /// Envoy reports about a stream, in one message of its access log.
    Report(Viewer, Vec<Report>),
    /// A client or an operator ends a stream over HTTP.
    Release(Viewer, Ending),
    /// Somebody lists a user's sessions.
    List(usize, usize),
    /// Shards fail.
    Fail(ShardOutage),
    /// The store forgets everybody.
    Forget,
    /// The settings change.
    Change(Limits),
}

/// How shards fail.
#[derive(Debug, Clone)]
pub(super) struct ShardOutage {
    /// The instances whose calls fail.
    pub(super) instances: Vec<usize>,
    /// The places of the shards to which they do.
    pub(super) places: Vec<usize>,
    pub(super) failure: Failure,
    pub(super) lasting: Duration,
    /// Whether others are promoted in their place in the end. Otherwise they answer again.
    pub(super) promotes: bool,
}

/// How a stream asks.
#[derive(Debug, Clone)]
pub(super) struct Manner {
    pub(super) door: Door,
    /// How often it asks, a second apart, unless it is refused.
    pub(super) times: u32,
    /// Whose slot it wants if all are taken.
    pub(super) takes_over: Option<TakeOver>,
    /// The device that it says it is.
    pub(super) device: Option<&'static str>,
    /// Whether Envoy reports a success at once.
    pub(super) plays: bool,
    /// Whether its caller has left before it is answered.
    pub(super) leaves: bool,
}

/// What a stream asks through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    /// A check of Envoy's.
    Check,
    /// `PUT` of the HTTP API.
    Heartbeat,
    /// `PATCH` of the small API, which starts nothing.
    Refresh,
}

/// Whose slot a stream wants.
#[derive(Debug, Clone)]
pub(super) enum TakeOver {
    Oldest,
    Named(SessionKey),
}

/// What Envoy reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Report {
    /// The stream runs.
    Runs,
    /// A request of it got through.
    Played,
    /// A request of it failed.
    Failed,
    /// It is over.
    Ended,
}

/// The ids of sessions. The last was not made by its player for one playback.
const IDS: [&str; 5] = ["a", "b", "c", DERIVED, DERIVED];

/// The id that may start again after its end.
pub(super) const DERIVED: &str = "derived";

fn millis(spans: &'static [u64]) -> impl Strategy<Value = Duration> {
    select(spans).prop_map(Duration::from_millis)
}

fn any_key() -> impl Strategy<Value = SessionKey> {
    let kind = prop_oneof![
        6 => Just(Kind::Playback),
        2 => Just(Kind::Request),
        1 => Just(Kind::Video),
    ];
    (kind, select(&IDS[..])).prop_map(|(kind, id)| key(kind, id))
}

/// Most streams are the first user's.
fn any_user() -> impl Strategy<Value = usize> {
    prop_oneof![4 => Just(0), 2 => 1..USERS]
}

/// The few streams of one history, each with the instance that its gateway asks.
fn any_cast() -> impl Strategy<Value = Vec<Viewer>> {
    let viewer = (0..INSTANCES, any_user(), any_key());
    let viewer = viewer.prop_map(|(instance, user, key)| Viewer {
        instance,
        user,
        key,
    });
    vec(viewer, 2..6)
}

/// One of these, which now and then meets another instance.
fn any_viewer(cast: &[Viewer]) -> impl Strategy<Value = Viewer> + use<> {
    let roams = prop::bool::weighted(0.2);
    (select(cast.to_vec()), roams).prop_map(|(viewer, roams)| Viewer {
        instance: (viewer.instance + usize::from(roams)) % INSTANCES,
        ..viewer
    })
}

fn any_limits() -> impl Strategy<Value = Limits> {
    let when_full = select(&[
        FullRule::Refuse,
        FullRule::Refuse,
        FullRule::DisplaceOldest,
        FullRule::DisplaceIdlest,
    ]);
    let grace = millis(&[0, 0, 250]);
    (0..4_u32, when_full, grace, 0..4_u32).prop_map(|(limit, when_full, grace, displacements)| {
        Limits {
            limit: if limit == 0 { 2 } else { limit },
            when_full,
            grace,
            displacements,
        }
    })
}

fn any_manner() -> impl Strategy<Value = Manner> {
    let door = prop_oneof![
        6 => Just(Door::Check),
        2 => Just(Door::Heartbeat),
        1 => Just(Door::Refresh),
    ];
    let takes_over = prop_oneof![
        8 => Just(None),
        1 => Just(Some(TakeOver::Oldest)),
        1 => any_key().prop_map(|key| Some(TakeOver::Named(key))),
    ];
    let device = select(&[None, None, Some("tv"), Some("phone")][..]);
    let times = prop_oneof![3 => Just(1), 2 => 2..8_u32];
    let (plays, leaves) = (prop::bool::weighted(0.8), prop::bool::weighted(0.1));
    (door, times, takes_over, device, plays, leaves).prop_map(
        |(door, times, takes_over, device, plays, leaves)| Manner {
            door,
            times,
            takes_over,
            device,
            plays,
            leaves,
        },
    )
}

fn any_report() -> impl Strategy<Value = Report> {
    prop_oneof![
        3 => Just(Report::Runs),
        1 => Just(Report::Played),
        1 => Just(Report::Failed),
        3 => Just(Report::Ended),
    ]
}

fn any_ending() -> impl Strategy<Value = Ending> {
    prop_oneof![
        4 => Just(Ending::Stream),
        1 => Just(Ending::Vouched),
        1 => Just(Ending::Operator),
    ]
}

/// Outages of a moment, of less than a lease, and of more.
fn any_failure() -> impl Strategy<Value = Step> {
    let failure = prop_oneof![
        2 => Just(Failure::Refused),
        2 => Just(Failure::CallLost),
        1 => Just(Failure::AnswerLost),
    ];
    let whose = prop_oneof![
        3 => Just(vec![0, 1]),
        2 => (0..INSTANCES).prop_map(|instance| vec![instance]),
    ];
    let places = prop_oneof![
        1 => Just((0..SHARDS).collect::<Vec<_>>()),
        1 => (0..SHARDS).prop_map(|place| vec![place]),
    ];
    let lasting = millis(&[300, 1_000, 4_000, 4_000, 8_000, 12_000]);
    (whose, places, failure, lasting, any::<bool>()).prop_map(
        |(instances, places, failure, lasting, promotes)| {
            Step::Fail(ShardOutage {
                instances,
                places,
                failure,
                lasting,
                promotes,
            })
        },
    )
}

fn any_step(cast: &[Viewer]) -> impl Strategy<Value = Step> + use<> {
    let viewer = || any_viewer(cast);
    let reports = vec(any_report(), 1..4);
    prop_oneof![
        24 => (viewer(), any_manner()).prop_map(|(viewer, manner)| Step::Ask(viewer, manner)),
        8 => (viewer(), reports).prop_map(|(viewer, reports)| Step::Report(viewer, reports)),
        6 => (viewer(), any_ending()).prop_map(|(viewer, end)| Step::Release(viewer, end)),
        2 => (0..INSTANCES, any_user()).prop_map(|(instance, user)| Step::List(instance, user)),
        2 => any_failure(),
        1 => Just(Step::Forget),
        1 => any_limits().prop_map(Step::Change),
    ]
}

/// Most things happen while others are under way; sometimes nothing happens for nearly a lease.
fn any_pause() -> impl Strategy<Value = Duration> {
    prop_oneof![
        6 => millis(&[0, 1, 20, 90, 200, 400]),
        3 => millis(&[900, 1_500, 2_100, 3_000]),
        1 => millis(&[5_000, 8_900, 9_200]),
    ]
}

/// Within the deadline of a call.
fn any_delay() -> impl Strategy<Value = Delay> {
    let way = || millis(&[0, 0, 0, 1, 15, 60, 140]);
    (way(), way())
}

/// Any history. Half of them are calm: the store answers and keeps what it is told, and no setting
/// changes.
pub(super) fn any_history() -> impl Strategy<Value = History> {
    let rule = select(&[OutageRule::Allow, OutageRule::Deny, OutageRule::Local]);
    let steps = any_cast().prop_flat_map(|cast| vec((any_pause(), any_step(&cast)), 1..40));
    let delays = vec(any_delay(), 1..12);
    (rule, any_limits(), delays, steps, any::<bool>()).prop_map(
        |(rule, limits, delays, mut steps, is_calm)| {
            if is_calm {
                steps.retain(|(_, step)| !step.is_trouble());
            }
            History {
                rule,
                limits,
                delays,
                steps,
            }
        },
    )
}

impl Step {
    /// Whether viewers may suffer who have done nothing.
    pub(super) const fn is_trouble(&self) -> bool {
        matches!(self, Self::Fail(..) | Self::Forget | Self::Change(_))
    }
}
