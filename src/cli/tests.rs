//! Arguments, settings and exit codes.

use std::os::unix::ffi::OsStringExt;

use super::*;

fn parse(arguments: &[&str]) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("streamgate").chain(arguments.iter().copied()))
}

fn variables(list: &[(&str, &[u8])]) -> impl Iterator<Item = (OsString, OsString)> {
    list.iter()
        .map(|(name, value)| (name.into(), OsString::from_vec(value.to_vec())))
}

/// Runs `check-config` on a file with this text.
fn check(text: &str, environment: &[(&str, &[u8])]) -> (CommandStatus, String, String) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("streamgate.yaml");
    std::fs::write(&file, text).unwrap();
    let (mut out, mut errors) = (Vec::new(), Vec::new());
    let outcome = match ours(variables(environment)) {
        Ok(ours) => check_config::run(Config::examine(&file, ours), &mut out, &mut errors),
        Err(error) => complain(&mut errors, error, CommandStatus::Usage),
    };
    let text = |bytes| {
        String::from_utf8(bytes)
            .unwrap()
            .replace(&format!("{}/", dir.path().display()), "")
    };
    (outcome, text(out), text(errors))
}

#[test]
fn the_definitions_hold() {
    use clap::CommandFactory;
    Cli::command().debug_assert();
}

#[test]
fn completions_of_each_shell_name_each_command() {
    use clap::{CommandFactory, ValueEnum};
    for shell in Shell::value_variants() {
        let text = packaging::completions(*shell);
        for command in Cli::command().get_subcommands() {
            let name = command.get_name();
            assert!(text.contains(name), "{shell} does not name {name}");
        }
    }
}

#[test]
fn each_command_has_a_manual_page() {
    use clap::CommandFactory;
    let folder = tempfile::tempdir().unwrap();
    let mut errors = Vec::new();
    let outcome = packaging::write_manual(folder.path(), &mut errors);
    assert_eq!((outcome, errors.len()), (CommandStatus::Ok, 0));
    let page = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    assert!(page("streamgate.1").contains(".TH streamgate 1"));
    for command in Cli::command().get_subcommands() {
        let name = command.get_name();
        assert!(page(&format!("streamgate-{name}.1")).contains(".SH DESCRIPTION"));
    }
}

#[test]
fn a_folder_that_is_not_there_gets_no_manual_and_an_error_that_says_so() {
    let mut errors = Vec::new();
    let outcome = packaging::write_manual("/nowhere/man".as_ref(), &mut errors);
    let told = String::from_utf8(errors).unwrap();
    assert_eq!(outcome, CommandStatus::Usage);
    assert!(
        told.contains("/nowhere/man: No such file or directory") && told.contains("name a folder"),
        "{told}"
    );
}

#[test]
fn arguments_are_understood_or_are_a_matter_of_usage() {
    assert!(matches!(
        parse(&["serve"]).unwrap().command,
        Command::Serve { .. }
    ));
    let Command::Serve { config } = parse(&["serve", "--config", "a.yaml"]).unwrap().command else {
        panic!("serve")
    };
    assert_eq!(config, Some("a.yaml".into()));
    let Command::Health(health) = parse(&["health", "--grpc", "unix:/a.sock"])
        .unwrap()
        .command
    else {
        panic!("health")
    };
    assert_eq!(health.grpc.to_string(), "unix:/a.sock");
    for arguments in [
        &[][..],
        &["watch"],
        &["check-config"],
        &["check-config", "a", "b"],
        &["serve", "--port", "1"],
        &["health", "--grpc", "x"],
        &["health", "--server-name", "a b"],
        &["health", "--cert", "a.pem"],
        &["completions"],
        &["completions", "tcsh"],
        &["man"],
        &["sessions", ""],
        &["sessions", "anna", "ben"],
        &["sessions", "an\nna"],
        &["sessions", "anna", "--cert", "a.pem"],
        &["sessions", "anna", "--key", "a.pem"],
        &["sessions", "anna", "--token", "s3cr3t"],
        &["release", "anna"],
        &["release", "anna", "p1", ""],
        &["release", "anna", "p1", "--kind", "film"],
    ] {
        let error = parse(arguments).unwrap_err();
        assert_eq!(
            (error.exit_code(), usage(&error)),
            (2, CommandStatus::Usage),
            "{arguments:?}"
        );
    }
    for arguments in [["--version"], ["--help"]] {
        assert_eq!(
            usage(&parse(&arguments).unwrap_err()),
            CommandStatus::Ok,
            "{arguments:?}"
        );
    }
}

