//! Files that are read anew while the process runs, so that a certificate or a token is replaced without a restart.
//!
//! Their contents are looked at twice a second; nobody has to send a signal, and it makes no difference whether a file is written over,
//! renamed into place, or reached through a link that Kubernetes swaps. What has changed counts once it has stood still from one look to the next:
//! files that belong together are rarely replaced at one instant, and a half-written one may be readable. What can't be used is told of once,
//! and what was read before stays in force until something better comes.
//!
//! A text that was emptied or cut off is often still a valid one, which says less. [`Files::guarded`] refuses it (see [`cut`]).
//!
//! A large file is read again only when its metadata have changed.

mod cut;
#[cfg(test)]
mod tests;
mod tls;

pub use tls::{PortTls, Served, Validity};

use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, select_all};
use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use tracing::{info, warn};

use crate::telemetry::Metrics;
use crate::telemetry::metrics::{LabelValue, ReloadOutcome, ReloadedFile};
use crate::util::{lock, unpoisoned};

/// How often files are looked at.
const EVERY: Duration = Duration::from_millis(500);

/// The largest file that is read, where nothing else is said. Nobody has as many tokens or certificates; a path may lead to a device that
/// never ends.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// From this size on, files are not read at each look, but when their metadata have changed.
const LARGE: u64 = 1024 * 1024;

/// How many looks in a row must find the same metadata before they are relied on. The clock that files are stamped with ticks slowly:
/// of two writes within one tick, the second doesn't show.
const STILL: u8 = 4;

/// Makes a value out of the contents of files, in the order of their names; what is wrong with them otherwise, in words that name the
/// file and repeat no secret.
type Understand<T> = dyn Fn(&[Bytes]) -> Result<T, String> + Send + Sync;

/// How much of a new value is in force once it was taken into use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// All of it.
    Whole,
    /// Some takes effect when the process is started again; the log names it.
    Partly,
}

/// Takes a new value into use, given the one before; or says why it can't be, and the one before stays.
type Accept<T> = dyn Fn(&Arc<T>, &T) -> Result<Applied, String> + Send + Sync;

/// What is kept of a text to compare later ones with: the text, but for its secrets.
pub type Keep = fn(&Bytes) -> Bytes;

/// Files that make up one value.
pub struct Files<T> {
    /// The configuration key that names each, and where it is.
    named: Vec<(&'static str, PathBuf)>,
    /// What they say.
    understand: Box<Understand<T>>,
    /// How large each may be.
    max_bytes: u64,
    /// What is kept of each, if texts that were cut off are refused.
    keep: Option<Keep>,
}

/// Why files can't be used: for each flaw a sentence that names the file and its key, and holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct Unusable(Vec<String>);

/// A value that files say, and follows them.
pub struct Reloaded<T> {
    /// What it is called.
    label: ReloadedFile,
    /// Where it comes from.
    files: Files<T>,
    /// What was read last.
    current: RwLock<Arc<T>>,
    /// What the files held when they were looked at.
    seen: Mutex<History>,
    /// Counts reloads.
    metrics: Arc<Metrics>,
    /// What a new value is taken into use by.
    accept: Box<Accept<T>>,
    /// Set to retry a value that was refused.
    again: Arc<AtomicBool>,
    /// What else is retried when this has changed.
    other: Option<Retry>,
}

/// Has files that were refused tried again, since what they were refused for has changed.
#[derive(Debug, Clone)]
pub struct Retry(Arc<AtomicBool>);

/// Everything that is followed, whatever it is a value of.
#[derive(Default)]
pub struct ReloadedFiles {
    /// Follow, each its own.
    each: Vec<BoxFuture<'static, ()>>,
    /// Has them all look at once.
    reload_now: Arc<Notify>,
}

/// What files held at one look, or why that can't be known. Digests, so that no second copy of a key lies about in memory.
type Version = Result<Vec<[u8; 32]>, String>;

/// What has been seen so far.
struct History {
    /// At the last look.
    last: Version,
    /// What was last found to have changed, whether or not it was accepted; `None` if that has to be judged again.
    judged: Option<Version>,
    /// What [`Reloaded::current`] was made of.
    in_force: Version,
    /// What is kept of the texts of that.
    kept: Vec<Bytes>,
    /// The metadata of files of which one is large.
    stamps: Option<Vec<Stamp>>,
    /// How many looks in a row have found these.
    still: u8,
}

/// What shows, without reading a file, that it has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    /// Which file it is.
    file: (u64, u64),
    /// How long it is.
    bytes: u64,
    /// When it was changed, in seconds and nanoseconds; nobody can set this time.
    changed: (i64, i64),
}

