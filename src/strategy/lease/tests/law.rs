//! The law, whatever instances do and whenever they do it.

use proptest::prelude::{Just, any, prop_assert, prop_oneof, proptest};
use proptest::strategy::Strategy as _;

use super::*;

/// Tokens above the law between any two instants, in units.
fn excess(quota: &Quota, admitted: &[(u64, u64)]) -> u64 {
    let (mut worst, mut sum, mut lowest) = (0_i128, 0_i128, i128::MAX);
    for &(at_us, tokens) in admitted {
        let gained = i128::from(at_us) * i128::from(quota.gain());
        lowest = lowest.min(sum - gained);
        sum += i128::from(tokens * quota.unit());
        worst = worst.max(sum - gained - lowest - i128::from(quota.full()));
    }
    u64::try_from(worst).unwrap()
}

#[derive(Debug, Clone)]
enum Event {
    /// So many requests of that cost, one after the other, to that instance.
    Burst(usize, u64, u64),
    Wait(u64),
    /// As long as an empty bucket takes to fill.
    Idle,
    /// Replies are lost from now on, or no longer.
    Lose(bool),
    /// Another instance takes the place of one that dies.
    Die(usize),
}

fn events() -> impl proptest::strategy::Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        6 => (0_usize..3, 1_u64..60, 1_u64..4).prop_map(|(i, times, cost)| Event::Burst(i, times, cost)),
        4 => (0_u64..400_000).prop_map(Event::Wait),
        2 => Just(Event::Idle),
        1 => any::<bool>().prop_map(Event::Lose),
        1 => (0_usize..3).prop_map(Event::Die),
    ];
    proptest::collection::vec(event, 1..60)
}

proptest! {
    /// Whatever several instances take ahead, spend, lose and let run out, together they admit what one bucket would.
    #[test]
    fn the_law_holds(
        capacity in 16_u64..200, tokens in 1_u64..2_000, away_us in prop_oneof![Just(0), 0_u64..300_000], events in events()
    ) {
        let store = Store::at_once(Duration::from_micros(away_us));
        let quota = Quota::new(capacity, tokens, SECOND).unwrap();
        let mut instances = [(); 3].map(|()| store.instance());
        let mut admitted = Vec::new();
        for event in events {
            match event {
                Event::Burst(i, times, cost) => {
                    let one = charge(quota, cost);
                    for _ in 0..times {
                        let asked_us = store.clock.now_us();
                        if let Ok(verdict) = now(instances[i].decide(&one)) && verdict.admitted {
                            // What was taken ahead is spent here and now, the rest when it was taken there.
                            let at_us = match verdict.decisions[0].source {
                                Source::Lease => asked_us,
                                _ => asked_us + away_us,
                            };
                            admitted.push((at_us, cost));
                        }
                    }
                }
                Event::Wait(us) => store.clock.advance(Duration::from_micros(us)),
                Event::Idle => store.clock.advance(quota.fill_time()),
                Event::Lose(loses) => store.loses_replies.store(loses, Ordering::Relaxed),
                Event::Die(i) => instances[i] = store.instance(),
            }
        }
        prop_assert!(excess(&quota, &admitted) == 0, "{} units", excess(&quota, &admitted));
    }
}
