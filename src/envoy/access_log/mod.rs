//! The access log door: reads entries and queues renewals and releases. Reading never waits for the
//! store.
//!
//! Envoy pins each of its streams to one instance, so this side ends them from time to time, and
//! Envoy opens the next one at any instance. The protocol has no acknowledgement: entries that
//! Envoy sends before it has noticed the end would be lost if nobody read them. So a task continues
//! to read a stream after its end was sent, until Envoy has closed its side too.

pub(super) mod entry;
#[cfg(test)]
mod entry_tests;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, warn};

use crate::clock::Clock;
use crate::config::Leases;
use crate::envoy::wire::entry::LogMessage;
use crate::identity::Identity;
use crate::ledger::Ledger;
use crate::outbox::{Notice, Outbox};
use crate::session::Ending;
use crate::telemetry::metrics::{EntryOutcome, EntryType};
use crate::telemetry::{Gateways, LogStream, Metrics};
use entry::Reading;

/// The largest accepted message: a durable logger sends everything in its buffer as one.
pub(crate) const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// How long a stream is read before Envoy has to choose an instance again; shortened by up to a
/// third at random, so that streams don't all end at once.
pub const STREAM_AGE: Duration = Duration::from_secs(300);

/// How many entries one message may have before its stream is ended, as it is by age. A stream's
/// buffer stays as large as its largest message, and after an outage each worker of each gateway
/// sends everything in its buffer.
const LARGE_MESSAGE: usize = 1_000;

/// How long a stream is read after its end was sent. Envoy closes its side within a round trip.
const LINGER: Duration = Duration::from_secs(2);

/// Reads Envoy's access logs. A clone of it reads each stream.
#[derive(Debug, Clone)]
pub struct AccessLogDoor {
    /// Remembers which gateways send their logs.
    pub gateways: Arc<Gateways>,
    /// Says when one was heard.
    pub clock: Arc<dyn Clock>,
    /// The sources of users, for entries that never got our answer.
    pub identity: Identity,
    /// How long a sign of life counts.
    pub leases: Leases,
    /// Knows which playbacks already play.
    pub ledger: Arc<Ledger>,
    /// Accepts the notices that follow from entries.
    pub outbox: Outbox,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// Tracks the readers, which a shutdown waits for.
    pub tasks: TaskTracker,
    /// Cancelled when streams should end.
    pub closing: CancellationToken,
    /// The maximum age of a stream.
    pub stream_age: Duration,
}

impl AccessLogDoor {
    /// Receives a stream until it should end.
    pub(in crate::envoy) async fn receive(
        &self,
        request: Request<Streaming<Bytes>>,
    ) -> Result<Response<()>, Status> {
        let door = self.clone();
        let age = self.stream_age.mul_f64(rand::random_range(0.67..1.0));
        let ending = self.closing.child_token();
        let over = CancellationToken::new();
        let (end, finished) = (ending.clone(), over.clone().drop_guard());
        self.tasks.spawn(async move {
            let _finished = finished;
            door.read(request.into_inner(), &end).await;
        });
        tokio::select! {
            () = over.cancelled() => {}
            () = ending.cancelled() => {}
            () = tokio::time::sleep(age) => ending.cancel(),
        }
        Ok(Response::new(()))
    }

    /// Reads until Envoy ends the stream, and for a while after `ending` has told Envoy that we do.
    async fn read(&self, mut messages: Streaming<Bytes>, ending: &CancellationToken) {
        let lingered = async {
            ending.cancelled().await;
            tokio::time::sleep(LINGER).await;
        };
        let reading = async {
            // Only the first message of a stream names its gateway.
            let mut gateway = None;
            loop {
                match messages.message().await {
                    Ok(Some(message)) => match LogMessage::read(&message) {
                        Ok(message) => {
                            gateway = self.named(&message).or(gateway);
                            if let Some(gateway) = &gateway {
                                gateway.heard(self.clock.now());
                            }
                            self.take(&message);
                            if is_large(&message) {
                                ending.cancel();
                            }
                        }
                        Err(error) => return self.not_decoded(&error),
                    },
                    Ok(None) => return,
                    Err(status) => return self.broken_off(&status),
                }
            }
        };
        tokio::select! {
            () = reading => {}
            () = lingered => {}
        }
    }

    /// Records why a stream could not be read to its end. The entries so far count.
    fn broken_off(&self, status: &Status) {
        // Envoy ends its streams by resetting them. Without such a cause the error is a message
        // that is too long.
        if status.source().is_some() {
            debug!(%status, "an access log stream ended with an error");
        } else {
            self.not_decoded(status);
        }
    }

    /// Records a message that can't be decoded: all of it is lost, and Envoy opens another stream
    /// for the next. Envoy itself replaces what clients may have sent that is not UTF-8.
    fn not_decoded(&self, error: &(dyn Error + 'static)) {
        self.metrics
            .entry(EntryType::Other, EntryOutcome::Malformed);
        warn!(
            error,
            "can't decode an access log message; its entries are lost"
        );
    }

    /// The gateway that a message names.
    fn named(&self, message: &LogMessage<'_>) -> Option<LogStream> {
        let sender = message.sender?;
        debug!(
            gateway.node = sender.node,
            gateway.log = sender.log,
            "a gateway sends its access log"
        );
        Some(self.gateways.enter(sender.node, sender.log))
    }

    /// Processes one message.
    fn take(&self, message: &LogMessage<'_>) {
        let lost = |fact, loss| self.metrics.fact_lost(fact, loss);
        let mut is_marked = false;
        for reading in entry::read_all(&message.entries, &self.identity, &self.leases, &lost) {
            is_marked |= reading.is_marked;
            self.heed(reading);
        }
        if is_marked {
            self.ledger.heard_access_log();
        }
        for _ in 0..message.tcp_entries {
            self.metrics.entry(EntryType::Other, EntryOutcome::Ignored);
        }
    }

    /// Applies an entry.
    fn heed(&self, reading: Reading) {
        let Some((user, notice)) = reading.notice else {
            self.metrics.entry(reading.entry, reading.outcome);
            return;
        };
        let about_start = matches!(reading.outcome, EntryOutcome::Played | EntryOutcome::Failed);
        let is_old = about_start && self.ledger.knows_playing(&user, notice.key());
        let outcome = if is_old {
            EntryOutcome::Ignored
        } else {
            reading.outcome
        };
        self.metrics.entry(reading.entry, outcome);
        let counted = reading.response_end;
        if let Some(key) = counted.filter(|key| self.ledger.may_count(&user, key)) {
            let end = Notice::Release(key, Ending::Outlived);
            self.outbox.submit(user.clone(), end);
        }
        if !is_old {
            self.outbox.submit(user, notice);
        }
    }
}

/// Whether a message has so many entries that its buffer should not be kept.
const fn is_large(message: &LogMessage<'_>) -> bool {
    message.entries.len() + message.tcp_entries >= LARGE_MESSAGE
}
