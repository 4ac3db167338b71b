//! Files that change, are truncated, or belong together.

use tempfile::TempDir;

use super::*;

/// Two files that belong together: both must have the same contents.
struct Pair {
    dir: TempDir,
    metrics: Arc<Metrics>,
    reloaded: Arc<Reloaded<String>>,
}

fn files(dir: &Path) -> Files<String> {
    let named = vec![("a.lock", dir.join("lock")), ("a.key", dir.join("key"))];
    Files::new(named, |contents| match contents {
        [lock, key] if lock == key => {
            String::from_utf8(key.to_vec()).map_err(|_| "a.key: is no text".to_owned())
        }
        _ => Err("a.key: doesn't fit".to_owned()),
    })
}

impl Pair {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let metrics = Arc::new(Metrics::new());
        for name in ["lock", "key"] {
            std::fs::write(dir.path().join(name), "one").unwrap();
        }
        let files = files(dir.path());
        let reloaded = Reloaded::load(ReloadedFile::Tokens, files, Arc::clone(&metrics)).unwrap();
        Self {
            dir,
            metrics,
            reloaded: Arc::new(reloaded),
        }
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.dir.path().join(name), text).unwrap();
    }

    /// Checks that many times; returns the value in force, and how many reloads succeeded and
    /// failed.
    fn looks(&self, times: usize) -> (String, usize, usize) {
        for _ in 0..times {
            self.reloaded.check();
        }
        let text = self.metrics.render();
        let count = |outcome| {
            let series =
                format!("streamgate_reloads_total{{file=\"tokens\",outcome=\"{outcome}\"}} ");
            let line = text.lines().find_map(|line| line.strip_prefix(&*series));
            line.unwrap().parse::<usize>().unwrap()
        };
        (
            String::clone(&self.reloaded.current()),
            count("ok"),
            count("failed"),
        )
    }
}

#[test]
fn a_change_takes_effect_once_it_is_stable() {
    let pair = Pair::new();
    assert_eq!(pair.looks(3), ("one".to_owned(), 0, 0));
    pair.write("lock", "two");
    pair.write("key", "two");
    assert_eq!(pair.looks(1), ("one".to_owned(), 0, 0));
    assert_eq!(pair.looks(5), ("two".to_owned(), 1, 0));
    pair.write("lock", "three");
    pair.reloaded.check();
    pair.write("key", "three");
    assert_eq!(
        pair.looks(2),
        ("three".to_owned(), 2, 0),
        "one after the other, between two looks: nothing to complain of"
    );
}

#[test]
fn an_unusable_file_changes_nothing_counts_once_and_recovers() {
    let pair = Pair::new();
    pair.write("key", "two");
    assert_eq!(pair.looks(9), ("one".to_owned(), 0, 1));
    pair.write("key", "three");
    assert_eq!(pair.looks(9), ("one".to_owned(), 0, 2), "another mistake");
    pair.write("lock", "three");
    assert_eq!(pair.looks(9), ("three".to_owned(), 1, 2));
    std::fs::remove_file(pair.dir.path().join("key")).unwrap();
    assert_eq!(pair.looks(9), ("three".to_owned(), 1, 3));
    pair.write("key", "three");
    assert_eq!(
        pair.looks(9),
        ("three".to_owned(), 1, 3),
        "nothing new in it"
    );
    std::fs::remove_file(pair.dir.path().join("key")).unwrap();
    assert_eq!(pair.looks(9), ("three".to_owned(), 1, 4), "a new failure");
}

#[test]
fn a_gauge_is_set_while_files_can_not_be_used() {
    let pair = Pair::new();
    let is_unusable = || {
        pair.looks(2);
        let text = pair.metrics.render();
        text.contains("streamgate_files_unusable{file=\"tokens\"} 1\n")
    };
    assert!(!is_unusable());
    pair.write("key", "two");
    assert!(is_unusable());
    pair.write("key", "three");
    assert!(is_unusable(), "another mistake");
    pair.write("key", "one");
    assert!(!is_unusable(), "as it was");
    pair.write("key", "two");
    assert!(is_unusable());
    pair.write("lock", "two");
    assert!(!is_unusable(), "mended");
}

#[test]
fn a_link_that_is_swapped_is_followed() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for (version, text) in [("v1", "one"), ("v2", "two")] {
        std::fs::create_dir(at(version)).unwrap();
        for name in ["lock", "key"] {
            std::fs::write(at(version).join(name), text).unwrap();
        }
    }
    std::os::unix::fs::symlink("v1", at("..data")).unwrap();
    for name in ["lock", "key"] {
        std::os::unix::fs::symlink(Path::new("..data").join(name), at(name)).unwrap();
    }
    let metrics = Arc::new(Metrics::new());
    let reloaded = Reloaded::load(ReloadedFile::Tokens, files(dir.path()), metrics).unwrap();
    std::os::unix::fs::symlink("v2", at("..new")).unwrap();
    std::fs::rename(at("..new"), at("..data")).unwrap();
    reloaded.check();
    reloaded.check();
    assert_eq!(*reloaded.current(), "two");
}

