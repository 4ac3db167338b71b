//! Files that are read anew while the process runs, so that a certificate or a token is replaced without a restart.
//!
//! Their contents are looked at twice a second; nobody has to send a signal, and it makes no difference whether a file is written over,
//! renamed into place, or reached through a link that Kubernetes swaps. What has changed counts once it has stood still from one look to the next:
//! files that belong together are rarely replaced at one instant, and a half-written one may be readable. What can't be used is told of once,
//! and what was read before stays in force until something better comes.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, select_all};
use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use tracing::{info, warn};

use crate::telemetry::Metrics;
use crate::telemetry::metrics::{LabelValue, ReloadOutcome, ReloadedFile};

/// How often files are looked at.
const EVERY: Duration = Duration::from_millis(500);

/// The largest file that is read. Nobody has as many tokens or certificates; a path may lead to a device that never ends.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// Makes a value out of the contents of files, in the order of their names; what is wrong with them otherwise, in words that name the
/// file and repeat no secret.
type Understand<T> = dyn Fn(&[Vec<u8>]) -> Result<T, String> + Send + Sync;

/// Files that make up one value.
pub struct Files<T> {
    /// The configuration key that names each, and where it is.
    named: Vec<(&'static str, PathBuf)>,
    /// What they say.
    understand: Box<Understand<T>>,
}

/// Why files can't be used: a sentence that names the file and its key, and holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unusable(String);

/// A value that files say, and follows them.
pub struct Followed<T> {
    /// What it is called.
    label: ReloadedFile,
    /// Where it comes from.
    files: Files<T>,
    /// What was read last.
    current: RwLock<Arc<T>>,
    /// What the files held when they were looked at.
    seen: Mutex<Seen>,
    /// Counts reloads.
    metrics: Arc<Metrics>,
    /// What is to be done with a value that has come into force.
    then: Box<dyn Fn(&T) + Send + Sync>,
}

/// Everything that is followed, whatever it is a value of.
#[derive(Default)]
pub struct Followers {
    /// Follow, each its own.
    each: Vec<BoxFuture<'static, ()>>,
    /// Has them all look at once.
    nudge: Arc<Notify>,
}

/// What files held at one look, or why that can't be known. Digests, so that no second copy of a key lies about in memory.
type Version = Result<Vec<[u8; 32]>, String>;

/// What has been seen so far.
struct Seen {
    /// At the last look.
    last: Version,
    /// What was last found to have changed, be it for the better or not.
    judged: Version,
    /// What [`Followed::current`] was made of.
    in_force: Version,
}

// === impl Files ===

impl<T> Files<T> {
    /// These files, each by the configuration key that names it, and what they say.
    pub fn new(
        named: Vec<(&'static str, PathBuf)>,
        understand: impl Fn(&[Vec<u8>]) -> Result<T, String> + Send + Sync + 'static,
    ) -> Self {
        Self {
            named,
            understand: Box::new(understand),
        }
    }

    /// What they say now.
    ///
    /// # Errors
    /// One can't be read, or together they make no sense.
    pub fn read(&self) -> Result<T, Unusable> {
        (self.understand)(&self.contents()?).map_err(Unusable)
    }

    fn contents(&self) -> Result<Vec<Vec<u8>>, Unusable> {
        let each = self.named.iter().map(|(key, path)| {
            contents(path).map_err(|error| {
                let path = path.display();
                Unusable(format!("{key}: failed to read {path}: {error}; it must be there, and readable by this process"))
            })
        });
        each.collect()
    }
}

impl<T> fmt::Debug for Files<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.named).finish()
    }
}

fn contents(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut contents = Vec::new();
    File::open(path)?
        .take(MAX_BYTES + 1)
        .read_to_end(&mut contents)?;
    if contents.len() as u64 > MAX_BYTES {
        return Err(std::io::Error::other("larger than 16 MiB"));
    }
    Ok(contents)
}

