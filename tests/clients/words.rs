//! The translation of problems in `docs/clients/words.mjs`, run by Node.

use serde_json::{Value, json};
use streamgate::problem::{Reason, guide};

use testkit::docs;
use testkit::process::command;
use testkit::tools::tool;
use testkit::watch::{PATIENCE, within};

/// The reasons that viewers may meet, by the guide to problems.
fn for_viewers() -> Vec<&'static str> {
    let (_, chapter) = guide::TEXT.split_once("## What a viewer may meet").unwrap();
    let (chapter, _) = chapter.split_once("\n## ").unwrap();
    let sections = chapter.split("\n### ").skip(1);
    sections
        .filter_map(|section| section.lines().next())
        .collect()
}

/// What the example makes of problems.
async fn in_words(problems: &[Value]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let words = docs::file("docs/clients/words.mjs");
    std::fs::write(folder.path().join("words.mjs"), words).unwrap();
    let driver = "import { inWords } from \"./words.mjs\";\n\
        console.log(JSON.stringify(JSON.parse(process.argv[2]).map((problem) => inWords(problem))));";
    let file = folder.path().join("driver.mjs");
    std::fs::write(&file, driver).unwrap();
    let mut run = command(tool("node", "nodejs"));
    run.arg(file).arg(Value::from(problems).to_string());
    let ran = within(PATIENCE, "node ends", run.kill_on_drop(true).output()).await;
    let ran = ran.unwrap();
    assert!(ran.status.success(), "{ran:?}");
    serde_json::from_slice(&ran.stdout).unwrap()
}

#[tokio::test]
async fn the_example_has_words_for_each_reason_that_viewers_meet_and_the_services_for_others() {
    let of_viewers = for_viewers();
    let reasons: Vec<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert!(
        of_viewers.iter().all(|reason| reasons.contains(reason)),
        "{of_viewers:?}"
    );
    let known = of_viewers
        .iter()
        .map(|reason| json!({"reason": reason, "detail": "English.", "limit": 3, "active": 3}));
    let mut told = in_words(&known.collect::<Vec<_>>()).await;
    assert!(
        told.iter()
            .all(|text| text != "English." && text.ends_with('.')),
        "{told:?}"
    );
    told.sort();
    told.dedup();
    assert_eq!(told.len(), of_viewers.len());

    let full = |limit: u32| json!({"reason": "full", "detail": "English.", "limit": limit, "active": limit});
    let unknown = json!({"reason": "of_tomorrow", "detail": "English."});
    let told = in_words(&[full(0), full(1), full(3), unknown]).await;
    assert!(told[2].contains("3 von 3"), "{told:?}");
    assert!(told[0] != told[1] && told[1] != told[2], "{told:?}");
    assert_eq!(told[3], "English.");
}
