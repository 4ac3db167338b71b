//! What can be done to packets inside the network namespace that `make faults` makes for itself:
//! drop those of one process to some ports, and delay the answers of some ports.

use std::process::Command;
use std::time::Duration;

/// Rules of a firewall, gone when this is dropped.
pub(crate) struct Firewall(Vec<Vec<String>>);

impl Firewall {
    /// Has no packets that a process of that group sends reach those ports: silently, as if the
    /// network were cut.
    pub(crate) fn drop_packets(mut self, group: u32, ports: &[u16]) -> Self {
        let (group, ports) = (group.to_string(), joined(ports));
        let owner = ["-m", "owner", "--gid-owner", &group];
        let to = ["-p", "tcp", "-m", "multiport", "--dports", &ports];
        self.add(&[&owner[..], &to, &["-j", "DROP"]].concat());
        self
    }

    /// Without rules.
    pub(crate) const fn open() -> Self {
        Self(Vec::new())
    }

    fn add(&mut self, rule: &[&str]) {
        run("iptables", &[&["-A", "OUTPUT"], rule].concat());
        self.0.push(rule.iter().map(ToString::to_string).collect());
    }
}

impl Drop for Firewall {
    fn drop(&mut self) {
        for rule in &self.0 {
            let rule: Vec<&str> = rule.iter().map(String::as_str).collect();
            run("iptables", &[&["-D", "OUTPUT"], &rule[..]].concat());
        }
    }
}

/// A delay of everything that is sent from some ports, gone when this is dropped.
pub(crate) struct Latency(String);

impl Latency {
    /// Delays what is sent from those ports.
    pub(crate) fn of(ports: &[u16], delay: Duration) -> Self {
        let (ports, delay) = (joined(ports), format!("{}ms", delay.as_millis()));
        marking("-A", &ports);
        // All goes through the first band but what is marked, which waits in the third.
        let all = "qdisc add dev lo root handle 1: prio priomap 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0";
        tc(all);
        tc(&format!(
            "qdisc add dev lo parent 1:3 handle 30: netem limit 100000 delay {delay}"
        ));
        tc("filter add dev lo parent 1: protocol ip handle 1 fw flowid 1:3");
        Self(ports)
    }
}

impl Drop for Latency {
    fn drop(&mut self) {
        tc("qdisc del dev lo root");
        marking("-D", &self.0);
    }
}

/// Adds or deletes the rule that marks what is sent from those ports.
fn marking(action: &str, ports: &str) {
    let from = ["OUTPUT", "-p", "tcp", "-m", "multiport", "--sports", ports];
    let mark = ["-j", "MARK", "--set-mark", "1"];
    run(
        "iptables",
        &[&["-t", "mangle", action], &from[..], &mark].concat(),
    );
}

fn tc(words: &str) {
    run("tc", &words.split(' ').collect::<Vec<_>>());
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
