//! The rule under a model checker: two gateways with different leases and limits use the production
//! [`Roster`]. Every message may arrive late, more than once or never, and the checker tries
//! everything within its bounds.
//!
//! A scenario lists the messages that its gateways can send and how long they can wait. The checker
//! explores all orders of sending, delivering and waiting. A delivered message stays under way, so
//! it can arrive again; one that is never delivered is lost. Starts and renewals are under way for
//! at most [`TIMEOUT`], the store's deadline. Other messages wait in a queue, so they may be under
//! way for any time. A gateway renews a session only while it holds a lease for it.
//!
//! A [`Variant`] breaks the rule in one place. The test requires that the checker notices.

mod scenarios;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use stateright::{Checker, HasDiscoveries, Model, Property};

use super::*;

use scenarios::{AGAIN, ENDS, FAILURES, FLOOD, FORGETTING, RESPONSES, SCENARIOS, ZAPPING};

// === what must hold ===

const ABOVE: &str = "an admission never puts a user above the limit";
const BACK: &str = "nothing released, displaced or ended comes back by a late message";
const OTHERS: &str = "nobody's session is ended by another's message";
const LEASES: &str = "slots are bounded by leases, and no lease is cut";
const BUDGET: &str = "displacing is budgeted";
const COUNTED: &str = "what runs inside Envoy is counted";
const WHOLE: &str = "a third of a lease after the store forgot everything the count is whole";

const PROMISES: [&str; 7] = [ABOVE, BACK, OTHERS, LEASES, BUDGET, COUNTED, WHOLE];

/// How many seconds a start or a renewal may be under way.
const TIMEOUT: u64 = 2;

/// The capacity that a single list of ends would have.
const ONE_LIST: usize = 64;

/// A way to break the rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variant {
    /// A renewal doesn't look at tombstones.
    RenewCreates,
    NoTombstone,
    /// The second gateway supplies the time to the store; its clock is 70 s ahead.
    ClientsClock,
    ReleaseWithoutAge,
    DisplacementWithoutBudget,
    OneListOfEnds,
    /// An entry for a running response counts nothing if its playback has a tombstone.
    PeriodicEntryIgnored,
    FailureRemovesPlayed,
    /// A tombstone is kept only as long as the gateway that wrote it would keep it.
    TermFromOwnLeases,
    /// A sighting of an unknown session counts nothing.
    NothingIsPutBack,
}

// === what is sent ===

