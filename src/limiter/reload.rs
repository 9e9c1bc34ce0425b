//! Puts the rules of a file in force again when it changes.
//!
//! The file is looked at every so often rather than watched by the kernel: that sees an atomic rename, a write in place,
//! the swapped symbolic link of a mounted ConfigMap and a bind mount alike, on every file system. A file that was put
//! in another's place is read at once. One that is written in place is read when it has stayed the same from one look to
//! the next, so that half of it is not taken for the whole.
//!
//! A file with problems changes nothing: the rules that were in force stay, and the problems are told once.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tracing::{error, info, warn};

use super::rules_file::{Basis, Findings, RulesFile, read};
use super::{Limiter, RuleMode, RuleSet};

/// Most problems of a refused file, and most warnings of another, that are logged.
const MOST_LOGGED: usize = 10;

/// How the latest version of a rules file fared.
#[derive(Debug, Default)]
pub struct ReloadStatus {
    refusal: Mutex<Option<String>>,
    applied: AtomicU64,
    refused: AtomicU64,
}

impl ReloadStatus {
    /// What is wrong with the file as it is now; `None` if its rules are in force. Quotes nothing of the file.
    pub fn refusal(&self) -> Option<String> {
        self.lock().clone()
    }

    /// How often other rules were put in force since the start.
    pub fn applied(&self) -> u64 {
        self.applied.load(Ordering::Relaxed)
    }

    /// How often a file was refused since the start.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is known of a file without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stamp {
    Absent,
    File {
        /// Another one stands for another file, not for other content.
        identity: (u64, u64),
        modified: (i64, i64),
        size: u64,
    },
}

impl Stamp {
    fn of(path: &Path) -> Self {
        let file = path.metadata().map(|file| Self::File {
            identity: (file.dev(), file.ino()),
            modified: (file.mtime(), file.mtime_nsec()),
            size: file.size(),
        });
        file.unwrap_or(Self::Absent)
    }

    /// Whether it is the same file with other content.
    fn is_rewritten_from(&self, before: &Self) -> bool {
        match (self, before) {
            (Self::File { identity: now, .. }, Self::File { identity: then, .. }) => {
                now == then && self != before
            }
            _ => false,
        }
    }
}

/// Looks after one rules file.
#[derive(Debug)]
pub struct Reloader {
    limiter: Arc<Limiter>,
    path: PathBuf,
    basis: Basis,
    /// The file and those that it names.
    sources: Vec<PathBuf>,
    /// What they were like when they were read.
    seen: Vec<Stamp>,
    /// What they were like at the last look, if they were being written then.
    unsettled: Option<Vec<Stamp>>,
    /// Whether they are read again at the next look, whatever they are like: two writes can bear the same time.
    again: bool,
    /// The problems that were told.
    told: Option<String>,
    status: Arc<ReloadStatus>,
}

impl Reloader {
    /// Looks after the file at `path`, whose rules, read from `sources`, `limiter` has.
    pub fn new(limiter: Arc<Limiter>, path: &Path, basis: Basis, sources: Vec<PathBuf>) -> Self {
        Self {
            limiter,
            path: path.to_owned(),
            basis,
            // Nothing was seen yet: what changed since the file was read is found at the first look.
            seen: Vec::new(),
            unsettled: None,
            again: false,
            told: None,
            sources,
            status: Arc::default(),
        }
    }

    /// How the file fares.
    pub fn status(&self) -> Arc<ReloadStatus> {
        self.status.clone()
    }

    /// Reads the file if it changed.
    pub fn look(&mut self) {
        let now: Vec<Stamp> = self.sources.iter().map(|path| Stamp::of(path)).collect();
        if now == self.seen && !self.again {
            self.unsettled = None;
            return;
        }
        let mut pairs = now.iter().zip(&self.seen);
        let is_rewritten = pairs.any(|(now, before)| now.is_rewritten_from(before));
        if is_rewritten && self.unsettled.as_ref() != Some(&now) {
            self.unsettled = Some(now);
            return;
        }
        self.again = now != self.seen;
        self.load(now);
    }

    /// Reads the file now, on top of what the environment says now.
    pub fn reload(&mut self, basis: Basis) {
        self.basis = basis;
        let now = self.sources.iter().map(|path| Stamp::of(path)).collect();
        self.again = true;
        self.load(now);
    }

    fn load(&mut self, stamps: Vec<Stamp>) {
        self.unsettled = None;
        match read(&self.path, &self.basis) {
            Ok(file) => {
                self.seen = stamps;
                if file.sources != self.sources {
                    self.sources.clone_from(&file.sources);
                    self.seen = self.sources.iter().map(|path| Stamp::of(path)).collect();
                }
                self.apply(file);
            }
            Err(findings) => {
                self.seen = stamps;
                self.refuse(&findings);
            }
        }
    }

    fn apply(&mut self, file: RulesFile) {
        self.told = None;
        let was_refused = self.status.lock().take().is_some();
        let before = self.limiter.rules();
        let warnings = file.warnings.clone();
        let set = file.into_set();
        if set.version() == before.version() && set.rules() == before.rules() {
            if was_refused {
                info!(version = %set.version(), "the rules file is again the one that is in force");
            }
            return;
        }
        let (version, rules) = (set.version(), set.rules().len());
        // Whoever reads that they are in force may rely on it.
        self.limiter.replace_rules(set);
        self.status.applied.fetch_add(1, Ordering::Relaxed);
        for warning in warnings.iter().take(MOST_LOGGED) {
            warn!(%version, "{warning}");
        }
        tell_shadows(&before);
        info!(%version, before = %before.version(), rules, "other rules are in force");
    }

    fn refuse(&mut self, findings: &Findings) {
        // What it lacks, such as a list beside it, may come without the file itself changing.
        self.again = true;
        let text = Some(findings.to_string());
        if self.told == text {
            return;
        }
        self.told = text;
        let refusal = findings.summary();
        let version = self.limiter.rules().version();
        // Before it is told, so that whoever reads of it finds it so.
        *self.status.lock() = Some(refusal.clone());
        self.status.refused.fetch_add(1, Ordering::Relaxed);
        error!(%version, refusal, "the rules file was refused: the rules before it stay in force");
        for problem in findings.iter().take(MOST_LOGGED) {
            warn!(%version, %problem, "the rules file was refused");
        }
    }
}

/// Tells what the rules in shadow would have done.
pub fn tell_shadows(set: &RuleSet) {
    for (rule, counts) in set.rules().iter().zip(set.counts()) {
        if rule.mode == RuleMode::Shadow {
            let (name, version) = (rule.name.as_str(), set.version());
            let (denied, allowed) = (counts.denied(), counts.allowed());
            info!(rule = name, %version, denied, allowed, "what a rule in shadow would have done");
        }
    }
}
