//! What a check costs streamgate, from the call that arrives to the answer that leaves:
//! microseconds of processor time (user and system), beside an `ext_authz` server that does nothing
//! in the same run; and how long gateways wait for the answer. `make bench` runs it, and puts its
//! tables and its picture into the documents. Another machine has other figures, so this is no
//! test.
//!
//! The servers share one core, and the client and Redis have another. They take turns, so that
//! whatever else the machine does affects all of them.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a measurement that can't go on has failed"
)]

mod at_scale;
mod bare;
mod client;
mod gateways;
mod instructions;
mod parties;
mod proxies;
mod report;
mod request;
mod sections;
mod sleeper;

use std::process::{Command, ExitCode};

use parties::Parties;
use report::Report;
use sleeper::Sleeper;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match *arguments {
        [bare::ARGUMENT, threads] => bare::serve(threads, None),
        [bare::ARGUMENT, threads, redis] => bare::serve(threads, Some(redis)),
        [instructions::REPEAT, part, times] => instructions::repeat(part, times),
        [instructions::ARGUMENT, ..] => return instructions::count(),
        _ => measure(&arguments),
    }
    ExitCode::SUCCESS
}

/// Measures the chosen sections and prints them; all if none is chosen, and publishes those.
fn measure(arguments: &[&str]) {
    let chosen: Vec<&&str> = arguments.iter().filter(|it| !it.starts_with('-')).collect();
    let wants = |section: &str| chosen.is_empty() || chosen.contains(&&section);
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().unwrap();
    runtime.block_on(async {
        let mut parties = Parties::start().await;
        let sleeper = Sleeper::start();
        let mut report = Report::default();
        if wants("load") {
            sections::under_load(&mut parties, &mut report).await;
        }
        if wants("pace") {
            sections::at_a_pace(&mut parties, &mut report).await;
        }
        if wants("envoy") {
            sections::through_envoy(&mut parties, &mut report).await;
        }
        if wants("many") {
            sections::with_many(&mut parties, &mut report).await;
            sections::with_a_high_limit(&mut parties, &mut report);
        }
        if wants("others") {
            sections::others(&mut parties, &mut report).await;
        }
        if wants("scale") {
            at_scale::at_scale(&mut parties, &mut report).await;
        }
        if wants("program") {
            sections::the_program(&mut report).await;
        }
        report.delay = Some(sleeper.stop());
        println!("\n{}\n{}", report.tables(), report.forecasts());
        if chosen.is_empty() && std::env::var_os("QUICK").is_none() {
            report.publish();
        }
    });
}

/// Pins this process, and those that it starts from now on, to these cores.
fn pin(cores: &str) {
    let process = std::process::id().to_string();
    let pinned = Command::new("taskset")
        .args(["-a", "-c", "-p", cores, &process])
        .output()
        .unwrap();
    assert!(pinned.status.success(), "there are no cores {cores}");
}
