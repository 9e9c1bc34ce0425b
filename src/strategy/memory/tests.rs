//! What the table in memory admits, full and with room.

use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::algorithm::TokenBucket;
use crate::domain::{Cost, Identity, ManualClock, Quota, RuleName};

const NOON: u64 = 1_762_668_474_000_000;

fn charge(name: &str, capacity: u64) -> Charge {
    let key = Key::new(
        "t:",
        &TokenBucket,
        &RuleName::default_rule(),
        &Identity::new().with_part(name.as_bytes()),
    );
    let quota = Quota::new(capacity, 1, Duration::from_secs(1)).unwrap();
    Charge::new(
        key,
        Limit {
            algorithm: &TokenBucket,
            quota,
        },
        Cost::MIN,
    )
    .unwrap()
}

fn table(max_keys: usize) -> (Memory, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::at_us(NOON));
    (
        Memory::new(max_keys, clock.clone(), &RandomState::new()),
        clock,
    )
}

fn admits(memory: &Memory, name: &str, capacity: u64) -> bool {
    memory
        .ask_now(&[charge(name, capacity)], Intent::Charge)
        .unwrap()
        .admitted
}

#[test]
fn unknown_keys_share_one_bucket_when_the_table_is_full() {
    let (memory, _) = table(3);
    for name in ["a", "b", "c"] {
        assert!(admits(&memory, name, 2));
    }
    let admitted = (0..50)
        .filter(|i| admits(&memory, &format!("newcomer-{i}"), 2))
        .count();
    assert_eq!(admitted, 2, "one overflow bucket of that limit");
    assert!(
        admits(&memory, "other-limit", 5),
        "another limit overflows into a bucket of its own"
    );
    assert!(
        admits(&memory, "a", 2) && !admits(&memory, "a", 2),
        "a known key keeps its own"
    );
    assert_eq!(memory.len(), 3);
}

#[test]
fn a_key_that_is_limited_is_never_evicted_to_admit_it_anew() {
    let (memory, clock) = table(2);
    assert!(admits(&memory, "drained", 1));
    for i in 0..100 {
        admits(&memory, &format!("flood-{i}"), 1);
        assert!(!admits(&memory, "drained", 1));
    }
    clock.advance(Duration::from_secs(1));
    assert!(admits(&memory, "drained", 1));
}

#[test]
fn expired_records_make_room_first() {
    let (memory, clock) = table(100);
    for i in 0..100 {
        assert!(admits(&memory, &format!("early-{i}"), 1));
    }
    // Half of them are used again and so live longer than their first expiry.
    clock.advance(Duration::from_secs(1));
    for i in 0..50 {
        assert!(admits(&memory, &format!("early-{i}"), 1));
    }
    for i in 0..50 {
        assert!(admits(&memory, &format!("late-{i}"), 1));
    }
    assert_eq!(memory.len(), 100);
    assert!(
        (0..50).all(|i| !admits(&memory, &format!("early-{i}"), 1)),
        "the live ones are all still there"
    );
    assert!(
        (0..50).all(|i| !admits(&memory, &format!("late-{i}"), 1)),
        "and so are the new ones"
    );
}

#[test]
fn a_forgotten_record_makes_room() {
    let (memory, _) = table(300);
    for i in 0..300 {
        assert!(admits(&memory, &format!("early-{i}"), 1));
    }
    for i in [7, 150, 299] {
        memory.forget(charge(&format!("early-{i}"), 1).key());
    }
    for i in 0..3 {
        assert!(admits(&memory, &format!("late-{i}"), 1));
    }
    assert!((0..3).all(|i| !admits(&memory, &format!("late-{i}"), 1)));
    assert_eq!(memory.len(), 300);
}

#[test]
fn the_dead_do_not_pile_up() {
    let (memory, clock) = table(1_000_000);
    for i in 0..10_000 {
        assert!(admits(&memory, &format!("visitor-{i}"), 1));
        clock.advance(Duration::from_millis(10));
    }
    assert!(memory.len() < 10_000 / 2, "{}", memory.len());
}

proptest! {
    /// However records come, go, die and are swept, each request is decided as if nothing was ever removed.
    #[test]
    fn decides_as_a_table_that_keeps_everything(
        asked in proptest::collection::vec((0_u8..40, 0_u64..2_000, 0_u8..20), 1..400),
    ) {
        let (memory, clock) = table(1_000);
        let mut kept: HashMap<u8, Kept> = HashMap::new();
        for (name, later_ms, chance) in asked {
            clock.advance(Duration::from_millis(later_ms));
            let charges = [charge(&name.to_string(), 3)];
            if chance == 0 {
                memory.forget(charges[0].key());
                kept.remove(&name);
            }
            let now_us = clock.now_us();
            let remembered = live(kept.get(&name), now_us);
            let expected = judge(&charges, Intent::Charge, |_| remembered, now_us);
            kept.extend(expected.writes.iter().map(|write| (name, write.kept)));
            prop_assert_eq!(memory.ask_now(&charges, Intent::Charge), Ok(expected.verdict));
        }
    }
}

#[test]
fn two_charges_cannot_share_the_overflow_bucket() {
    let (memory, _) = table(1);
    assert!(admits(&memory, "a", 2));
    let both = [charge("b", 2), charge("c", 2)];
    assert_eq!(memory.ask_now(&both, Intent::Charge), Err(Fault::TableFull));
}
