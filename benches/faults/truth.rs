//! The truth, kept by the clients: what each user really watches, and what the answers were worth.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use streamgate::clock::Stopwatch;

/// How many streams a user may watch.
pub(crate) const LIMIT: usize = 3;

/// For how long after its end a session may still count without anything being wrong: the end has
/// to arrive.
const SETTLE: Duration = Duration::from_secs(1);

/// For how long ended sessions are remembered.
const REMEMBERED: Duration = Duration::from_secs(60);

/// Answers that took longer than this are looked at.
const SLOW: Duration = Duration::from_millis(20);

/// What the gateway got to a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The request goes through.
    Allowed,
    /// 429: the limit is reached.
    Full,
    /// 503, or no answer at all.
    Failed,
}

/// A session, as its viewer knows it. Times count from when the run began.
struct Watched {
    /// When its start was sent.
    sent: Duration,
    /// When it was let in.
    admitted: Option<Duration>,
    /// When it was over, or never began.
    ended: Option<Duration>,
}

/// The sessions of a user by their ids.
type Sessions = HashMap<String, Watched>;

/// What shouldn't happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// A start was let in although three streams of the user surely ran.
    Above,
    /// A start got 429 although fewer than three of the user's could have counted.
    WronglyRefused,
    /// A viewer within the limit was refused in the middle of a playback, or a response broke.
    CutOff,
    /// A start or a renewal got 503, or no answer in time.
    Failed,
}

/// A check that took long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slow {
    pub(crate) sent: Duration,
    pub(crate) answered: Duration,
    /// What was asked, and what came of it.
    pub(crate) asked: &'static str,
    pub(crate) verdict: Verdict,
}

/// What the clients have seen.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tally {
    /// Starts that were tried.
    pub(crate) starts: usize,
    /// Checks in all.
    pub(crate) checks: usize,
    /// What shouldn't have happened, and when.
    pub(crate) troubles: Vec<(Duration, Trouble)>,
    /// Checks that took long.
    pub(crate) slow: Vec<Slow>,
    /// How long slots have counted for streams that had ended.
    pub(crate) leaked: Duration,
    /// The longest of these times.
    pub(crate) longest_leak: Duration,
    /// The sessions that they were: when each was sent, when it ended, and until when it counted.
    pub(crate) leaks: HashMap<(usize, String), (Duration, Duration, Duration)>,
}

/// All users, and the tally.
pub(crate) struct Truth {
    pub(crate) clock: Stopwatch,
    users: Vec<Mutex<Sessions>>,
    tally: Mutex<Tally>,
    /// Since when each session has counted without being watched.
    leaks: Mutex<HashMap<(usize, String), Duration>>,
}

impl Truth {
    pub(crate) fn about(users: usize, clock: Stopwatch) -> Self {
        Self {
            clock,
            users: (0..users).map(|_| Mutex::default()).collect(),
            tally: Mutex::default(),
            leaks: Mutex::default(),
        }
    }

    pub(crate) fn tally(&self) -> Tally {
        self.tally.lock().unwrap().clone()
    }

    /// A start is about to be sent; when that is.
    pub(crate) fn starts(&self, user: usize, id: &str) -> Duration {
        let sent = self.clock.elapsed();
        let watched = Watched {
            sent,
            admitted: None,
            ended: None,
        };
        let mut sessions = self.users[user].lock().unwrap();
        sessions.retain(|_, it| it.ended.is_none_or(|ended| ended + REMEMBERED > sent));
        sessions.insert(id.to_owned(), watched);
        sent
    }

    /// The start that was sent then has been answered.
    pub(crate) fn started(&self, user: usize, id: &str, sent: Duration, verdict: Verdict) {
        let now = self.clock.elapsed();
        let mut sessions = self.users[user].lock().unwrap();
        let others = sessions.iter().filter(|(other, _)| *other != id);
        let (mut surely, mut perhaps) = (0, 0);
        for (_, other) in others {
            let ran = |admitted| admitted <= sent && other.ended.is_none_or(|ended| ended > now);
            surely += usize::from(other.admitted.is_some_and(ran));
            let is_gone = other.ended.is_some_and(|ended| ended + SETTLE < sent);
            perhaps += usize::from(!is_gone && other.sent <= now);
        }
        let this = sessions.get_mut(id).unwrap();
        match verdict {
            Verdict::Allowed => this.admitted = Some(now),
            Verdict::Full | Verdict::Failed => this.ended = Some(now),
        }
        drop(sessions);
        let mut tally = self.tally.lock().unwrap();
        tally.starts += 1;
        let is_above = verdict == Verdict::Allowed && surely >= LIMIT;
        let is_wrong = verdict == Verdict::Full && perhaps < LIMIT;
        if is_above {
            tally.troubles.push((now, Trouble::Above));
        }
        if is_wrong {
            tally.troubles.push((now, Trouble::WronglyRefused));
        }
        tally.note("start", sent, now, verdict);
    }

