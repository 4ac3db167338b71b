//! A [`Witness`] stands between an instance and the store. It splits the store into shards that fail
//! each on its own, delays calls, loses them or their answers, and notes each answer.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use streamgate::clock::Timestamp;
use streamgate::identity::{EndMessage, SessionKey, UserId};
use streamgate::session::{
    Admission, Ending, LimitOverride, Playing, Released, Renewal, Sighting, Start, StartRules,
};
use streamgate::store::{Cursor, Listing, Page, Seen, Shard, Store, StoreError};

use super::notes::{KnownKey, Notes};
use super::shared_store::{Answer, Asked, Asking, Question, SharedStore};

/// How many shards the store has.
pub(super) const SHARDS: usize = 2;

/// The places of all shards.
pub(super) const ALL_SHARDS: [usize; SHARDS] = [0, 1];

/// How calls fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// The connection is refused: nothing is done, and the instance knows.
    Refused,
    /// Nothing is done, and the instance can't know.
    CallLost,
    /// The call takes place, and the instance can't know.
    AnswerLost,
}

/// The store, as one instance has it.
pub(super) struct Witness {
    /// Which instance that is.
    instance: usize,
    /// The store.
    shared: Arc<SharedStore>,
    /// What all instances have heard.
    notes: Arc<Mutex<Notes>>,
    /// How long calls and their answers are under way, taken in turn.
    delays: Mutex<std::iter::Cycle<std::vec::IntoIter<Delay>>>,
    /// Each shard, as this instance has it.
    shards: Mutex<[ShardView; SHARDS]>,
}

/// A shard, as one instance has it.
#[derive(Debug, Clone, Copy, Default)]
struct ShardView {
    /// How often another has been promoted in its place.
    promotions: usize,
    /// How calls to it fail.
    failure: Option<Failure>,
    /// Whether calls to it have ever failed.
    has_failed: bool,
}

/// How long a call is under way to the store, and its answer on the way back.
pub(super) type Delay = (Duration, Duration);

impl Witness {
    /// What that instance has in place of the store.
    pub(super) fn new(
        instance: usize,
        shared: Arc<SharedStore>,
        notes: Arc<Mutex<Notes>>,
        delays: Vec<Delay>,
    ) -> Self {
        Self {
            instance,
            shared,
            notes,
            delays: Mutex::new(delays.into_iter().cycle()),
            shards: Mutex::default(),
        }
    }

    /// How calls to the shards at these places fail from now on.
    pub(super) fn fail(&self, places: &[usize], failure: Failure) {
        self.change(places, |shard| {
            (shard.failure, shard.has_failed) = (Some(failure), true);
        });
    }

    /// The shards at these places answer from now on.
    pub(super) fn heal(&self, places: &[usize]) {
        self.change(places, |shard| shard.failure = None);
    }

    /// Others that answer are promoted in the place of these shards.
    pub(super) fn promote(&self, places: &[usize]) {
        self.change(places, |shard| {
            (shard.failure, shard.promotions) = (None, shard.promotions + 1);
        });
    }

    /// Whether calls about that user have never failed.
    pub(super) fn is_well(&self, user: &UserId) -> bool {
        !self.views()[place_of(user)].has_failed
    }

    /// Changes the shards at these places.
    fn change(&self, places: &[usize], change: impl Fn(&mut ShardView)) {
        let mut shards = self.views();
        places.iter().for_each(|place| change(&mut shards[*place]));
    }

