//! What all instances have heard of the store, and may believe after each answer.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;

use streamgate::clock::Timestamp;
use streamgate::identity::{SessionKey, UserId};
use streamgate::session::{Admission, Ending, Refusal, Released, Renewal, Ticket};

use super::shared_store::{Answer, Question};

/// How often each answer was given.
pub(super) type Tally = BTreeMap<&'static str, usize>;

/// A session, as one instance knows it.
pub(super) type KnownKey = (usize, UserId, SessionKey);

/// What an instance may believe of a session.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Belief {
    /// Until when it may let the session go on without a question. None from the moment that it
    /// begins to end the session.
    sure_until: Option<Timestamp>,
    /// Until when it may let the session go on while the store is out. None once the session has
    /// ended.
    kept_until: Option<Timestamp>,
    /// How often the instance has begun or completed an end of the session. An answer to a question
    /// that is older than the last of them grants nothing.
    pub(super) endings: usize,
    /// Whether the session has ended, as far as the instance knows.
    has_ended: bool,
}

/// An end that was reported to an instance.
#[derive(Debug, Clone, PartialEq)]
struct ReportedEnd {
    /// Whose, and the end of what.
    known: KnownKey,
    /// How it ended.
    ending: Ending,
    /// When that was reported.
    said_at: Timestamp,
}

/// What all instances have heard, and what was wrong.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// What each instance may believe.
    beliefs: HashMap<KnownKey, Belief>,
    /// What each instance was answered, in order.
    answers: Vec<(KnownKey, Answer)>,
    /// The ends that the instances have yet to tell.
    owed: Vec<ReportedEnd>,
    /// Those that the store has heard of.
    told: Vec<ReportedEnd>,
    /// Who had to give way.
    displaced: HashSet<(UserId, SessionKey)>,
    /// The violations.
    wrong: Vec<String>,
    /// The events, for people.
    log: Vec<String>,
    /// How often each answer was given: it shows what the histories reach.
    pub(super) tally: Tally,
}

impl Notes {
    /// Records a violation.
    pub(super) fn wrong(&mut self, what: String) {
        self.log.push(format!("WRONG: {what}"));
        self.wrong.push(what);
    }

    /// Records an event.
    pub(super) fn log(&mut self, now: Timestamp, what: &str) {
        let (seconds, millis) = (now.as_millis() / 1000 % 1000, now.as_millis() % 1000);
        self.log.push(format!("{seconds:03}.{millis:03} {what}"));
    }

    /// Counts an answer.
    pub(super) fn count(&mut self, what: &'static str) {
        *self.tally.entry(what).or_default() += 1;
    }

    /// The first violation, and everything that led to it.
    pub(super) fn verdict(&self) -> Result<(), String> {
        match self.wrong.first() {
            None => Ok(()),
            Some(wrong) => Err(format!("{wrong}\n{}", self.log.join("\n"))),
        }
    }

    /// How much has been answered so far.
    pub(super) fn answered(&self) -> usize {
        self.answers.len()
    }

    /// What an instance has been answered about a session since then.
    pub(super) fn answers_since(
        &self,
        since: usize,
        instance: usize,
        user: &UserId,
        key: &SessionKey,
    ) -> impl Iterator<Item = &Answer> {
        let known = (instance, user.clone(), key.clone());
        let answers = self.answers.iter().skip(since);
        answers.filter_map(move |(about, answer)| (*about == known).then_some(answer))
    }

    /// What an instance has been answered about a user since then.
    pub(super) fn about_since(
        &self,
        since: usize,
        instance: usize,
        user: &UserId,
    ) -> impl Iterator<Item = Answer> {
        let answers = self.answers.iter().skip(since);
        let about = move |about: &KnownKey| about.0 == instance && about.1 == *user;
        answers
            .filter(move |(key, _)| about(key))
            .map(|(_, answer)| answer.clone())
    }

    /// Whether that session has ever had to give way.
    pub(super) fn was_displaced(&self, user: &UserId, key: &SessionKey) -> bool {
        self.displaced.contains(&(user.clone(), key.clone()))
    }

    /// What an instance knows of a session.
    fn known_belief(&self, instance: usize, user: &UserId, key: &SessionKey) -> Option<&Belief> {
        self.beliefs.get(&(instance, user.clone(), key.clone()))
    }

    /// Until when an instance may let a session go on without a question.
    pub(super) fn sure_until(
        &self,
        instance: usize,
        user: &UserId,
        key: &SessionKey,
    ) -> Option<Timestamp> {
        self.known_belief(instance, user, key)?.sure_until
    }

    /// Until when an instance may let a session go on while the store is out.
    pub(super) fn kept_until(
        &self,
        instance: usize,
        user: &UserId,
        key: &SessionKey,
    ) -> Option<Timestamp> {
        self.known_belief(instance, user, key)?.kept_until
    }

    /// The sessions that have ended, each as far as that instance knows.
    pub(super) fn ended_sessions(&self) -> impl Iterator<Item = &KnownKey> {
        let beliefs = self.beliefs.iter();
        beliefs.filter_map(|(known, belief)| belief.has_ended.then_some(known))
    }

