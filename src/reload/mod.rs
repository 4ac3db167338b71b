//! Files that are read again while the process runs, so that certificates and tokens are replaced
//! without a restart.
//!
//! Their contents are checked twice a second. Nobody has to send a signal, and it makes no
//! difference whether a file is overwritten, renamed into place, or reached through a link that
//! Kubernetes swaps. A change takes effect once it has stayed the same from one check to the next:
//! files that belong together are rarely replaced at the same instant, and a half-written one may
//! be readable. A change that can't be used is logged once, and the previous value stays in force
//! until a better one arrives.
//!
//! A text that was emptied or truncated is often still valid, with less in it. [`Files::guarded`]
//! refuses it (see [`cut`]).
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

/// How often files are checked.
const EVERY: Duration = Duration::from_millis(500);

/// The largest file that is read by default. Nobody has that many tokens or certificates, and a
/// path may lead to a device that never ends.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// From this size on, a file is read only when its metadata have changed, instead of at each check.
const LARGE: u64 = 1024 * 1024;

/// How many checks in a row must find the same metadata before we rely on them. The clock for file
/// times ticks slowly: of two writes within one tick, the second doesn't show.
const STILL: u8 = 4;

/// Makes a value from the contents of files, in the order of their names; otherwise returns what is
/// wrong with them, naming the file and repeating no secret.
type Understand<T> = dyn Fn(&[Bytes]) -> Result<T, String> + Send + Sync;

/// How much of a new value took effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// All of it.
    Whole,
    /// Part of it takes effect only after a restart; the log names that part.
    Partly,
}

/// Puts a new value into use, given the previous one; or says why it can't, and the previous one
/// stays.
type Accept<T> = dyn Fn(&Arc<T>, &T) -> Result<Applied, String> + Send + Sync;

/// Extracts what is kept of a text to compare later ones with: the text without its secrets.
pub type Keep = fn(&Bytes) -> Bytes;

/// Files that make up one value.
pub struct Files<T> {
    /// The configuration key and the path of each.
    named: Vec<(&'static str, PathBuf)>,
    /// Makes the value from their contents.
    understand: Box<Understand<T>>,
    /// The size limit of each file.
    max_bytes: u64,
    /// What to keep of each, if truncated texts are refused.
    keep: Option<Keep>,
}

/// Why files can't be used: one sentence per flaw, which names the file and its key and holds no
/// secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct Unusable(Vec<String>);

/// A value that is read from files and follows their changes.
pub struct Reloaded<T> {
    /// The value's name in logs and metrics.
    label: ReloadedFile,
    /// The files.
    files: Files<T>,
    /// The value read last.
    current: RwLock<Arc<T>>,
    /// What the checks have found so far.
    seen: Mutex<History>,
    /// Counts reloads.
    metrics: Arc<Metrics>,
    /// Puts a new value into use.
    accept: Box<Accept<T>>,
    /// Set to retry a refused value.
    again: Arc<AtomicBool>,
    /// What else is retried when this value has changed.
    other: Option<Retry>,
}

/// Triggers another try of refused files, because the cause of the refusal has changed.
#[derive(Debug, Clone)]
pub struct Retry(Arc<AtomicBool>);

/// All files that are followed, whatever their values.
#[derive(Default)]
pub struct ReloadedFiles {
    /// The task of each value.
    each: Vec<BoxFuture<'static, ()>>,
    /// Makes all of them check their files immediately.
    reload_now: Arc<Notify>,
}

/// What files held at one check, or why they could not be read. Digests, so that memory holds no
/// second copy of a key.
type Version = Result<Vec<[u8; 32]>, String>;

/// What the checks have found so far.
struct History {
    /// At the last check.
    last: Version,
    /// The last change that was judged, accepted or not; `None` to judge it again.
    judged: Option<Version>,
    /// The contents that [`Reloaded::current`] was made from.
    in_force: Version,
    /// What is kept of those texts.
    kept: Vec<Bytes>,
    /// The metadata of the files, if one of them is large.
    stamps: Option<Vec<Stamp>>,
    /// How many checks in a row have found the same metadata.
    still: u8,
}

/// Metadata that reveal a change without reading the file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    /// The file's device and inode.
    file: (u64, u64),
    /// Its length.
    bytes: u64,
    /// When it was changed, in seconds and nanoseconds. Nobody can set this time.
    changed: (i64, i64),
}

