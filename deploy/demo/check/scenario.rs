//! The order of things: start, each part of the scenario, end.

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

/// Starts the stack on free ports, walks, ends the stack. The logs are kept if anything went wrong.
pub(crate) async fn check(args: CheckArgs) -> Result<(), Failure> {
    let mut asked_to_end = AskedToEnd::listen()?;
    let logs = fresh_folder(&args.parts.logs)?;
    let outcome = tokio::select! {
        outcome = check_in(&args, logs.path()) => outcome,
        () = asked_to_end.wait() => Err(Failure::new("interrupted")),
    };
    outcome.map_err(|failure| {
        let logs = logs.keep();
        Failure::new(format!(
            "{failure}\n      The logs are in {}",
            logs.display()
        ))
    })
}

pub(super) fn fresh_folder(parent: &Path) -> Result<tempfile::TempDir, Failure> {
    std::fs::create_dir_all(parent).doing(|| format!("create {}", parent.display()))?;
    tempfile::Builder::new()
        .prefix("check-")
        .tempdir_in(parent)
        .doing(|| format!("make a folder in {}", parent.display()))
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

/// Every part of the scenario, and that what was counted is what the viewers saw.
pub(super) async fn all(walk: &Walk) -> Result<(), Failure> {
    live::walk(walk).await?;
    websocket::walk(walk).await?;
    hls::walk(walk).await?;
    step("the metrics count every check", metrics::agree(walk)).await
}
