//! The requests at the gateway and their outcomes, by its access log: a line for each request that
//! has ended.

use serde::Deserialize;
use serde_json::{Value, json};

/// What Envoy is to write of each request.
pub(super) fn format() -> Value {
    json!({
        "user": "%REQ(X-USER-ID)%",
        "path": "%REQ(:PATH)%",
        "status": "%RESPONSE_CODE%",
        "session": "%RESP(X-STREAMGATE-SESSION)%",
        "served_by": "%UPSTREAM_HOST%",
        "from": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
        "agent": "%REQ(USER-AGENT)%",
        "range": "%REQ(RANGE)%",
    })
}

/// A request. What wasn't there is `None`.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Request {
    pub(super) user: Option<String>,
    #[serde(default)]
    pub(super) path: Option<String>,
    pub(super) status: u16,
    pub(super) session: Option<String>,
    pub(super) served_by: Option<String>,
    pub(super) from: String,
    pub(super) range: Option<String>,
}

/// What a request was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// The playlist of variants.
    Master,
    /// A variant's playlist.
    Variant,
    /// A segment.
    Segment,
    /// The whole film in one file.
    File,
}

impl Request {
    /// The lines that are complete.
    pub(super) fn all(log: &str) -> Vec<Self> {
        let complete = log.rsplit_once('\n').map_or("", |(lines, _)| lines);
        let lines = complete.lines().map(serde_json::from_str);
        lines.map(|request| request.expect(complete)).collect()
    }

    /// The requested part of the film, if it is one.
    pub(super) fn part(&self) -> Option<Part> {
        let path = self.path.as_deref()?.split('?').next()?;
        let file = path.strip_prefix("/vod/demo/")?;
        Some(match file {
            "index.m3u8" => Part::Master,
            "clip.mp4" => Part::File,
            playlist if playlist.ends_with(".m3u8") => Part::Variant,
            _ => Part::Segment,
        })
    }

    /// It was let in, and the backend has answered it.
    pub(super) fn was_served(&self) -> bool {
        (200..300).contains(&self.status) && self.served_by.is_some()
    }
}
