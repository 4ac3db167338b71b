//! The dummy video backend: real bytes at approximately real speed, for the demo and for the
//! integration tests.
//!
//! - `/` is the page: four players of one account, for a browser.
//! - `/live/{channel}` is endless MPEG-TS: the clip in a loop. With `?seconds=N` it ends properly
//!   after N seconds, which may be a fraction.
//! - `/finite?seconds=N` is the same; without N it lasts one second.
//! - `/vod/demo/index.m3u8` is HLS: two variants of the clip. `clip.mp4` and `fmp4/index.m3u8` are
//!   in the same folder. Ranges are supported.
//! - `/ws` is a WebSocket that ticks twice a second.
//! - `/redirect-to?path=P` answers 302 to P on the same host.
//! - `/healthz` answers 200.
//!
//! It knows nothing about users and limits, and doesn't depend on the rest of the demo.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path as UrlPath, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{any, get};
use futures_util::stream::{self, Stream};
use tokio::net::TcpListener;
use tokio::time::{Instant, Interval};
use tokio_util::sync::CancellationToken;

/// Each chunk holds this much playing time of the clip; the first is sent immediately.
const CHUNK: Duration = Duration::from_millis(50);
const TS_PACKET: usize = 188;
const WEBSOCKET_TICK: Duration = Duration::from_millis(500);
/// The page at `/`. It loads nothing from elsewhere.
const PAGE: &str = include_str!("page.html");
/// The variant that the live channels show.
const LIVE_VARIANT: &str = "180p";

/// Serves the clip on `listener` until `shutdown`. Streams in progress are then cut off in the
/// middle of their body, as by a backend that dies.
///
/// # Errors
///
/// Fails if the listener fails.
pub async fn serve(
    listener: TcpListener,
    media: Media,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let backend = Backend {
        media: Arc::new(media),
        stop: CancellationToken::new(),
    };
    let stop = backend.stop.clone();
    let app = Router::new()
        .route("/", get(|| async { Html(PAGE) }))
        .route("/live/{channel}", get(live))
        .route("/finite", get(finite))
        .route("/vod/demo/{*file}", get(vod))
        .route("/ws", any(websocket))
        .route("/redirect-to", any(redirect))
        .route("/healthz", get(|| async { "ok\n" }))
        .with_state(backend);
    axum::serve(listener, app)
        .with_graceful_shutdown(async move {
            shutdown.await;
            stop.cancel();
        })
        .await
}

#[derive(Debug, Clone)]
struct Backend {
    media: Arc<Media>,
    stop: CancellationToken,
}

// === The clip ===

/// Every file of the clip, in memory.
#[derive(Debug)]
pub struct Media {
    files: HashMap<String, Bytes>,
    live: Bytes,
    live_bytes_per_second: u64,
}

impl Media {
    /// Loads the clip from that folder.
    ///
    /// # Errors
    ///
    /// Fails if a file of the folder can't be read.
    pub fn load(folder: &Path) -> io::Result<Self> {
        let mut files = HashMap::new();
        read_folder(folder, "", &mut files)?;
        let (live, milliseconds) = live_clip(&files).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{} holds no {LIVE_VARIANT}/index.m3u8 with its segments; deploy/demo/make-clip.sh makes them", folder.display()),
            )
        })?;
        let live_bytes_per_second = live.len() as u64 * 1000 / milliseconds;
        Ok(Self {
            files,
            live,
            live_bytes_per_second,
        })
    }
}

fn read_folder(folder: &Path, prefix: &str, files: &mut HashMap<String, Bytes>) -> io::Result<()> {
    let readable =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", folder.display()));
    for entry in fs::read_dir(folder).map_err(readable)? {
        let entry = entry.map_err(readable)?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type().map_err(readable)?.is_dir() {
            read_folder(&entry.path(), &format!("{name}/"), files)?;
        } else {
            files.insert(name, fs::read(entry.path()).map_err(readable)?.into());
        }
    }
    Ok(())
}

