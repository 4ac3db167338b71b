//! What instances tell each other, in Redis: a key for each report and each bucket, and a sorted set
//! of the instances. The names have no hash tag, so a cluster spreads them over its masters.

use std::time::Duration;

use async_trait::async_trait;
use redis::Cmd;

use super::RedisStore;
use super::codec::script::Script;
use crate::clock::Timestamp;
use crate::store::StoreError;
use crate::store::notes::{Notes, Register};

/// The most instances in the register: those that entered themselves last.
const MOST_INSTANCES: &str = "1024";

/// Enters an instance, removes those that are gone, and returns the time and the rest.
const REGISTER: &str = "\
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
if ARGV[1] ~= '' then
  redis.call('ZADD', KEYS[1], now, ARGV[1])
  redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - ARGV[3])
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return { string.format('%.0f', now), redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES') }
";

/// Replaces a value that nobody else has changed.
const SWAP: &str = "\
local before = redis.call('GET', KEYS[1]) or ''
if string.sub(before, 1, #ARGV[1]) ~= ARGV[1] or (ARGV[1] == '' and before ~= '') then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
";

/// The scripts about notes. They are small, so they are sent when they are first needed.
#[derive(Debug)]
pub(super) struct NoteScripts {
    /// Enters an instance in the register.
    register: Script,
    /// Replaces a bucket.
    swap: Script,
}

impl Default for NoteScripts {
    fn default() -> Self {
        Self {
            register: Script::new(REGISTER.to_owned()),
            swap: Script::new(SWAP.to_owned()),
        }
    }
}

impl RedisStore {
    /// The value at a key.
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let command = command("GET", |get| _ = get.arg(key));
        let command = &command;
        self.route
            .call(key, async |mut link| link.query(command).await)
            .await
    }
}

#[async_trait]
impl Notes for RedisStore {
    async fn put_report(
        &self,
        instance: &str,
        report: &[u8],
        kept: Duration,
    ) -> Result<(), StoreError> {
        let key = self.keys.note(&format!("instance:{instance}"));
        let command = command("SET", |set| {
            set.arg(&key).arg(report).arg("PX").arg(millis(kept));
        });
        let command = &command;
        self.route
            .call(&key, async |mut link| link.query(command).await)
            .await
    }

    async fn report(&self, instance: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.get(&self.keys.note(&format!("instance:{instance}")))
            .await
    }

    async fn register(
        &self,
        instance: Option<&str>,
        kept: Duration,
    ) -> Result<Register, StoreError> {
        let key = self.keys.note("instances");
        let kept = millis(kept).to_string();
        let arguments = [
            instance.unwrap_or_default().as_bytes(),
            kept.as_bytes(),
            MOST_INSTANCES.as_bytes(),
        ];
        let script = &self.notes.register;
        let act = |link| script.call(link, std::slice::from_ref(&key), &arguments);
        let answer = self.route.call(&key, act).await?;
        let (at, flat): (String, Vec<String>) =
            redis::from_redis_value(answer).map_err(|error| malformed(&error.to_string()))?;
        let time = |text: &str| {
            // A score is a floating-point number, with or without a point.
            let millis: f64 = text.parse().map_err(|_| malformed(text))?;
            let whole = Duration::try_from_secs_f64(millis).map_err(|_| malformed(text))?;
            Ok::<_, StoreError>(Timestamp::from_millis(whole.as_secs()))
        };
        let mut register = Register {
            at: time(&at)?,
            ..Register::default()
        };
        for pair in flat.chunks(2) {
            if let [name, entered_at] = pair {
                register.instances.push((name.clone(), time(entered_at)?));
            }
        }
        Ok(register)
    }

    async fn bucket(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.get(&self.keys.note(name)).await
    }

    async fn swap_bucket(
        &self,
        name: &str,
        before: &[u8],
        after: &[u8],
        kept: Duration,
    ) -> Result<bool, StoreError> {
        let key = self.keys.note(name);
        let kept = millis(kept).to_string();
        let arguments = [before, after, kept.as_bytes()];
        let script = &self.notes.swap;
        let act = |link| script.call(link, std::slice::from_ref(&key), &arguments);
        let answer = self.route.call(&key, act).await?;
        redis::from_redis_value(answer).map_err(|error| malformed(&error.to_string()))
    }
}

/// A plain command.
fn command(name: &str, with: impl FnOnce(&mut Cmd)) -> Cmd {
    let mut command = redis::cmd(name);
    with(&mut command);
    command
}

/// A span in milliseconds.
fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// The error of an answer that is none of ours.
fn malformed(answer: &str) -> StoreError {
    StoreError::Protocol(format!("a note: {answer}"))
}