#[test]
fn arguments_that_contradict_each_other_are_a_matter_of_usage() {
    for arguments in [
        &["sessions", "anna", "--kind", "video"][..],
        &["sessions", "--kind", "film"],
        &["release", "--all"],
        &["release", "--all", "anna", "p1"],
        &["release", "--all", "anna", "--kind", "video"],
        &["release", "anna", "p1", "--message", ""],
        &["release", "anna", "p1", "--message", "a\nb"],
        &["limit"],
        &["limit", "anna", "many"],
        &["limit", "anna", "1001"],
        &["limit", "anna", "--for", "7d"],
        &["limit", "anna", "3", "--for", "91d"],
        &[
            "limit",
            "anna",
            "3",
            "--for",
            "7d",
            "--until",
            "2027-01-15T08:00:00Z",
        ],
        &["limit", "anna", "3", "--until", "tomorrow"],
        &["limit", "anna", "3", "--remove"],
        &["limit", "anna", "3", "--plan", "gold"],
        &["top", "anna"],
        &["top", "--interval", "0"],
    ] {
        let error = parse(arguments).unwrap_err();
        assert_eq!(
            (error.exit_code(), usage(&error)),
            (2, CommandStatus::Usage),
            "{arguments:?}"
        );
    }
    for arguments in [
        &["sessions"][..],
        &["sessions", "--kind", "video", "--json"],
        &["release", "--all", "anna", "--message", "Stopped."],
        &["limit", "anna", "0", "--for", "7d"],
        &["limit", "anna", "--plan", "gold"],
        &["limit", "anna", "--remove"],
        &["top", "--once"],
    ] {
        assert!(parse(arguments).is_ok(), "{arguments:?}");
    }
}

#[test]
fn a_name_that_cannot_be_says_why() {
    let long = "x".repeat(257);
    for (arguments, expected) in [
        (["sessions", ""].as_slice(), "is empty"),
        (&["sessions", &long], "has 257 bytes; at most 256"),
        (&["release", "anna", "\u{7}"], "has a control character"),
        (
            &["release", "anna", "p", "--kind", "film"],
            "[possible values: request, playback, video]",
        ),
    ] {
        let told = parse(arguments).unwrap_err().to_string();
        assert!(told.contains(expected), "{told}");
    }
}

#[test]
fn check_config_warns_of_an_old_name_and_shows_the_new_one() {
    let (outcome, out, errors) = check("log: {level: debug}\n", &[]);
    assert_eq!(outcome, CommandStatus::Ok);
    assert!(out.contains("telemetry:\n") && out.contains("  log_level: debug\n"));
    assert_eq!(
        errors,
        "streamgate: warning: log.level: its name is now telemetry.log_level; rename it, \
         since version 1000.1 won't read log.level\n"
    );
}

/// An output that nothing can be written to.
struct Broken(std::io::ErrorKind);