/// The segments in the live variant's playlist, joined, and their playing time in milliseconds.
fn live_clip(files: &HashMap<String, Bytes>) -> Option<(Bytes, u64)> {
    let playlist = files.get(&format!("{LIVE_VARIANT}/index.m3u8"))?;
    let mut clip = Vec::new();
    let mut playing = Duration::ZERO;
    for line in std::str::from_utf8(playlist).ok()?.lines() {
        if let Some(seconds) = line.strip_prefix("#EXTINF:") {
            playing +=
                Duration::try_from_secs_f64(seconds.trim_end_matches(',').parse().ok()?).ok()?;
        } else if !line.starts_with('#') && !line.is_empty() {
            clip.extend_from_slice(files.get(&format!("{LIVE_VARIANT}/{line}"))?);
        }
    }
    let milliseconds = u64::try_from(playing.as_millis()).ok()?;
    (milliseconds > 0 && !clip.is_empty()).then(|| (clip.into(), milliseconds))
}

// === Streams ===

async fn live(State(backend): State<Backend>, RawQuery(query): RawQuery) -> Response {
    match query_value(query.as_deref(), "seconds") {
        None => stream_response(backend, None),
        Some(seconds) => lasting(backend, &seconds),
    }
}

async fn finite(State(backend): State<Backend>, RawQuery(query): RawQuery) -> Response {
    let seconds = query_value(query.as_deref(), "seconds").unwrap_or_else(|| "1".to_owned());
    lasting(backend, &seconds)
}

fn lasting(backend: Backend, seconds: &str) -> Response {
    match seconds.parse().map(Duration::try_from_secs_f64) {
        Ok(Ok(length)) => stream_response(backend, Some(length)),
        _ => (
            StatusCode::BAD_REQUEST,
            format!("seconds={seconds} is no number of seconds\n"),
        )
            .into_response(),
    }
}

fn stream_response(backend: Backend, length: Option<Duration>) -> Response {
    let body = Body::from_stream(Paced::new(backend, length).chunks());
    (
        [
            (header::CONTENT_TYPE, "video/mp2t"),
            (header::CACHE_CONTROL, "no-store"),
        ],
        body,
    )
        .into_response()
}

/// One viewer's position in the looping clip.
struct Paced {
    media: Arc<Media>,
    stop: CancellationToken,
    length: Option<Duration>,
    ticks: Interval,
    began: Option<Instant>,
    sent: u64,
}

impl Paced {
    fn new(backend: Backend, length: Option<Duration>) -> Self {
        let Backend { media, stop } = backend;
        Self {
            media,
            stop,
            length,
            ticks: tokio::time::interval(CHUNK),
            began: None,
            sent: 0,
        }
    }

    fn chunks(self) -> impl Stream<Item = io::Result<Bytes>> {
        stream::unfold(self, |mut paced| async move {
            Some((paced.next().await?, paced))
        })
    }

    /// The bytes due at the next tick; none when the stream's length is reached, an error when the
    /// backend stops.
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            let tick = tokio::select! {
                tick = self.ticks.tick() => tick,
                () = self.stop.cancelled() => return Some(Err(io::ErrorKind::ConnectionAborted.into())),
            };
            let playing = tick.duration_since(*self.began.get_or_insert(tick));
            if self.length.is_some_and(|length| playing >= length) {
                return None;
            }
            let chunk = self.due(playing + CHUNK);
            if !chunk.is_empty() {
                self.sent += chunk.len() as u64;
                return Some(Ok(chunk));
            }
        }
    }

    /// Whole packets, up to that playing time or the clip's end; the next tick makes up for the
    /// rest.
    fn due(&self, playing: Duration) -> Bytes {
        let clip = self.media.live.len();
        let milliseconds = u64::try_from(playing.as_millis()).unwrap_or(u64::MAX);
        let due = milliseconds.saturating_mul(self.media.live_bytes_per_second) / 1000;
        let missing = usize::try_from(due.saturating_sub(self.sent)).unwrap_or(clip);
        let from = usize::try_from(self.sent % clip as u64).unwrap_or(0);
        let whole = (from + missing / TS_PACKET * TS_PACKET).min(clip);
        self.media.live.slice(from..whole)
    }
}

