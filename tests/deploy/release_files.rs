//! What can be said of a release's files without building it. `make dist-check` builds and installs one.

use streamgate::config::Config;

use testkit::docs;
use testkit::process::command;
use testkit::streamgate::run;
use testkit::tools::repository;

const EXAMPLE: &str = "deploy/package/streamgate.yaml";
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The line, without the mark of a comment if what follows it is a key.
fn in_force(line: &str) -> String {
    let Some((indentation, rest)) = line.split_once("# ") else {
        return line.to_owned();
    };
    let key = rest.trim_start().split(':').next().unwrap();
    let is_key = key.chars().all(|it| it.is_ascii_lowercase() || it == '_') && rest.contains(':');
    if is_key {
        format!("{indentation}{rest}")
    } else {
        line.to_owned()
    }
}

#[tokio::test]
async fn the_example_configuration_is_right_and_warns_of_nothing() {
    let file = repository(EXAMPLE);
    let (code, told, warnings) = run(&["check-config", file.to_str().unwrap()], &[]).await;
    assert_eq!((code, warnings.as_str()), (0, ""), "{told}");
}

#[test]
fn each_setting_in_the_example_s_comments_is_one_that_there_is() {
    let text = docs::file(EXAMPLE);
    let all: Vec<_> = text.lines().map(in_force).collect();
    let changed = all.iter().zip(text.lines()).filter(|(new, old)| new != old);
    assert_eq!(changed.count(), 6, "{all:#?}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("streamgate.yaml");
    std::fs::write(&file, all.join("\n")).unwrap();
    let config = Config::load(Some(&file), []).unwrap();
    assert!(!config.limits.enforce);
}

#[test]
fn each_place_that_has_the_version_has_this_one() {
    let locked = format!("name = \"streamgate\"\nversion = \"{VERSION}\"");
    for file in ["Cargo.lock", "fuzz/Cargo.lock"] {
        assert!(docs::file(file).contains(&locked), "{file}: build again");
    }
    let shown = format!("instance: version {VERSION}");
    assert!(docs::text("docs/cli.md").contains(&shown));
    let manifests = docs::file("deploy/kubernetes/streamgate.yaml");
    let images = manifests
        .lines()
        .filter_map(|line| line.split_once("image: "));
    let images: Vec<_> = images.map(|(_, image)| image).collect();
    let image = format!("registry.example.internal/streamgate:{VERSION}");
    assert_eq!(images, [image], "deploy/kubernetes/streamgate.yaml");
}

#[tokio::test]
async fn a_tag_s_notes_are_what_the_changelog_says_of_its_version() {
    let notes = async |arguments: &[&str]| {
        let mut script = command("deploy/dist/tag-notes.sh");
        script.current_dir(repository("")).args(arguments);
        let ran = script.output().await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (ran.status.code(), text(ran.stdout), text(ran.stderr))
    };
    let (code, told, _) = notes(&[VERSION]).await;
    let head = format!("streamgate {VERSION}\n\n- ");
    assert!(code == Some(0) && told.starts_with(&head), "{told}");
    assert!(!told.contains("\n## "), "{told}");
    let (code, told, errors) = notes(&["9.9.9"]).await;
    let expected = "tag-notes.sh: CHANGELOG.md has no notes below '## 9.9.9'; write them, or name another version\n";
    assert_eq!(
        (code, told.as_str(), errors.as_str()),
        (Some(1), "", expected)
    );
}

/// `make dist-check` waits for them, which nobody runs for each change.
#[test]
fn an_installed_release_logs_the_lines_that_it_is_checked_for() {
    let script = docs::file("deploy/dist/dist-check-inside.sh");
    let lines = script.lines().map(str::trim);
    let awaited = lines.filter_map(|line| line.strip_prefix("journal_says "));
    let awaited: Vec<_> = awaited.map(|text| text.trim_matches('\'')).collect();
    assert_eq!(awaited.len(), 2, "{awaited:?}");
    let source = ["src/app/mod.rs", "src/app/start_line.rs"].map(docs::file);
    for text in awaited {
        let logged = format!("\"{text}\");");
        assert!(source.concat().contains(&logged), "{text}");
    }
}
