//! The drills and the published table, held to the faults that `make faults` makes.

use testkit::docs;
use testkit::tools::repository;

/// Where the faults are.
const FAULTS: &str = "benches/faults/fault.rs";

/// The page with a drill for each.
const DRILLS: &str = "docs/drills.md";

/// The page with a row for each.
const TABLE: &str = "docs/faults.md";

/// The names of all faults, as their code gives them to the table.
fn faults() -> Vec<String> {
    let code = std::fs::read_to_string(repository(FAULTS)).unwrap();
    let (_, after) = code.split_once("fn name(self)").unwrap();
    let (body, _) = after.split_once("\n    }\n").unwrap();
    let names = body.lines().filter_map(|line| line.split_once("=> \""));
    let names = names.map(|(_, name)| name.trim_end_matches("\",").to_owned());
    names.collect()
}

#[test]
fn each_fault_has_a_drill_and_there_are_no_others() {
    let faults = faults();
    assert!(faults.len() >= 16, "{FAULTS} has another form: {faults:?}");
    let mut sections = docs::text(DRILLS).split("\n## ").skip(1);
    for fault in &faults {
        let section = sections.next().unwrap_or_default();
        let (heading, body) = section.split_once('\n').unwrap_or_default();
        assert_eq!(heading, fault, "{DRILLS} has them in the order of {FAULTS}");
        for part in ["*What the viewer sees.*", "*Alert on.*", "*Do.*"] {
            assert!(body.contains(part), "{heading} lacks {part}");
        }
    }
    assert_eq!(sections.next(), None, "a drill for no fault");
}

#[test]
fn each_fault_has_a_row_in_the_published_table() {
    let table = docs::text(TABLE);
    for fault in faults() {
        assert!(table.contains(&format!("| {fault} |")), "{fault}");
    }
}
