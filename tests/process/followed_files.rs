//! Followed files that were emptied or cut off change nothing, and `limits.users_file` is followed
//! like the others. What changes is logged key by key.

use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;

use testkit::streamgate::Streamgate;
use testkit::streamgate::run;

/// A running streamgate, and the files that it follows.
struct Files {
    streamgate: Streamgate,
    folder: TempDir,
}

impl Files {
    /// Starts it with a configuration file and others, whose paths replace `{users}` and `{tokens}`
    /// in the first.
    async fn start(config: &str, others: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in others {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let file = folder.path().join("config");
        std::fs::write(&file, in_folder(config, &folder)).unwrap();
        let streamgate = Streamgate::start(&[("config", file.to_str().unwrap())]).await;
        Self { streamgate, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), in_folder(text, &self.folder)).unwrap();
    }

    /// Waits until a file has been read again so often with that outcome.
    async fn was_read(&self, file: &str, outcome: &str, times: f64) {
        let labels = [("file", file), ("outcome", outcome)];
        let name = "streamgate_reloads_total";
        self.streamgate
            .metric_becomes(name, &labels, |count| count == times)
            .await;
    }

    /// Why the last changed files were refused.
    fn problem(&self) -> String {
        let message = "the changed files can't be used; what was read before stays in force";
        let lines = self.streamgate.lines(message);
        lines.last().unwrap()["problem"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// The settings that it has said to have changed.
    fn changes(&self) -> Vec<String> {
        let shown = |line: &Value| {
            let field = |name| line[name].as_str().unwrap();
            let user = line["user.id"].as_str();
            let of_user: String = user.iter().map(|user| format!(" of {user}")).collect();
            format!(
                "{}{of_user}: {} -> {}",
                field("key"),
                field("from"),
                field("to")
            )
        };
        let lines = self.streamgate.lines("a setting has changed");
        lines.iter().map(shown).collect()
    }
}

fn in_folder(text: &str, folder: &TempDir) -> String {
    let at = |name| folder.path().join(name).to_str().unwrap().to_owned();
    text.replace("{users}", &at("users"))
        .replace("{tokens}", &at("tokens"))
}

// === Files that were emptied or cut off ===

const CONFIG: &str = "limits:\n  enforce: false\n  default: 2\n  users:\n    anna: 5\n    ben: 6\n";

#[tokio::test]
async fn an_emptied_or_cut_configuration_changes_nothing() {
    let files = Files::start(CONFIG, &[]).await;
    let enforces = async || files.streamgate.metric("streamgate_enforces", &[]).await;
    files.write("config", "");
    files.was_read("config", "failed", 1.0).await;
    assert!(
        files
            .problem()
            .contains("config: the file is empty (0 bytes)"),
        "{}",
        files.problem()
    );
    for (times, end) in [(2.0, "anna: 5\n"), (3.0, "anna: 5\n    ben: 6")] {
        let cut = CONFIG.find(end).unwrap() + end.len();
        files.write("config", &CONFIG[..cut]);
        files.was_read("config", "failed", times).await;
        let line = CONFIG[..cut].lines().count();
        let problem = files.problem();
        assert!(
            problem.contains(&format!("the file stops at line {line}")),
            "{problem}"
        );
        assert!(
            problem.contains("end the file with the line `# end`"),
            "{problem}"
        );
    }
    assert_eq!(
        (
            files.streamgate.limit("anna").await,
            files.streamgate.limit("ben").await
        ),
        (5, 6)
    );
    assert_eq!(enforces().await, 0.0);
    // With the line that says so, the cut is intended, and the line has to stay from then on.
    let without_ben = CONFIG.replace("    ben: 6\n", "");
    files.write("config", &format!("{without_ben}# end\n"));
    files.was_read("config", "ok", 1.0).await;
    assert_eq!(
        (
            files.streamgate.limit("anna").await,
            files.streamgate.limit("ben").await
        ),
        (5, 2)
    );
    files.write("config", &without_ben.replace("anna: 5", "anna: 7"));
    files.was_read("config", "failed", 4.0).await;
    assert!(
        files
            .problem()
            .contains("stops at line 5 without the line `# end`"),
        "{}",
        files.problem()
    );
    assert_eq!(files.streamgate.limit("anna").await, 5);
}

#[tokio::test]
async fn a_removed_section_is_a_change_that_is_logged_key_by_key() {
    let files = Files::start(CONFIG, &[]).await;
    files.write(
        "config",
        "refusal: {show: [device]}\nleases: {request: 1m}\n",
    );
    files.was_read("config", "ok", 1.0).await;
    assert_eq!(files.streamgate.limit("anna").await, 3);
    assert_eq!(
        files.changes(),
        [
            "limits.default: 2 -> 3",
            "limits.enforce: false -> true",
            "limits.users of anna: 5 -> (none)",
            "limits.users of ben: 6 -> (none)",
            "refusal.show: [session, device, content, started_at] -> [device]",
        ]
    );
    let later = files
        .streamgate
        .lines("a setting has changed in the file; it applies after a restart");
    assert_eq!(later.len(), 1);
    assert_eq!(
        (&later[0]["key"], &later[0]["to"]),
        (&"leases.request".into(), &"1m".into())
    );
}

#[tokio::test]
async fn a_file_without_a_byte_is_an_error_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty");
    std::fs::write(&empty, "").unwrap();
    let empty = empty.to_str().unwrap();
    let anywhere = [
        ("STREAMGATE_GRPC__LISTEN", "127.0.0.1:0"),
        ("STREAMGATE_HTTP__LISTEN", "127.0.0.1:0"),
    ];
    for variable in [
        "STREAMGATE_CONFIG",
        "STREAMGATE_LIMITS__USERS_FILE",
        "STREAMGATE_HTTP__TOKENS_FILE",
    ] {
        let mut environment = vec![(variable, empty)];
        environment.extend(anywhere);
        let (code, out, errors) = run(&["serve"], &environment).await;
        assert_eq!(code, 2, "{variable}: {out}{errors}");
        assert!(
            errors.contains("is empty (0 bytes)"),
            "{variable}: {errors}"
        );
    }
}

#[tokio::test]
async fn an_emptied_or_cut_list_of_users_or_tokens_changes_nothing() {
    let users = "anna 5\nben 6\n";
    let tokens = "op operator\napp client\ntv client anna\n";
    let config = "limits: {users_file: '{users}'}\nhttp: {tokens_file: '{tokens}'}\n";
    let files = Files::start(config, &[("users", users), ("tokens", tokens)]).await;
    for (times, cut) in [(1.0, 0), (2.0, 6), (3.0, 7), (4.0, users.len() - 1)] {
        files.write("users", &users[..cut]);
        files.was_read("users", "failed", times).await;
    }
    assert!(
        files.problem().contains("users: the file stops at line 2"),
        "{}",
        files.problem()
    );
    // Without its last word, the last line would let the television act for everybody.
    let without_user = tokens.len() - " anna\n".len();
    for (times, cut) in [(1.0, 0), (2.0, "op operator\n".len()), (3.0, without_user)] {
        files.write("tokens", &tokens[..cut]);
        files.was_read("tokens", "failed", times).await;
    }
    assert!(
        files.problem().contains("tokens: the file stops at line 3"),
        "{}",
        files.problem()
    );
    let client = reqwest::Client::new();
    let status = async |token: &str, user: &str| {
        let url = format!("http://{}/v1/users/{user}/sessions", files.streamgate.http);
        client
            .get(url)
            .bearer_auth(token)
            .send()
            .await
            .unwrap()
            .status()
            .as_u16()
    };
    assert_eq!(
        [
            status("app", "ben").await,
            status("tv", "anna").await,
            status("tv", "ben").await
        ],
        [200, 200, 403]
    );
    files.write("tokens", "op operator\n# end\n");
    files.was_read("tokens", "ok", 1.0).await;
    assert_eq!(
        [status("op", "ben").await, status("app", "ben").await],
        [200, 401]
    );
}

// === limits.users_file ===

#[tokio::test]
async fn a_list_of_users_is_followed_and_a_broken_one_changes_nothing() {
    let config = "limits: {users_file: '{users}', plans: {gold: 9}, users: {carl: 7}}";
    let files = Files::start(config, &[("users", "anna 5\nthe user 0\n")]).await;
    let limits = async || {
        let users = ["anna", "the%20user", "ben", "carl"];
        let mut limits = Vec::new();
        for user in users {
            limits.push(files.streamgate.limit(user).await);
        }
        limits
    };
    assert_eq!(limits().await, [5, 0, 3, 7]);
    files.write("users", "anna 6\nben many\n");
    files.was_read("users", "failed", 1.0).await;
    assert!(
        files
            .problem()
            .contains("users: line 2: the last word is not a limit"),
        "{}",
        files.problem()
    );
    assert_eq!(limits().await, [5, 0, 3, 7]);
    files.write("users", "ben 6\nthe user 1\ndora 1\n");
    files.was_read("users", "ok", 1.0).await;
    assert_eq!(limits().await, [3, 1, 6, 7]);
    let lines = files
        .streamgate
        .lines("the limits in limits.users_file have changed");
    let counts = ["users", "added", "changed", "removed"].map(|name| lines[0][name].as_u64());
    assert_eq!(counts, [Some(3), Some(2), Some(1), Some(1)]);
    // A change of the other file leaves this one in force.
    files.write("config", "limits: {users_file: '{users}', default: 4}");
    files.was_read("config", "ok", 1.0).await;
    assert_eq!(limits().await, [4, 1, 6, 4]);
}

#[tokio::test]
async fn a_user_with_two_limits_is_refused_until_one_of_them_is_gone() {
    let config = "limits: {users_file: '{users}', users: {anna: 7}}\n";
    let files = Files::start(config, &[("users", "ben 6\n")]).await;
    let said = "line 3: this user has a limit in limits.users too; delete one of the two";
    files.write("users", "# both\nben 5\nanna 1\n");
    files.was_read("users", "failed", 1.0).await;
    assert!(files.problem().ends_with(said), "{}", files.problem());
    assert_eq!(
        (
            files.streamgate.limit("anna").await,
            files.streamgate.limit("ben").await
        ),
        (7, 6)
    );
    // As soon as the other file allows it, it comes into force without another change.
    files.write(
        "config",
        "limits: {users_file: '{users}', users: {carl: 7}}\n",
    );
    files.was_read("users", "ok", 1.0).await;
    assert_eq!(
        (
            files.streamgate.limit("anna").await,
            files.streamgate.limit("ben").await
        ),
        (1, 5)
    );
    files.write(
        "config",
        "limits: {users_file: '{users}', users: {anna: 8}}\n",
    );
    files.was_read("config", "failed", 1.0).await;
    assert!(files.problem().ends_with(said), "{}", files.problem());
    assert_eq!(files.streamgate.limit("anna").await, 1);
    files.write("users", "ben 4\n");
    files.was_read("config", "ok", 2.0).await;
    assert_eq!(
        (
            files.streamgate.limit("anna").await,
            files.streamgate.limit("ben").await
        ),
        (8, 4)
    );
}

#[tokio::test]
async fn a_bad_list_of_users_is_named_at_the_start_as_by_check_config() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let config = "grpc: {listen: '127.0.0.1:0'}\nhttp: {listen: '127.0.0.1:0'}\nlimits: {users_file: '{users}', users: {anna: 7}}\n";
    std::fs::write(at("config"), in_folder(config, &folder)).unwrap();
    for (text, said) in [
        (
            Some("ben\n"),
            "line 1: only one word; write a name, a space and the limit, a whole number from 0 to 1000",
        ),
        (
            Some("ben 1\nben 1\n"),
            "line 2: this user is already in line 1; delete one of the two lines",
        ),
        (
            Some("ben 1\nanna 1\n"),
            "line 2: this user has a limit in limits.users too; delete one of the two",
        ),
        (None, "No such file or directory"),
    ] {
        match text {
            Some(text) => std::fs::write(at("users"), text).unwrap(),
            None => std::fs::remove_file(at("users")).unwrap(),
        }
        let config = at("config");
        for arguments in [
            ["serve", "--config", &config].as_slice(),
            &["check-config", &config],
        ] {
            let (code, out, errors) = run(arguments, &[]).await;
            assert_eq!(code, 2, "{arguments:?}: {out}{errors}");
            assert!(
                errors.contains(said) && errors.contains(&at("users")),
                "{errors}"
            );
        }
    }
}
