//! What the viewers know themselves: who watches, since when, and what of it the store may or must
//! count. Nothing here comes from streamgate but its answers.

use std::collections::BTreeMap;
use std::time::Duration;

use streamgate::clock::Timestamp;
use streamgate::identity::{Kind, SessionKey};

use super::gateway::{LONGEST_LEASE, Place};

/// The pause between two requests of a stream, or between two reports about it, at most.
pub(super) const INTERVAL: Duration = Duration::from_millis(2_000);

/// How long an instance may need, once the store answers again, to notice that and to tell it
/// everything: sixteen probes, and the longest pause of the outbox.
pub(super) const SETTLE: Duration = Duration::from_millis(4_500);

/// How long a call may be under way: a start waits for a slot, an answer is slow, a call acts late.
pub(super) const UNDER_WAY: Duration = Duration::from_millis(2_500);

/// How long after the store has lost everything an instance may report what started since.
const LOSS_REPORTED: Duration = Duration::from_secs(1);

/// How long after trouble every stream that goes on must count again: its next renewal comes after
/// a third of its lease.
pub(super) const HEAL: Duration = LONGEST_LEASE
    .checked_div(3)
    .unwrap()
    .saturating_add(INTERVAL)
    .saturating_add(INTERVAL)
    .saturating_add(SETTLE);

/// How a stream is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    /// The store has said that it has no slot.
    Refused,
    /// Its end was told to that instance.
    Told(Place, Timestamp),
    /// It may have started, and its start was taken back by that instance.
    TakenBack(Place, Timestamp),
    /// Nobody has been told.
    Untold,
}

/// A stream, as its viewer knows it.
#[derive(Debug, Clone)]
pub(super) struct Stream {
    /// What it is.
    kind: Kind,
    /// When it first asked.
    pub(super) sent: Timestamp,
    /// Its last sign of life.
    pub(super) last_sign: Timestamp,
    /// How many of its requests are under way.
    pub(super) under_way: usize,
    /// Whether its viewer watches.
    pub(super) watches: bool,
    /// How it is over.
    pub(super) over: Option<Over>,
    /// When the request was sent to which the store last answered that it counts.
    confirmed: Option<Timestamp>,
    /// Until when the store counts it at least, if it forgets nothing.
    counts_until: Option<Timestamp>,
    /// Whether its last answer was the outage rule's.
    pub(super) by_rule: bool,
    /// Whether an outage rule has ever let it in: that instance tells the store later, also if
    /// another has refused it meanwhile.
    pub(super) was_by_rule: bool,
    /// Whether an outage rule has ever displaced it: that instance tells the store later, also if
    /// others have let the stream go on meanwhile.
    pub(super) was_displaced_by_rule: bool,
    /// The instances that have let it go on by a lease that they hold while they could not ask, and
    /// when each last did. They tell the store later.
    pub(super) untold: BTreeMap<Place, Timestamp>,
    /// The instance that answers it from memory.
    pub(super) held_by: Option<Hold>,
    /// Whether an instance was killed while it asked, so that nobody took its start back.
    pub(super) has_doubt: bool,
    /// Whether it ever met an error.
    pub(super) has_erred: bool,
    /// Whether an operator has ended it.
    pub(super) is_ended_by_operator: bool,
}

/// That an instance answers a stream from memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hold {
    /// The instance.
    pub(super) place: Place,
    /// Since when.
    pub(super) since: Timestamp,
    /// When it last did.
    pub(super) last: Timestamp,
}

/// One user.
#[derive(Debug, Default)]
pub(super) struct User {
    /// Their streams, those that are long gone left out.
    pub(super) streams: BTreeMap<SessionKey, Stream>,
    /// When the store last forgot them.
    pub(super) forgotten: Option<Timestamp>,
    /// When a start of theirs may last have displaced another.
    pub(super) displaced: Option<Timestamp>,
    /// When a start of theirs may last have been taken back. Those that it displaced may go on.
    pub(super) taken_back: Option<Timestamp>,
}

/// What decides whether something told to an instance has reached the store.
pub(super) trait Settled {
    /// Whether what that instance was told then has reached the store by now.
    fn is_settled(&self, place: Place, told: Timestamp) -> bool;

    /// Whether a call of that instance may have taken place later than the instance knows, since
    /// then.
    fn acted_late(&self, place: Place, since: Timestamp) -> bool;
}

impl Stream {
    /// A stream that asks for the first time.
    pub(super) fn asking(kind: Kind, now: Timestamp) -> Self {
        Self {
            kind,
            sent: now,
            last_sign: now,
            under_way: 0,
            watches: false,
            over: None,
            confirmed: None,
            counts_until: None,
            by_rule: false,
            was_by_rule: false,
            was_displaced_by_rule: false,
            untold: BTreeMap::new(),
            held_by: None,
            has_doubt: false,
            has_erred: false,
            is_ended_by_operator: false,
        }
    }

    /// Whether it was ever let in, so that no refusal by another instance's rule ends it.
    pub(super) const fn was_let_in(&self) -> bool {
        self.confirmed.is_some() || self.was_by_rule
    }

    /// The store counts it at least until then, by its answer to a request sent at `sent`. What was
    /// confirmed before `unsure_since` says nothing any more: the lease may be a shorter one.
    pub(super) fn is_confirmed(
        &mut self,
        sent: Timestamp,
        until: Timestamp,
        unsure_since: Option<Timestamp>,
    ) {
        if self.confirmed <= unsure_since {
            self.counts_until = None;
        }
        self.confirmed = self.confirmed.max(Some(sent));
        self.counts_until = self.counts_until.max(Some(until));
    }