fn version(contents: &Result<Vec<Vec<u8>>, Unusable>) -> Version {
    match contents {
        Ok(contents) => Ok(contents
            .iter()
            .map(|bytes| Sha256::digest(bytes).into())
            .collect()),
        Err(unusable) => Err(unusable.to_string()),
    }
}

// === impl Followed ===

impl<T: Send + Sync + 'static> Followed<T> {
    /// What the files say now; [`Self::follow`] keeps it up to date.
    ///
    /// # Errors
    /// They can't be used.
    pub fn load(
        label: ReloadedFile,
        files: Files<T>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, Unusable> {
        let contents = files.contents()?;
        let current = (files.understand)(&contents).map_err(Unusable)?;
        let version = version(&Ok(contents));
        Ok(Self {
            label,
            files,
            current: RwLock::new(Arc::new(current)),
            seen: Mutex::new(Seen {
                last: version.clone(),
                judged: version.clone(),
                in_force: version,
            }),
            metrics,
            then: Box::new(|_| {}),
        })
    }

    /// The same, with something to be done each time that another value has come into force.
    #[must_use]
    pub fn then(self, act: impl Fn(&T) + Send + Sync + 'static) -> Self {
        let then = Box::new(act);
        Self { then, ..self }
    }

    /// What is in force.
    pub fn current(&self) -> Arc<T> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Follows the files until it is dropped, and looks at them at once when it is nudged. It returns only if it has died.
    pub async fn follow(self: Arc<Self>, nudge: Arc<Notify>) {
        loop {
            let is_nudged = tokio::time::timeout(EVERY, nudge.notified()).await.is_ok();
            let followed = Arc::clone(&self);
            let look = move || {
                if is_nudged {
                    // Whoever nudges is done with writing.
                    followed.look();
                }
                followed.look();
            };
            // A file may lie on a disk that takes its time.
            if tokio::task::spawn_blocking(look).await.is_err() {
                return;
            }
        }
    }

    /// Looks at the files once.
    fn look(&self) {
        let contents = self.files.contents();
        let version = version(&contents);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if version != seen.last {
            seen.last = version;
            return;
        }
        if version == seen.judged {
            return;
        }
        seen.judged.clone_from(&version);
        let file = self.label.as_str();
        if version == seen.in_force {
            self.metrics.file_unusable(self.label, false);
            info!(
                file,
                "the changed files are again as they were when they were last read"
            );
            return;
        }
        match contents.and_then(|contents| (self.files.understand)(&contents).map_err(Unusable)) {
            Ok(value) => {
                let value = Arc::new(value);
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&value);
                (self.then)(&value);
                seen.in_force = version;
                self.metrics.reload(self.label, ReloadOutcome::Ok);
                info!(file, "the changed files have been read and are in force");
            }
            Err(problem) => {
                self.metrics.reload(self.label, ReloadOutcome::Failed);
                warn!(file, %problem, "the changed files can't be used; what was read before stays in force");
            }
        }
    }
}

impl<T> fmt::Debug for Followed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Followed")
            .field("label", &self.label)
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

// === impl Followers ===

impl Followers {
    /// Follows this one too.
    pub fn add<T: Send + Sync + 'static>(&mut self, followed: &Arc<Followed<T>>) {
        let following = Arc::clone(followed).follow(Arc::clone(&self.nudge));
        self.each.push(following.boxed());
    }

    /// Has all of them look at their files at once, whenever it is notified.
    #[must_use]
    pub fn nudge(&self) -> Arc<Notify> {
        Arc::clone(&self.nudge)
    }

    /// Follows them all until this is dropped. It returns only if one has died.
    pub async fn run(self) {
        if self.each.is_empty() {
            std::future::pending::<()>().await;
        } else {
            select_all(self.each).await;
        }
    }
}

