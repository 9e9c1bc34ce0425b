//! A clock for a redis-server that can be stepped while it runs. Linux only.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/bench/fake_clock.c");

/// The shift of a server's clock, kept in a file that the server has mapped.
pub(crate) struct FakeClock {
    folder: PathBuf,
}

impl FakeClock {
    /// Builds what is preloaded, with the C compiler that links Rust programs.
    pub(crate) fn new() -> Self {
        static CLOCKS: AtomicU32 = AtomicU32::new(0);
        let number = CLOCKS.fetch_add(1, Ordering::Relaxed);
        let folder =
            std::env::temp_dir().join(format!("tollgate-clock-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let clock = Self { folder };
        clock.shift_us(0);
        let library = clock.folder.join("fake_clock.so");
        let built = Command::new("cc")
            .args(["-O2", "-shared", "-fPIC", SOURCE, "-o"])
            .arg(library)
            .status()
            .unwrap();
        assert!(built.success());
        clock
    }

    /// What a server needs in its environment to read this clock.
    pub(crate) fn variables(&self) -> [(&'static str, PathBuf); 2] {
        [
            ("LD_PRELOAD", self.folder.join("fake_clock.so")),
            ("FAKECLOCK", self.folder.join("shift")),
        ]
    }

    /// From now on the server's clock is that far from the machine's.
    pub(crate) fn shift_us(&self, shift_us: i64) {
        self.write([shift_us * 1_000, 0]);
    }

    /// From now on the server's clock stands still at that time, in microseconds since 1970.
    pub(crate) fn stop_at_us(&self, time_us: i64) {
        self.write([0, time_us * 1_000]);
    }

    fn write(&self, numbers: [i64; 2]) {
        let bytes = numbers.map(i64::to_le_bytes).concat();
        let file = self.folder.join("shift");
        if file.exists() {
            // In place: the server has mapped this file.
            use std::os::unix::fs::FileExt;
            fs::OpenOptions::new()
                .write(true)
                .open(file)
                .unwrap()
                .write_all_at(&bytes, 0)
                .unwrap();
        } else {
            fs::write(file, bytes).unwrap();
        }
    }
}

impl Drop for FakeClock {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}
