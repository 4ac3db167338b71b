//! Viewers who watch while something is broken, and must not notice: the first request that isn't
//! served ends the check.

use std::time::Duration;

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::sessions;
use crate::check::step::same;
use crate::check::walk::Walk;
use crate::failure::{Doing, Failure};
use crate::wire::Protocol::{Http1, Http2};

const SEGMENT: &str = "/vod/demo/180p/000.ts";
/// Far more often than a player makes requests.
const BETWEEN_SEGMENTS: Duration = Duration::from_millis(20);
/// Faster than anybody changes channels. An end may arrive late while a streamgate is down, and a
/// user has three slots.
const BETWEEN_CHANNELS: Duration = Duration::from_millis(200);
const BETWEEN_QUESTIONS: Duration = Duration::from_millis(50);

/// How many requests got the expected answer meanwhile.
#[derive(Debug, Default)]
pub(super) struct Served {
    pub(super) segments: u32,
    pub(super) channels: u32,
    pub(super) refusals: u32,
    pub(super) questions: u32,
}

/// Runs an operation while carol plays a film, dave changes channels, alice has no slot for another
/// stream, and a back end asks for alice's streams.
pub(super) async fn beside_all(
    walk: &Walk,
    doing: impl Future<Output = Result<(), Failure>>,
) -> Result<Served, Failure> {
    let done = &CancellationToken::new();
    let (segments, channels, refusals, questions, ()) = tokio::try_join!(
        again(done, BETWEEN_SEGMENTS, async || segment(walk).await),
        again(done, BETWEEN_CHANNELS, async || channel(walk).await),
        again(done, BETWEEN_SEGMENTS, async || refusal(walk).await),
        again(done, BETWEEN_QUESTIONS, async || question(walk).await),
        until_done(done, doing),
    )?;
    Ok(Served {
        segments,
        channels,
        refusals,
        questions,
    })
}

/// Runs an operation while carol plays a film; returns how many segments she got.
pub(super) async fn beside_carol(
    walk: &Walk,
    doing: impl Future<Output = Result<(), Failure>>,
) -> Result<u32, Failure> {
    let done = &CancellationToken::new();
    let (segments, ()) = tokio::try_join!(
        again(done, BETWEEN_SEGMENTS, async || segment(walk).await),
        until_done(done, doing),
    )?;
    Ok(segments)
}

async fn until_done(
    done: &CancellationToken,
    doing: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    doing.await?;
    done.cancel();
    Ok(())
}

async fn again(
    done: &CancellationToken,
    pause: Duration,
    request: impl AsyncFn() -> Result<(), Failure>,
) -> Result<u32, Failure> {
    let mut served = 0;
    while !done.is_cancelled() {
        Box::pin(request())
            .await
            .doing(|| format!("be served for the {}th time", served + 1))?;
        served += 1;
        tokio::time::sleep(pause).await;
    }
    Ok(served)
}

async fn segment(walk: &Walk) -> Result<(), Failure> {
    let segment = walk.gateway.get(Http2, "carol", SEGMENT);
    let segment = segment.header("x-playback-session-id", "tv-2");
    walk.let_in(segment).await?.whole().await.map(|_| ())
}

async fn channel(walk: &Walk) -> Result<(), Failure> {
    let channel = walk.gateway.get(Http1, "dave", "/live/1");
    walk.let_in(channel).await?.plays().await
}

async fn refusal(walk: &Walk) -> Result<(), Failure> {
    let fourth = walk.gateway.get(Http1, "alice", "/live/9");
    let refusal = walk.refused(fourth).await?;
    let told = (refusal.status.as_u16(), refusal.reason());
    same("status and reason", (429, "full"), told)
}

/// A streamgate may also answer that Redis was slow, as it may be on a busy machine.
async fn question(walk: &Walk) -> Result<(), Failure> {
    let (status, told) = sessions(walk, "alice").await?;
    let outage = told.get("reason").and_then(Value::as_str) == Some("outage");
    if status.is_success() || outage {
        Ok(())
    } else {
        Err(Failure::new(format!(
            "the API answers {status} to a question, with {told}"
        )))
    }
}
