//! What the steps share: the gateway, streamgate's API, and the three expectations of a request.

use std::time::Duration;

use reqwest::{Client, RequestBuilder};

use super::metrics::Counts;
use crate::clock::Moment;
use crate::failure::{Doing, Failure};
use crate::wire::{Answer, Gateway, Playing, Refusal};

/// How long a freed slot may take to become usable before the check fails. Far more than it should
/// take.
pub(super) const LET_IN_WITHIN: Duration = Duration::from_secs(3);
pub(super) const ASK_AGAIN_AFTER: Duration = Duration::from_millis(2);

/// What the steps share.
#[derive(Debug)]
pub(super) struct Walk {
    pub(super) gateway: Gateway,
    /// streamgate's HTTP API.
    pub(super) api: String,
    pub(super) back_end: Client,
    pub(super) counts: Counts,
    /// How long a playback may continue that was ended through another instance: a third of its
    /// lease, plus a request.
    pub(super) heeds_ends_within: Duration,
}

impl Walk {
    pub(super) fn new(gateway: Gateway, api: String, counts: Counts) -> Result<Self, Failure> {
        let back_end = Client::builder()
            .no_proxy()
            .build()
            .doing(|| "make an HTTP client".to_owned())?;
        Ok(Self {
            gateway,
            api,
            back_end,
            counts,
            heeds_ends_within: Duration::ZERO,
        })
    }

    /// Makes a request that must be let in.
    pub(super) async fn let_in(&self, request: RequestBuilder) -> Result<Playing, Failure> {
        match self.gateway.send(request).await? {
            Answer::LetIn(playing) => Ok(playing),
            Answer::Refused(refusal) => Err(Failure::new(format!(
                "expected to be let in, got {refusal}"
            ))),
        }
    }

    /// Makes a request that must be refused.
    pub(super) async fn refused(&self, request: RequestBuilder) -> Result<Refusal, Failure> {
        match self.gateway.send(request).await? {
            Answer::Refused(refusal) => Ok(refusal),
            Answer::LetIn(playing) => Err(unwanted(&playing)),
        }
    }

    /// Repeats a request until it is refused, which must happen within that time; if the time is
    /// zero, immediately.
    pub(super) async fn refused_soon(
        &self,
        within: Duration,
        request: impl Fn() -> RequestBuilder,
    ) -> Result<Refusal, Failure> {
        let began = Moment::now();
        loop {
            match self.gateway.send(request()).await? {
                Answer::Refused(refusal) => return Ok(refusal),
                Answer::LetIn(playing) if began.elapsed() >= within => {
                    return Err(unwanted(&playing));
                }
                Answer::LetIn(_) => tokio::time::sleep(ASK_AGAIN_AFTER).await,
            }
        }
    }

    /// Repeats a request until it is let in, when a slot is free.
    pub(super) async fn let_in_soon(
        &self,
        request: impl Fn() -> RequestBuilder,
    ) -> Result<Playing, Failure> {
        let began = Moment::now();
        loop {
            match self.gateway.send(request()).await? {
                Answer::LetIn(playing) => return Ok(playing),
                Answer::Refused(refusal)
                    if refusal.reason() != "full" || began.elapsed() > LET_IN_WITHIN =>
                {
                    let milliseconds = began.elapsed().as_millis();
                    return Err(Failure::new(format!(
                        "expected to be let in, after {milliseconds} ms got {refusal}"
                    )));
                }
                Answer::Refused(_) => tokio::time::sleep(ASK_AGAIN_AFTER).await,
            }
        }
    }
}

fn unwanted(playing: &Playing) -> Failure {
    let session = &playing.session;
    Failure::new(format!(
        "expected a refusal, was let in as session {session:?}"
    ))
}