#[test]
fn an_unreadable_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let unusable = files(dir.path()).read().unwrap_err();
    assert_eq!(unusable.flaws().len(), 2);
    let error = unusable.to_string();
    // The log treats it as one event, so it must be one line.
    assert!(
        !error.contains('\n') && error.contains("; a.key: failed to read "),
        "{error}"
    );
    let path = dir.path().join("lock");
    let expected = format!("a.lock: failed to read {}: No such file", path.display());
    assert!(error.starts_with(&expected), "{error}");
    assert!(
        error.ends_with("; it must be there, and readable by this process"),
        "{error}"
    );
    let endless = Files::new(vec![("a", "/dev/zero".into())], |_| Ok(()));
    let error = endless.read().unwrap_err().to_string();
    assert!(
        error.ends_with("larger than 16 MiB; make it smaller"),
        "{error}"
    );
}

/// One guarded file, whose text is the value.
struct Guarded {
    dir: TempDir,
    metrics: Arc<Metrics>,
    reloaded: Reloaded<String>,
}

impl Guarded {
    fn new(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, text).unwrap();
        let files = Files::new(vec![("a", path)], |contents| match contents {
            [text] => Ok(String::from_utf8_lossy(text).into_owned()),
            _ => Err("not one file".to_owned()),
        });
        let metrics = Arc::new(Metrics::new());
        let files = files.guarded(Bytes::clone);
        let reloaded = Reloaded::load(ReloadedFile::Tokens, files, Arc::clone(&metrics)).unwrap();
        Self {
            dir,
            metrics,
            reloaded,
        }
    }

    fn is_unusable(&self) -> bool {
        let text = self.metrics.render();
        text.contains("streamgate_files_unusable{file=\"tokens\"} 1\n")
    }

    /// Writes that text and checks; returns the value in force.
    fn after(&self, text: &str) -> String {
        std::fs::write(self.dir.path().join("file"), text).unwrap();
        self.reloaded.check();
        self.reloaded.check();
        String::clone(&self.reloaded.current())
    }
}

#[test]
fn a_text_is_compared_with_the_one_in_force() {
    let file = Guarded::new("one\ntwo\n");
    assert_eq!(file.after(""), "one\ntwo\n");
    assert_eq!(file.after("one\n"), "one\ntwo\n");
    assert_eq!(file.after("three\nfour\n"), "three\nfour\n");
    assert_eq!(file.after("one\n"), "one\n", "no longer a beginning");
    assert_eq!(file.after("on"), "one\n");
    assert_eq!(file.after("on\n# end"), "on\n# end");
    assert_eq!(file.after("five"), "on\n# end");
}

#[test]
fn a_refused_value_is_retried_after_another_file_changes() {
    let mut of = Guarded::new("one");
    let is_open = Arc::new(AtomicBool::new(false));
    let door = Arc::clone(&is_open);
    of.reloaded = of
        .reloaded
        .accepted_by(move |_, _| match door.load(Ordering::SeqCst) {
            true => Ok(Applied::Whole),
            false => Err("not now".to_owned()),
        });
    let mut other = Guarded::new("1");
    other.reloaded = other.reloaded.then_ask(Some(of.reloaded.retry()));
    assert_eq!(of.after("two"), "one");
    is_open.store(true, Ordering::SeqCst);
    assert_eq!(of.after("two"), "one", "nobody has asked");
    assert_eq!(other.after("2"), "2");
    assert_eq!(of.after("two"), "two");
}

#[test]
fn a_refused_file_is_usable_again_once_it_is_reverted() {
    let mut of = Guarded::new("one");
    of.reloaded = of.reloaded.accepted_by(|_, _| Err("never".to_owned()));
    let mut other = Guarded::new("1");
    other.reloaded = other.reloaded.then_ask(Some(of.reloaded.retry()));
    assert_eq!(of.after("two"), "one");
    assert!(of.is_unusable());
    // The other value changes first, and this one is reverted before it is retried.
    assert_eq!(other.after("2"), "2");
    assert_eq!(of.after("one"), "one");
    assert!(!of.is_unusable());
}

#[test]
fn a_large_file_is_read_only_after_its_metadata_change() {
    let large = |letter: &str| letter.repeat(usize::try_from(LARGE).unwrap());
    let file = Guarded::new(&large("a"));
    let stamps = || file.reloaded.files.stamps();
    let is_unchanged = || file.reloaded.seen.lock().unwrap().is_unchanged(stamps());
    let looks: Vec<_> = (0..7).map(|_| is_unchanged()).collect();
    assert_eq!(looks, [false, false, false, false, false, true, true]);
    assert_eq!(file.after("b"), "b");
    assert!(
        (0..9).all(|_| !is_unchanged()),
        "a small one is always read"
    );
    assert_eq!(file.after(&large("c")), large("c"));
    let longer = format!("{}d", large("c"));
    (0..9).for_each(|_| file.reloaded.check());
    assert_eq!(file.after(&longer), longer);
}

#[tokio::test(start_paused = true)]
async fn it_follows_by_itself() {
    let pair = Pair::new();
    let mut current = tokio::task::JoinSet::new();
    let mut reloaded_files = ReloadedFiles::default();
    reloaded_files.add(&pair.reloaded);
    current.spawn(reloaded_files.run());
    pair.write("lock", "two");
    pair.write("key", "two");
    while *pair.reloaded.current() != "two" {
        tokio::time::sleep(EVERY).await;
    }
}