// === impl Files ===

impl<T> Files<T> {
    /// These files, each by the configuration key that names it, and what they say.
    pub fn new(
        named: Vec<(&'static str, PathBuf)>,
        understand: impl Fn(&[Bytes]) -> Result<T, String> + Send + Sync + 'static,
    ) -> Self {
        Self {
            named,
            understand: Box::new(understand),
            max_bytes: MAX_BYTES,
            keep: None,
        }
    }

    /// The same, where a text without a byte is refused, and a changed one that was cut off too.
    #[must_use]
    pub fn guarded(self, keep: Keep) -> Self {
        let keep = Some(keep);
        Self { keep, ..self }
    }

    /// The same, where each file may be that large.
    #[must_use]
    pub fn up_to(self, max_bytes: u64) -> Self {
        Self { max_bytes, ..self }
    }

    /// What they say now.
    ///
    /// # Errors
    /// One can't be read, or together they make no sense.
    pub fn read(&self) -> Result<T, Unusable> {
        self.understood(&self.contents()?)
    }

    fn understood(&self, contents: &[Bytes]) -> Result<T, Unusable> {
        let empty = self
            .named
            .iter()
            .zip(contents)
            .find(|(_, text)| text.is_empty());
        match empty {
            Some((named, _)) if self.keep.is_some() => Err(Unusable::about(named, cut::EMPTY)),
            _ => (self.understand)(contents).map_err(Unusable::new),
        }
    }

    /// Checks what is kept of changed texts against what was kept of those in force.
    fn check_not_cut(&self, in_force: &[Bytes], changed: &[Bytes]) -> Result<(), Unusable> {
        for ((named, in_force), changed) in self.named.iter().zip(in_force).zip(changed) {
            cut::check(in_force, changed).map_err(|flaw| Unusable::about(named, flaw))?;
        }
        Ok(())
    }

    /// What is kept of these texts; nothing unless they are guarded.
    fn kept(&self, contents: &[Bytes]) -> Vec<Bytes> {
        let keep = self.keep.iter();
        keep.flat_map(|keep| contents.iter().map(keep)).collect()
    }

    /// Their metadata, if one is large and all can be looked at.
    fn stamps(&self) -> Option<Vec<Stamp>> {
        let stamps: Option<Vec<_>> = self.named.iter().map(|(_, path)| Stamp::of(path)).collect();
        stamps.filter(|stamps| stamps.iter().any(|stamp| stamp.bytes >= LARGE))
    }

    fn contents(&self) -> Result<Vec<Bytes>, Unusable> {
        let (mut texts, mut flaws) = (Vec::new(), Vec::new());
        for (key, path) in &self.named {
            match contents(path, self.max_bytes) {
                Ok(text) => texts.push(text),
                Err(error) => {
                    let path = path.display();
                    let advice = match error.kind() {
                        ErrorKind::FileTooLarge => "make it smaller",
                        _ => "it must be there, and readable by this process",
                    };
                    flaws.push(format!("{key}: failed to read {path}: {error}; {advice}"));
                }
            }
        }
        if flaws.is_empty() {
            return Ok(texts);
        }
        Err(Unusable(flaws))
    }
}

impl<T> fmt::Debug for Files<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.named).finish()
    }
}