    /// Each shard, as this instance has it.
    fn views(&self) -> MutexGuard<'_, [ShardView; SHARDS]> {
        self.shards.lock().unwrap()
    }

    /// What all instances have heard.
    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap()
    }

    /// What it knows of a session that a question is about.
    fn known(&self, (user, question): &Asked) -> Option<KnownKey> {
        Some((self.instance, user.clone(), question.key()?.clone()))
    }

    /// Puts questions to the store, as far as they and their answers get through.
    async fn ask(&self, asked: Asking) -> Vec<Result<Answer, StoreError>> {
        let (about, asked_at) = (asked.each().to_vec(), self.shared.now());
        let endings: Vec<usize> = about.iter().map(|asked| self.begin(asked)).collect();
        let mut places = about.iter().map(|(user, _)| place_of(user));
        let place = places.next().unwrap();
        if places.any(|other| other != place) {
            self.notes()
                .wrong(format!("one call to two shards: {about:?}"));
        }
        let failure = self.views()[place].failure;
        let delay = self.delays.lock().unwrap().next();
        let (there, back) = delay.unwrap_or_default();
        pass(there).await;
        if let Some(failure @ (Failure::Refused | Failure::CallLost)) = failure {
            return self.fails(&about, asked_at, failure);
        }
        let decided_at = self.shared.now();
        let (answers, expected) = self.shared.ask(asked).await;
        for ((asked, answer), expected) in about.iter().zip(&answers).zip(&expected) {
            self.compare(asked, answer, expected);
        }
        pass(back).await;
        if let Some(failure) = failure {
            return self.fails(&about, asked_at, failure);
        }
        let mut notes = self.notes();
        for ((asked, endings), answer) in about.iter().zip(endings).zip(&answers) {
            if let (Some(known), Ok(answer)) = (self.known(asked), answer) {
                notes.hear(&known, endings, &asked.1, answer, (asked_at, decided_at));
            }
        }
        answers
    }

    /// The instance hears no answer to these questions, which it asked at that time.
    fn fails(
        &self,
        about: &[Asked],
        asked_at: Timestamp,
        failure: Failure,
    ) -> Vec<Result<Answer, StoreError>> {
        for asked in about {
            let (now, (user, question)) = (self.shared.now(), asked);
            let told = format!(
                "  store: {} of {user}: {question:?}: {failure:?}",
                self.instance
            );
            self.notes().log(now, &told);
            if let (Some(known), Question::Release(_, ending, age)) = (self.known(asked), &asked.1)
            {
                let said_at = asked_at.before(*age);
                self.notes().owe(known, *ending, said_at);
            }
        }
        vec![Err(failure.error()); about.len()]
    }

    /// A question is on its way: how many endings of its session the instance has seen so far.
    fn begin(&self, asked: &Asked) -> usize {
        let Some((instance, user, key)) = self.known(asked) else {
            return 0;
        };
        let mut notes = self.notes();
        if let Question::Release(_, ending, _) = &asked.1
            && *ending != Ending::Failed
        {
            notes.ending(instance, &user, &key);
        }
        notes.belief(instance, &user, &key).endings
    }

    /// Compares what the store has answered with what the model has.
    fn compare(&self, asked: &Asked, answer: &Result<Answer, StoreError>, expected: &Answer) {
        let (user, question) = asked;
        let (now, mut notes) = (self.shared.now(), self.notes());
        let instance = self.instance;
        let told = format!("  store: {instance} of {user}: {question:?}: {answer:?}");
        notes.log(now, &told);
        if answer.as_ref() != Ok(expected) {
            let got = format!("the store answered {answer:?} to {question:?} of {user}");
            notes.wrong(format!("{got}, the model {expected:?}"));
        }
    }

    /// Puts one question to the store.
    async fn ask_one(&self, user: &UserId, question: Question) -> Result<Answer, StoreError> {
        let mut answers = self.ask(Asking::One([(user.clone(), question)])).await;
        answers.remove(0)
    }
}

impl ShardView {
    /// The shard at that place.
    fn shard(&self, place: usize) -> Shard {
        Shard::master(&format!("{place}.{}", self.promotions))
    }
}

/// The place of the shard that has a user.
fn place_of(user: &UserId) -> usize {
    user.as_str().bytes().map(usize::from).sum::<usize>() % SHARDS
}

