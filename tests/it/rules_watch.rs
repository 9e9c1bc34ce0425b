//! Every way in which a rules file changes, seen by looking at it; nothing here waits.

use std::fs::{self, File};
use std::hash::RandomState;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use tollgate::OnStoreError;
use tollgate::algorithm::TokenBucket;
use tollgate::limiter::rules_file::{Basis, read};
use tollgate::limiter::{Limiter, ReloadStatus, Reloader, RuleMode};
use tollgate::server::MonotonicClock;
use tollgate::strategy::Memory;

use crate::bench::Folder;

struct Watched {
    folder: Folder,
    limiter: Arc<Limiter>,
    reloader: Reloader,
    status: Arc<ReloadStatus>,
}

fn rules(name: &str) -> String {
    format!("rules:\n  - {{ name: {name}, key: ip, limit: 5/min }}\n")
}

/// The same, with a list beside it.
fn with_list(name: &str) -> String {
    let list = "lists: { office: { file: office.txt } }\n";
    let rule =
        format!("  - {{ name: {name}, match: {{ client: 'list:office' }}, limit: 5/min }}\n");
    [list, "rules:\n", &rule].concat()
}

impl Watched {
    /// Writes the file with `write`, and starts to look after it.
    fn start(write: impl FnOnce(&Path)) -> Self {
        let folder = Folder::new();
        write(Path::new(folder.path()));
        let path = Path::new(folder.path()).join("rules.yaml");
        let basis = Basis {
            algorithm: &TokenBucket,
            mode: RuleMode::Enforce,
            on_store_error: OnStoreError::Local,
            ipv6_prefix: 64,
        };
        let file = read(&path, &basis).unwrap();
        let sources = file.sources.clone();
        let clock = Arc::new(MonotonicClock::start());
        let memory = Arc::new(Memory::new(10, clock, &RandomState::new()));
        let limiter = Arc::new(Limiter::with_rules(file.into_set(), memory));
        let mut reloader = Reloader::new(limiter.clone(), &path, basis, sources);
        // The first looks make sure that it did not change since it was read.
        reloader.look();
        reloader.look();
        let status = reloader.status();
        Self {
            folder,
            limiter,
            reloader,
            status,
        }
    }

    fn plain(name: &str) -> Self {
        Self::start(|folder| fs::write(folder.join("rules.yaml"), rules(name)).unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::new(self.folder.path()).join(name)
    }

    /// Writes another file and puts it in the place of that one.
    fn replace(&self, name: &str, content: &str) {
        fs::write(self.path("next"), content).unwrap();
        fs::rename(self.path("next"), self.path(name)).unwrap();
    }

    /// Looks, and tells which rule is in force then.
    fn look(&mut self) -> String {
        self.reloader.look();
        self.limiter.rules().rules()[0].name.as_str().to_owned()
    }
}

#[test]
fn a_file_that_is_renamed_into_place_is_read_at_once() {
    let mut watched = Watched::plain("a");
    assert_eq!(watched.look(), "a");
    watched.replace("rules.yaml", &rules("b"));
    assert_eq!(watched.look(), "b");
    assert_eq!(watched.status.applied(), 1);
}

#[test]
fn a_file_that_is_written_in_place_is_read_when_it_has_settled() {
    let mut watched = Watched::plain("a");
    let path = watched.path("rules.yaml");
    fs::write(&path, "rules:\n").unwrap();
    assert_eq!(watched.look(), "a", "it may be half of a file");
    fs::write(&path, rules("longer")).unwrap();
    assert_eq!(watched.look(), "a", "it changed again");
    assert_eq!(watched.look(), "longer");
    assert_eq!(watched.status.refused(), 0, "the half was never read");
}

#[test]
fn a_write_that_bears_the_time_of_the_one_before_is_found() {
    let mut watched = Watched::plain("a");
    let path = watched.path("rules.yaml");
    watched.replace("rules.yaml", &rules("b"));
    let written = fs::metadata(&path).unwrap().modified().unwrap();
    assert_eq!(watched.look(), "b");
    fs::write(&path, rules("c")).unwrap();
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(written)
        .unwrap();
    assert_eq!(watched.look(), "c");
}

#[test]
fn the_swapped_link_of_a_mounted_config_map_is_followed() {
    let mut watched = Watched::start(|folder| {
        for name in ["one", "two"] {
            fs::create_dir(folder.join(name)).unwrap();
            fs::write(folder.join(name).join("rules.yaml"), rules(name)).unwrap();
        }
        symlink("one", folder.join("..data")).unwrap();
        symlink("..data/rules.yaml", folder.join("rules.yaml")).unwrap();
    });
    assert_eq!(watched.look(), "one");
    symlink("two", watched.path("..next")).unwrap();
    fs::rename(watched.path("..next"), watched.path("..data")).unwrap();
    assert_eq!(watched.look(), "two");
}

#[test]
fn a_bad_file_changes_nothing_and_the_next_good_one_does() {
    let mut watched = Watched::plain("a");
    let version = watched.limiter.rules().version();
    watched.replace("rules.yaml", "rules:\n  - { name: b, limit: none }\n");
    assert_eq!(watched.look(), "a");
    assert!(watched.status.refusal().is_some());
    assert_eq!(watched.look(), "a");
    assert_eq!(watched.status.refused(), 1, "told once");
    watched.replace("rules.yaml", &rules("a"));
    assert_eq!(watched.look(), "a");
    assert_eq!(watched.limiter.rules().version(), version);
    assert_eq!(watched.status.refusal(), None);
    assert_eq!(watched.status.applied(), 0, "it is the one in force");
    watched.replace("rules.yaml", &rules("c"));
    assert_eq!(watched.look(), "c");
}

#[test]
fn a_file_that_vanishes_leaves_its_rules_in_force() {
    let mut watched = Watched::plain("a");
    fs::remove_file(watched.path("rules.yaml")).unwrap();
    assert_eq!(watched.look(), "a");
    assert!(watched.status.refusal().is_some());
    fs::write(watched.path("rules.yaml"), rules("b")).unwrap();
    assert_eq!(watched.look(), "b");
    assert_eq!(watched.status.refusal(), None);
}

#[test]
fn a_pipe_in_its_place_is_refused_rather_than_waited_for() {
    let mut watched = Watched::plain("a");
    let path = watched.path("rules.yaml");
    fs::remove_file(&path).unwrap();
    assert!(
        Command::new("mkfifo")
            .arg(&path)
            .status()
            .unwrap()
            .success()
    );
    // It may have got the number of the file that went, as if that had been written to.
    watched.look();
    assert_eq!(watched.look(), "a");
    assert!(watched.status.refusal().is_some());
}

#[test]
fn a_list_beside_the_file_is_looked_after_too() {
    let mut watched = Watched::start(|folder| {
        fs::write(folder.join("office.txt"), "192.0.2.0/24\n").unwrap();
        fs::write(folder.join("rules.yaml"), with_list("a")).unwrap();
    });
    let before = watched.limiter.rules().version();
    watched.replace("office.txt", "198.51.100.0/24\n");
    watched.look();
    assert_ne!(watched.limiter.rules().version(), before);
}

#[test]
fn a_list_that_comes_after_the_file_that_names_it_is_found() {
    let mut watched = Watched::plain("a");
    watched.replace("rules.yaml", &with_list("b"));
    for _ in 0..5 {
        assert_eq!(watched.look(), "a");
    }
    fs::write(watched.path("office.txt"), "192.0.2.0/24\n").unwrap();
    assert_eq!(watched.look(), "b");
}