// === impl Files ===

impl<T> Files<T> {
    /// These files, each with its configuration key, and the function that makes the value.
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

    /// The same, but refuses empty texts, and changed texts that were truncated.
    #[must_use]
    pub fn guarded(self, keep: Keep) -> Self {
        let keep = Some(keep);
        Self { keep, ..self }
    }

    /// The same, with that size limit for each file.
    #[must_use]
    pub fn up_to(self, max_bytes: u64) -> Self {
        Self { max_bytes, ..self }
    }

    /// The value of their current contents.
    ///
    /// # Errors
    /// A file can't be read, or their contents are invalid.
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

    /// Compares what is kept of changed texts with what was kept of those in force.
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

    /// Their metadata, if one is large and all metadata can be read.
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
    /// Another reason why files can't be used.
    pub fn new(problem: impl fmt::Display) -> Self {
        Self(vec![problem.to_string()])
    }

    /// Each flaw, to be logged on a line of its own.
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
    /// The value of the files now; [`Self::keep_current`] keeps it up to date.
    ///
    /// # Errors
    /// The files can't be used.
    pub fn load(
        label: ReloadedFile,
        files: Files<T>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, Unusable> {
        let contents = files.contents()?;
        let current = files.understood(&contents)?;
        Ok(Self::of(label, files, contents, current, metrics))
    }

    /// A value that was already made from files with these contents.
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

    /// The same, but another value takes effect only if this function accepts it. The function also
    /// gets the previous value.
    #[must_use]
    pub fn accepted_by(
        self,
        accept: impl Fn(&Arc<T>, &T) -> Result<Applied, String> + Send + Sync + 'static,
    ) -> Self {
        let accept = Box::new(accept);
        Self { accept, ..self }
    }

    /// The same, and the other value, if it was refused, is retried whenever a new value has taken
    /// effect.
    #[must_use]
    pub fn then_ask(self, other: Option<Retry>) -> Self {
        Self { other, ..self }
    }

    /// A handle that triggers another try of a refused value.
    pub fn retry(&self) -> Retry {
        Retry(Arc::clone(&self.again))
    }

    /// The same, with an action to run whenever another value has taken effect.
    #[must_use]
    pub fn then(self, act: impl Fn(&T) + Send + Sync + 'static) -> Self {
        self.accepted_by(move |value, _| {
            act(value);
            Ok(Applied::Whole)
        })
    }

    /// The value in force.
    pub fn current(&self) -> Arc<T> {
        let current = unpoisoned(self.current.read());
        Arc::clone(&current)
    }

    /// Follows the files until dropped, and checks them immediately when notified. Returns only if
    /// its task has died.
    pub async fn keep_current(self: Arc<Self>, reload_now: Arc<Notify>) {
        loop {
            let is_asked = tokio::time::timeout(EVERY, reload_now.notified())
                .await
                .is_ok();
            let reloaded = Arc::clone(&self);
            let look = move || {
                if is_asked {
                    // A caller that notifies has finished writing.
                    reloaded.check();
                }
                reloaded.check();
            };
            // A file may be on a slow disk.
            if tokio::task::spawn_blocking(look).await.is_err() {
                return;
            }
        }
    }

    /// Checks the files once.
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

    /// Puts the value of the contents into force, if possible; returns what is kept of them.
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
    /// Whether large files need not be read, because their metadata haven't changed for long enough
    /// and no change is pending.
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
    /// Adds a value to follow.
    pub fn add<T: Send + Sync + 'static>(&mut self, reloaded: &Arc<Reloaded<T>>) {
        let current = Arc::clone(reloaded).keep_current(Arc::clone(&self.reload_now));
        self.each.push(current.boxed());
    }

    /// Notifying this makes all of them check their files immediately.
    #[must_use]
    pub fn reload_now(&self) -> Arc<Notify> {
        Arc::clone(&self.reload_now)
    }

    /// Follows all of them until dropped. Returns only if one has died.
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