impl Write for Broken {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(self.0.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure_and_a_full_disk_is_one() {
    for (kind, outcome, told) in [
        (std::io::ErrorKind::BrokenPipe, CommandStatus::Ok, ""),
        (
            std::io::ErrorKind::StorageFull,
            CommandStatus::Outage,
            "streamgate: failed to print: no storage space\n",
        ),
    ] {
        let mut errors = Vec::new();
        assert_eq!(print("text", &mut Broken(kind), &mut errors), outcome);
        assert_eq!(String::from_utf8(errors).unwrap(), told);
    }
}

#[test]
fn of_several_outcomes_the_worst_is_the_one_with_the_highest_code() {
    let codes = [
        CommandStatus::Ok,
        CommandStatus::Refused,
        CommandStatus::Usage,
        CommandStatus::Outage,
    ];
    assert!(codes.is_sorted());
}

#[test]
fn check_config_prints_the_settings_in_effect() {
    let (outcome, out, errors) = check(
        "limits: {default: 5}",
        &[("STREAMGATE_LIMITS__GRACE", b"1s"), ("PATH", b"\xff")],
    );
    assert_eq!((outcome, errors.as_str()), (CommandStatus::Ok, ""));
    assert!(
        out.contains(
            "limits:\n  enforce: true\n  default: 5\n  plans: {}\n  users: {}\n  users_file: null\n  when_full: refuse\n  displacements: 5\n  grace: 1s\n  quiet: 20s\n"
        ),
        "{out}"
    );
}

#[test]
fn check_config_warns_apart_from_the_settings() {
    let (outcome, out, errors) = check("http: {listen: '0.0.0.0:8080'}", &[]);
    assert_eq!(outcome, CommandStatus::Ok);
    assert!(out.starts_with("grpc:\n"), "{out}");
    assert!(
        errors
            .lines()
            .all(|line| line.starts_with("streamgate: warning: ")),
        "{errors}"
    );
    assert_eq!(errors.lines().count(), 2, "{errors}");
}

#[test]
fn check_config_names_all_that_is_wrong() {
    let (outcome, out, errors) = check(
        "limits:\n  default: many\n",
        &[("STREAMGATE_STORE__BACKEND", b"disk")],
    );
    assert_eq!((outcome, out.as_str()), (CommandStatus::Usage, ""));
    assert_eq!(
        errors,
        "streamgate: STREAMGATE_STORE__BACKEND: store.backend: got \"disk\"; allowed: memory, redis\n\
         streamgate: streamgate.yaml:2: limits.default: got \"many\"; allowed: a whole number from 0 to 1000\n"
    );
}

#[test]
fn check_config_names_wrong_settings_and_unusable_files_at_once() {
    let (outcome, _, errors) = check(
        "grpc:\n  listen: unix:/nowhere/grpc.sock\n\
         http:\n  tls: {cert: /nowhere/cert, key: /nowhere/key}\n  tokens_file: /nowhere/tokens\n  hosts: ['a:1']\n\
         limits: {default: many, users_file: /nowhere/users}\n",
        &[],
    );
    assert_eq!(outcome, CommandStatus::Usage);
    for expected in [
        "streamgate.yaml:6: http.hosts: got \"a:1\"; allowed: a list of host names",
        "streamgate.yaml:7: limits.default: got \"many\"; allowed: ",
        "http.tls.cert: failed to read /nowhere/cert: ",
        "http.tls.key: failed to read /nowhere/key: ",
        "http.tokens_file: failed to read /nowhere/tokens: ",
        "limits.users_file: failed to read /nowhere/users: ",
        "grpc.listen: unix:/nowhere/grpc.sock: the folder /nowhere can't be used: No such file or directory (os error 2); create it, or choose another path",
    ] {
        let line = format!("streamgate: {expected}");
        let told = errors.lines().filter(|told| told.starts_with(&line));
        assert_eq!(told.count(), 1, "{expected} in:\n{errors}");
    }
    assert_eq!(errors.lines().count(), 7, "{errors}");
}

#[test]
fn check_config_names_one_port_for_both_doors_and_a_file_in_the_place_of_a_socket() {
    let (outcome, _, errors) = check("grpc: {listen: 'localhost:8080'}", &[]);
    assert_eq!(outcome, CommandStatus::Usage);
    assert_eq!(
        errors,
        "streamgate: streamgate.yaml:1: grpc.listen: http.listen (127.0.0.1:8080) and grpc.listen (127.0.0.1:8080) \
         use the same port; allowed: two different ports\n"
    );
    let taken = tempfile::NamedTempFile::new().unwrap();
    let taken = taken.path().display();
    let text = format!("grpc: {{listen: 'unix:{taken}'}}");
    let expected = format!(
        "streamgate: grpc.listen: unix:{taken}: the path exists and is not a socket; delete it or choose another path\n"
    );
    assert_eq!(
        check(&text, &[]),
        (CommandStatus::Usage, String::new(), expected)
    );
    // A folder that is none, or can't be entered, is not said to be away.
    let text = format!("grpc: {{listen: 'unix:{taken}/grpc.sock'}}");
    let expected = format!(
        "streamgate: grpc.listen: unix:{taken}/grpc.sock: {taken} is not a folder; choose another path\n"
    );
    assert_eq!(
        check(&text, &[]),
        (CommandStatus::Usage, String::new(), expected)
    );
    let text = format!("grpc: {{listen: 'unix:{taken}/below/grpc.sock'}}");
    let (_, _, errors) = check(&text, &[]);
    let expected = format!("the folder {taken}/below can't be used: Not a directory");
    assert!(errors.contains(&expected), "{errors}");
}

#[test]
fn a_variable_of_ours_that_is_no_text_is_named() {
    let (outcome, _, errors) = check("", &[("STREAMGATE_STORE__REDIS__URLS", b"redis://\xff")]);
    assert_eq!(outcome, CommandStatus::Usage);
    assert_eq!(
        errors,
        "streamgate: STREAMGATE_STORE__REDIS__URLS: got bytes that are not UTF-8; allowed: text\n"
    );
}

#[test]
fn check_config_never_prints_a_password() {
    for text in [
        "store: {redis: {urls: redis://app:hunter2}}",
        "store: {redis: {urls: [redis://:hunter2, secret@cache:6379]}}",
        "store: {redis://app:hunter2: 1}",
        "store: {redis: {urls: 'redis://:hunter2@cache}}",
    ] {
        let (outcome, out, errors) = check(text, &[]);
        assert_eq!(outcome, CommandStatus::Usage, "{text}");
        assert!(!format!("{out}{errors}").contains("hunter2"), "{errors}");
    }
    let (outcome, out, errors) = check("store: {redis: {urls: 'redis://app:hunter2@cache'}}", &[]);
    assert_eq!(outcome, CommandStatus::Ok);
    assert!(out.contains("***@cache") && !format!("{out}{errors}").contains("hunter2"));
}
