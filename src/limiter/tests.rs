//! What several rules make of one request, on a real table in memory.

use std::hash::RandomState;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::*;
use crate::algorithm::TokenBucket;
use crate::domain::{Cost, Identity, Limit, ManualClock, Networks, Quota, RuleName};
use crate::strategy::Memory;

fn limit(capacity: u64) -> Limit {
    let quota = Quota::new(capacity, 1, Duration::from_secs(60)).unwrap();
    Limit {
        algorithm: &TokenBucket,
        quota,
    }
}

fn rule(name: &str, effect: Effect) -> Rule {
    Rule {
        name: RuleName::new(name).unwrap(),
        matches: Match::default(),
        effect,
        mode: RuleMode::Enforce,
    }
}

/// A rule that counts everybody together.
fn counting(name: &str, capacity: u64) -> Rule {
    rule(name, Effect::Limit(Box::new(by(Vec::new(), capacity))))
}

fn by(key: Vec<Part>, capacity: u64) -> Limiting {
    Limiting {
        key,
        absent: Absent::Address,
        limit: limit(capacity),
        overrides: Overrides::default(),
        cost: Costs::fixed(Cost::MIN),
        on_store_error: OnStoreError::Local,
    }
}

fn on_path(rule: Rule, path: &str) -> Rule {
    let mut rule = rule;
    rule.matches.when.paths = vec![PathPattern::new(path).unwrap()];
    rule
}

fn shadow(rule: Rule) -> Rule {
    Rule {
        mode: RuleMode::Shadow,
        ..rule
    }
}

fn limiter(rules: Vec<Rule>) -> Limiter {
    let clock = Arc::new(ManualClock::at_us(1_762_668_474_000_000));
    let memory = Memory::new(1_000, clock, &RandomState::new());
    Limiter::with_rules(RuleSet::new(rules, Version::of(b"test")), Arc::new(memory))
}

fn call(path: &str) -> Call<'_> {
    Call {
        path,
        ..Call::of([192, 0, 2, 1].into())
    }
}

/// Memory answers at once.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it waits"),
    }
}

fn ask(limiter: &Limiter, call: Call<'_>) -> Answer {
    now(limiter.check(&call))
}

fn admitted(answer: &Answer) -> bool {
    match &answer.ruling {
        Ruling::Decided(verdict) => verdict.admitted,
        ruling => *ruling == Ruling::Unlimited,
    }
}

fn names(answer: &Answer) -> Vec<&str> {
    answer.all().map(|ruled| ruled.rule.name.as_str()).collect()
}

#[test]
fn every_matching_rule_counts_and_all_or_none_are_charged() {
    let limiter = limiter(vec![
        counting("wide", 5),
        on_path(counting("narrow", 1), "/a"),
        on_path(counting("other", 1), "/b"),
    ]);
    let first = ask(&limiter, call("/a"));
    assert_eq!(names(&first), ["wide", "narrow"]);
    assert!(admitted(&first));
    assert!(!admitted(&ask(&limiter, call("/a"))));
    let left = ask(&limiter, call("/b"));
    let wide = left.all().next().unwrap().decision.remaining;
    assert_eq!(
        wide, 3,
        "the denied request was not charged to the wide one"
    );
}

#[test]
fn an_exemption_spares_from_the_rules_below_it_alone() {
    let limiter = limiter(vec![
        counting("above", 2),
        on_path(rule("office", Effect::Exempt), "/office"),
        counting("below", 1),
    ]);
    for expected in [true, true, false] {
        let answer = ask(&limiter, call("/office"));
        assert_eq!(names(&answer), ["above"]);
        assert_eq!(admitted(&answer), expected);
    }
}

#[test]
fn a_ban_refuses_and_charges_nothing() {
    let limiter = limiter(vec![
        counting("all", 1),
        on_path(rule("banned", Effect::Deny), "/banned"),
    ]);
    let answer = ask(&limiter, call("/banned"));
    assert_eq!(answer.ruling, Ruling::Banned { rule: 1 });
    assert!(admitted(&ask(&limiter, call("/"))));
}

#[test]
fn without_a_matching_rule_a_request_passes() {
    let limiter = limiter(vec![on_path(counting("a", 1), "/a")]);
    for _ in 0..3 {
        assert_eq!(ask(&limiter, call("/b")).ruling, Ruling::Unlimited);
    }
}

#[test]
fn a_rule_in_shadow_counts_and_refuses_nothing() {
    let limiter = limiter(vec![counting("real", 10), shadow(counting("trial", 1))]);
    for denials in [0, 1] {
        let answer = ask(&limiter, call("/"));
        assert!(admitted(&answer));
        assert_eq!(answer.shadow_denials().count(), denials);
        assert_eq!(answer.enforced().count(), 1);
    }
    let rules = limiter.rules();
    let [real, trial] = rules.counts() else {
        panic!("two rules")
    };
    assert_eq!((real.allowed(), real.denied()), (2, 0));
    assert_eq!((trial.allowed(), trial.denied()), (1, 1));
}