    /// The ends that were reported in that time, and that an instance has told in vain ever since.
    pub(super) fn owed_ends(&self, reported: Range<Timestamp>) -> Vec<String> {
        let owed = self.owed.iter();
        let owed = owed.filter(|owed| reported.contains(&owed.said_at));
        owed.map(|owed| format!("{owed:?}")).collect()
    }

    /// An instance could not tell the store of an end that was reported at that time. Another call
    /// may have told it meanwhile.
    pub(super) fn owe(&mut self, known: KnownKey, ending: Ending, said_at: Timestamp) {
        let end = ReportedEnd {
            known,
            ending,
            said_at,
        };
        if !self.told.iter().any(|told| told.covers(&end)) {
            note_last(&mut self.owed, end);
        }
    }

    /// The start with that ticket is not to be taken back.
    pub(super) fn stands(&mut self, known: &KnownKey, ticket: Ticket) {
        let undo = Ending::Undone(ticket);
        self.owed
            .retain(|owed| (&owed.known, owed.ending) != (known, undo));
    }

    /// What an instance may believe of a session.
    pub(super) fn belief(
        &mut self,
        instance: usize,
        user: &UserId,
        key: &SessionKey,
    ) -> &mut Belief {
        let known = (instance, user.clone(), key.clone());
        self.beliefs.entry(known).or_default()
    }

    /// An instance begins to end a session.
    pub(super) fn ending(&mut self, instance: usize, user: &UserId, key: &SessionKey) {
        let belief = self.belief(instance, user, key);
        (belief.sure_until, belief.endings) = (None, belief.endings + 1);
    }

    /// An instance has ended a session, or heard that it has ended.
    pub(super) fn ended(&mut self, instance: usize, user: &UserId, key: &SessionKey) {
        let belief = self.belief(instance, user, key);
        *belief = Belief {
            endings: belief.endings + 1,
            has_ended: true,
            ..Belief::default()
        };
        let known = (instance, user.clone(), key.clone());
        self.owed.retain(|owed| owed.known != known);
    }

    /// An instance hears, by an answer to a question that is `endings` old, that a session counts.
    fn grant(&mut self, (known, endings): (&KnownKey, usize), until: Timestamp) {
        let (instance, user, key) = known;
        let belief = self.belief(*instance, user, key);
        if belief.endings == endings {
            belief.sure_until = belief.sure_until.max(Some(until));
            belief.kept_until = belief.kept_until.max(Some(until));
            belief.has_ended = false;
        }
    }

    /// An instance hears an answer to a question of `asked_at`, which was given at `decided_at`.
    pub(super) fn hear(
        &mut self,
        known: &KnownKey,
        endings: usize,
        question: &Question,
        answer: &Answer,
        (asked_at, decided_at): (Timestamp, Timestamp),
    ) {
        let (instance, user, key) = known;
        self.answers.push((known.clone(), answer.clone()));
        if let Question::Release(_, ending, age) = question {
            let told = ReportedEnd {
                known: known.clone(),
                ending: *ending,
                said_at: asked_at.before(*age),
            };
            self.owed.retain(|owed| !told.covers(owed));
            note_last(&mut self.told, told);
        }
        match (question, answer) {
            (_, Answer::Admission(Admission::Admitted(admitted))) => {
                for displaced in &admitted.displaced {
                    self.ended(*instance, user, &displaced.key);
                    self.displaced.insert((user.clone(), displaced.key.clone()));
                }
                self.grant((known, endings), admitted.session.expires_at);
            }
            (
                _,
                Answer::Renewal(
                    Renewal::Renewed { expires_at }
                    | Renewal::PutBack { expires_at }
                    | Renewal::Provisional { expires_at },
                ),
            ) => self.grant((known, endings), *expires_at),
            (_, Answer::Played(Some(playing))) => {
                self.grant((known, endings), decided_at.after(playing.left));
            }
            (Question::Release(_, Ending::Undone(_), _), Answer::Released(Released::Freed)) => {
                self.ending(*instance, user, key);
            }
            // Nothing of that start was left to take back: what counts now is another one.
            (Question::Release(_, Ending::Undone(_), _), _) => {}
            (
                _,
                Answer::Admission(Admission::Refused(Refusal::Ended(..)))
                | Answer::Renewal(Renewal::Ended(_))
                | Answer::Released(Released::Freed | Released::AlreadyEnded(_)),
            ) => {
                self.ended(*instance, user, key);
            }
            (Question::Release(_, ending, _), Answer::Released(Released::NotLive))
                if *ending != Ending::Failed =>
            {
                self.ended(*instance, user, key);
            }
            _ => {}
        }
    }
}

impl ReportedEnd {
    /// Whether they are the same end of the same session, whenever they were reported.
    fn is_like(&self, other: &Self) -> bool {
        (&self.known, self.ending) == (&other.known, other.ending)
    }

    /// Whether a store that knows this one need not be told the other.
    fn covers(&self, other: &Self) -> bool {
        self.is_like(other) && self.said_at >= other.said_at
    }
}

/// Adds an end. If it was reported several times, the last report counts.
fn note_last(ends: &mut Vec<ReportedEnd>, end: ReportedEnd) {
    match ends.iter_mut().find(|known| known.is_like(&end)) {
        Some(known) => known.said_at = known.said_at.max(end.said_at),
        None => ends.push(end),
    }
}