/// A message from a gateway to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Letter {
    /// A start that is refused at the limit.
    Start(Gateway, &'static str),
    /// A start that displaces the oldest session at the limit.
    Displace(Gateway, &'static str),
    Renew(Gateway, &'static str),
    /// An entry for a response that is still running.
    Periodic(Gateway, &'static str),
    Played(Gateway, &'static str),
    Release(Gateway, &'static str),
    Operator(Gateway, &'static str),
    Failed(Gateway, &'static str),
    /// The ends of many sessions that never existed.
    Flood(Gateway),
}
use Letter::{Displace, Failed, Flood, Operator, Periodic, Played, Release, Renew, Start as Begin};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Gateway {
    One,
    Other,
}
use Gateway::{One, Other};

impl Letter {
    const fn gateway(self) -> Gateway {
        match self {
            Begin(gateway, _)
            | Displace(gateway, _)
            | Renew(gateway, _)
            | Periodic(gateway, _)
            | Played(gateway, _)
            | Release(gateway, _)
            | Operator(gateway, _)
            | Failed(gateway, _)
            | Flood(gateway) => gateway,
        }
    }

    /// The session it concerns.
    fn session(self) -> SessionKey {
        match self {
            Begin(_, session)
            | Displace(_, session)
            | Renew(_, session)
            | Periodic(_, session)
            | Played(_, session)
            | Release(_, session)
            | Operator(_, session)
            | Failed(_, session) => key(session),
            Flood(_) => key("playback:junk"),
        }
    }

    /// Whether the sender waits for the answer and gives up at its deadline.
    const fn has_deadline(self) -> bool {
        matches!(self, Begin(..) | Displace(..) | Renew(..) | Periodic(..))
    }
}

/// Ids that begin with `d` are derived.
fn is_derived(session: &SessionKey) -> bool {
    session.id.as_str().starts_with('d')
}

/// What can happen, and how often.
#[derive(Debug, Clone)]
struct Scenario {
    name: &'static str,
    /// The lease in seconds and the limit at each gateway.
    settings: [(u64, u32); 2],
    displacements: u32,
    letters: &'static [Letter],
    /// The number of messages sent.
    sent: usize,
    /// By how many seconds time may advance in one step.
    waits: &'static [u64],
    /// How often time advances.
    waited: usize,
    /// The store loses all its data once, and gateways renew the leases they hold every third of a
    /// lease.
    forgets: bool,
    variant: Option<Variant>,
}

impl Scenario {
    const fn setting(&self, gateway: Gateway) -> (u64, u32) {
        let [one, other] = self.settings;
        match gateway {
            One => one,
            Other => other,
        }
    }

    fn terms(&self, gateway: Gateway) -> Terms {
        Terms::new(seconds(self.setting(gateway).0), seconds(TIMEOUT))
    }

    fn is(&self, variant: Variant) -> bool {
        self.variant == Some(variant)
    }
}

// === the state ===

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct State {
    roster: Roster,
    /// Seconds since the beginning.
    now: u64,
    sent: usize,
    waited: usize,
    /// The messages under way, and when each was sent.
    letters: BTreeSet<(u64, Letter)>,
    /// The leases that gateways hold: when each was last granted, and when it ends.
    held: BTreeMap<(Gateway, SessionKey), (u64, u64)>,
    /// The ended sessions, when the end was reported, and whether each was live.
    ended: BTreeMap<SessionKey, (u64, bool)>,
    /// When the slot granted to each session ends.
    granted: BTreeMap<SessionKey, Timestamp>,
    /// When each start displaced that drew on the budget and was not taken back.
    displacing: Vec<(u64, SessionKey)>,
    forgot: Option<u64>,
    broken: BTreeSet<&'static str>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Action {
    Send(Letter),
    Deliver(u64, Letter),
    Wait(u64),
    Forget,
}

impl Model for Scenario {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::default()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.sent < self.sent {
            let can_be_sent = |letter: &&Letter| match letter {
                // A gateway renews only the leases it holds.
                Renew(gateway, session) => {
                    let held = state.held.get(&(*gateway, key(session)));
                    held.is_some_and(|(_, until)| *until > state.now)
                }
                _ => true,
            };
            let letters = self.letters.iter().filter(can_be_sent);
            actions.extend(letters.copied().map(Action::Send));
        }
        let under_way = state.letters.iter();
        actions.extend(under_way.map(|(since, letter)| Action::Deliver(*since, *letter)));
        if state.waited < self.waited {
            actions.extend(self.waits.iter().copied().map(Action::Wait));
        }
        if self.forgets && state.forgot.is_none() {
            actions.push(Action::Forget);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Send(letter) => {
                state.sent += 1;
                // A message sent twice at once is one message that arrives twice.
                let is_new = state.letters.insert((state.now, letter));
                return is_new.then_some(state);
            }
            Action::Deliver(since, letter) => self.deliver(&mut state, since, letter),
            Action::Wait(span) => {
                state.waited += 1;
                if !self.wait(&mut state, span) {
                    return None;
                }
            }
            Action::Forget => {
                state.roster = Roster::default();
                state.forgot = Some(state.now);
            }
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ABOVE, |_, state: &State| !state.broken.contains(ABOVE)),
            Property::always(BACK, |_, state: &State| !state.broken.contains(BACK)),
            Property::always(OTHERS, |_, state: &State| !state.broken.contains(OTHERS)),
            Property::always(LEASES, |_, state: &State| !state.broken.contains(LEASES)),
            Property::always(BUDGET, |_, state: &State| !state.broken.contains(BUDGET)),
            Property::always(COUNTED, |_, state: &State| !state.broken.contains(COUNTED)),
            Property::always(WHOLE, |_, state: &State| !state.broken.contains(WHOLE)),
        ]
    }
}

/// The store's time.
fn at(now: u64) -> Timestamp {
    Timestamp::from_millis(1_000_000 + now * 1_000)
}

fn live(roster: &Roster, now: u64) -> Vec<Session> {
    roster.live(at(now)).cloned().collect()
}

impl Scenario {
    /// Advances time, unless somebody still has to act before then.
    fn wait(&self, state: &mut State, span: u64) -> bool {
        let then = state.now + span;
        let is_due = |gateway: Gateway, granted: u64| granted + self.setting(gateway).0 / 3 < then;
        let mut held = state.held.iter();
        if self.forgets && held.any(|((gateway, _), (granted, _))| is_due(*gateway, *granted)) {
            return false;
        }
        let third = self.settings.iter().map(|(lease, _)| lease / 3).max();
        if let (Some(forgot), Some(third)) = (state.forgot, third)
            && then > forgot + third
        {
            let live = live(&state.roster, state.now);
            let mut held = state.held.keys();
            let is_live = |key: &SessionKey| live.iter().any(|session| session.key == *key);
            if !held.all(|(_, key)| is_live(key)) {
                state.broken.insert(WHOLE);
            }
        }
        state.now = then;
        (state.letters).retain(|(since, letter)| !letter.has_deadline() || since + TIMEOUT >= then);
        state.held.retain(|_, (_, until)| *until > then);
        true
    }

    /// Delivers a message that was sent at `since`, and judges the effect.
    fn deliver(&self, state: &mut State, since: u64, letter: Letter) {
        let gateway = letter.gateway();
        let (terms, own) = (self.terms(gateway), letter.session());
        let before = live(&state.roster, state.now);
        let is_ahead = self.is(Variant::ClientsClock) && gateway == Other;
        let now = at(state.now + if is_ahead { 70 } else { 0 });
        let mut displaced = Vec::new();
        match letter {
            Begin(..) => self.start(state, letter, WhenFull::Refuse, now, &mut displaced),
            Displace(..) => {
                self.start(state, letter, WhenFull::DisplaceOldest, now, &mut displaced);
            }
            Renew(..) => {
                self.renew(state, letter, own.clone(), now);
            }
            Periodic(..) => self.periodic(state, letter, now),
            Played(..) => {
                if let Some(playing) = state.roster.played(&own, &terms, now)
                    && playing.proven
                {
                    let until = state.now + playing.left.as_secs();
                    let held = (gateway, own.clone());
                    state.held.insert(held, (state.now, until));
                }
            }
            Release(..) => self.end(state, since, letter, Ending::Stream, now),
            Operator(..) => self.end(state, since, letter, Ending::Operator, now),
            Failed(..) => self.end(state, since, letter, Ending::Failed, now),
            Flood(_) => {
                for count in 0..ONE_LIST {
                    let junk = key(&format!("playback:junk-{count}"));
                    let roster = &mut state.roster;
                    roster.release(&junk, Ending::Stream, Duration::ZERO, &terms, now);
                }
            }
        }
        self.break_ends(state, gateway);
        self.judge(state, since, letter, &before, &displaced);
    }

    fn start(
        &self,
        state: &mut State,
        letter: Letter,
        when_full: WhenFull,
        now: Timestamp,
        displaced: &mut Vec<SessionKey>,
    ) {
        let (gateway, own) = (letter.gateway(), letter.session());
        let (lease, limit) = self.setting(gateway);
        let rules = StartRules {
            displacements: self.displacements,
            free: self.is(Variant::DisplacementWithoutBudget),
            ..StartRules::new(limit, when_full)
        };
        let start = Start {
            derived: is_derived(&own),
            key: own.clone(),
            facts: Facts::default(),
            lease: seconds(lease),
            ticket: None,
        };
        let answer = state
            .roster
            .admit(&start, &rules, &self.terms(gateway), now);
        let Admission::Admitted(admitted) = answer else {
            state.held.remove(&(gateway, own));
            return;
        };
        self.grant(state, gateway, &own, admitted.session.is_proven());
        if admitted.entry == AdmissionKind::Started {
            let count = live(&state.roster, state.now).len();
            if count > limit as usize {
                state.broken.insert(ABOVE);
            }
        }
        if !admitted.displaced.is_empty() {
            state.displacing.push((state.now, own));
            let burst = (limit + self.displacements) as usize;
            let times = state.displacing.iter().rev().enumerate();
            for (count, (time, _)) in times {
                let refilled = (state.now - time) / lease;
                if count + 1 > burst + usize::try_from(refilled).unwrap() {
                    state.broken.insert(BUDGET);
                }
            }
        }
        for gone in admitted.displaced {
            state.ended.insert(gone.key.clone(), (state.now, true));
            displaced.push(gone.key);
        }
    }

    /// Tells a gateway when a session's lease ends. It holds only proven sessions and asks about
    /// the others each time.
    fn grant(&self, state: &mut State, gateway: Gateway, session: &SessionKey, proven: bool) {
        let until = state.now + self.setting(gateway).0;
        let granted = state.granted.entry(session.clone()).or_default();
        *granted = at(until).max(*granted);
        let held = (gateway, session.clone());
        if proven {
            state.held.insert(held, (state.now, until));
        } else {
            state.held.remove(&held);
        }
    }

    fn renew(
        &self,
        state: &mut State,
        letter: Letter,
        session: SessionKey,
        now: Timestamp,
    ) -> Renewal {
        let gateway = letter.gateway();
        let (lease, limit) = self.setting(gateway);
        if self.is(Variant::RenewCreates) {
            state.roster.forget_end(&session);
        }
        let sighting = Sighting {
            derived: is_derived(&session),
            key: session.clone(),
            facts: Facts::default(),
            lease: seconds(lease),
            started_at: None,
            provenance: Provenance::Counted,
        };
        let before = state.roster.clone();
        let terms = self.terms(gateway);
        let renewal = state.roster.renew(&sighting, limit, &terms, now);
        match &renewal {
            Renewal::PutBack { .. } if self.is(Variant::NothingIsPutBack) => {
                state.roster = before;
                self.grant(state, gateway, &session, true);
            }
            Renewal::Renewed { .. } | Renewal::PutBack { .. } => {
                self.grant(state, gateway, &session, true);
            }
            Renewal::Provisional { .. } => self.grant(state, gateway, &session, false),
            Renewal::Ended(_) | Renewal::Crowded => {
                state.held.remove(&(gateway, session));
            }
        }
        renewal
    }

    /// A running response counts as a request of its own if its playback has ended.
    fn periodic(&self, state: &mut State, letter: Letter, now: Timestamp) {
        let playback = letter.session();
        let response = key(&format!("request:{}", playback.id));
        let ended = matches!(
            self.renew(state, letter, playback.clone(), now),
            Renewal::Ended(_)
        );
        if ended && !self.is(Variant::PeriodicEntryIgnored) {
            self.renew(state, letter, response.clone(), now);
        }
        let live = live(&state.roster, state.now);
        let mut live = live.iter();
        if !live.any(|session| session.key == playback || session.key == response) {
            state.broken.insert(COUNTED);
        }
    }

    fn end(&self, state: &mut State, since: u64, letter: Letter, ending: Ending, now: Timestamp) {
        let (terms, own) = (self.terms(letter.gateway()), letter.session());
        let age = if self.is(Variant::ReleaseWithoutAge) {
            Duration::ZERO
        } else {
            seconds(state.now - since)
        };
        let is_overdone = ending == Ending::Failed && self.is(Variant::FailureRemovesPlayed);
        let ending = if is_overdone { Ending::Stream } else { ending };
        let released = state.roster.release(&own, ending, age, &terms, now);
        if is_overdone {
            state.roster.forget_end(&own);
        }
        match (letter, released) {
            (Failed(..), Released::Freed) => {
                let roster = &state.roster;
                let is_buried = |key: &SessionKey| {
                    let mut ends = roster.tombstones(at(state.now));
                    ends.any(|end| end.key == *key)
                };
                state.ended.retain(|key, _| is_buried(key));
                state.displacing.retain(|(_, by)| *by != own);
            }
            (Release(..) | Operator(..), Released::Freed) => {
                state.ended.insert(own.clone(), (since, true));
            }
            (Release(..) | Operator(..), Released::NotLive) => {
                state.ended.insert(own.clone(), (since, false));
            }
            _ => (),
        }
        state.held.remove(&(letter.gateway(), own));
    }

    /// Corrupts the ends just recorded, if the variant calls for it.
    fn break_ends(&self, state: &mut State, gateway: Gateway) {
        let ends: Vec<_> = state.roster.tombstones(at(state.now)).cloned().collect();
        match self.variant {
            Some(Variant::NoTombstone) => {
                for end in &ends {
                    state.roster.forget_end(&end.key);
                }
            }
            Some(Variant::TermFromOwnLeases) => {
                let memory = self.terms(gateway).memory;
                for end in ends.into_iter().filter(|end| end.asked_at == at(state.now)) {
                    state.roster.forget_end(&end.key);
                    let until = end.until.min(end.asked_at.after(memory));
                    state.roster.bury(Tombstone { until, ..end });
                }
            }
            Some(Variant::OneListOfEnds) => {
                // The flood has filled one list of three; in a single list it would have pushed out
                // the others' share.
                let is_full = ends.len() > EndList::Stranger.room();
                for end in ends.iter().filter(|_| is_full) {
                    if end.list() != EndList::Stranger {
                        state.roster.forget_end(&end.key);
                    }
                }
            }
            _ => (),
        }
    }

    /// What the arrival of a message must not have done.
    fn judge(
        &self,
        state: &mut State,
        since: u64,
        letter: Letter,
        before: &[Session],
        displaced: &[SessionKey],
    ) {
        let after = live(&state.roster, state.now);
        let own = letter.session();
        for gone in before {
            if after.iter().any(|session| session.key == gone.key) || displaced.contains(&gone.key)
            {
                continue;
            }
            let is_own = gone.key == own
                && match letter {
                    Release(..) | Operator(..) => gone.started_at <= at(since),
                    Failed(..) => !gone.flags.played && gone.started_at <= at(since),
                    _ => false,
                };
            if !is_own {
                state.broken.insert(OTHERS);
            }
        }
        for session in &after {
            let granted = state.granted.get(&session.key);
            let was = before.iter().find(|before| before.key == session.key);
            let is_cut = was.is_some_and(|was| session.expires_at < was.expires_at);
            let is_provisional = was.is_some_and(|was| {
                was.flags.provisional
                    && session.flags.provisional
                    && was.expires_at != session.expires_at
            });
            if granted.is_none_or(|granted| session.expires_at > *granted)
                || is_cut
                || is_provisional
            {
                state.broken.insert(LEASES);
            }
            if was.is_none()
                && let Some((said_at, was_live)) = state.ended.remove(&session.key)
            {
                // Strangers' ends push each other out. A late start is then a start, within the
                // limit.
                let is_flooded = state
                    .letters
                    .iter()
                    .any(|(_, letter)| matches!(letter, Flood(_)));
                let may_come =
                    since > said_at || is_derived(&session.key) || (!was_live && is_flooded);
                let is_start = matches!(letter, Begin(..) | Displace(..));
                // If Envoy reports a response running so long after its end that the end may be
                // forgotten, it really runs.
                let memory = self.terms(One).memory.min(self.terms(Other).memory);
                let runs = matches!(letter, Periodic(..)) && said_at + memory.as_secs() <= since;
                if !(is_start && may_come || runs) {
                    state.broken.insert(BACK);
                }
            }
        }
    }
}

// === the scenarios are tried ===

/// How many more messages and time steps to explore than CI has time for.
fn depth() -> usize {
    let depth = option_env!("STREAMGATE_MODEL_DEPTH").and_then(|depth| depth.parse().ok());
    depth.unwrap_or(0)
}

#[test]
fn the_rule_keeps_its_promises_in_every_order_of_messages() {
    for scenario in SCENARIOS {
        let name = scenario.name;
        let deeper = Scenario {
            sent: scenario.sent + depth(),
            waited: scenario.waited + depth(),
            ..scenario
        };
        let checker = deeper.checker().threads(2).spawn_bfs().join();
        let (states, depth) = (checker.unique_state_count(), checker.max_depth());
        println!("{name}: {states} states, {depth} steps deep");
        let found = checker.discoveries().into_iter().next();
        let found = found.map(|(promise, path)| (promise, path.into_actions()));
        assert!(found.is_none(), "{name}: {found:#?}");
    }
}

#[test]
fn the_checker_finds_out_each_unsafe_variant() {
    for (variant, scenario, broken) in [
        (Variant::RenewCreates, ENDS, BACK),
        (Variant::NoTombstone, ENDS, BACK),
        (Variant::ClientsClock, ENDS, OTHERS),
        (Variant::ReleaseWithoutAge, AGAIN, OTHERS),
        (Variant::DisplacementWithoutBudget, ZAPPING, BUDGET),
        (Variant::OneListOfEnds, FLOOD, BACK),
        (Variant::PeriodicEntryIgnored, RESPONSES, COUNTED),
        (Variant::FailureRemovesPlayed, FAILURES, OTHERS),
        (Variant::TermFromOwnLeases, ENDS, BACK),
        (Variant::NothingIsPutBack, FORGETTING, WHOLE),
    ] {
        let scenario = Scenario {
            variant: Some(variant),
            ..scenario
        };
        let wanted = HasDiscoveries::AllOf(BTreeSet::from([broken]));
        let checker = scenario.checker().finish_when(wanted).spawn_bfs().join();
        let states = checker.unique_state_count();
        println!("{variant:?}: {states} states");
        let found = checker.discovery(broken);
        assert!(found.is_some(), "{variant:?} keeps {broken:?}");
    }
    assert_eq!(PROMISES.len(), ENDS.properties().len());
}
