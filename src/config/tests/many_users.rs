//! Very many users cost no more than in proportion to their number.

use super::*;

/// A file with that many users, in a form for each key that has a map.
fn many(key: &str, users: usize) -> String {
    let mut text = format!("limits:\n  {key}:\n");
    (0..users).for_each(|n| text.push_str(&format!("    user-{n}: {}\n", n % 7)));
    text
}

#[test]
fn a_map_is_searched_for_secrets_as_often_as_it_is_long() {
    for key in ["users", "plans"] {
        let searched = |users| {
            let text = many(key, users);
            load::redact::tests::SEARCHES.set(0);
            assert!(load_text(&text).is_ok());
            load::redact::tests::SEARCHES.get()
        };
        // It was in proportion to the square of that: 300 times as many here.
        let (few, many) = (searched(10), searched(1000));
        assert!(many < 200 * few, "{key}: {few} and {many}");
    }
}

#[test]
fn entries_from_the_environment_are_searched_for_as_often_as_there_are_entries() {
    let searched = |entries: usize| {
        let variables: Vec<_> = (0..entries)
            .map(|n| (format!("STREAMGATE_LIMITS__USERS__u{n}"), "1".to_owned()))
            .collect();
        load::redact::tests::SEARCHES.set(0);
        let config = Config::load(None, variables).unwrap();
        assert_eq!(config.limits.policy.users.len(), entries);
        load::redact::tests::SEARCHES.get()
    };
    let (few, many) = (searched(10), searched(1000));
    assert!(many < 200 * few, "{few} and {many}");
}

#[test]
fn a_file_may_have_more_nodes_than_the_yaml_library_allows_by_default() {
    let text = format!("limits: {{users: [{}]}}", "1,".repeat(250_001));
    assert!(Raw::new(known_keys(), RENAMED).parse(&text).is_ok());
}
