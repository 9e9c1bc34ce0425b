//! Times the smallest things that a request is made of: `cargo bench --bench micro`.
//!
//! `memory` is timed against governor with the same keys, and like the denial cache and leases from one thread and from two.

mod cases;

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use divan::Bencher;
use governor::{DefaultKeyedRateLimiter, RateLimiter};
use tollgate::strategy::Strategy;
use tollgate::{Key, Source};

fn main() {
    divan::main();
}

#[divan::bench(args = cases::ALL.iter().map(|(name, _)| *name))]
fn case(bencher: Bencher<'_, '_>, name: &str) {
    let (_, make) = cases::ALL
        .iter()
        .find(|(of, _)| *of == name)
        .expect("it is one of them");
    bencher.bench_local(make());
}

#[divan::bench(threads = [1, 2])]
fn memory_shared(bencher: Bencher<'_, '_>) {
    let (table, charges) = (cases::table(), cases::charges(cases::ample()));
    each_client(bencher, |i| {
        cases::now(table.decide(&charges[i..=i])).is_ok_and(|verdict| verdict.admitted)
    });
}

#[divan::bench(threads = [1, 2])]
fn denial_remembered_shared(bencher: Bencher<'_, '_>) {
    let (cache, charges) = (cases::denial_cache(), cases::charges(cases::scarce()));
    let ask = |i: usize| cases::now(cache.decide(&charges[i..=i]));
    assert!((0..charges.len()).all(|i| ask(i).is_ok_and(|verdict| verdict.admitted)));
    each_client(bencher, |i| ask(i).is_ok_and(|verdict| !verdict.admitted));
}

#[divan::bench(threads = [1, 2])]
fn lease_paid_shared(bencher: Bencher<'_, '_>) {
    let (leases, charges) = (cases::leases(), cases::charges(cases::ample()));
    let ask = |i: usize| cases::now(leases.decide(&charges[i..=i]));
    let is_paid = |i| ask(i).is_ok_and(|verdict| verdict.is_from(Source::Lease));
    // Whoever asks often enough is lent to.
    assert!((0..charges.len()).all(|i| (0..100).any(|_| is_paid(i))));
    each_client(bencher, |i| ask(i).is_ok_and(|verdict| verdict.admitted));
}

#[divan::bench(threads = [1, 2])]
fn governor_shared(bencher: Bencher<'_, '_>) {
    let charges = cases::charges(cases::ample());
    let burst = NonZeroU32::new(100_000).expect("not zero");
    let quota = governor::Quota::with_period(Duration::from_secs(10_000)).expect("not zero");
    let governor: DefaultKeyedRateLimiter<Key> = RateLimiter::keyed(quota.allow_burst(burst));
    each_client(bencher, |i| governor.check_key(charges[i].key()).is_ok());
}

/// Lets every client ask once, and then times them in turn.
fn each_client(bencher: Bencher<'_, '_>, ask: impl Fn(usize) -> bool + Sync) {
    assert!((0..cases::KEYS as usize).all(&ask));
    // Each thread takes its own way through the clients, without a counter that all would write to.
    let started = AtomicUsize::new(0);
    thread_local! {
        static AT: std::cell::Cell<Option<usize>> = const { std::cell::Cell::new(None) };
    }
    bencher.bench(|| {
        let at = AT
            .get()
            .unwrap_or_else(|| started.fetch_add(1, Ordering::Relaxed) * 5_000);
        let i = cases::next(at);
        AT.set(Some(i));
        ask(i)
    });
}
