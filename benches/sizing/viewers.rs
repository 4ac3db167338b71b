//! The viewers: each asks when its time has come, whether or not the request before was answered,
//! through one of the gateways. A gateway logs each request's end twice, as the shipped Envoy does.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use envoy_types::pb::envoy::data::accesslog::v3::HttpAccessLogEntry;
use streamgate::clock::Stopwatch;
use testkit::gateway_client::{Check, Gateway, LogStream, answered};
use testkit::streamgate::Streamgate;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep};

use crate::model::PAUSE;

/// How often the durable log is sent.
const FLUSH: Duration = Duration::from_millis(250);

/// A gateway in front of one streamgate.
struct Entrance {
    gateway: Gateway,
    log: mpsc::UnboundedSender<HttpAccessLogEntry>,
}

/// What the viewers were answered so far.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    pub(crate) allowed: AtomicUsize,
    pub(crate) refused: AtomicUsize,
    pub(crate) failed: AtomicUsize,
}

/// The audience.
pub(crate) struct Audience {
    entrances: Vec<Entrance>,
    pub(crate) answers: Answers,
}

impl Audience {
    /// The audience of these streamgates, each with a gateway in front, whose logs run in `logs`.
    pub(crate) async fn of(streamgates: &[Streamgate], logs: &mut JoinSet<()>) -> Arc<Self> {
        let mut entrances = Vec::new();
        for streamgate in streamgates {
            let gateway = Gateway::connect(streamgate.grpc).await;
            let (log, entries) = mpsc::unbounded_channel();
            let (fast, durable) = (gateway.access_log().await, gateway.access_log().await);
            logs.spawn(write_logs(fast, durable, entries));
            entrances.push(Entrance { gateway, log });
        }
        Arc::new(Self {
            entrances,
            answers: Answers::default(),
        })
    }

    /// One viewer, who starts at that time and then watches. If `has_more`, another device of the
    /// same user tries to start right after, and is one too many.
    pub(crate) async fn watch(
        self: Arc<Self>,
        viewer: usize,
        (clock, starts): (Stopwatch, Duration),
        has_more: bool,
    ) {
        at(clock, starts).await;
        let user = format!("viewer-{viewer:013}");
        let playback = format!("0188f1a2-4b6c-7d8e-9f00-{viewer:012}");
        let check = Check::of_playback(&user, &playback).header("x-device-id", "tv-living-room-1");
        let entrance = viewer % self.entrances.len();
        self.ask(entrance, &check).await;
        let mut asking = JoinSet::new();
        if has_more {
            let other = format!("0188f1a2-4b6c-7d8e-9f01-{viewer:012}");
            let (all, check) = (Arc::clone(&self), Check::of_playback(&user, &other));
            asking.spawn(async move { all.ask(entrance, &check).await });
        }
        let mut next = starts;
        loop {
            next += PAUSE;
            at(clock, next).await;
            while asking.try_join_next().is_some() {}
            let (all, check) = (Arc::clone(&self), check.clone());
            asking.spawn(async move { all.ask(entrance, &check).await });
        }
    }

    /// Asks once.
    async fn ask(&self, entrance: usize, check: &Check) {
        let Entrance { gateway, log } = &self.entrances[entrance];
        let answers = &self.answers;
        let counted = match gateway.try_check(check.clone()).await {
            Ok(answer) if answer.is_allowed() => {
                let _ = log.send(answered("any", &answer, 200));
                &answers.allowed
            }
            Ok(answer) if answer.http == 429 => &answers.refused,
            Ok(_) | Err(_) => &answers.failed,
        };
        counted.fetch_add(1, Ordering::Relaxed);
    }
}

/// Waits until that time of a clock.
pub(crate) async fn at(clock: Stopwatch, time: Duration) {
    sleep(time.saturating_sub(clock.elapsed())).await;
}

/// Sends each entry at once over one stream, and all of a quarter of a second over another.
async fn write_logs(
    mut fast: LogStream,
    mut durable: LogStream,
    mut entries: mpsc::UnboundedReceiver<HttpAccessLogEntry>,
) {
    let (mut waiting, mut flush) = (Vec::new(), interval(FLUSH));
    loop {
        tokio::select! {
            entry = entries.recv() => {
                let Some(entry) = entry else { return };
                fast.send(vec![entry.clone()]);
                waiting.push(entry);
            }
            _ = flush.tick() => {
                if !waiting.is_empty() {
                    durable.send(std::mem::take(&mut waiting));
                }
            }
        }
    }
}