    /// An instance has let it go on from memory, for a lease of that length. It does so only within
    /// two thirds of a lease after the store's answer, so the store counts it for another third,
    /// unless that answer may be older than `unsure_since`.
    pub(super) fn is_held(
        &mut self,
        place: Place,
        sent: Timestamp,
        lease: Duration,
        unsure_since: Option<Timestamp>,
    ) {
        if unsure_since < Some(sent.before(lease * 2 / 3)) {
            self.counts_until = self.counts_until.max(Some(sent.after(lease / 3)));
        }
        let held = self.held_by.filter(|hold| hold.place == place);
        self.held_by = Some(Hold {
            place,
            since: held.map_or(sent, |hold| hold.since),
            last: sent,
        });
    }

    /// Whether the store has said that it stays only until a time that is over by now: the outage
    /// rule let it in above the limit, and its next request is a start.
    pub(super) fn has_had_its_lease(&self, now: Timestamp) -> bool {
        let is_over = self.counts_until.is_some_and(|until| until <= now);
        self.was_by_rule && asks_again(self.kind) && is_over
    }
}

impl User {
    /// The latest time from which on an earlier confirmation says nothing any more.
    pub(super) fn unsure_since(&self) -> Option<Timestamp> {
        self.forgotten.max(self.displaced)
    }

    /// Whether that stream may be above the limit, and stay only for what is left of a lease: the
    /// store has forgotten it, and the instance whose outage rule had let it in may be the first to
    /// put it back. That instance need not know that the store has let it stay since.
    pub(super) fn may_be_guest(&self, stream: &Stream) -> bool {
        let was_forgotten = self.forgotten >= Some(stream.sent);
        stream.was_by_rule && asks_again(stream.kind) && was_forgotten
    }

    /// Whether the store surely counts that stream.
    pub(super) fn surely_counts(&self, stream: &Stream, now: Timestamp) -> bool {
        stream.watches
            && stream.over.is_none()
            && !stream.is_ended_by_operator
            && !stream.was_displaced_by_rule
            && !self.may_be_guest(stream)
            && stream.confirmed > self.unsure_since()
            && stream.counts_until.is_some_and(|until| now < until)
    }

    /// Whether the store may count that stream.
    pub(super) fn may_count(
        &self,
        stream: &Stream,
        settled: &impl Settled,
        now: Timestamp,
    ) -> bool {
        if stream.under_way > 0 {
            return true;
        }
        if now >= stream.last_sign.after(LONGEST_LEASE).after(UNDER_WAY) {
            return false;
        }
        // What it forgot may be put back by an instance that has not heard of the end.
        let may_return = self.forgotten >= Some(stream.sent);
        // An instance that notices the loss reports what has just started, too, and no undo takes
        // back what was reported: see `docs/dev/testing.md`.
        let was_reported = self
            .forgotten
            .is_some_and(|forgotten| stream.sent <= forgotten.after(LOSS_REPORTED));
        match stream.over {
            None | Some(Over::Untold) => true,
            Some(Over::Refused) => may_return || stream.was_by_rule,
            Some(Over::Told(place, at)) => may_return || !settled.is_settled(place, at),
            Some(Over::TakenBack(place, at)) => {
                // What the rule let in is put back by the instance that let it in, which may come
                // before it takes the start back. Then it counts for its lease.
                may_return
                    || was_reported
                    || stream.was_by_rule
                    || !settled.is_settled(place, at)
                    || settled.acted_late(place, stream.sent.before(UNDER_WAY))
            }
        }
    }

    /// How many of the other streams the store surely counts.
    pub(super) fn surely(&self, but: &SessionKey, now: Timestamp) -> usize {
        let others = self.streams.iter().filter(|(key, _)| *key != but);
        others
            .filter(|(_, other)| self.surely_counts(other, now))
            .count()
    }

    /// How many of the other streams the store may count.
    pub(super) fn perhaps(
        &self,
        but: &SessionKey,
        settled: &impl Settled,
        now: Timestamp,
    ) -> usize {
        let others = self.streams.iter().filter(|(key, _)| *key != but);
        others
            .filter(|(_, other)| self.may_count(other, settled, now))
            .count()
    }

    /// Whether a stream may have been displaced.
    pub(super) fn may_be_displaced(&self, stream: &Stream) -> bool {
        stream.was_displaced_by_rule || self.displaced >= Some(stream.sent)
    }

    /// Whether a stream that the store refuses may be put back by an instance that holds its lease.
    /// The store has no tombstone of it then, and that instance reports what it holds when the
    /// store is back, or may have lost data.
    pub(super) fn may_be_put_back(&self, stream: &Stream, settled: &impl Settled) -> bool {
        // It was displaced, and the start that displaced it was taken back.
        let taken_back = self.taken_back.map(|at| at.after(UNDER_WAY));
        let is_set_free = self.may_be_displaced(stream) && taken_back >= Some(stream.sent);
        let mut untold = stream.untold.iter();
        (stream.was_let_in() && is_set_free)
            || untold.any(|(place, at)| !settled.is_settled(*place, *at))
    }

    /// Leaves out the streams of which no trace can be left.
    pub(super) fn prune(&mut self, now: Timestamp) {
        self.streams.retain(|_, stream| {
            stream.over.is_none() || now < stream.last_sign.after(LONGEST_LEASE.saturating_mul(4))
        });
    }
}

/// How the kind of a stream is shown to its instance.
pub(super) const fn asks_again(kind: Kind) -> bool {
    matches!(kind, Kind::Playback)
}
