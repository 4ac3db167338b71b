//! HLS: many short requests belong to one playback, identified by its id.

use reqwest::RequestBuilder;
use serde_json::json;

use super::step::{same, says_full, step};
use super::walk::Walk;
use crate::failure::Failure;
use crate::wire::Protocol::Http1;
use crate::wire::{is_video, patiently};

const MASTER: &str = "/vod/demo/index.m3u8";
const REQUESTS: usize = 20;

pub(super) async fn walk(walk: &Walk) -> Result<(), Failure> {
    step(
        "twenty requests of carol's first playback are served",
        one_playback(walk),
    )
    .await?;
    let holders = step(
        "they hold one slot: two more playbacks play, named by CMCD and in the query",
        async {
            let first = walk.let_in(by_header(walk, "tv-1", MASTER)).await?;
            let second = walk
                .let_in(bare(walk, &format!("{MASTER}?CMCD=sid%3D%22tv-2%22")))
                .await?;
            let third = walk
                .let_in(bare(walk, &format!("{MASTER}?session=tv-3")))
                .await?;
            Ok([first.session, second.session, third.session])
        },
    )
    .await?;
    step("a 4th playback is refused on its first request", async {
        let refusal = walk.refused(by_header(walk, "tv-4", MASTER)).await?;
        says_full(&refusal, holders.each_ref().map(String::as_str))
    })
    .await?;
    step("a request that names no playback is 400", async {
        let refusal = walk.refused(bare(walk, MASTER)).await?;
        same(
            "status and reason",
            (400, "no_session"),
            (refusal.status.as_u16(), refusal.reason()),
        )
    })
    .await?;
    step(
        "the release hook ends the first playback, and the 4th gets in",
        async {
            release(walk, "tv-1").await?;
            walk.let_in(by_header(walk, "tv-4", MASTER)).await
        },
    )
    .await?;
    step(
        "the first playback's late request does not bring it back",
        async {
            let late = || by_header(walk, "tv-1", MASTER);
            let refusal = walk.refused_soon(walk.heeds_ends_within, late).await?;
            same("status", 429, refusal.status.as_u16())?;
            same(
                "it is refused because it has ended",
                false,
                refusal.reason() == "full",
            )?;
            same("retry-after", "", refusal.header("retry-after"))
        },
    )
    .await
}

/// Makes the requests of a player: the master playlist, the variants, then segment after segment.
async fn one_playback(walk: &Walk) -> Result<(), Failure> {
    let mut paths = vec![MASTER.to_owned()];
    for number in 0..REQUESTS {
        let Some(path) = paths.get(number).cloned() else {
            return Err(Failure::new(format!(
                "expected the playlists to name {REQUESTS} files, got {paths:?}"
            )));
        };
        let (content_type, body) = walk
            .let_in(by_header(walk, "tv-1", &path))
            .await?
            .whole()
            .await?;
        match content_type.as_str() {
            "application/vnd.apple.mpegurl" => {
                paths.extend(named_in(&path, &String::from_utf8_lossy(&body)));
            }
            "video/mp2t" => is_video(&body)?,
            other => {
                return Err(Failure::new(format!(
                    "{path}: expected a playlist or a segment, got {other}"
                )));
            }
        }
    }
    Ok(())
}

fn named_in(playlist: &str, text: &str) -> Vec<String> {
    let folder = playlist.rsplit_once('/').map_or("", |(folder, _)| folder);
    text.lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|name| format!("{folder}/{name}"))
        .collect()
}

async fn release(walk: &Walk, session: &str) -> Result<(), Failure> {
    let hook = walk
        .back_end
        .post(format!("{}/v1/release", walk.api))
        .json(&json!({"user": "carol", "session": session}));
    let answer = patiently("reach the release hook", hook.send()).await?;
    same(
        "the release hook's answer is a success",
        true,
        answer.status().is_success(),
    )
}

fn bare(walk: &Walk, path: &str) -> RequestBuilder {
    walk.gateway.get(Http1, "carol", path)
}

fn by_header(walk: &Walk, playback: &str, path: &str) -> RequestBuilder {
    bare(walk, path).header("x-playback-session-id", playback)
}
