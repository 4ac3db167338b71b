//! `envoy-config`: writes the configuration of an Envoy that asks streamgate, or the pieces that
//! make one of an Envoy that is there already.
//!
//! The YAML is in `pieces/`, each piece with its reasons; [`values`] says what goes into their
//! slots, and [`gateway`] puts them together. The files in `envoy/`, compose's and the demo's are
//! written from the same pieces, which a test holds.

mod args;
mod fill;
mod gateway;
mod pieces;
mod place;
mod plan;
mod values;
mod version;

use std::fmt::Write as _;
use std::io::Write;

pub(super) use args::EnvoyConfigArgs;
use gateway::Gateway;
use plan::{Login, Plan, PlanError};

use super::show::plain;
use super::{CommandStatus, complain, print};
use crate::identity::Source;

/// Prints the file or the pieces, and on standard error what you still have to do and to know.
pub(super) fn run(
    args: &EnvoyConfigArgs,
    command: &str,
    out: &mut impl Write,
    errors: &mut impl Write,
) -> CommandStatus {
    let (text, notes) = match write(args, command) {
        Ok(written) => written,
        Err(error) => return complain(errors, error, CommandStatus::Usage),
    };
    for note in notes {
        let _ = writeln!(errors, "streamgate: note: {note}");
    }
    print(text, out, errors)
}

/// The piece of that name, for an Envoy that is there already and knows users by that source.
pub(super) fn fragment(name: &str, user: Option<&Source>) -> Option<String> {
    let args = EnvoyConfigArgs::with_all_routes(user)?;
    let plan = Plan::of(&args).ok()?;
    let fragments = Gateway::of(&plan);
    let found = fragments.fragments().iter().find(|it| it.name == name)?;
    Some(found.text.clone())
}

/// The file or the pieces, and what there is to say about them.
fn write(args: &EnvoyConfigArgs, command: &str) -> Result<(String, Vec<String>), PlanError> {
    let plan = Plan::of(args)?;
    let gateway = Gateway::of(&plan);
    let mut notes: Vec<String> = notes(&plan);
    let head = head(&notes, command);
    let head_lines = head.lines().count();
    let text = if args.fragments {
        let mut text = head;
        for fragment in gateway.fragments() {
            text.push_str("---\n");
            text.push_str(&fragment.text);
        }
        text
    } else {
        gateway.whole(&head)
    };
    let changes = text.lines().enumerate().skip(head_lines);
    let changes = changes.filter(|(_, line)| line.contains("CHANGE"));
    let lines: Vec<_> = changes.map(|(line, _)| (line + 1).to_string()).collect();
    if !lines.is_empty() {
        notes.push(format!(
            "CHANGE what is marked so, in lines {}",
            lines.join(", ")
        ));
    }
    Ok((text, notes))
}

/// The comment at the head of a file.
fn head(notes: &[String], command: &str) -> String {
    let mut head = String::from(
        "# A gateway that asks streamgate about each stream. Each setting has its reason next to it.\n#\n",
    );
    // To write to a string can't fail.
    let _ = writeln!(head, "# Written by: streamgate {}", plain(command));
    for note in notes {
        let _ = writeln!(head, "# Note: {note}.");
    }
    head.push_str(
        "# Replace everything marked CHANGE. docs/envoy/ explains the other options, and\n\
         # `streamgate envoy-config --fragments` prints the same as pieces for an existing Envoy.\n",
    );
    head
}

/// What you have to know about a plan, one line each.
fn notes(plan: &Plan<'_>) -> Vec<String> {
    let mut notes: Vec<String> = Vec::new();
    notes.extend(plan.args.envoy.lacks().into_iter().map(str::to_owned));
    let identity = match &plan.login {
        Login::Header(name) if name != "x-user-id" => Some(format!("header:{name}")),
        Login::Cookie(name) => Some(format!("cookie:{name}")),
        Login::Principal => Some("principal".to_owned()),
        Login::Header(_) | Login::Jwt(_) | Login::Basic => None,
    };
    if let Some(identity) = identity {
        notes.push(format!("set streamgate's identity.user to [{identity}]"));
    }
    if plan.login.user_header().is_none() {
        notes.push(
            "viewers' way to the HTTP API is left out, because no header names the user".to_owned(),
        );
    }
    if plan.args.shared && plan.issues() {
        notes.push(
            "checks are not put to another streamgate, because a route issues a cookie: a first request that is \
             checked twice would get two"
                .to_owned(),
        );
    }
    notes
}

/// The whole file for a command line.
#[cfg(test)]
pub(super) fn whole(line: &str) -> String {
    write(&shipped::parse(line), "envoy-config").unwrap().0
}

#[cfg(test)]
mod shipped;
#[cfg(test)]
mod tests;