    /// A renewal that was sent then has been answered; whether the viewer goes on.
    pub(crate) fn renewed(&self, user: usize, id: &str, sent: Duration, verdict: Verdict) -> bool {
        let now = self.clock.elapsed();
        let mut sessions = self.users[user].lock().unwrap();
        let mut is_cut_off = false;
        if verdict == Verdict::Full {
            let running = sessions.values();
            let running = running.filter(|it| it.admitted.is_some() && it.ended.is_none());
            is_cut_off = running.count() <= LIMIT;
            sessions.get_mut(id).unwrap().ended = Some(now);
        }
        drop(sessions);
        let mut tally = self.tally.lock().unwrap();
        if is_cut_off {
            tally.troubles.push((now, Trouble::CutOff));
        }
        tally.note("renewal", sent, now, verdict);
        verdict != Verdict::Full
    }

    /// A stream has ended.
    pub(crate) fn ended(&self, user: usize, id: &str) {
        let now = self.clock.elapsed();
        if let Some(session) = self.users[user].lock().unwrap().get_mut(id) {
            session.ended = Some(now);
        }
    }

    /// What was started under that id has another.
    pub(crate) fn is_called(&self, user: usize, id: &str, other: &str) {
        let mut sessions = self.users[user].lock().unwrap();
        let session = sessions.remove(id).unwrap();
        sessions.insert(other.to_owned(), session);
    }

    /// All streams of a user have ended.
    pub(crate) fn all_ended(&self, user: usize) {
        let now = self.clock.elapsed();
        for session in self.users[user].lock().unwrap().values_mut() {
            session.ended.get_or_insert(now);
        }
    }

    /// Something broke that was no check: a running response.
    pub(crate) fn broke(&self) {
        let now = self.clock.elapsed();
        let mut tally = self.tally.lock().unwrap();
        tally.troubles.push((now, Trouble::CutOff));
    }

    /// The store was asked at `asked`, and `since` the time before; these sessions counted. Notes
    /// those that nobody watches. How many there are.
    pub(crate) fn listed(
        &self,
        listed: &[(usize, String)],
        since: Duration,
        asked: Duration,
    ) -> usize {
        let mut leaks = self.leaks.lock().unwrap();
        let mut seen = HashMap::new();
        for (user, id) in listed {
            let sessions = self.users[*user].lock().unwrap();
            let began = match sessions.get(id).map(|it| it.ended) {
                Some(None) => continue,
                Some(Some(ended)) if ended + SETTLE > asked => continue,
                Some(Some(ended)) => ended,
                // Envoy names a session that its viewer may not have heard of yet.
                None => asked,
            };
            let key = (*user, id.clone());
            let began = leaks.get(&key).copied().unwrap_or(began);
            seen.insert(key, began);
        }
        let mut tally = self.tally.lock().unwrap();
        for (key, began) in &seen {
            let sessions = self.users[key.0].lock().unwrap();
            let sent = sessions.get(&key.1).map_or(*began, |session| session.sent);
            drop(sessions);
            tally.leaks.insert(key.clone(), (sent, *began, asked));
            tally.leaked += asked.saturating_sub(since.max(*began));
            tally.longest_leak = tally.longest_leak.max(asked.saturating_sub(*began));
        }
        *leaks = seen;
        leaks.len()
    }
}

impl Tally {
    /// Notes a check and what became of it.
    fn note(&mut self, asked: &'static str, sent: Duration, answered: Duration, verdict: Verdict) {
        self.checks += 1;
        if verdict == Verdict::Failed {
            self.troubles.push((answered, Trouble::Failed));
        }
        if answered.saturating_sub(sent) > SLOW {
            self.slow.push(Slow {
                sent,
                answered,
                asked,
                verdict,
            });
        }
    }

    /// How often that has happened since then.
    pub(crate) fn count(&self, wanted: Trouble, since: Duration) -> usize {
        let since = |&&(when, trouble): &&(Duration, Trouble)| when >= since && trouble == wanted;
        self.troubles.iter().filter(since).count()
    }
}