// === Files ===

async fn vod(
    State(backend): State<Backend>,
    UrlPath(file): UrlPath<String>,
    headers: HeaderMap,
) -> Response {
    let Some(bytes) = backend.media.files.get(&file) else {
        return (
            StatusCode::NOT_FOUND,
            format!("the clip has no file {file}\n"),
        )
            .into_response();
    };
    let head = [
        (header::CONTENT_TYPE, content_type(&file)),
        (header::ACCEPT_RANGES, "bytes"),
    ];
    match headers
        .get(header::RANGE)
        .and_then(|range| range.to_str().ok())
    {
        None => (head, bytes.clone()).into_response(),
        Some(range) => match byte_range(range, bytes.len()) {
            Some(part) => {
                let place = format!("bytes {}-{}/{}", part.start, part.end - 1, bytes.len());
                (
                    StatusCode::PARTIAL_CONTENT,
                    head,
                    [(header::CONTENT_RANGE, place)],
                    bytes.slice(part),
                )
                    .into_response()
            }
            None => {
                let place = format!("bytes */{}", bytes.len());
                (
                    StatusCode::RANGE_NOT_SATISFIABLE,
                    [(header::CONTENT_RANGE, place)],
                )
                    .into_response()
            }
        },
    }
}

fn content_type(file: &str) -> &'static str {
    match file.rsplit_once('.').map(|(_, extension)| extension) {
        Some("m3u8") => "application/vnd.apple.mpegurl",
        Some("ts") => "video/mp2t",
        Some("mp4" | "m4s") => "video/mp4",
        _ => "application/octet-stream",
    }
}

/// `bytes=2-5`, `bytes=2-` and `bytes=-5` of a file with `length` bytes; never empty. One range
/// only.
fn byte_range(range: &str, length: usize) -> Option<Range<usize>> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let part = match (first, last) {
        ("", last) => length.saturating_sub(last.parse().ok()?)..length,
        (first, "") => first.parse().ok()?..length,
        (first, last) => {
            first.parse().ok()?..last.parse::<usize>().ok()?.saturating_add(1).min(length)
        }
    };
    (part.start < part.end).then_some(part)
}

// === The rest ===

async fn websocket(State(backend): State<Backend>, upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(move |socket| tick_until_closed(socket, backend.stop))
}

async fn tick_until_closed(mut socket: WebSocket, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(WEBSOCKET_TICK);
    let mut number = 0_u64;
    loop {
        let alive = tokio::select! {
            _ = ticks.tick() => {
                number += 1;
                socket.send(Message::text(format!("tick {number}"))).await.is_ok()
            }
            message = socket.recv() => matches!(message, Some(Ok(_))),
            () = stop.cancelled() => false,
        };
        if !alive {
            return;
        }
    }
}

/// Envoy follows a redirect itself only if the location is absolute.
async fn redirect(headers: HeaderMap, RawQuery(query): RawQuery) -> Response {
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or("localhost");
    match query_value(query.as_deref(), "path") {
        Some(path) if path.starts_with('/') => (
            StatusCode::FOUND,
            [(header::LOCATION, format!("http://{host}{path}"))],
        )
            .into_response(),
        _ => (StatusCode::BAD_REQUEST, "path=/… says where to\n").into_response(),
    }
}

fn query_value(query: Option<&str>, name: &str) -> Option<String> {
    let (_, value) = query?
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)?;
    Some(
        percent_encoding::percent_decode_str(value)
            .decode_utf8_lossy()
            .into_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_cut_to_the_file_and_never_empty() {
        for (range, part) in [
            ("bytes=2-5", Some(2..6)),
            ("bytes=2-", Some(2..10)),
            ("bytes=-3", Some(7..10)),
            ("bytes=-30", Some(0..10)),
            ("bytes=8-100", Some(8..10)),
            ("bytes=10-", None),
            ("bytes=5-2", None),
            ("bytes=0-1,4-5", None),
            ("lines=1-2", None),
        ] {
            assert_eq!(byte_range(range, 10), part, "{range}");
        }
    }
}
