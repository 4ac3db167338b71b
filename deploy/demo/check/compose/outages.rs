//! A streamgate is killed, and nobody notices. Redis is restarted and has lost all data, and
//! behaves as docs/redis-trouble.md says.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use super::bystanders::{beside_all, beside_carol};
use super::project::{Project, soon};
use super::sessions;
use crate::check::step::{same, step};
use crate::check::walk::Walk;
use crate::failure::Failure;
use crate::wire::Playing;
use crate::wire::Protocol::Http2;

const VICTIM: &str = "streamgate-2";
/// Longer than anything that notices a loss takes: health checks, name resolution, renewals of
/// leases.
const AFTERWARDS: Duration = Duration::from_secs(6);

pub(super) async fn streamgate_is_killed(walk: &Walk, project: &Project) -> Result<(), Failure> {
    let mut streams = Vec::new();
    step("three live streams of alice play again", async {
        for number in 1..=3 {
            streams.push(starts(walk, number).await?);
        }
        Ok(())
    })
    .await?;
    let served = step(
        "one of two streamgates is killed, and nobody notices",
        async {
            let killed = async {
                project.kill(VICTIM).await?;
                tokio::time::sleep(AFTERWARDS).await;
                refuses(walk, &streams).await
            };
            Box::pin(beside_all(walk, killed)).await
        },
    )
    .await?;
    println!(
        "      served meanwhile: {} segments of carol, {} channels of dave, {} refusals of alice, {} questions to the API",
        served.segments, served.channels, served.refusals, served.questions
    );
    step(
        "alice's streams play on, one ends, and its slot is free",
        async {
            for stream in &mut streams {
                stream.plays().await?;
            }
            drop(streams.pop());
            let mut next = walk.let_in_soon(|| channel(walk, 4)).await?;
            next.plays().await?;
            streams.push(next);
            Ok(())
        },
    )
    .await?;
    step(
        "the streamgate comes back, and nobody notices that either",
        async {
            let back = async {
                project.start(VICTIM).await?;
                tokio::time::sleep(AFTERWARDS).await;
                Ok(())
            };
            beside_all(walk, back).await
        },
    )
    .await
    .map(|_| ())
}

pub(super) async fn redis_is_restarted(walk: &Walk, project: &Project) -> Result<(), Failure> {
    let mut streams = Vec::new();
    step("three live streams of alice play", async {
        for number in 1..=3 {
            let mut stream = walk.let_in_soon(|| channel(walk, number)).await?;
            stream.plays().await?;
            streams.push(stream);
        }
        refuses(walk, &streams).await
    })
    .await?;
    step(
        "Redis is stopped: who watches goes on, and a 4th stream of alice is let in (store.outage: allow)",
        async {
            let outage = async {
                project.stop("redis").await?;
                streams.push(starts(walk, 4).await?);
                Ok(())
            };
            beside_carol(walk, outage).await
        },
    )
    .await?;
    step(
        "Redis is back and knows nothing: it is told of all four by itself, and a 5th is refused",
        async {
            let back = async {
                project.start("redis").await?;
                soon("alice has four streams", async || {
                    let (_, sessions) = sessions(walk, "alice").await?;
                    Ok(sessions.get("active").and_then(Value::as_u64) == Some(4))
                })
                .await?;
                refuses(walk, &streams).await
            };
            beside_carol(walk, back).await
        },
    )
    .await?;
    step("two of the four end, and one more gets in", async {
        for stream in &mut streams {
            stream.plays().await?;
        }
        streams.truncate(2);
        walk.let_in_soon(|| channel(walk, 5)).await?.plays().await
    })
    .await
}

fn channel(walk: &Walk, number: u8) -> reqwest::RequestBuilder {
    walk.gateway.get(Http2, "alice", &format!("/live/{number}"))
}

async fn starts(walk: &Walk, number: u8) -> Result<Playing, Failure> {
    let mut stream = walk.let_in(channel(walk, number)).await?;
    stream.plays().await?;
    Ok(stream)
}

/// Checks that another stream is refused, and that the refusal names these as the holders.
async fn refuses(walk: &Walk, streams: &[Playing]) -> Result<(), Failure> {
    let refusal = walk.refused(channel(walk, 9)).await?;
    let told = (refusal.status.as_u16(), refusal.reason());
    same("status and reason", (429, "full"), told)?;
    let holders: BTreeSet<&str> = streams.iter().map(|it| it.session.as_str()).collect();
    same("sessions named", holders, refusal.holders())
}
