//! What limiting alone may add, as properties over every algorithm.

use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

use super::*;

proptest! {
    /// Before, while and after the store is away for everybody: the law and one capacity, or a request of each instance
    /// where that is more; one capacity more if it comes back empty. Where clocks differ, `fixedwindow` adds one more.
    #[test]
    fn an_outage_adds_one_capacity(
        limit in limits(), ahead_us in clocks(1..6), cost in 1_u64..5, comes_back_empty in proptest::bool::ANY,
        before in requests(1..2), during in requests(1..2), after in requests(1..2),
    ) {
        let instances = ahead_us.len() as u64;
        if has_other_windows(limit, instances, cost) { return Ok(()); }
        let (world, mut admitted) = (World::apart(&ahead_us), Vec::new());
        world.run(limit, &all_costing(before, cost), &mut admitted);
        world.store.set(Mode::Away);
        world.run(limit, &all_costing(during, cost), &mut admitted);
        if comes_back_empty { world.store.lose_records() }
        world.store.set(Mode::Up);
        world.write_back();
        world.run(limit, &all_costing(after, cost), &mut admitted);
        let burst = burst(limit, instances, cost);
        let more = burst + misaligned(limit, &ahead_us, burst) + if comes_back_empty { limit.quota.capacity() } else { 0 };
        prop_assert!(is_lawful(limit, &admitted, more), "{admitted:?}");
    }

    /// The same where requests cost this and that.
    #[test]
    fn requests_of_many_costs_add_no_more(
        limit in limits(), ahead_us in clocks(1..6), before in requests(1..8), during in requests(1..8)
    ) {
        let instances = ahead_us.len() as u64;
        if has_other_windows(limit, instances, 7) { return Ok(()); }
        let (world, mut admitted) = (World::apart(&ahead_us), Vec::new());
        world.run(limit, &before, &mut admitted);
        world.store.set(Mode::Away);
        world.run(limit, &during, &mut admitted);
        world.run(limit, &during, &mut admitted);
        let burst = burst(limit, instances, 7);
        prop_assert!(is_lawful(limit, &admitted, burst + misaligned(limit, &ahead_us, burst)), "{admitted:?}");
    }

    /// Over an outage itself, however its faults look and although the store answers now and then.
    #[test]
    fn a_store_that_comes_and_goes_adds_no_more(
        limit in limits(), ahead_us in clocks(1..6), cost in 1_u64..5,
        turns in proptest::collection::vec((proptest::bool::ANY, requests(1..2)), 1..8),
    ) {
        let instances = ahead_us.len() as u64;
        if has_other_windows(limit, instances, cost) { return Ok(()); }
        let (world, mut admitted) = (World::apart(&ahead_us), Vec::new());
        for (is_up, requests) in turns {
            world.store.set(if is_up { Mode::Up } else { Mode::Away });
            world.run(limit, &all_costing(requests, cost), &mut admitted);
        }
        admitted.retain(|one| one.is_local);
        let burst = burst(limit, instances, cost);
        let more = burst - limit.quota.capacity() + misaligned(limit, &ahead_us, burst);
        prop_assert!(is_lawful(limit, &admitted, more), "{admitted:?}");
    }

    /// Where each instance's last answer was a denial, an outage admits what is refilled and one request of each.
    #[test]
    fn after_denials_an_outage_adds_a_request_of_each_instance(
        limit in limits(), ahead_us in clocks(1..6), cost in 1_u64..5, during in requests(1..2), after in requests(1..2)
    ) {
        if limit.algorithm.name() == "fixedwindow" { return Ok(()); }
        let instances = ahead_us.len() as u64;
        let (world, mut admitted) = (World::apart(&ahead_us), Vec::new());
        let cost = cost.min(limit.quota.capacity());
        let charge = costing(limit, "a", cost);
        while world.ask(0, std::slice::from_ref(&charge)).admitted {}
        for instance in 0..world.instances.len() {
            prop_assert!(!world.ask(instance, std::slice::from_ref(&charge)).admitted);
        }
        let from_us = world.clock.now_us();
        world.store.set(Mode::Away);
        world.run(limit, &all_costing(during, cost), &mut admitted);
        let mut sum = 0;
        for one in &admitted {
            sum += one.cost;
            let gained = (one.at_us - from_us) * limit.quota.gain();
            prop_assert!(sum * limit.quota.unit() <= instances * cost * limit.quota.unit() + gained);
        }
        // And when the store is back, no more than that.
        world.store.set(Mode::Up);
        world.write_back();
        world.run(limit, &all_costing(after, cost), &mut admitted);
        prop_assert!(is_lawful(limit, &admitted, instances * cost), "{admitted:?}");
    }

    /// Where N requests cost more than a capacity the windows of `fixedwindow` are longer than the law's, so the properties
    /// above leave it to this one: a request of each on either side of where two windows meet.
    #[test]
    fn longer_windows_add_a_request_of_each_on_either_side(
        quota in (1_u64..12, 1_u64..20, 100_000_u64..4_000_000), instances in 2_u64..8, cost in 1_u64..5,
        after_denials in proptest::bool::ANY, before in requests(1..2), during in requests(1..2), after in requests(1..2),
    ) {
        let (capacity, tokens, period_us) = quota;
        let quota = Quota::new(capacity, tokens, Duration::from_micros(period_us)).unwrap();
        let limit = Limit { algorithm: crate::algorithm::named("fixedwindow").unwrap(), quota };
        let cost = cost.min(capacity);
        proptest::prop_assume!(has_other_windows(limit, instances, cost));
        let (world, mut admitted) = (World::of(instances), Vec::new());
        world.run(limit, &all_costing(before, cost), &mut admitted);
        if after_denials {
            let all = (0..world.instances.len()).flat_map(|instance| (0..=capacity).map(move |_| (0, instance, cost)));
            world.run(limit, &all.collect::<Vec<_>>(), &mut admitted);
        }
        world.store.set(Mode::Away);
        world.run(limit, &all_costing(during, cost), &mut admitted);
        world.store.set(Mode::Up);
        world.write_back();
        world.run(limit, &all_costing(after, cost), &mut admitted);
        for (i, first) in admitted.iter().enumerate() {
            let mut sum = 0;
            for one in &admitted[i..] {
                sum += one.cost;
                // The law's own windows may have a capacity on either side too.
                let most = 2 * (capacity + instances * cost) * quota.unit();
                let gained = (one.at_us - first.at_us) * quota.gain();
                prop_assert!(sum * quota.unit() <= most + gained, "{sum} in {admitted:?}");
            }
        }
        // What is admitted alone, by itself: no more than a request of each in each of the longer windows.
        let stretched_us = quota.holding(instances * cost).unwrap().fill_time_us();
        let local: Vec<_> = admitted.iter().filter(|one| one.is_local).collect();
        for first in &local {
            let in_window = local.iter().filter(|one| one.at_us / stretched_us == first.at_us / stretched_us);
            let sum: u64 = in_window.map(|one| one.cost).sum();
            prop_assert!(sum <= instances * cost, "{sum} in one window: {admitted:?}");
        }
    }

    /// While k of N are cut off, these admit k/N of a capacity and of the rate, and the others keep the law.
    #[test]
    fn some_that_are_cut_off_admit_their_share(
        limit in limits(), ahead_us in clocks(1..6), cut_off in 1_u64..6, cost in 1_u64..5,
        before in requests(1..2), during in requests(1..2),
    ) {
        let instances = ahead_us.len() as u64;
        let cut_off = cut_off.min(instances);
        if has_other_windows(limit, instances, cost) { return Ok(()); }
        let (world, mut admitted) = (World::apart(&ahead_us), Vec::new());
        world.run(limit, &all_costing(before, cost), &mut admitted);
        let from_us = world.clock.now_us();
        for (pause_us, instance, _) in during {
            let instance = instance % world.instances.len();
            let is_cut_off = (instance as u64) < cut_off;
            world.store.set(if is_cut_off { Mode::Away } else { Mode::Up });
            world.run(limit, &[(pause_us, instance, cost)], &mut admitted);
        }
        let (local, stored): (Vec<_>, Vec<_>) = admitted.into_iter().partition(|one| one.is_local);
        prop_assert!(is_lawful(limit, &stored, 0));
        let mut sum = 0;
        for one in &local {
            sum += one.cost;
            let (quota, burst) = (limit.quota, burst(limit, instances, cost));
            let most = if limit.algorithm.name() == "fixedwindow" {
                let windows = one.at_us / quota.fill_time_us() - from_us / quota.fill_time_us() + 1;
                (burst * windows + misaligned(limit, &ahead_us, burst)) * quota.unit()
            } else {
                burst * quota.unit() + (one.at_us - from_us) * quota.gain()
            };
            prop_assert!(sum * instances * quota.unit() <= cut_off * most);
        }
    }

    /// A known key starts at floor(remaining / N).
    #[test]
    fn a_warm_key_starts_at_its_share_of_what_is_left(
        which in 0..ALL.len(), instances in 1_u64..6, capacity in 6_u64..60, used in 1_u64..60
    ) {
        let (world, limit, used) = (World::of(instances), still(ALL[which], capacity), used.min(capacity));
        prop_assert!(world.ask(0, &[costing(limit, "a", used)]).admitted);
        world.store.set(Mode::Away);
        let share = (capacity - used) / instances;
        for left in (0..share).rev() {
            let verdict = world.ask(0, &[costing(limit, "a", 1)]);
            prop_assert!(verdict.admitted);
            prop_assert_eq!(verdict.decisions[0].remaining, left);
        }
        prop_assert!(!world.ask(0, &[costing(limit, "a", 1)]).admitted);
    }

    /// A cost above the share but within the quota is admitted or denied, and never inadmissible; a lone client that
    /// waits as long as it is told is admitted. Every decision says that it is local.
    #[test]
    fn no_cost_within_the_quota_is_inadmissible(
        limit in limits(), instances in 1_u64..200, cost in 1_u64..40, asked in 1_usize..6
    ) {
        let world = World::of(instances);
        world.store.set(Mode::Away);
        let charge = [costing(limit, "a", cost.min(limit.quota.capacity()))];
        for _ in 0..asked {
            let verdict = world.ask(0, &charge);
            let decision = verdict.decisions[0];
            prop_assert_eq!(decision.source, Source::Local);
            prop_assert_eq!(decision.limit, limit.quota.capacity());
            prop_assert!(decision.remaining <= decision.limit);
            if let Some(wait) = decision.retry_after() {
                world.clock.advance(wait - Duration::from_micros(1));
                prop_assert!(!world.ask(0, &charge).admitted);
                world.clock.advance(Duration::from_micros(1));
                prop_assert!(world.ask(0, &charge).admitted);
            }
        }
    }

    /// What is spent is sent once a key, never more than was spent, and leaves what the store has less that.
    #[test]
    fn a_debt_is_written_back_once_and_never_below_zero(
        which in 0..ALL.len(), capacity in 6_u64..60, used in 1_u64..60, taken_by_others in 0_u64..60, asked in 1_u64..60
    ) {
        let (world, limit) = (World::of(1), still(ALL[which], capacity));
        prop_assert!(world.ask(0, &[costing(limit, "a", used.min(capacity))]).admitted);
        world.store.set(Mode::Away);
        let spent = (0..asked).filter(|_| world.ask(0, &[costing(limit, "a", 1)]).admitted).count() as u64;
        world.store.set(Mode::Up);
        if let Some(taken) = Cost::new(taken_by_others.min(capacity)) {
            let _ = world.store.table().ask_now(&[costing(limit, "a", taken.get())], Intent::Debit);
        }
        let before = world.store.left(&costing(limit, "a", 1));
        world.write_back();
        world.write_back();
        let sent: Vec<u64> = world.store.debits().into_iter().map(|(_, tokens)| tokens).collect();
        prop_assert_eq!(sent, Vec::from_iter((spent > 0).then_some(spent)));
        prop_assert_eq!(world.store.left(&costing(limit, "a", 1)), before.saturating_sub(spent));
        prop_assert_eq!(world.instances[0].lock().lost, 0);
    }
}

/// Large requests have a larger bucket than small ones; between them the record of a small one must not be forgotten.
#[test]
fn costs_that_alternate_gain_no_more_than_the_rate() {
    for algorithm in ALL.iter().filter(|it| it.name() != "fixedwindow") {
        let quota = Quota::new(10, 1, Duration::from_secs(1)).unwrap();
        let (limit, world) = (
            Limit {
                algorithm: *algorithm,
                quota,
            },
            World::of(3),
        );
        world.store.set(Mode::Away);
        let (mut sum, from_us) = (0, world.clock.now_us());
        for _ in 0..200 {
            for cost in [10, 1] {
                while world.ask(0, &[costing(limit, "a", cost)]).admitted {
                    sum += cost;
                }
            }
            world.clock.advance(Duration::from_secs(10));
        }
        let seconds = (world.clock.now_us() - from_us) / 1_000_000;
        assert!(sum * 3 <= 30 + seconds, "{algorithm:?}: {sum}");
        assert!(sum * 3 * 2 >= seconds, "{algorithm:?}: {sum}");
    }
}
