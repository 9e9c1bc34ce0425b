//! What is owed to the store, and what is not.

use super::*;
use crate::strategy::fallback::debts::MOST_DEBTS;

#[test]
fn an_answer_after_an_ambiguous_fault_is_never_written_back() {
    for algorithm in ALL {
        for mode in [Mode::Silent, Mode::Deaf] {
            let (world, limit) = (World::of(1), still(*algorithm, 10));
            world.store.set(mode);
            let verdict = world.ask(0, &[costing(limit, "a", 3)]);
            assert!(verdict.admitted && verdict.is_from(Source::Local));
            let before = world.store.left(&costing(limit, "a", 1));
            world.store.set(Mode::Up);
            world.write_back();
            assert_eq!(world.store.debits(), []);
            assert_eq!(world.store.left(&costing(limit, "a", 1)), before);
        }
    }
}

#[test]
fn a_denial_and_a_peek_owe_nothing() {
    let (world, limit) = (World::of(1), still(ALL[0], 2));
    world.store.set(Mode::Away);
    assert!(world.ask(0, &[costing(limit, "a", 2)]).admitted);
    assert!(!world.ask(0, &[costing(limit, "a", 1)]).admitted);
    let peeked = [costing(limit, "b", 1)];
    assert!(now(world.instances[0].peek(&peeked)).unwrap().admitted);
    world.store.set(Mode::Up);
    world.write_back();
    assert_eq!(world.store.debits(), [(key(ALL[0], "a"), 2)]);
}

/// More than a capacity is never owed: what is above it was refilled meanwhile.
#[test]
fn a_long_outage_owes_a_capacity() {
    let quota = Quota::new(10, 1, Duration::from_secs(1)).unwrap();
    let limit = Limit {
        algorithm: ALL[0],
        quota,
    };
    let world = World::of(1);
    world.store.set(Mode::Away);
    for _ in 0..50 {
        world.clock.advance(Duration::from_secs(1));
        assert!(world.ask(0, &[costing(limit, "a", 1)]).admitted);
    }
    world.store.set(Mode::Up);
    world.write_back();
    assert_eq!(world.store.debits(), [(key(ALL[0], "a"), 10)]);
    assert_eq!(world.store.left(&costing(limit, "a", 1)), 0);
}

/// A bucket that is full again here is one that the store, which gained as much, need not be told of.
#[test]
fn what_was_refilled_meanwhile_is_not_owed() {
    let quota = Quota::new(10, 1, Duration::from_secs(1)).unwrap();
    for algorithm in ALL {
        let algorithm = *algorithm;
        let (limit, world) = (Limit { algorithm, quota }, World::of(3));
        world.store.set(Mode::Away);
        let names: Vec<String> = (0..3 * WRITTEN_AT_ONCE).map(|i| i.to_string()).collect();
        let mut waits = 0;
        for name in &names {
            let verdict = world.ask(0, &[costing(limit, name, 2)]);
            waits = waits.max(micros(verdict.decisions[0].reset_after));
        }
        world.clock.advance(Duration::from_micros(waits - 1));
        assert!(world.ask(0, &[costing(limit, "a", 1)]).admitted);
        assert!(names.iter().all(|name| {
            let debt = costing(limit, name, 2);
            !world.instances[0].is_refilled(&debt)
        }));
        world.clock.advance(Duration::from_micros(1));
        world.store.set(Mode::Up);
        world.write_back();
        let sent = world.store.debits();
        // Where windows are aligned they all end at once.
        let expected = match algorithm.name() {
            "fixedwindow" => vec![],
            _ => vec![(key(algorithm, "a"), 1)],
        };
        assert_eq!(sent, expected, "{algorithm:?}");
        assert_eq!(world.instances[0].lock().lost, 0);
    }
}

/// It was sent, so it is not sent again; it may not have been charged, so it is counted.
#[test]
fn a_debt_whose_fate_is_unknown_is_counted_as_lost() {
    for mode in [Mode::Silent, Mode::Deaf] {
        let (world, limit) = (World::of(1), still(ALL[0], 10));
        world.store.set(Mode::Away);
        assert!(world.ask(0, &[costing(limit, "a", 3)]).admitted);
        world.store.set(mode);
        world.write_back();
        world.store.set(Mode::Up);
        world.write_back();
        assert_eq!(world.store.debits(), [(key(ALL[0], "a"), 3)]);
        assert_eq!(world.instances[0].lock().lost, 3);
    }
}

