//! What the steps share: the way in, the way to streamgate's API, and the three things that can be expected of a request.

use std::time::Duration;

use reqwest::{Client, RequestBuilder};

use crate::clock::Moment;
use crate::failure::{Doing, Failure};
use crate::ports::{Ports, loopback};
use crate::wire::{Answer, Gateway, Playing, Refusal};

/// How long a freed slot may take to be usable, before the check calls it a surprise. Far more than it should take.
pub(super) const LET_IN_WITHIN: Duration = Duration::from_secs(3);
pub(super) const ASK_AGAIN_AFTER: Duration = Duration::from_millis(2);

/// What the steps share.
#[derive(Debug)]
pub(super) struct Walk {
    pub(super) gateway: Gateway,
    /// streamgate's HTTP API.
    pub(super) api: String,
    pub(super) back_end: Client,
}

impl Walk {
    pub(super) fn new(ports: Ports) -> Result<Self, Failure> {
        let back_end = Client::builder()
            .no_proxy()
            .build()
            .doing(|| "make an HTTP client".to_owned())?;
        Ok(Self {
            gateway: Gateway::new(ports.gateway)?,
            api: format!("http://{}", loopback(ports.http)),
            back_end,
        })
    }

    /// Opens what must be let in.
    pub(super) async fn let_in(&self, request: RequestBuilder) -> Result<Playing, Failure> {
        match self.gateway.send(request).await? {
            Answer::LetIn(playing) => Ok(playing),
            Answer::Refused(refusal) => Err(Failure::new(format!(
                "expected to be let in, got {refusal}"
            ))),
        }
    }

    /// Asks for what must be refused.
    pub(super) async fn refused(&self, request: RequestBuilder) -> Result<Refusal, Failure> {
        match self.gateway.send(request).await? {
            Answer::Refused(refusal) => Ok(refusal),
            Answer::LetIn(playing) => Err(Failure::new(format!(
                "expected a refusal, was let in as session {:?}",
                playing.session
            ))),
        }
    }

    /// Asks again and again until let in, as soon as a slot is free.
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
