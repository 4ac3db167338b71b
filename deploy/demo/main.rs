//! The demo: a real Envoy in front of a dummy video backend, together with streamgate. `run` leaves
//! it running for you to try, `check` walks through the scenario, `compose` does so with the
//! services of compose.yaml, and `backend` is only the dummy backend.
//!
//! Everything runs on loopback and ends with this process. The modules: `cli` has the arguments,
//! `ports` assigns the ports, `child` is one process, `envoy` its configuration, `stack` all
//! processes together, `backend` the video and the page, `events` prints what happens, `run` and
//! `check` use the stack.

mod check;
mod child;
mod cli;
mod clock;
mod envoy;
mod events;
mod failure;
mod ports;
mod run;
mod stack;
mod wire;

use std::process::ExitCode;

use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match cli::Cli::parse().command {
        cli::Command::Run(args) => run::run(args).await,
        cli::Command::Check(args) => check::check(args).await,
        cli::Command::Compose(args) => Box::pin(check::compose(args)).await,
        cli::Command::Backend(args) if args.ask => run::ask_backend(args).await,
        cli::Command::Backend(args) => run::backend(args).await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("demo: {failure}");
            ExitCode::FAILURE
        }
    }
}
