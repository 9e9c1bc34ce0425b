//! No text makes the reader of rules files panic, hang or say something about a place that is not there; what it reads
//! can be said in words and asked.

#![no_main]

use std::hash::RandomState;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use tollgate::limiter::rules_file::{Basis, Findings, parse};
use tollgate::limiter::{Call, Limiter};
use tollgate::ManualClock;
use tollgate::strategy::Memory;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    // Behind a byte 0 stands the file beside it, whatever it is called.
    let (text, list) = text.split_once('\0').unwrap_or((text, "192.0.2.1\n"));
    let beside = &mut |_: &str| Ok(list.to_owned());
    match parse(text, "rules.yaml", &Basis::default(), beside) {
        Err(findings) => {
            assert!(findings.errors() > 0);
            check(&findings, text, list);
        }
        Ok(rules) => {
            assert_eq!(rules.warnings.errors(), 0);
            check(&rules.warnings, text, list);
            for rule in &rules.rules {
                assert!(rule.in_words().starts_with(rule.name.as_str()));
            }
            let memory = Memory::new(1, Arc::new(ManualClock::default()), &RandomState::new());
            ask(&Limiter::with_rules(rules.into_set(), Arc::new(memory)));
        }
    }
});

fn check(findings: &Findings, text: &str, list: &str) {
    let _ = findings.to_string();
    let lines = |text: &str| text.matches(['\r', '\n']).count() + 1;
    let lines = lines(text).max(lines(list));
    for finding in findings.iter() {
        assert!(finding.line as usize <= lines, "{finding}");
    }
}

fn ask(limiter: &Limiter) {
    let fields = vec![("x-api-key".to_owned(), "k1".to_owned())];
    for (method, path) in [("GET", "/"), ("POST", "/api/x"), ("OPTIONS", "//login/")] {
        let call = Call {
            method,
            path,
            host: Some("shop.example.com"),
            fields: &fields,
            ..Call::of([192, 0, 2, 1].into())
        };
        let reading = limiter.read(&call);
        assert!(reading.charges().len() <= 16);
    }
}
