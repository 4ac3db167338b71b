//! What can be done to packets inside the network namespace that `make faults` makes for itself:
//! drop those of one process to some ports, or lead them to another port.

use std::process::Command;

/// Rules of a firewall, each with its table; gone when this is dropped.
pub(crate) struct Firewall(Vec<(&'static str, Vec<String>)>);

impl Firewall {
    /// Has no packets that a process of that group sends reach those ports: silently, as if the
    /// network were cut.
    pub(crate) fn drop_packets(mut self, group: u32, ports: &[u16]) -> Self {
        let (group, ports) = (group.to_string(), joined(ports));
        let owner = ["-m", "owner", "--gid-owner", &group];
        let to = ["-p", "tcp", "-m", "multiport", "--dports", &ports];
        self.add("filter", &[&owner[..], &to, &["-j", "DROP"]].concat());
        self
    }

    /// Has new connections of processes of that group to that port lead to another one.
    pub(crate) fn redirect(mut self, group: u32, port: u16, other: u16) -> Self {
        let [group, port, other] = [group, port.into(), other.into()].map(|it| it.to_string());
        let owner = ["-m", "owner", "--gid-owner", &group];
        let to = ["-p", "tcp", "--dport", &port];
        let action = ["-j", "REDIRECT", "--to-ports", &other];
        self.add("nat", &[&owner[..], &to, &action].concat());
        self
    }

    /// Without rules.
    pub(crate) const fn open() -> Self {
        Self(Vec::new())
    }

    fn add(&mut self, table: &'static str, rule: &[&str]) {
        run("iptables", &[&["-t", table, "-A", "OUTPUT"], rule].concat());
        let rule = rule.iter().map(ToString::to_string);
        self.0.push((table, rule.collect()));
    }
}

impl Drop for Firewall {
    fn drop(&mut self) {
        for (table, rule) in &self.0 {
            let rule: Vec<&str> = rule.iter().map(String::as_str).collect();
            run(
                "iptables",
                &[&["-t", table, "-D", "OUTPUT"], &rule[..]].concat(),
            );
        }
    }
}

fn joined(ports: &[u16]) -> String {
    let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
    ports.join(",")
}

/// Runs a program that must succeed.
fn run(program: &str, words: &[&str]) {
    let done = Command::new(program).args(words).output();
    let done = done.unwrap_or_else(|error| panic!("{program} can't be run: {error}"));
    let why = String::from_utf8_lossy(&done.stderr);
    assert!(
        done.status.success(),
        "{program} {}: {why}",
        words.join(" ")
    );
}
