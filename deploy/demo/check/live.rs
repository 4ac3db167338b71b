//! Live streams: one endless response is one stream, however it ends.

use super::step::{says_full, step};
use super::walk::Walk;
use crate::failure::Failure;
use crate::wire::Protocol::{self, Http1, Http2};
use crate::wire::{Connection, Playing};

pub(super) async fn walk(walk: &Walk) -> Result<(), Failure> {
    let streams = step("three live streams of alice play", three_streams(walk)).await?;
    let names = streams.sessions();
    step(
        "a 4th stream of alice is refused with 429, which names the three",
        async {
            let refusal = walk.refused(channel(walk, Http1, "alice", 4)).await?;
            says_full(&refusal, names.each_ref().map(String::as_str))
        },
    )
    .await?;
    let bobs = step(
        "a stream of bob plays beside them",
        play(walk, Http1, "bob", 1),
    )
    .await?;

    let Three {
        first,
        second,
        third,
    } = streams;
    let mut fourth = step(
        "one stream of alice is reset (HTTP/2), and the 4th gets in",
        async {
            drop(second);
            walk.let_in_soon(|| channel(walk, Http1, "alice", 4)).await
        },
    )
    .await?;
    step("the 4th plays", fourth.plays()).await?;
    let fifth = step(
        "the connection of another is cut (HTTP/1.1), and a 5th gets in",
        async {
            first.cut()?;
            walk.let_in_soon(|| channel(walk, Http2, "alice", 5)).await
        },
    )
    .await?;
    step("three play again, so a 6th is refused", async {
        let refusal = walk.refused(channel(walk, Http2, "alice", 6)).await?;
        says_full(&refusal, [&third.session, &fourth.session, &fifth.session])
    })
    .await?;
    ends_by_itself(walk, bobs).await
}

async fn ends_by_itself(walk: &Walk, _first: Playing) -> Result<(), Failure> {
    let _second = play(walk, Http1, "bob", 2).await?;
    let film = walk.gateway.get(Http1, "bob", "/live/film?seconds=1");
    let film = walk.let_in(film).await?;
    let third = || channel(walk, Http1, "bob", 3);
    step(
        "beside two streams and a film of bob nothing more plays",
        walk.refused(third()),
    )
    .await?;
    step("the film plays to its end", film.whole()).await?;
    step(
        "its slot is free, and another stream gets in",
        walk.let_in_soon(third),
    )
    .await?;
    Ok(())
}

struct Three {
    first: Connection,
    second: Playing,
    third: Playing,
}

impl Three {
    fn sessions(&self) -> [String; 3] {
        [
            &self.first.session,
            &self.second.session,
            &self.third.session,
        ]
        .map(Clone::clone)
    }
}

/// One on a connection of its own, two sharing one HTTP/2 connection.
async fn three_streams(walk: &Walk) -> Result<Three, Failure> {
    let first = walk.gateway.connection("alice", "/live/1").await?;
    let second = play(walk, Http2, "alice", 2).await?;
    let third = play(walk, Http2, "alice", 3).await?;
    Ok(Three {
        first,
        second,
        third,
    })
}

async fn play(walk: &Walk, protocol: Protocol, user: &str, number: u8) -> Result<Playing, Failure> {
    let mut playing = walk.let_in(channel(walk, protocol, user, number)).await?;
    playing.plays().await?;
    Ok(playing)
}

fn channel(walk: &Walk, protocol: Protocol, user: &str, number: u8) -> reqwest::RequestBuilder {
    walk.gateway.get(protocol, user, &format!("/live/{number}"))
}