#[test]
fn a_rule_that_is_off_is_not_there() {
    let off = |rule| Rule {
        mode: RuleMode::Off,
        ..rule
    };
    let limiter = limiter(vec![
        off(rule("banned", Effect::Deny)),
        off(counting("trial", 1)),
    ]);
    assert_eq!(ask(&limiter, call("/")).ruling, Ruling::Unlimited);
}

#[test]
fn an_absent_part_is_answered_as_the_rule_says() {
    let keyed = |absent| {
        let limiting = Limiting {
            absent,
            ..by(vec![Part::Header("x-api-key".into())], 1)
        };
        limiter(vec![rule("api", Effect::Limit(Box::new(limiting)))])
    };
    let address = keyed(Absent::Address);
    assert!(admitted(&ask(&address, call("/"))));
    assert!(
        !admitted(&ask(&address, call("/"))),
        "the address stands in"
    );
    let skip = keyed(Absent::Skip);
    assert_eq!(ask(&skip, call("/")).ruling, Ruling::Unlimited);
    let deny = keyed(Absent::Deny);
    assert_eq!(
        ask(&deny, call("/")).ruling,
        Ruling::KeyAbsent { rule: 0, part: 0 }
    );
    let fields = vec![("X-Api-Key".to_owned(), "s3cret".to_owned())];
    let with_key = Call {
        fields: &fields,
        ..call("/")
    };
    let answer = ask(&deny, with_key);
    assert!(admitted(&answer));
    let key = answer.reading().charges()[0].key().as_str();
    assert!(
        key.starts_with("ratelimit:api:~") && !key.contains("s3cret"),
        "{key}"
    );
}

#[test]
fn a_cost_that_never_fits_is_no_denial_and_in_shadow_nothing() {
    let costly = |mode| {
        let limiting = Limiting {
            cost: Costs::fixed(Cost::new(3).unwrap()),
            ..by(Vec::new(), 2)
        };
        let rule = rule("costly", Effect::Limit(Box::new(limiting)));
        limiter(vec![Rule { mode, ..rule }])
    };
    let enforced = ask(&costly(RuleMode::Enforce), call("/"));
    assert!(matches!(enforced.ruling, Ruling::Inadmissible { rule: 0, error } if error.cost == 3));
    let shadow = costly(RuleMode::Shadow);
    assert_eq!(ask(&shadow, call("/")).ruling, Ruling::Unlimited);
    assert_eq!(shadow.rules().counts()[0].denied(), 1);
}

#[test]
fn an_absent_part_in_shadow_refuses_nobody() {
    let limiting = Limiting {
        absent: Absent::Deny,
        ..by(vec![Part::Header("x-api-key".into())], 1)
    };
    let trial = shadow(rule("trial", Effect::Limit(Box::new(limiting))));
    let limiter = limiter(vec![trial, counting("real", 1)]);
    let answer = ask(&limiter, call("/"));
    assert!(admitted(&answer));
    assert_eq!(names(&answer), ["real"]);
    assert_eq!(limiter.rules().counts()[0].denied(), 1);
}

/// Who is banned is told so, whatever a rule above has against the request.
#[test]
fn a_ban_comes_before_other_refusals() {
    let costly = Limiting {
        cost: Costs::fixed(Cost::new(3).unwrap()),
        ..by(Vec::new(), 2)
    };
    let keyed = Limiting {
        absent: Absent::Deny,
        ..by(vec![Part::Header("x-api-key".into())], 1)
    };
    let of = |limiting| rule("above", Effect::Limit(Box::new(limiting)));
    for above in [of(costly), of(keyed)] {
        let limiter = limiter(vec![above, rule("banned", Effect::Deny)]);
        let answer = ask(&limiter, call("/"));
        assert_eq!(answer.ruling, Ruling::Banned { rule: 1 });
    }
}

#[test]
fn costs_go_by_what_is_asked_for() {
    let export = Conditions {
        paths: vec![PathPattern::new("/export").unwrap()],
        ..Conditions::default()
    };
    let limiting = Limiting {
        cost: Costs {
            cases: vec![(export, Cost::new(4).unwrap())],
            otherwise: Cost::MIN,
        },
        ..by(Vec::new(), 10)
    };
    let limiter = limiter(vec![rule("api", Effect::Limit(Box::new(limiting)))]);
    for (path, left) in [("/", 9), ("/export", 5), ("/export", 1), ("/", 0)] {
        let answer = ask(&limiter, call(path));
        assert_eq!(answer.all().next().unwrap().decision.remaining, left);
    }
}

