//! How many instructions the parts of a check take, by callgrind's count, next to the counts that
//! are committed. It depends on the compiler, and hardly on the machine or on what else runs there.
//! `make bench-instructions` runs it; with `STREAMGATE_WRITE=1` it commits what it counts.

use std::collections::BTreeMap;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use streamgate::clock::{Clock, ManualClock, Timestamp};
use streamgate::config::{Changeable, Config, InForce, OutageRule};
use streamgate::doors::DecisionLog;
use streamgate::envoy::CheckDoor;
use streamgate::envoy::parts::{Calls, read, write};
use streamgate::identity::{Identity, Kind, RouteLists};
use streamgate::ledger::{Ledger, Settings};
use streamgate::outbox::outbox;
use streamgate::session::{Admission, Refusal, Roster, Terms};
use streamgate::store::MemoryStore;
use streamgate::telemetry::Metrics;
use testkit::streams::{key, refusing, start, user};
use testkit::tools::{repository, tool};
use tokio_util::task::TaskTracker;

use super::request::{Sender, Template, names};

/// The argument that has this program count, and the one that has it repeat a part.
pub(crate) const ARGUMENT: &str = "--count-instructions";
pub(crate) const REPEAT: &str = "--repeat";

/// A part, by its name, and what repeats it so often.
type Part = (&'static str, fn(usize));

/// The parts.
const PARTS: [Part; 4] = [
    ("held", held),
    ("read", reading),
    ("write", writing),
    ("rule", rule),
];

/// How often a part is repeated, the first time and the second: the difference counts.
const TIMES: [usize; 2] = [200, 1_200];

/// By how many percent a count may grow.
const MAY_GROW: u64 = 5;

/// The committed counts.
const COMMITTED: &str = "benches/instructions.txt";

/// Counts, and compares. Fails if a part takes more instructions than it may.
pub(crate) fn count() -> ExitCode {
    let path = repository(COMMITTED);
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let committed: BTreeMap<&str, u64> = committed.lines().filter_map(entry).collect();
    let (mut lines, mut has_grown) = (String::new(), false);
    println!("| instructions | now | committed | ratio |\n|---|--:|--:|--:|");
    for (part, _) in PARTS {
        let [few, many] = TIMES.map(|times| instructions(part, times));
        let now = (many - few) / (TIMES[1] - TIMES[0]) as u64;
        let before = committed.get(part).copied().unwrap_or_default();
        println!(
            "| {part} | {now} | {before} | {:.3} |",
            now as f64 / before as f64
        );
        has_grown |= now * 100 > before * (100 + MAY_GROW);
        lines += &format!("{part} {now}\n");
    }
    if std::env::var_os("STREAMGATE_WRITE").is_some() {
        std::fs::write(path, lines).unwrap();
    } else if has_grown {
        println!(
            "a part takes over {MAY_GROW} % more than in {COMMITTED}: make it cheaper, or say in the \
             commit why not and write the new counts with STREAMGATE_WRITE=1 make bench-instructions"
        );
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// A line of the committed counts.
fn entry(line: &str) -> Option<(&str, u64)> {
    let (part, count) = line.split_once(' ')?;
    Some((part, count.parse().ok()?))
}

/// How many instructions this program takes to repeat that part so often.
fn instructions(part: &str, times: usize) -> u64 {
    let mut valgrind = Command::new(tool("valgrind", "valgrind"));
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    valgrind.arg(std::env::current_exe().unwrap());
    valgrind.args([REPEAT, part, &times.to_string()]);
    let run = valgrind.output().unwrap();
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{said}");
    let mut lines = said.lines();
    let count = lines.find_map(|line| line.split_once("Collected : "));
    count.unwrap().1.trim().parse().unwrap()
}

/// Repeats a part.
pub(crate) fn repeat(part: &str, times: &str) {
    let (_, repeat) = PARTS.iter().find(|(name, _)| *name == part).unwrap();
    repeat(times.parse().unwrap());
}

/// The check of one viewer's playback, with the prefix of gRPC.
fn message() -> Vec<u8> {
    let template = Template::of(Sender::Envoy);
    let size = u32::try_from(template.size()).unwrap().to_be_bytes();
    let mut message = [&[0], &size[..]].concat();
    template.write((1, 1), &mut message);
    message
}

/// The next request of a playback, answered from memory.
fn held(times: usize) {
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_800_000_000_000)));
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().unwrap();
    let _within = runtime.enter();
    let door = door(&clock);
    let metrics = Arc::clone(&door.metrics);
    let calls = Calls::new(door);
    let message = Bytes::from(message());
    for _ in 0..2 {
        assert!(calls.check(message.clone()).is_some());
        // Its request after that shows that it plays, and then it is held.
        clock.advance(Duration::from_secs(3));
    }
    for _ in 0..times {
        assert!(calls.check(message.clone()).is_some());
    }
    let counted = format!("{{decision=\"allow\",reason=\"held\"}} {times}\n");
    assert!(metrics.render().contains(&counted), "{}", metrics.render());
}

/// A door on an embedded store which is as far as Redis.
fn door(clock: &Arc<ManualClock>) -> CheckDoor {
    let clock: Arc<dyn Clock> = Arc::<ManualClock>::clone(clock);
    let (config, metrics) = (Config::default(), Arc::new(Metrics::new()));
    let terms = Terms::new(config.leases.longest(), config.store.timeout);
    let in_force = Arc::new(InForce::new(Changeable::of(&config)));
    let settings = Settings {
        in_force: Arc::clone(&in_force),
        leases: config.leases,
        terms,
        outage: OutageRule::Deny,
        room_to_hold: 1_000,
    };
    let store = Arc::new(MemoryStore::new(terms, Arc::clone(&clock)));
    let ledger = Ledger::new(store, settings, Arc::clone(&clock), Arc::clone(&metrics));
    let ledger = Arc::new(ledger);
    let (outbox, _delivery) = outbox(Arc::clone(&ledger), terms, Arc::clone(&metrics));
    CheckDoor {
        identity: Identity::default(),
        routes: RouteLists::default(),
        in_force,
        ledger,
        outbox,
        metrics,
        log: DecisionLog::new(clock),
        tasks: TaskTracker::new(),
    }
}

/// Reading a check.
fn reading(times: usize) {
    let message = message();
    for _ in 0..times {
        assert!(read(&message[5..]));
    }
}

/// Writing the answer that lets a stream through.
fn writing(times: usize) {
    let [(_, viewer), (_, playback)] = names((1, 1));
    let (viewer, playback) = (user(&viewer), key(Kind::Playback, &playback));
    for _ in 0..times {
        assert!(write(&viewer, &playback) > 0);
    }
}

/// A start that finds all of three slots taken, among a few ends.
fn rule(times: usize) {
    let terms = Terms::new(Duration::from_secs(30), Duration::from_millis(50));
    let now = Timestamp::from_millis(1_800_000_000_000);
    let mut roster = Roster::default();
    for n in 0..3 {
        let started = start(&key(Kind::Playback, &format!("p{n}")));
        let admission = roster.admit(&started, &refusing(3), &terms, now);
        assert!(matches!(admission, Admission::Admitted(_)));
    }
    let more = start(&key(Kind::Playback, "p3"));
    for _ in 0..times {
        let admission = roster.admit(&more, &refusing(3), &terms, now);
        assert!(matches!(
            admission,
            Admission::Refused(Refusal::Full { .. })
        ));
    }
}
