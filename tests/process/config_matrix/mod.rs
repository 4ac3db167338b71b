//! The configuration matrix: every key at every documented value and at its edges starts the real
//! program, which then has to do its job, still be there three seconds later, and end when asked.
//!
//! `table` has the values, `cover` combines them, `row` is what one combination has to do.

mod cover;
mod row;
mod table;
mod viewer;

use std::collections::BTreeSet;
use std::rc::Rc;

use serde_json::Value;
use streamgate::clock::Stopwatch;
use streamgate::config;
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, LocalSet};

use cover::{Row, Space, pairwise, part};
use row::{Place, Scene, variable};
use table::{Factor, REFUSED, Settings, factors, has_ipv6};
use testkit::streamgate::run;

/// How many programs run at once; most of the time they wait.
const AT_ONCE: usize = 64;
/// How many rows CI has at least: one that takes longer finds more.
const IN_CI: usize = 40;

/// Every row, and the values that it is made of.
fn rows() -> (Vec<Factor>, Vec<Row>) {
    let factors = factors();
    let fits = |(one, a): cover::Choice, (other, b): cover::Choice| {
        let (one, other) = (&factors[one], &factors[other]);
        Settings(vec![(one, &one.choices[a]), (other, &other.choices[b])]).fit()
    };
    let space = Space {
        sizes: factors.iter().map(|factor| factor.choices.len()).collect(),
        fits: &fits,
    };
    let rows = pairwise(&space);
    (factors, rows)
}

/// Runs these rows, many at once, and names those that failed.
async fn run_rows(factors: Vec<Factor>, rows: Vec<Row>, is_patient: bool) {
    let took = Stopwatch::start();
    let count = rows.len();
    let scene = Rc::new(Scene::new(factors, is_patient));
    let places = Rc::new(Semaphore::new(AT_ONCE));
    let local = LocalSet::new();
    let playing = local.run_until(async {
        let mut running = JoinSet::new();
        for (number, row) in rows.into_iter().enumerate() {
            let (scene, places) = (Rc::clone(&scene), Rc::clone(&places));
            running.spawn_local(async move {
                let _place = places.acquire().await.unwrap();
                Box::pin(scene.play(number, &row)).await;
            });
        }
        let mut failed = 0;
        while let Some(ended) = running.join_next().await {
            failed += usize::from(ended.is_err());
        }
        failed
    });
    let failed = playing.await;
    println!(
        "measured: {count} rows in {:.1} s",
        took.elapsed().as_secs_f64()
    );
    assert_eq!(failed, 0, "of {count} rows so many failed, see above");
}

#[tokio::test]
async fn every_value_starts_a_program_that_works() {
    let (factors, rows) = rows();
    let rows = part(&rows, IN_CI);
    run_rows(factors, rows, false).await;
}

#[tokio::test]
#[ignore = "takes minutes: make matrix"]
async fn every_two_values_start_a_program_that_works() {
    let (factors, rows) = rows();
    run_rows(factors, rows, true).await;
}

/// Whether a value is that word, begins with it, or has it in a list.
fn has_word(value: &Value, word: &str) -> bool {
    match value {
        Value::Array(items) => items.iter().any(|item| has_word(item, word)),
        Value::String(text) => text.split([',', '+']).any(|part| {
            let rest = part.trim().strip_prefix(word);
            rest.is_some_and(|rest| rest.is_empty() || word.ends_with(':'))
        }),
        other => word == other.to_string().as_str(),
    }
}

#[test]
fn every_key_and_every_word_has_a_row() {
    let factors = factors();
    let keys = config::keys();
    let known: BTreeSet<_> = keys.iter().map(|(key, _)| *key).collect();
    let tried: BTreeSet<_> = factors
        .iter()
        .flat_map(|factor| &factor.keys)
        .copied()
        .collect();
    assert_eq!(tried, known, "the keys in the table, and those in the code");
    let refused: BTreeSet<_> = REFUSED.iter().map(|(key, _)| *key).collect();
    assert_eq!(
        refused, known,
        "the keys with a wrong value, and those in the code"
    );
    for (key, words) in keys {
        let values = factors.iter().flat_map(|factor| {
            let at = factor.keys.iter().position(|name| *name == key);
            let values = factor
                .choices
                .iter()
                .filter_map(move |choice| choice[at?].as_ref());
            values.collect::<Vec<_>>()
        });
        let values: Vec<_> = values.collect();
        assert!(!values.is_empty(), "{key} is never set");
        for word in words {
            let has_it = values.iter().any(|value| has_word(value, word));
            assert!(has_it, "{key} is never {word}");
        }
    }
}

#[test]
fn every_list_of_words_in_the_code_is_known_here() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/config/sections");
    let files = std::fs::read_dir(folder).unwrap();
    let sources = files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap());
    let is_list = |line: &&str| line.contains("const ") && line.contains(": Words<");
    let lists: usize = sources
        .map(|text| text.lines().filter(is_list).count())
        .sum();
    let keys = config::keys();
    let others = |key: &str| key.starts_with("identity.");
    let with_words = keys
        .iter()
        .filter(|(key, words)| !words.is_empty() && !others(key));
    assert_eq!(
        with_words.count(),
        lists,
        "config::keys() lacks a list of words"
    );
}

#[test]
fn the_rows_cover_all_choices_and_ci_has_each_once() {
    let (factors, rows) = rows();
    let is_possible = |row: &Row| {
        let chosen = factors.iter().zip(row);
        let chosen = chosen.map(|(factor, choice)| (factor, &factor.choices[*choice]));
        Settings(chosen.collect()).fit()
    };
    assert!(rows.iter().all(is_possible));
    let part = part(&rows, IN_CI);
    for (place, factor) in factors.iter().enumerate() {
        for choice in 0..factor.choices.len() {
            let is_there = part.iter().any(|row| row[place] == choice);
            assert!(is_there, "{:?} {:?}", factor.keys, factor.choices[choice]);
        }
    }
    println!(
        "measured: {} rows, {} in CI, IPv6 {}",
        rows.len(),
        part.len(),
        has_ipv6()
    );
}

#[tokio::test]
async fn what_serve_refuses_check_config_refuses_too() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("streamgate.yaml");
    std::fs::write(&file, "# nothing\n").unwrap();
    let file = file.to_str().unwrap();
    for (key, value) in REFUSED.iter().copied() {
        let (name, free) = (variable(key), "127.0.0.1:0".to_owned());
        let mut settings = vec![(variable("grpc.listen"), free.clone())];
        settings.push((variable("http.listen"), free));
        settings.retain(|(other, _)| *other != name);
        settings.push((name, value.to_owned()));
        let settings: Vec<_> = settings
            .iter()
            .map(|(name, value)| (&**name, &**value))
            .collect();
        let (serves, _, told) = run(&["serve", "--config", file], &settings).await;
        let (checks, _, said) = run(&["check-config", file], &settings).await;
        assert_eq!((serves, checks), (2, 2), "{key}: {value:?}\n{told}\n{said}");
        assert!(
            told.contains(&variable(key)) || told.contains(key),
            "{told}"
        );
    }
}

#[test]
fn a_file_and_the_environment_say_the_same() {
    let map = serde_json::json!({"a b": 1, "c": 0});
    assert_eq!(Place::in_environment(&map), "a b=1,c=0");
    let list = serde_json::json!(["a", "b"]);
    assert_eq!(Place::in_environment(&list), "a,b");
    assert_eq!(Place::in_environment(&Value::Null), "");
    assert_eq!(Place::in_environment(&true.into()), "true");
}