impl Failure {
    /// What the instance hears.
    fn error(self) -> StoreError {
        match self {
            Self::Refused => StoreError::Rejected("it is loading".to_owned()),
            Self::CallLost | Self::AnswerLost => StoreError::Timeout(Duration::from_millis(50)),
        }
    }
}

/// Lets that much time pass, if it is any.
async fn pass(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

/// An answer to another question than was asked.
fn mixed_up(answer: &Answer) -> ! {
    panic!("{answer:?} answers another question")
}

impl fmt::Debug for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the store of instance {}", self.instance)
    }
}

#[async_trait]
impl Store for Witness {
    async fn admit(
        &self,
        user: &UserId,
        start: &Start,
        rules: &StartRules,
    ) -> Result<Admission, StoreError> {
        let question = Question::Admit(start.clone(), rules.clone());
        match self.ask_one(user, question).await? {
            Answer::Admission(admission) => Ok(admission),
            other => mixed_up(&other),
        }
    }

    async fn renew(
        &self,
        user: &UserId,
        sighting: &Sighting,
        limit: u32,
    ) -> Result<Renewal, StoreError> {
        let question = Question::Renew(sighting.clone(), limit);
        match self.ask_one(user, question).await? {
            Answer::Renewal(renewal) => Ok(renewal),
            other => mixed_up(&other),
        }
    }

    /// No trial sets a limit.
    async fn override_limit(
        &self,
        user: &UserId,
        _: Option<LimitOverride>,
    ) -> Result<Option<LimitOverride>, StoreError> {
        panic!("{user} gets a limit")
    }

    async fn renew_all(&self, seen: &[Seen]) -> Vec<Result<Renewal, StoreError>> {
        let asked = seen.iter().map(|seen| {
            let question = Question::Renew(seen.sighting.clone(), seen.limit);
            (seen.user.clone(), question)
        });
        let answers = self.ask(Asking::Batch(asked.collect())).await.into_iter();
        answers
            .map(|answer| match answer? {
                Answer::Renewal(renewal) => Ok(renewal),
                other => mixed_up(&other),
            })
            .collect()
    }

    async fn played(&self, user: &UserId, key: &SessionKey) -> Result<Option<Playing>, StoreError> {
        match self.ask_one(user, Question::Played(key.clone())).await? {
            Answer::Played(playing) => Ok(playing),
            other => mixed_up(&other),
        }
    }

    /// No trial says anything to a viewer.
    async fn release_telling(
        &self,
        user: &UserId,
        key: &SessionKey,
        (ending, _): (Ending, Option<&EndMessage>),
        age: Duration,
    ) -> Result<(Released, Option<Timestamp>), StoreError> {
        let question = Question::Release(key.clone(), ending, age);
        match self.ask_one(user, question).await? {
            Answer::Released(released) => Ok((released, None)),
            other => mixed_up(&other),
        }
    }

    async fn list(&self, user: &UserId) -> Result<Listing, StoreError> {
        match self.ask_one(user, Question::List).await? {
            Answer::Listing(listing) => Ok(listing),
            other => mixed_up(&other),
        }
    }

    /// The ledger hands pages through and learns nothing from them.
    async fn page(&self, _: &Cursor, _: usize) -> Result<Page, StoreError> {
        Err(StoreError::Protocol("the model has no pages".to_owned()))
    }

    fn shard_of(&self, user: &UserId) -> Shard {
        let place = place_of(user);
        self.views()[place].shard(place)
    }

    fn shards(&self) -> Vec<Shard> {
        let shards = self.views();
        let shards = shards.iter().enumerate();
        shards.map(|(place, shard)| shard.shard(place)).collect()
    }

    async fn ping(&self, shard: &Shard) -> Result<(), StoreError> {
        let shards = *self.views();
        let mut all = shards.iter().enumerate();
        match all.find(|(place, view)| view.shard(*place) == *shard) {
            None => Err(StoreError::NotAsked("it owns nothing".to_owned())),
            Some((_, view)) => view.failure.map_or(Ok(()), |failure| Err(failure.error())),
        }
    }
}
