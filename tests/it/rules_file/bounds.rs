//! How much a rules file may have of everything.

use tollgate::limiter::rules_file::{Basis, parse};

#[test]
fn bounds_hold_one_past_and_not_at_them() {
    let reads = |text: &str| {
        let beside = &mut |_: &str| Ok("10.0.0.1\n".to_owned());
        parse(text, "rules.yaml", &Basis::default(), beside)
            .map_err(|findings| findings.to_string())
    };
    let rule = |members: &str| format!("rules:\n- {{name: r, limit: 9/s, {members}}}\n");
    let many = |count: usize, one: &dyn Fn(usize) -> String| {
        (0..count).map(one).collect::<Vec<_>>().join(", ")
    };
    let letters = |count: usize| "x".repeat(count);
    type File<'a> = &'a dyn Fn(usize) -> String;
    let bounds: [(&str, usize, File<'_>); 22] = [
        ("bytes of a file", 1 << 20, &|n| {
            let rules = "rules: [{name: a, limit: 5/s}]\n#";
            format!("{rules}{}", letters(n - rules.len()))
        }),
        ("rules", 1_000, &|n| {
            format!(
                "rules: [{}]",
                many(n, &|i| format!("{{name: r{i}, limit: 5/s}}"))
            )
        }),
        ("letters of a name", 64, &|n| {
            format!("rules: [{{name: {}, limit: 5/s}}]", letters(n))
        }),
        ("tokens", 1 << 50, &|n| {
            rule(&format!("burst: {n}")).replace("9/s", "9000/ms")
        }),
        ("a number before a unit", 999_999_999, &|n| {
            rule("").replace("9/s", &format!("9/{n}ms"))
        }),
        ("parts of a key", 8, &|n| {
            rule(&format!(
                "key: [{}]",
                many(n, &|i| format!("'constant:{i}'"))
            ))
        }),
        ("bytes of a header's name", 128, &|n| {
            rule(&format!("key: 'header:{}'", letters(n)))
        }),
        ("bytes of a constant", 128, &|n| {
            rule(&format!("key: 'constant:{}'", letters(n)))
        }),
        ("methods", 100, &|n| {
            rule(&format!(
                "match: {{methods: [{}]}}",
                many(n, &|_| "GET".to_owned())
            ))
        }),
        ("letters of a method", 32, &|n| {
            rule(&format!(
                "match: {{methods: {}}}",
                letters(n).to_uppercase()
            ))
        }),
        ("paths", 100, &|n| {
            rule(&format!(
                "match: {{path: [{}]}}",
                many(n, &|i| format!("/{i}"))
            ))
        }),
        ("bytes of a path", 1_024, &|n| {
            rule(&format!("match: {{path: /{}}}", letters(n - 1)))
        }),
        ("bytes of a host", 1_024, &|n| {
            rule(&format!("match: {{host: {}}}", letters(n)))
        }),
        ("headers", 100, &|n| {
            rule(&format!(
                "match: {{headers: {{{}}}}}",
                many(n, &|i| format!("h{i}: v"))
            ))
        }),
        ("bytes of a value", 1_024, &|n| {
            rule(&format!("match: {{headers: {{h: {}}}}}", letters(n)))
        }),
        ("clients", 100, &|n| {
            rule(&format!(
                "match: {{client: [{}]}}",
                many(n, &|i| format!("10.0.0.{i}"))
            ))
        }),
        ("cases", 100, &|n| {
            rule(&format!(
                "cost: [{}]",
                many(n, &|i| format!("{{path: /{i}, cost: 2}}"))
            ))
        }),
        ("overrides", 10_000, &|n| {
            rule(&format!(
                "overrides: [{}]",
                many(n, &|i| format!(
                    "{{key: 10.0.{}.{}, limit: 5/s}}",
                    i / 256,
                    i % 256
                ))
            ))
        }),
        ("bytes of a plan", 128, &|n| {
            rule(&format!(
                "plan_header: x, overrides: [{{plan: {}, limit: 5/s}}]",
                letters(n)
            ))
        }),
        ("lists", 100, &|n| {
            format!(
                "{}lists: {{{}}}",
                rule(""),
                many(n, &|i| format!("l{i}: []"))
            )
        }),
        ("entries of a list", 100_000, &|n| {
            format!(
                "{}lists: {{l: [{}]}}",
                rule(""),
                many(n, &|_| "x".to_owned())
            )
        }),
        ("bytes of a file's name", 255, &|n| {
            format!("{}lists: {{l: {{file: {}}}}}", rule(""), letters(n))
        }),
    ];
    for (what, most, file) in bounds {
        reads(&file(most)).unwrap_or_else(|findings| panic!("{most} {what}: {findings}"));
        reads(&file(most + 1)).expect_err(&format!("{} {what}", most + 1));
    }
}

#[test]
fn a_list_file_is_bounded_too() {
    let rules =
        "lists: {l: {file: l}}\nrules: [{name: r, match: {client: 'list:l'}, deny: true}]\n";
    let reads = |list: String| {
        let beside = &mut |_: &str| Ok(list.clone());
        parse(rules, "rules.yaml", &Basis::default(), beside).is_ok()
    };
    assert!(reads("10.0.0.1\n".repeat(100_000)));
    assert!(!reads("10.0.0.1\n".repeat(100_001)));
    assert!(reads("#".repeat(1 << 20)));
    let keys: String = (0..70_000)
        .map(|i| format!("10.{}.{}.{}\n", i >> 16, i >> 8 & 255, i & 255))
        .collect();
    let uses = |count: usize| {
        let rule = |i: usize| {
            format!(
                "- {{name: r{i}, limit: 5/s, overrides: [{{key: 'list:l', limit: {}/s}}]}}\n",
                i + 6
            )
        };
        let rules: String = (0..count).map(rule).collect();
        let beside = &mut |_: &str| Ok(keys.clone());
        parse(
            &format!("lists: {{l: {{file: l}}}}\nrules:\n{rules}"),
            "rules.yaml",
            &Basis::default(),
            beside,
        )
        .is_ok()
    };
    assert!(
        uses(7) && !uses(8),
        "what a file makes of the memory is bounded"
    );
    assert!(!reads("#".repeat((1 << 20) + 1)));
}
