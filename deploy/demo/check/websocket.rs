//! An open WebSocket is one stream, until it is closed.

use super::step::{same, step};
use super::walk::{ASK_AGAIN_AFTER, LET_IN_WITHIN, Walk};
use crate::clock::Moment;
use crate::failure::Failure;
use crate::wire::Socket;

pub(super) async fn walk(walk: &Walk) -> Result<(), Failure> {
    let [first, _second, _third] = step("three WebSockets of dave tick", async {
        Ok([open(walk).await?, open(walk).await?, open(walk).await?])
    })
    .await?;
    step("a 4th is refused with 429", async {
        match walk.gateway.websocket("dave").await? {
            Err(refusal) => same(
                "status and reason",
                (429, "full"),
                (refusal.status.as_u16(), refusal.reason()),
            ),
            Ok(_) => Err(Failure::new("expected a refusal, the WebSocket opened")),
        }
    })
    .await?;
    let mut fourth = step("one is closed, and the 4th gets in", async {
        first.close().await?;
        open_soon(walk).await
    })
    .await?;
    step("the 4th ticks", fourth.ticks()).await
}

async fn open(walk: &Walk) -> Result<Socket, Failure> {
    match walk.gateway.websocket("dave").await? {
        Ok(mut socket) => {
            socket.ticks().await?;
            Ok(socket)
        }
        Err(refusal) => Err(Failure::new(format!(
            "expected the WebSocket to open, got {refusal}"
        ))),
    }
}

async fn open_soon(walk: &Walk) -> Result<Socket, Failure> {
    let began = Moment::now();
    loop {
        match walk.gateway.websocket("dave").await? {
            Ok(socket) => return Ok(socket),
            Err(refusal) if began.elapsed() > LET_IN_WITHIN => {
                return Err(Failure::new(format!(
                    "expected the WebSocket to open, got {refusal}"
                )));
            }
            Err(_) => tokio::time::sleep(ASK_AGAIN_AFTER).await,
        }
    }
}
