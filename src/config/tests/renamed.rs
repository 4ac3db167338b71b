//! Old names of keys: they work, with a warning. The table of tests has made-up ones.

use super::*;

/// The warnings about old names.
fn warned(config: &Config) -> Vec<String> {
    let warnings = config.warnings().into_iter();
    warnings
        .filter(|warning| warning.contains("1000.1"))
        .collect()
}

#[test]
fn the_table_names_keys_that_are_there_and_versions_to_come() {
    let known: Vec<_> = known_keys().iter().map(|known| known.key.name).collect();
    let numbers = |version: &str| -> Vec<u32> {
        let mut parts = version.split('.').map(|part| part.parse().unwrap());
        let numbers = parts.by_ref().take(2).collect();
        assert_eq!(parts.next(), None, "a version without its patch");
        numbers
    };
    let ours = env!("CARGO_PKG_VERSION").rsplit_once('.').unwrap().0;
    for renamed in RENAMED {
        assert!(known.contains(&renamed.new), "{renamed:?}");
        assert!(!known.contains(&renamed.old), "{renamed:?}");
        assert!(
            numbers(renamed.gone_in) > numbers(ours),
            "take {renamed:?} out of the table"
        );
    }
}

#[test]
fn an_old_key_in_the_file_is_read_as_the_new_one_with_one_warning() {
    let text = "log: {level: debug}\nlimits:\n  tiers: {gold: 7}\n  default: 2\n";
    let config = load_text(text).unwrap();
    let new = "telemetry: {log_level: debug}\nlimits: {plans: {gold: 7}, default: 2}\n";
    assert_eq!(config.to_string(), load_text(new).unwrap().to_string());
    assert_eq!(
        warned(&config),
        [
            "log.level: its name is now telemetry.log_level; rename it, since version 1000.1 won't read log.level",
            "limits.tiers: its name is now limits.plans; rename it, since version 1000.1 won't read limits.tiers",
        ]
    );
    assert!(warned(&load_text(new).unwrap()).is_empty());
}

#[test]
fn an_old_variable_is_read_as_the_new_one_and_so_are_those_of_entries() {
    let config = load_variables(&[
        ("STREAMGATE_LIMITS__TIERS", "gold=7"),
        ("STREAMGATE_LIMITS__TIERS__basic", "1"),
        ("STREAMGATE_LIMITS__PLANS__free", "0"),
    ])
    .unwrap();
    let plans: Vec<_> = config.limits.policy.plans.values().collect();
    assert_eq!(plans, [&1, &0, &7], "basic, free, gold");
    assert_eq!(
        warned(&config),
        [
            "STREAMGATE_LIMITS__TIERS: its name is now STREAMGATE_LIMITS__PLANS; rename it, \
             since version 1000.1 won't read STREAMGATE_LIMITS__TIERS"
        ]
    );
}

#[test]
fn a_variable_beats_the_file_whichever_of_them_has_the_old_name() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("streamgate.yaml");
    for (section, variable) in [
        ("log: {level: warn}", "TELEMETRY__LOG_LEVEL"),
        ("telemetry: {log_level: warn}", "LOG__LEVEL"),
        ("log: {level: warn}", "LOG__LEVEL"),
    ] {
        std::fs::write(&file, section).unwrap();
        let variable = (format!("STREAMGATE_{variable}"), "debug".to_owned());
        let config = Config::load(Some(&file), [variable]).unwrap();
        assert_eq!(config.telemetry.log_level, tracing::Level::DEBUG);
    }
}

#[test]
fn both_names_at_one_place_are_an_error_that_names_both() {
    let both = "telemetry: {log_level: warn}\nlog: {level: debug}\n";
    assert_eq!(
        complaint(load_text(both)),
        "streamgate.yaml:2: log.level is the old name of telemetry.log_level, and both are set; delete log.level"
    );
    let variables = load_variables(&[
        ("STREAMGATE_LIMITS__PLANS__gold", "1"),
        ("STREAMGATE_LIMITS__TIERS__gold", "2"),
    ]);
    assert_eq!(
        complaint(variables),
        "STREAMGATE_LIMITS__TIERS__gold: STREAMGATE_LIMITS__TIERS is the old name of \
         STREAMGATE_LIMITS__PLANS, and both are set; delete STREAMGATE_LIMITS__TIERS"
    );
}

#[test]
fn mistakes_below_an_old_name_show_no_secret_and_no_old_name_as_allowed() {
    let told = complaint(load_text(
        "store: {redis: {addresses: [redis://:hunter2@cache, redis://:hunter2,a@b]}}",
    ));
    assert!(
        told.starts_with("streamgate.yaml:1: store.redis.urls: "),
        "{told}"
    );
    assert!(!told.contains("hunter2"), "{told}");
    let told = complaint(load_text(
        "store: {redis: {addresses: {hunter2: 1, hunter2: 2}}}",
    ));
    assert!(!told.contains("hunter2"), "{told}");
    let told = complaint(load_text("limits: {tier: 1}"));
    assert!(told.contains("limits.tier: unknown key"), "{told}");
    assert!(told.contains("plans") && !told.contains("tiers"), "{told}");
    let told = complaint(load_text("logs: {level: debug}"));
    assert!(
        told.contains("telemetry") && !told.contains("log,"),
        "{told}"
    );
}