impl fmt::Debug for Followers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Followers").field(&self.each.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    /// Two files that belong together: the second has to hold what the first holds.
    struct Pair {
        dir: TempDir,
        metrics: Arc<Metrics>,
        followed: Arc<Followed<String>>,
    }

    fn files(dir: &Path) -> Files<String> {
        let named = vec![("a.lock", dir.join("lock")), ("a.key", dir.join("key"))];
        Files::new(named, |contents| match contents {
            [lock, key] if lock == key => {
                String::from_utf8(key.clone()).map_err(|_| "a.key: is no text".to_owned())
            }
            _ => Err("a.key: doesn't fit".to_owned()),
        })
    }

    impl Pair {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let metrics = Arc::new(Metrics::new().unwrap());
            for name in ["lock", "key"] {
                std::fs::write(dir.path().join(name), "one").unwrap();
            }
            let files = files(dir.path());
            let followed =
                Followed::load(ReloadedFile::Tokens, files, Arc::clone(&metrics)).unwrap();
            Self {
                dir,
                metrics,
                followed: Arc::new(followed),
            }
        }

        fn write(&self, name: &str, text: &str) {
            std::fs::write(self.dir.path().join(name), text).unwrap();
        }

        /// Looks so often; what is in force then, and how many reloads there have been, good and bad.
        fn looks(&self, times: usize) -> (String, usize, usize) {
            for _ in 0..times {
                self.followed.look();
            }
            let text = self.metrics.render();
            let count = |outcome| {
                let series =
                    format!("streamgate_reloads_total{{file=\"tokens\",outcome=\"{outcome}\"}} ");
                let line = text.lines().find_map(|line| line.strip_prefix(&*series));
                line.unwrap().parse::<usize>().unwrap()
            };
            (
                String::clone(&self.followed.current()),
                count("ok"),
                count("failed"),
            )
        }
    }

    #[test]
    fn what_has_changed_is_in_force_once_it_stands_still() {
        let pair = Pair::new();
        assert_eq!(pair.looks(3), ("one".to_owned(), 0, 0));
        pair.write("lock", "two");
        pair.write("key", "two");
        assert_eq!(pair.looks(1), ("one".to_owned(), 0, 0));
        assert_eq!(pair.looks(5), ("two".to_owned(), 1, 0));
        pair.write("lock", "three");
        pair.followed.look();
        pair.write("key", "three");
        assert_eq!(
            pair.looks(2),
            ("three".to_owned(), 2, 0),
            "one after the other, between two looks: nothing to complain of"
        );
    }

    #[test]
    fn what_can_not_be_used_changes_nothing_is_counted_once_and_heals() {
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
    fn a_gauge_tells_for_as_long_as_files_can_not_be_used() {
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
        let metrics = Arc::new(Metrics::new().unwrap());
        let followed = Followed::load(ReloadedFile::Tokens, files(dir.path()), metrics).unwrap();
        std::os::unix::fs::symlink("v2", at("..new")).unwrap();
        std::fs::rename(at("..new"), at("..data")).unwrap();
        followed.look();
        followed.look();
        assert_eq!(*followed.current(), "two");
    }

    #[test]
    fn what_can_not_be_read_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = files(dir.path()).read().unwrap_err().to_string();
        let path = dir.path().join("lock");
        let expected = format!("a.lock: failed to read {}: No such file", path.display());
        assert!(error.starts_with(&expected), "{error}");
        let endless = Files::new(vec![("a", "/dev/zero".into())], |_| Ok(()));
        let error = endless.read().unwrap_err().to_string();
        assert!(error.contains("larger than 16 MiB"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn it_follows_by_itself() {
        let pair = Pair::new();
        let mut following = tokio::task::JoinSet::new();
        let mut followers = Followers::default();
        followers.add(&pair.followed);
        following.spawn(followers.run());
        pair.write("lock", "two");
        pair.write("key", "two");
        while *pair.followed.current() != "two" {
            tokio::time::sleep(EVERY).await;
        }
    }
}
