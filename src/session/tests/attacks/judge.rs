//! What must hold at each step of an attack.

use std::collections::HashMap;

use super::super::histories::{Arrival, Step, keeps_to_the_limit, play};
use super::super::remembered::{Memory, remembered};
use super::*;

/// Follows one attack, and remembers what it needs in order to judge the next step.
#[derive(Debug, Default)]
struct Judge {
    /// All ends, including those that the store had no room for.
    ended: HashMap<SessionKey, Memory>,
    /// When the lease granted to each session ends.
    granted: HashMap<SessionKey, Timestamp>,
    /// For each change of the budget: the time that the store's clock has moved forward so far, and
    /// how much was drawn or refunded.
    drawn: Vec<(Duration, i64)>,
    elapsed: Duration,
    last: Option<Timestamp>,
    burst: u32,
    refill: Option<Duration>,
}

impl Judge {
    fn judge(&mut self, step: &Step) {
        let last = self.last.replace(step.now).unwrap_or(step.now);
        self.elapsed += step.now.since(last);
        if last > step.now {
            // After a step backwards, earlier times can't be compared any more.
            (self.ended, self.granted) = (HashMap::new(), HashMap::new());
        }
        keeps_to_the_limit(step);
        self.displacing_is_budgeted(step);
        self.what_has_ended_stays_so(step);
        nobody_is_removed_by_others(step);
        no_list_pushes_out_anothers(step);
        if last <= step.now {
            self.slots_are_bounded_by_leases(step);
        }
    }

    /// Within any span of time, no more starts displace than a burst plus the refills; starts that
    /// were taken back don't count.
    fn displacing_is_budgeted(&mut self, step: &Step) {
        let refill = self.refill.unwrap_or(step.terms.refill);
        self.refill = Some(refill.min(step.terms.refill));
        self.burst = self.burst.max(step.limit + StartRules::DISPLACEMENTS);
        match (&step.answer, &step.message) {
            _ if step.told() == "started instead of another" => {
                let mut after = step.after.live(step.now);
                let started = after.find(|live| live.key == *step.message.key()).unwrap();
                if started.flags.paid {
                    self.drawn.push((self.elapsed, 1));
                } else {
                    let facts = &started.facts;
                    let own = |gone: &Session| gone.facts.same_origin(facts) == SameOrigin::Yes;
                    assert!(step.answer.displaced().iter().all(own), "{step:?}");
                }
            }
            (_, Message::End(_, Ending::Failed | Ending::Undone(_), _))
                if step.told() == "freed" && step.was_live().unwrap().flags.paid =>
            {
                self.drawn.push((self.elapsed, -1));
            }
            _ => return,
        }
        let refill = self.refill.unwrap().as_millis();
        let mut count = 0;
        for (since, drawn) in self.drawn.iter().rev() {
            count += drawn;
            let refilled = (self.elapsed - *since).as_millis() / refill;
            let most = u128::from(self.burst) + refilled;
            assert!(count <= i64::try_from(most).unwrap(), "{count} {step:?}");
        }
    }

    /// No late message brings back an ended session; if its end is forgotten, it may return only
    /// within the limit.
    fn what_has_ended_stays_so(&mut self, step: &Step) {
        self.ended.retain(|_, end| end.until > step.now);
        let own = step.message.key();
        let is_known = step.before.tombstones(step.now).any(|end| end.key == *own);
        if let Some(end) = self.ended.get(own) {
            let is_late = !matches!(
                &step.message,
                Message::Start(start, rules) if end.lets_begin(start, rules, step)
            );
            let mut after = step.after.live(step.now);
            let comes_back = after.any(|live| live.key == *own);
            let is_within = step.after.live(step.now).count() <= step.limit as usize;
            let is_ghost = own.kind == Kind::Request;
            let may_come = !is_late || (!is_known && (is_within || is_ghost));
            assert!(!comes_back || may_come, "{end:?} {step:?}");
        }
        self.ended = remembered(std::mem::take(&mut self.ended), step);
        for live in step.after.live(step.now) {
            self.ended.remove(&live.key);
        }
    }

    /// No session counts longer than its last sign of life was granted; a provisional one not even
    /// that long.
    fn slots_are_bounded_by_leases(&mut self, step: &Step) {
        let own = step.message.key();
        let provisional = step.was_live().filter(|live| live.flags.provisional);
        if let Some(lease) = step.message.lease() {
            let ends = step.now.after(lease.min(step.terms.longest_lease));
            let granted = self.granted.entry(own.clone()).or_default();
            *granted = ends.max(*granted);
        }
        for live in step.after.live(step.now) {
            if let Some(granted) = self.granted.get(&live.key) {
                assert!(live.expires_at <= *granted, "{step:?}");
            }
            if let Some(before) = provisional
                && live.key == *own
                && live.flags.provisional
            {
                assert_eq!(live.expires_at, before.expires_at, "{step:?}");
            }
        }
    }
}

/// A session ends only by its own end or by displacement; a failure never ends one that has played.
fn nobody_is_removed_by_others(step: &Step) {
    let after: BTreeSet<_> = step.after.live(step.now).map(|live| &live.key).collect();
    let displaced = step.answer.displaced();
    for gone in step.before.live(step.now) {
        if after.contains(&gone.key) {
            continue;
        }
        let gives_way = displaced.iter().any(|session| session.key == gone.key);
        match &step.message {
            Message::Start(..) => {
                assert!(gives_way && gone.key.kind.is_stoppable(), "{step:?}");
            }
            Message::End(key, ending, age) => {
                assert_eq!(key, &gone.key, "{step:?}");
                match ending {
                    Ending::Failed => assert!(!gone.flags.played, "{step:?}"),
                    Ending::Undone(ticket) => assert_eq!(gone.ticket, Some(*ticket), "{step:?}"),
                    _ => assert!(!step.is_younger(gone, *age), "{step:?}"),
                }
            }
            Message::Seen(_) | Message::Played(_) => panic!("{step:?}"),
        }
    }
}

/// A remembered end is forgotten only for another end of the same list, when that list is full.
fn no_list_pushes_out_anothers(step: &Step) {
    let after: BTreeSet<_> = step
        .after
        .tombstones(step.now)
        .map(|end| &end.key)
        .collect();
    let by_it = EndCause::Displaced {
        by: step.message.key().clone(),
    };
    for end in step.before.tombstones(step.now) {
        let begins = end.key == *step.message.key();
        let started = step.was_live().map(|live| live.started_at);
        let is_taken_back = matches!(step.message, Message::End(..))
            && end.cause == by_it
            && Some(end.asked_at) >= started;
        if !after.contains(&end.key) && !begins && !is_taken_back {
            let list = end.list();
            let of_list = step.after.tombstones(step.now);
            let count = of_list.filter(|other| other.list() == list).count();
            assert_eq!(count, list.room(), "{end:?} {step:?}");
        }
    }
}

/// Plays an attack, and holds every step of it to all promises.
pub(super) fn judge(attack: Vec<Arrival>) {
    let mut judge = Judge::default();
    let longest = Terms::new(seconds(60), Duration::from_millis(50));
    let mut over = None;
    for step in play(attack) {
        judge.judge(&step);
        over = Some((step.after, step.now));
    }
    // Nothing is permanent: a spent budget is the last thing to expire.
    let (mut roster, now) = over.unwrap();
    let idle = now.after(longest.refill * 9);
    assert!(roster.forgettable_at(&longest).is_none_or(|at| at <= idle));
    roster.settle(&longest, idle);
    assert_eq!(roster, Roster::default());
}
