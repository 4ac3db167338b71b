//! Nothing that is written makes loading panic.

use proptest::prelude::*;

use super::*;

fn variable_name() -> impl Strategy<Value = String> {
    let keys: Vec<_> = keys()
        .into_iter()
        .map(|(key, _)| key.replace('.', "__").to_uppercase())
        .collect();
    prop_oneof![
        proptest::sample::select(keys).prop_map(|key| format!("STREAMGATE_{key}")),
        "STREAMGATE_LIMITS__(PLANS|USERS)__\\PC{0,9}",
        "STREAMGATE_[A-Z_]{0,20}",
        "STREAMGATE_\\PC{0,20}",
    ]
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        "\\PC{0,40}",
        "[a-z0-9:=,@/.+\\[\\] -]{0,40}",
        "(redis|header|jwt|cmcd|unix)://?[a-z0-9:@/.?,]{0,30}",
        "[0-9.]{1,30}(ms|s|m|h|d|y|)",
        any::<String>(),
    ]
}

proptest! {
    #[test]
    fn no_variables_make_it_panic(variables in proptest::collection::vec((variable_name(), value()), 0..8)) {
        match Config::load(None, variables) {
            Ok(config) => { let _ = (config.to_string(), config.warnings()); }
            Err(error) => prop_assert!(error.lines().count() > 0),
        }
    }

    #[test]
    fn no_file_makes_it_panic(text in "(store|limits|identity|leases|[a-z]{1,6}|)(:|: |:\n  |)(\\PC|[\n \\[\\]{}:,*&!|>'\"-]){0,60}") {
        if let Ok(config) = load_text(&text) {
            prop_assert_eq!(config.to_string().is_empty(), false);
        }
    }
}