impl Unusable {
    /// Something else that is wrong with files.
    pub fn new(problem: impl fmt::Display) -> Self {
        Self(vec![problem.to_string()])
    }

    /// Each flaw, for a line of its own.
    pub fn flaws(&self) -> &[String] {
        &self.0
    }

    fn about((key, path): &(&'static str, PathBuf), flaw: impl fmt::Display) -> Self {
        Self::new(format_args!("{key}: {}: {flaw}", path.display()))
    }
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self {
            file: (metadata.dev(), metadata.ino()),
            bytes: metadata.len(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

fn contents(path: &Path, max_bytes: u64) -> std::io::Result<Bytes> {
    let file = File::open(path)?;
    let expected = file.metadata()?.len().min(max_bytes) + 1;
    let mut contents = Vec::with_capacity(usize::try_from(expected).unwrap_or_default());
    file.take(max_bytes + 1).read_to_end(&mut contents)?;
    if contents.len() as u64 > max_bytes {
        let mebibytes = max_bytes / (1024 * 1024);
        let flaw = format!("larger than {mebibytes} MiB");
        return Err(std::io::Error::new(ErrorKind::FileTooLarge, flaw));
    }
    Ok(contents.into())
}

fn version(contents: &Result<Vec<Bytes>, Unusable>) -> Version {
    match contents {
        Ok(contents) => Ok(contents
            .iter()
            .map(|bytes| Sha256::digest(bytes).into())
            .collect()),
        Err(unusable) => Err(unusable.to_string()),
    }
}

// === impl Reloaded ===

impl<T: Send + Sync + 'static> Reloaded<T> {
    /// What the files say now; [`Self::keep_current`] keeps it up to date.
    ///
    /// # Errors
    /// They can't be used.
    pub fn load(
        label: ReloadedFile,
        files: Files<T>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, Unusable> {
        let contents = files.contents()?;
        let current = files.understood(&contents)?;
        Ok(Self::of(label, files, contents, current, metrics))
    }

    /// The value that files with these contents say, which has been made already.
    pub fn of(
        label: ReloadedFile,
        files: Files<T>,
        contents: Vec<Bytes>,
        current: T,
        metrics: Arc<Metrics>,
    ) -> Self {
        let kept = files.kept(&contents);
        let version = version(&Ok(contents));
        Self {
            label,
            files,
            current: RwLock::new(Arc::new(current)),
            seen: Mutex::new(History {
                last: version.clone(),
                judged: Some(version.clone()),
                in_force: version,
                kept,
                stamps: None,
                still: 0,
            }),
            metrics,
            accept: Box::new(|_, _| Ok(Applied::Whole)),
            again: Arc::default(),
            other: None,
        }
    }

    /// The same, where another value comes into force only if this takes it. It is given the value before, too.
    #[must_use]
    pub fn accepted_by(
        self,
        accept: impl Fn(&Arc<T>, &T) -> Result<Applied, String> + Send + Sync + 'static,
    ) -> Self {
        let accept = Box::new(accept);
        Self { accept, ..self }
    }

    /// The same, where the other, if it was refused, is retried each time that a new value has come into force.
    #[must_use]
    pub fn then_ask(self, other: Option<Retry>) -> Self {
        Self { other, ..self }
    }

    /// Has a value that was refused tried again.
    pub fn retry(&self) -> Retry {
        Retry(Arc::clone(&self.again))
    }

    /// The same, with something to be done each time that another value has come into force.
    #[must_use]
    pub fn then(self, act: impl Fn(&T) + Send + Sync + 'static) -> Self {
        self.accepted_by(move |value, _| {
            act(value);
            Ok(Applied::Whole)
        })
    }

    /// What is in force.
    pub fn current(&self) -> Arc<T> {
        let current = unpoisoned(self.current.read());
        Arc::clone(&current)
    }

    /// Follows the files until it is dropped, and looks at them at once when it is nudged. It returns only if it has died.
    pub async fn keep_current(self: Arc<Self>, reload_now: Arc<Notify>) {
        loop {
            let is_asked = tokio::time::timeout(EVERY, reload_now.notified())
                .await
                .is_ok();
            let reloaded = Arc::clone(&self);
            let look = move || {
                if is_asked {
                    // Whoever nudges is done with writing.
                    reloaded.check();
                }
                reloaded.check();
            };
            // A file may lie on a disk that takes its time.
            if tokio::task::spawn_blocking(look).await.is_err() {
                return;
            }
        }
    }

    /// Looks at the files once.
    fn check(&self) {
        let mut seen = lock(&self.seen);
        let seen = &mut *seen;
        let is_refused = seen.judged.as_ref() != Some(&seen.in_force);
        if self.again.swap(false, Ordering::SeqCst) && is_refused {
            seen.judged = None;
        }
        if seen.is_unchanged(self.files.stamps()) {
            return;
        }
        let contents = self.files.contents();
        let version = version(&contents);
        if version != seen.last {
            seen.last = version;
            return;
        }
        if seen.judged.as_ref() == Some(&version) {
            return;
        }
        seen.judged = Some(version.clone());
        let file = self.label.as_str();
        if version == seen.in_force {
            self.metrics.file_unusable(self.label, false);
            info!(
                file,
                "the changed files are again as they were when they were last read"
            );
            return;
        }
        match contents.and_then(|contents| self.take_over(&contents, &seen.kept)) {
            Ok((kept, applied)) => {
                seen.in_force = version;
                seen.kept = kept;
                self.metrics.reload(self.label, ReloadOutcome::Ok);
                let so_far = match applied {
                    Applied::Whole => " and are in force",
                    Applied::Partly => "",
                };
                info!(file, "the changed files have been read{so_far}");
            }
            Err(problem) => {
                self.metrics.reload(self.label, ReloadOutcome::Failed);
                warn!(file, %problem, "the changed files can't be used; what was read before stays in force");
            }
        }
    }

    /// Puts what the contents say into force, if it can be; what is kept of them.
    fn take_over(
        &self,
        contents: &[Bytes],
        before: &[Bytes],
    ) -> Result<(Vec<Bytes>, Applied), Unusable> {
        let kept = self.files.kept(contents);
        self.files.check_not_cut(before, &kept)?;
        let value = Arc::new(self.files.understood(contents)?);
        let applied = (self.accept)(&value, &self.current()).map_err(Unusable::new)?;
        *unpoisoned(self.current.write()) = value;
        if let Some(Retry(other)) = &self.other {
            other.store(true, Ordering::SeqCst);
        }
        Ok((kept, applied))
    }
}

impl History {
    /// Whether large files need not be read, since nothing about them has changed for long, and nothing is left to be done.
    fn is_unchanged(&mut self, stamps: Option<Vec<Stamp>>) -> bool {
        if stamps.is_none() || stamps != self.stamps {
            self.stamps = stamps;
            self.still = 0;
            return false;
        }
        self.still = self.still.saturating_add(1);
        self.still > STILL && self.judged.as_ref() == Some(&self.last)
    }
}

impl<T> fmt::Debug for Reloaded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloaded")
            .field("label", &self.label)
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

// === impl ReloadedFiles ===

impl ReloadedFiles {
    /// Follows this one too.
    pub fn add<T: Send + Sync + 'static>(&mut self, reloaded: &Arc<Reloaded<T>>) {
        let current = Arc::clone(reloaded).keep_current(Arc::clone(&self.reload_now));
        self.each.push(current.boxed());
    }

    /// Has all of them look at their files at once, whenever it is notified.
    #[must_use]
    pub fn reload_now(&self) -> Arc<Notify> {
        Arc::clone(&self.reload_now)
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

impl fmt::Debug for ReloadedFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ReloadedFiles")
            .field(&self.each.len())
            .finish()
    }
}
