//! `envoy-check`: reads the configuration of an Envoy, and reports what is missing or dangerous for
//! counting streams. `envoy --mode validate` accepts all of these mistakes.

mod clusters;
mod envoy;
mod filters;
mod finding;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod identity;
mod logs;
mod manager;
mod node;
mod read;
mod routes;

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use envoy::{Envoy, Manager};
use finding::{EnvoyFinding, Findings};
use node::Node;

use super::show::plain;
use super::{CommandStatus, complain, envoy_config, print};
use crate::identity::Source;

/// The arguments of `envoy-check`.
#[derive(Debug, clap::Args)]
pub(super) struct EnvoyCheckArgs {
    /// Envoy's configuration in YAML or JSON, or the output of its administrator's `/config_dump`;
    /// `-` for standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Who verifies the user, where that isn't this Envoy: `header:NAME`, `cookie:NAME` or `basic`
    /// for a proxy in front of it.
    #[arg(long, value_name = "SOURCE")]
    user: Option<Source>,
    /// Print one JSON object a finding: `line`, `path`, `check`, `told`, `piece` (absent where none
    /// repairs it).
    #[arg(long)]
    json: bool,
}

/// What a configuration came to.
struct Checked {
    /// What is missing or dangerous.
    findings: Vec<EnvoyFinding>,
    /// What could not be looked at.
    notes: Vec<String>,
}

/// Prints the findings, and the pieces that repair them.
pub(super) fn run(
    args: &EnvoyCheckArgs,
    input: &mut impl Read,
    out: &mut impl Write,
    errors: &mut impl Write,
) -> CommandStatus {
    let tree = match read::read(&args.file, input) {
        Ok(tree) => tree,
        Err(error) => return complain(errors, error, CommandStatus::Usage),
    };
    let checked = check(&tree, args.user.as_ref());
    for note in &checked.notes {
        let _ = writeln!(errors, "streamgate: note: {}", plain(note));
    }
    let findings = &checked.findings;
    let printed = if args.json {
        print(as_json(findings), out, errors)
    } else {
        let text = as_text(&args.file, findings, args.user.as_ref());
        print(text, out, errors)
    };
    printed.max(if findings.is_empty() {
        CommandStatus::Ok
    } else {
        CommandStatus::Refused
    })
}

/// What is missing or dangerous in the output of `/config_dump`, and where.
pub(super) fn told(dump: &str, user: Option<&Source>) -> Result<Vec<String>, String> {
    let tree = read::parse(Path::new("/config_dump"), dump).map_err(|error| error.to_string())?;
    let findings = check(&tree, user).findings.into_iter();
    Ok(findings
        .map(|found| format!("{}: {}", found.path, found.told))
        .collect())
}

/// What is missing or dangerous in a configuration.
fn check(tree: &Node, user: Option<&Source>) -> Checked {
    let root = tree.root();
    let envoy = Envoy::of(&root);
    let mut findings = Findings::default();
    let mut notes = Vec::new();
    if envoy.managers.is_empty() {
        findings.add(
            &root,
            "http_connection_manager",
            None,
            "no HTTP connection manager found; if listeners come from elsewhere (LDS), pass the output of /config_dump",
        );
    }
    let asks = |manager: &&Manager<'_>| filters::check(manager).is_some();
    let is_asked = envoy.managers.iter().any(|manager| asks(&manager));
    for manager in &envoy.managers {
        if is_asked && !asks(&manager) {
            let name = manager.settings.text_of("stat_prefix");
            notes.push(format!(
                "the connection manager {name} has no ext_authz filter and was not checked"
            ));
            continue;
        }
        if manager.routes.is_none() {
            let name = manager.settings.text_of("stat_prefix");
            notes.push(format!(
                "the routes of {name} come from elsewhere (RDS) and were not checked; pass the output of /config_dump"
            ));
        }
        if one(&envoy, manager, user, &mut findings) {
            let name = manager.settings.text_of("stat_prefix");
            notes.push(format!(
                "/config_dump hides what the routes of {name} say to streamgate, which was not checked; pass the \
                 file that Envoy has read, too"
            ));
        }
    }
    if envoy.has_cds && !envoy.is_dump() {
        notes.push("clusters that come from elsewhere (CDS) were not checked; pass the output of /config_dump".to_owned());
    }
    let mut findings = findings.0;
    findings.sort_by(|one, other| (one.line, one.check).cmp(&(other.line, other.check)));
    findings.dedup();
    Checked { findings, notes }
}

/// Checks one HTTP connection manager and what belongs to it. Whether Envoy has hidden some of it.
fn one(
    envoy: &Envoy<'_>,
    manager: &Manager<'_>,
    user: Option<&Source>,
    findings: &mut Findings,
) -> bool {
    manager::listener(manager, findings);
    manager::settings(manager, findings);
    identity::check(manager, user, findings);
    filters::filters(envoy, manager, findings);
    logs::logs(envoy, manager, user, findings);
    clusters::ours(envoy, manager, findings);
    let counted = routes::routes(manager, findings);
    clusters::origins(envoy, &counted.clusters, findings);
    counted.is_redacted
}

/// A line of JSON for each.
fn as_json(findings: &[EnvoyFinding]) -> String {
    // Texts can always be written.
    let lines = findings.iter().map(serde_json::to_string);
    let lines = lines.map(Result::unwrap_or_default);
    lines.map(|line| line + "\n").collect()
}

/// A line for a person for each, and each piece once.
fn as_text(file: &Path, findings: &[EnvoyFinding], user: Option<&Source>) -> String {
    let mut text = String::new();
    if findings.is_empty() {
        return "ok: nothing is missing, and nothing dangerous was found\n".to_owned();
    }
    let mut pieces: Vec<&str> = Vec::new();
    for found in findings {
        let piece = found.piece.map_or(String::new(), |it| format!(" [{it}]"));
        let (line, told, path) = (found.line, plain(&found.told), plain(&found.path));
        let file = file.display();
        // To write to a string can't fail.
        let _ = writeln!(text, "{file}:{line}: {told}{piece}\n    at {path}");
        if let Some(name) = found.piece
            && !pieces.contains(&name)
        {
            pieces.push(name);
        }
    }
    for name in pieces {
        if let Some(piece) = envoy_config::fragment(name, user) {
            let _ = write!(text, "\n[{name}]\n{piece}");
        }
    }
    text
}

#[cfg(test)]
mod tests;
