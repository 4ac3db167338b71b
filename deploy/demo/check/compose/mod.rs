//! `demo compose`: the scenario on the services of compose.yaml, and then the failures that they
//! must survive. `project` drives compose, `bystanders` watch and complain, `outages` breaks things
//! and checks what must hold.

mod bystanders;
mod outages;
mod project;

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use axum::http::StatusCode;
use serde_json::Value;

use self::project::Project;
use super::metrics::Counts;
use super::scenario::{all, with_logs};
use super::step::{same, step};
use super::walk::Walk;
use crate::cli::ComposeArgs;
use crate::clock::Moment;
use crate::failure::{Doing, Failure};
use crate::ports::loopback;
use crate::run::AskedToEnd;
use crate::wire::{Gateway, Identity};

/// A third of `leases.playback`, which is 30 s there, plus some time for a busy machine.
const HEEDS_ENDS_WITHIN: Duration = Duration::from_secs(12);
/// The tokens' users, with their names in the file.
const TOKENS: [(&str, &str); 4] = [
    ("alice", "alice"),
    ("bob", "bob"),
    ("carol", "carol_premium"),
    ("dave", "dave_basic"),
];

/// Builds and starts everything, walks through the scenario, breaks things, ends everything. If
/// anything fails, the services' logs stay.
pub(crate) async fn compose(args: ComposeArgs) -> Result<(), Failure> {
    let mut asked_to_end = AskedToEnd::listen()?;
    let began = Moment::now();
    with_logs(&args.logs, async |logs| {
        let project = Project::new(&args, logs).await?;
        let outcome = tokio::select! {
            outcome = compose_in(&args, &project) => outcome,
            () = asked_to_end.wait() => Err(Failure::new("interrupted")),
        };
        if outcome.is_err() {
            project.keep_logs().await;
        }
        project.down().await?;
        outcome
    })
    .await?;
    println!(
        "All as expected, in {:.1} s.",
        began.elapsed().as_secs_f64()
    );
    Ok(())
}

async fn compose_in(args: &ComposeArgs, project: &Project) -> Result<(), Failure> {
    println!("Building the images and starting everything; the first time that takes minutes");
    step(
        "images are built, and everything is up and healthy",
        project.up(),
    )
    .await?;
    let identity = Identity::Token(tokens(&args.tokens)?);
    let mut walk = Walk::new(
        Gateway::new(project.gateway_port, identity)?,
        format!("http://{}", loopback(project.http_port)),
        Counts::of_prometheus(&format!("http://{}", loopback(project.prometheus_port))),
    )?;
    walk.heeds_ends_within = HEEDS_ENDS_WITHIN;
    step(
        "who shows no token is nobody, whatever name it says",
        async {
            let nobody = walk
                .gateway
                .get(crate::wire::Protocol::Http1, "mallory", "/live/1");
            let refusal = walk.refused(nobody.header("x-user-id", "alice")).await?;
            same("status", 401, refusal.status.as_u16())
        },
    )
    .await?;
    all(&walk).await?;
    Box::pin(outages::streamgate_is_killed(&walk, project)).await?;
    Box::pin(outages::redis_is_restarted(&walk, project)).await?;
    step(
        "Prometheus reaches both streamgates and Envoy",
        scraped(&walk),
    )
    .await
}

fn tokens(file: &Path) -> Result<HashMap<String, String>, Failure> {
    let reading = || format!("read {}", file.display());
    let text = std::fs::read_to_string(file).doing(reading)?;
    let named: HashMap<String, String> = serde_json::from_str(&text).doing(reading)?;
    let token = |(user, name): (&str, &str)| Some((user.to_owned(), named.get(name)?.clone()));
    Ok(TOKENS.into_iter().filter_map(token).collect())
}

async fn scraped(walk: &Walk) -> Result<(), Failure> {
    for (job, targets) in [("streamgate", "2"), ("envoy", "1")] {
        let up = format!("sum(up{{job=\"{job}\"}})");
        project::soon(
            &format!("Prometheus reaches {targets} targets of {job}"),
            async || {
                let found = walk.counts.ask(&walk.back_end, &up).await?;
                Ok(found == targets)
            },
        )
        .await?;
    }
    Ok(())
}

/// The HTTP API's answer about a user's sessions.
async fn sessions(walk: &Walk, user: &str) -> Result<(StatusCode, Value), Failure> {
    let url = format!("{}/v1/users/{user}/sessions", walk.api);
    let asking = || format!("ask {url}");
    let answer = walk.back_end.get(&url).send().await.doing(asking)?;
    let status = answer.status();
    let told = answer.text().await.doing(asking)?;
    let told = serde_json::from_str(&told).unwrap_or(Value::String(told));
    Ok((status, told))
}