/// A line for each outage, not for each try.
#[test]
fn what_was_written_back_is_news_once() {
    let (world, limit) = (World::of(1), still(ALL[0], 10));
    for (spent, mode) in [(3, Mode::Up), (2, Mode::Silent)] {
        world.store.set(Mode::Away);
        assert!(world.ask(0, &[costing(limit, "a", spent)]).admitted);
        world.store.set(mode);
        world.write_back();
    }
    let (keys, tokens, lost) = (1, 3, 2);
    let news = world.instances[0].lock().news();
    assert_eq!(news, Some(Settled { keys, tokens, lost }));
    assert_eq!(world.instances[0].lock().news(), None);
}

/// Nobody knows how far it came. The others are charged all the same, and it is not sent again.
#[test]
fn a_debt_whose_task_panics_is_counted_as_lost() {
    let (world, limit) = (World::of(1), still(ALL[0], 10));
    world.store.set(Mode::Away);
    for name in ["bad", "good"] {
        assert!(world.ask(0, &[costing(limit, name, 3)]).admitted);
    }
    world.store.set(Mode::Mistaken);
    world.write_back();
    world.write_back();
    assert_eq!(world.instances[0].lock().lost, 3);
    assert_eq!(world.store.left(&costing(limit, "good", 1)), 7);
    assert_eq!(world.store.debits().len(), 2);
}

#[test]
fn a_debt_that_was_surely_not_charged_is_kept() {
    let (world, limit) = (World::of(1), still(ALL[0], 10));
    world.store.set(Mode::Away);
    assert!(world.ask(0, &[costing(limit, "a", 3)]).admitted);
    world.write_back();
    assert!(world.ask(0, &[costing(limit, "a", 2)]).admitted);
    world.store.set(Mode::Up);
    world.write_back();
    assert_eq!(world.store.debits(), [(key(ALL[0], "a"), 5)]);
    assert_eq!(world.instances[0].lock().lost, 0);
}

#[test]
fn what_does_not_fit_among_the_debts_is_counted_as_lost() {
    let mut debts = Debts::default();
    for i in 0..MOST_DEBTS + 5 {
        debts.add(&costing(still(ALL[0], 10), &i.to_string(), 2));
    }
    assert_eq!((debts.by_key.len(), debts.lost), (MOST_DEBTS, 10));
    debts.add(&costing(still(ALL[0], 20), "0", 3));
    assert_eq!(debts.lost, 12, "what was spent under another quota");
}

/// One key that the store cannot charge holds up no other, however many there are, and is not asked for for ever.
#[test]
fn a_key_that_is_refused_holds_up_no_other() {
    assert_eq!(wrong_type().scope(), Scope::Request);
    let (world, limit) = (World::of(1), still(ALL[0], 10));
    world.store.set(Mode::Away);
    let names: Vec<String> = (0..3 * WRITTEN_AT_ONCE).map(|i| i.to_string()).collect();
    for name in names.iter().map(String::as_str).chain(["bad"]) {
        assert!(world.ask(0, &[costing(limit, name, 3)]).admitted);
    }
    world.store.set(Mode::Spoilt);
    world.write_back();
    for name in &names {
        assert_eq!(world.store.left(&costing(limit, name, 1)), 7, "{name}");
    }
    assert_eq!(world.instances[0].lock().lost, 3);
    let sent = world.store.debits().len();
    world.write_back();
    assert_eq!(world.store.debits().len(), sent);
}

/// What was given back is given back: to the table here, and off the debt.
#[test]
fn a_local_receipt_returns_to_the_local_table_and_reduces_the_debt() {
    for algorithm in ALL {
        for (instances, capacity) in [(1, 10), (3, 12), (5, 4)] {
            let (world, limit) = (World::of(instances), still(*algorithm, capacity));
            world.store.set(Mode::Away);
            let charge = [costing(limit, "a", 1)];
            let share = (0..).take_while(|_| world.ask(0, &charge).admitted).count();
            assert!(share >= 1);
            let world = World::of(instances);
            world.store.set(Mode::Away);
            let mut last = world.ask(0, &charge);
            (1..share).for_each(|_| last = world.ask(0, &charge));
            assert!(last.admitted && !world.ask(0, &charge).admitted);
            now(world.instances[0].give_back(last.into_receipts(&charge))).unwrap();
            assert!(world.ask(0, &charge).admitted, "{algorithm:?} {instances}");
            assert!(!world.ask(0, &charge).admitted);
            world.store.set(Mode::Up);
            world.write_back();
            let debt: u64 = world.store.debits().iter().map(|(_, tokens)| tokens).sum();
            assert_eq!(debt, share as u64, "{algorithm:?} {instances}");
        }
    }
}

