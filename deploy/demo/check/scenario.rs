//! The order of the steps: start, each part of the scenario, end.

use std::path::Path;

use super::metrics::Counts;
use super::step::{say_ok, step};
use super::walk::Walk;
use super::{hls, live, metrics, websocket};
use crate::cli::CheckArgs;
use crate::clock::Moment;
use crate::failure::{Doing, Failure};
use crate::ports::{Ports, loopback};
use crate::run::AskedToEnd;
use crate::stack::Stack;
use crate::wire::{Gateway, Identity};

/// Starts the stack on free ports, walks through the scenario, and ends the stack.
pub(crate) async fn check(args: CheckArgs) -> Result<(), Failure> {
    let mut asked_to_end = AskedToEnd::listen()?;
    with_logs(&args.parts.logs, async |logs| {
        tokio::select! {
            outcome = check_in(&args, logs) => outcome,
            () = asked_to_end.wait() => Err(Failure::new("interrupted")),
        }
    })
    .await
}

/// Does so with a folder for its logs, which is kept only on failure.
pub(super) async fn with_logs(
    parent: &Path,
    work: impl AsyncFnOnce(&Path) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let logs = parent.join(format!("check-{}", std::process::id()));
    std::fs::create_dir_all(&logs).doing(|| format!("create {}", logs.display()))?;
    match work(&logs).await {
        Ok(()) => std::fs::remove_dir_all(&logs).doing(|| format!("remove {}", logs.display())),
        Err(failure) => Err(Failure::new(format!(
            "{failure}\n      The logs are in {}",
            logs.display()
        ))),
    }
}

async fn check_in(args: &CheckArgs, logs: &Path) -> Result<(), Failure> {
    let began = Moment::now();
    let mut stack = Stack::start(&args.parts, Ports::free()?, logs).await?;
    say_ok("backend, streamgate and Envoy are up", began.elapsed());
    let api = format!("http://{}", loopback(stack.ports.http));
    let gateway = Gateway::new(stack.ports.gateway, Identity::Name)?;
    let counts = Counts::of_one_instance(&api);
    let walk = Walk::new(gateway, api, counts)?;
    let outcome = tokio::select! {
        outcome = all(&walk) => outcome,
        failure = stack.died() => Err(failure),
    };
    stack.end().await;
    outcome?;
    println!(
        "All as expected, in {:.1} s.",
        began.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Runs every part of the scenario, and checks that the counts agree with what the viewers saw.
pub(super) async fn all(walk: &Walk) -> Result<(), Failure> {
    live::walk(walk).await?;
    websocket::walk(walk).await?;
    hls::walk(walk).await?;
    step("the metrics count every check", metrics::agree(walk)).await
}
