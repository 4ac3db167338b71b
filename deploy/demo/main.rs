//! The demo: a real Envoy in front of a dummy video backend, with streamgate beside it. `run` leaves it running for a
//! person to try, `check` walks through the scenario by itself, `compose` does so with what compose.yaml starts, and `backend` is
//! the dummy backend alone.
//!
//! Everything runs on loopback and ends with this process. What belongs to whom:
//! `cli` the arguments, `ports` which port is whose, `child` one process, `envoy` its configuration, `stack` all of
//! them together, `backend` the video and the page, `events` what happens, `run` and `check` what is done with the stack.

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