/// Keys that owe nothing any more hide no other.
#[test]
fn what_was_given_back_holds_up_no_debt() {
    let (world, limit) = (World::of(1), still(ALL[0], 10));
    world.store.set(Mode::Away);
    for i in 0..20 * WRITTEN_AT_ONCE {
        let charge = [costing(limit, &i.to_string(), 1)];
        let receipts = world.ask(0, &charge).into_receipts(&charge);
        now(world.instances[0].give_back(receipts)).unwrap();
    }
    assert!(world.ask(0, &[costing(limit, "a", 3)]).admitted);
    world.store.set(Mode::Up);
    world.write_back();
    assert_eq!(world.store.debits(), [(key(ALL[0], "a"), 3)]);
}

#[test]
fn a_store_receipt_goes_back_to_the_store() {
    let (world, limit) = (World::of(2), still(ALL[0], 10));
    let charge = [costing(limit, "a", 4)];
    let receipts = world.ask(0, &charge).into_receipts(&charge);
    now(world.instances[0].give_back(receipts)).unwrap();
    assert_eq!(world.store.left(&charge[0]), 10);
}

#[test]
fn a_reset_forgets_the_debt_too() {
    let (world, limit) = (World::of(1), still(ALL[0], 10));
    world.store.set(Mode::Away);
    let charge = [costing(limit, "a", 10)];
    assert!(world.ask(0, &charge).admitted);
    now(world.instances[0].reset(charge[0].key())).unwrap();
    assert!(world.ask(0, &charge).admitted, "a full bucket");
    now(world.instances[0].reset(charge[0].key())).unwrap();
    world.store.set(Mode::Up);
    world.write_back();
    assert_eq!(world.store.debits(), []);
}

#[test]
fn an_observed_charge_denies_nobody_here_either() {
    let (world, limit) = (World::of(2), still(ALL[0], 2));
    world.store.set(Mode::Away);
    let charges = [
        costing(still(ALL[0], 10), "a", 1),
        costing(limit, "b", 2).observed(),
    ];
    assert!(world.ask(0, &charges).decisions[1].is_allowed());
    let verdict = world.ask(0, &charges);
    assert!(verdict.admitted && !verdict.decisions[1].is_allowed());
    world.store.set(Mode::Up);
    world.write_back();
    let mut debits = world.store.debits();
    debits.sort();
    assert_eq!(debits, [(key(ALL[0], "a"), 2), (key(ALL[0], "b"), 2)]);
}

/// Rules with different policies meet in one request: what says `allow` is neither counted here nor owed.
#[test]
fn beside_a_local_charge_one_that_allows_is_not_counted() {
    let (world, limit) = (World::of(1), still(ALL[0], 3));
    let charges = [
        costing(limit, "open", 1).with_on_store_error(OnStoreError::Allow),
        costing(limit, "here", 1),
    ];
    assert!(world.ask(0, &charges).admitted);
    let known = |name| {
        let peeked = world.instances[0]
            .local
            .ask_now(&[costing(limit, name, 1)], Intent::Peek);
        peeked.unwrap().decisions[0].remaining
    };
    assert_eq!((known("open"), known("here")), (3, 2), "no use for it here");

    world.store.set(Mode::Away);
    let away = world.ask(0, &charges);
    let sources: Vec<_> = away.decisions.iter().map(|told| told.source).collect();
    assert_eq!(sources, [Source::Nobody, Source::Local]);
    assert_eq!(away.decisions[1].remaining, 1);
    assert!(world.ask(0, &charges).admitted);
    let denied = world.ask(0, &charges);
    assert!(!denied.admitted && denied.decisions[0].is_allowed());

    world.store.set(Mode::Up);
    world.write_back();
    assert_eq!(world.store.debits(), [(key(ALL[0], "here"), 2)]);
}