#[test]
fn an_exact_key_beats_a_plan_which_counts_only_from_a_trusted_proxy() {
    let part = Part::Header("x-api-key".into());
    let gold = part.read_into(Identity::new(), "alice", 64).unwrap();
    let overrides = Overrides {
        by_key: [(gold, limit(100))].into(),
        plan_header: Some("x-plan".into()),
        by_plan: [("gold".into(), limit(50))].into(),
    };
    let limiting = Limiting {
        overrides,
        ..by(vec![part], 5)
    };
    let limiter = limiter(vec![rule("api", Effect::Limit(Box::new(limiting)))]);
    for (key, plan, trusted, expected) in [
        ("alice", "gold", true, 100),
        ("bob", "gold", true, 50),
        ("bob", "gold", false, 5),
        ("bob", "silver", true, 5),
        ("carol", "", true, 5),
    ] {
        let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let fields = vec![field("X-Api-Key", key), field("X-Plan", plan)];
        let call = Call {
            fields: &fields,
            from_trusted_proxy: trusted,
            ..call("/")
        };
        let answer = ask(&limiter, call);
        let limit = answer.all().next().unwrap().decision.limit;
        assert_eq!(limit, expected, "{key} {plan} {trusted}");
    }
}

#[test]
fn preflights_are_counted_only_where_options_is_named() {
    let mut named = counting("named", 5);
    named.matches.when.methods = vec!["OPTIONS".into()];
    let mut banned = rule("banned", Effect::Deny);
    banned.matches.when.clients = Some("198.51.100.0/24".parse::<Networks>().unwrap());
    let limiter = limiter(vec![counting("all", 5), named, banned]);
    let field = |name: &str| (name.to_owned(), "x".to_owned());
    let preflight = vec![field("Origin"), field("Access-Control-Request-Method")];
    let with = |fields, client: [u8; 4]| Call {
        method: "OPTIONS",
        fields,
        ..Call::of(client.into())
    };
    let answer = ask(&limiter, with(&preflight, [192, 0, 2, 1]));
    assert_eq!(names(&answer), ["named"]);
    let plain = Vec::new();
    let answer = ask(&limiter, with(&plain, [192, 0, 2, 1]));
    assert_eq!(
        names(&answer),
        ["all", "named"],
        "no preflight without its headers"
    );
    let answer = ask(&limiter, with(&preflight, [198, 51, 100, 1]));
    assert_eq!(answer.ruling, Ruling::Banned { rule: 2 });
}

#[test]
fn of_too_many_rules_the_first_ones_count() {
    let rules = (0..MAX_CHARGES + 3).map(|i| counting(&format!("r{i}"), 1));
    let limiter = limiter(rules.collect());
    let answer = ask(&limiter, call("/"));
    assert!(admitted(&answer));
    assert_eq!(answer.all().count(), MAX_CHARGES);
    assert!(answer.reading().is_cut_off());
}

/// Rules that are only tried must not let pass what a rule in force denies.
#[test]
fn of_too_many_rules_those_in_shadow_make_room() {
    let mut rules = vec![counting("first", 9)];
    rules.extend((0..MAX_CHARGES).map(|i| shadow(counting(&format!("r{i}"), 9))));
    rules.extend([counting("last", 1), shadow(counting("late", 9))]);
    let limiter = limiter(rules);
    let answer = ask(&limiter, call("/"));
    assert!(admitted(&answer) && answer.reading().is_cut_off());
    let told = names(&answer);
    assert_eq!(told.len(), MAX_CHARGES);
    assert_eq!((told[0], told[1]), ("first", "r0"));
    assert_eq!(told.last(), Some(&"last"));
    assert!(!admitted(&ask(&limiter, call("/"))));
}

#[test]
fn replaced_rules_keep_the_usage_of_those_that_keep_their_name() {
    let limiter = limiter(vec![counting("kept", 3), counting("gone", 3)]);
    ask(&limiter, call("/"));
    let before = limiter.read(&call("/"));
    let rules = RuleSet::new(
        vec![counting("kept", 3), counting("new", 3)],
        Version::of(b"2"),
    );
    limiter.replace_rules(rules);
    let left = |answer: &Answer| -> Vec<u64> {
        answer.all().map(|ruled| ruled.decision.remaining).collect()
    };
    assert_eq!(left(&ask(&limiter, call("/"))), [1, 2]);
    // What was read under the old rules is decided by them.
    let answer = now(limiter.decide(before));
    assert_eq!(names(&answer), ["kept", "gone"]);
    assert_eq!(left(&answer), [0, 1]);
}

/// However the index sorts them, the rules that apply are those that match one by one.
#[test]
fn the_index_leaves_out_no_rule() {
    let patterns = ["/a", "/a/**", "/*/b", "/**", "/", "/b/*", "/a/b"];
    let rules: Vec<Rule> = patterns
        .iter()
        .enumerate()
        .map(|(i, path)| on_path(counting(&format!("r{i}"), 1), path))
        .chain([counting("all", 1)])
        .collect();
    let limiter = limiter(rules);
    let rules = limiter.rules();
    for path in ["/", "/a", "/a/", "/a/b", "/b/b", "/c", "//a", "/%61/b", "*"] {
        let applies = limiter.explain(&rules, &call(path));
        let one_by_one = applies.iter().enumerate();
        let one_by_one: Vec<usize> = one_by_one
            .filter(|(_, applies)| **applies == Applies::Yes)
            .map(|(i, _)| i)
            .collect();
        assert_eq!(
            limiter.read(&call(path)).found.rules.as_slice(),
            one_by_one,
            "{path}"
        );
    }
}
