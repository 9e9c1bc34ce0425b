//! Rules files: what is said of broken and doubtful ones, and what good ones mean.
//!
//! Beside each file of `tests/rules/` stands what is said of it. `UPDATE_SNAPSHOTS=1 cargo test --test it rules_file`
//! writes that anew, for a person to look through.

use std::collections::HashMap;
use std::fs;
use std::hash::RandomState;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use tollgate::limiter::rules_file::{Basis, Findings, RulesFile, parse};
use tollgate::limiter::{Call, Limiter};
use tollgate::strategy::Memory;
use tollgate::{Charge, Identity, ManualClock};

use crate::bench::{Folder, Instance};

mod bounds;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/rules")
        .join(name)
}

/// The rules files in a folder, each with its name.
fn files(name: &str) -> Vec<(String, String)> {
    let mut files: Vec<_> = fs::read_dir(folder(name))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "yaml")
        })
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect();
    files.sort();
    files
}

fn read(folder_name: &str, name: &str, text: &str) -> Result<RulesFile, Findings> {
    let folder = folder(folder_name);
    // The words of the system differ between systems.
    let beside = &mut |name: &str| {
        fs::read_to_string(folder.join(name)).map_err(|_| std::io::Error::other("no such file"))
    };
    parse(text, name, &Basis::default(), beside)
}

/// Compares what is said with what stands beside the file, or writes it there.
fn compare(folder_name: &str, name: &str, said: &str) {
    let path = folder(folder_name).join(name).with_extension("expected");
    #[expect(
        clippy::disallowed_methods,
        reason = "a switch of this test, no setting of the service"
    )]
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        fs::write(&path, said).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(said, expected, "{name}; UPDATE_SNAPSHOTS=1 writes it anew");
}

fn words(rules: &RulesFile) -> String {
    rules
        .rules
        .iter()
        .map(|rule| rule.in_words() + "\n")
        .collect()
}

#[test]
fn of_every_broken_file_every_problem_is_told() {
    let files = files("broken");
    assert!(files.len() >= 60, "{} files", files.len());
    for (name, text) in files {
        let findings = read("broken", &name, &text).expect_err(&name);
        assert!(findings.errors() > 0, "{name}");
        compare("broken", &name, &format!("{findings}\n"));
    }
}

#[test]
fn of_every_doubtful_file_it_is_told_why() {
    for (name, text) in files("doubtful") {
        let rules = read("doubtful", &name, &text).expect(&name);
        assert!(rules.warnings.warnings() > 0, "{name}");
        compare(
            "doubtful",
            &name,
            &format!("{}\n\n{}", rules.warnings, words(&rules)),
        );
    }
}

#[test]
fn good_files_are_read_without_a_word_and_said_in_words() {
    for (name, text) in files("good") {
        let rules = read("good", &name, &text).expect(&name);
        assert!(rules.warnings.is_empty(), "{name}: {}", rules.warnings);
        compare("good", &name, &words(&rules));
    }
}

#[test]
fn the_examples_of_the_pages_are_read_without_a_word() {
    let pages = [
        include_str!("../../docs/rules.md"),
        include_str!("../../README.md"),
        // As a block of a page.
        concat!("```yaml\n", include_str!("../../rules/example.yaml")),
    ];
    let page = pages.join("\n```\n");
    let blocks = page
        .split("```yaml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next());
    let files: Vec<&str> = blocks.filter(|block| block.contains("rules:\n")).collect();
    assert!(files.len() > 10, "{}", files.len());
    for text in files {
        let rules = read("good", "example", text).unwrap_or_else(|findings| panic!("{findings}"));
        assert!(rules.warnings.is_empty(), "{}", rules.warnings);
    }
}

/// What is charged to a request by the rules of `good/every-member.yaml`: of each key what stands behind the prefix, the
/// capacity, the cost, and whether it is enforced.
fn charged(call: &Call<'_>) -> Vec<(String, u64, u64, bool)> {
    let (_, text) = ALL["good"]
        .iter()
        .find(|(name, _)| name == "every-member.yaml")
        .unwrap();
    let rules = read("good", "every-member.yaml", text).unwrap();
    let memory = Memory::new(1, Arc::new(ManualClock::default()), &RandomState::new());
    let reading = Limiter::with_rules(rules.into_set(), Arc::new(memory)).read(call);
    let charge = |charge: &Charge| {
        let key = charge
            .key()
            .as_str()
            .strip_prefix("ratelimit:")
            .unwrap()
            .to_owned();
        let capacity = charge.limit().quota.capacity();
        (key, capacity, charge.cost().get(), charge.is_enforced())
    };
    reading.charges().iter().map(charge).collect()
}

#[test]
fn every_member_means_what_the_page_says() {
    let known = Identity::hashed(b"known");
    let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let of = |name: &str, value: &str| vec![field(name, value)];
    let text = fs::read_to_string(folder("good").join("every-member.yaml")).unwrap();
    assert!(
        text.contains(&known),
        "its hash must be the hash of what the requests below carry"
    );
    let api = [
        ("X-Tier", "silver"),
        ("X-Api-Key", "known"),
        ("X-Known", "known"),
        ("X-Number", "1e3"),
        ("X-Flag", "no"),
    ];
    let fields: Vec<_> = api.iter().map(|(name, value)| field(name, value)).collect();
    let client = "2001:db8::7".parse().unwrap();
    let call = Call {
        method: "POST",
        path: "/api/export",
        host: Some("shop.example.com"),
        fields: &fields,
        ..Call::of(client)
    };
    let ceiling = || ("slidingwindow!ceiling:".to_owned(), 50_000, 1, true);
    let whole = format!("whole:[2001:db8::/64]|{known}|whole");
    let by_address = || {
        (
            "fixedwindow!by-address:[2001:db8::/64]".to_owned(),
            1,
            1,
            true,
        )
    };
    assert_eq!(
        charged(&call),
        [(whole.clone(), 100, 50, true), ceiling(), by_address()]
    );
    // The cost of another method, and the members of `not`.
    let get = Call {
        method: "GET",
        ..call
    };
    assert_eq!(charged(&get)[0], (whole.clone(), 100, 1, true));
    let not = Call {
        host: Some("internal.example.com"),
        ..call
    };
    assert_eq!(charged(&not), [ceiling(), by_address()]);
    // A plan counts from a trusted proxy only.
    let mut with_plan = fields.clone();
    with_plan.push(field("x-plan", "gold"));
    let plan = Call {
        fields: &with_plan,
        ..call
    };
    assert_eq!(charged(&plan)[0].1, 100);
    let plan = Call {
        from_trusted_proxy: true,
        ..plan
    };
    assert_eq!(charged(&plan)[0].1, 500);
    // Each header must be there.
    for (missing, (name, _)) in api.iter().enumerate() {
        let mut fields = fields.clone();
        fields.remove(missing);
        let less = Call {
            fields: &fields,
            ..call
        };
        assert_eq!(charged(&less), [ceiling(), by_address()], "{name}");
    }
    // An address with a limit of its own, a ban, and an exemption from a list and from a file.
    let of_address = |address: &str| Call {
        client: address.parse().unwrap(),
        fields: &fields,
        ..Call::of(client)
    };
    assert_eq!(
        charged(&of_address("192.0.2.1")),
        [
            ceiling(),
            ("fixedwindow!by-address:192.0.2.1".to_owned(), 5, 1, true)
        ]
    );
    for ended in ["192.0.2.77", "198.51.100.7", "203.0.113.200", "10.1.2.3"] {
        assert_eq!(charged(&of_address(ended)), [], "{ended}");
    }
    // The defaults: gcra, in shadow, skipped without the header.
    let by_partner = |secret: &str| {
        let fields = of("X-Partner", secret);
        let call = Call {
            path: "/partner/",
            fields: &fields,
            ..Call::of(client)
        };
        charged(&call)
            .into_iter()
            .find(|(key, ..)| key.contains("by-partner"))
    };
    let key = |secret: &str| format!("gcra!by-partner:{}", Identity::hashed(secret.as_bytes()));
    assert_eq!(by_partner("somebody"), Some((key("somebody"), 7, 1, false)));
    assert_eq!(
        by_partner("known"),
        Some((key("known"), 100, 1, false)),
        "by the list"
    );
    assert_eq!(by_partner(""), None);
}

#[tokio::test]
async fn a_ban_in_shadow_refuses_nobody() {
    let folder = Folder::new();
    let path = format!("{}/rules.yaml", folder.path());
    let rules = "rules:\n- {name: firm, match: {headers: {X-Firm: '1'}}, deny: true, mode: enforce}\n\
                 - {name: bans, match: {client: loopback}, deny: true}\n\
                 - {name: api, limit: 1/hour, mode: enforce}\n";
    fs::write(&path, rules).unwrap();
    let shadow = Instance::start(&[("RULES_FILE", &path), ("LIMITER_MODE", "shadow")]).await;
    let mut statuses = Vec::new();
    for headers in [&[][..], &[], &[("x-firm", "1")]] {
        statuses.push(shadow.get_with("/api", headers).await.status().as_u16());
    }
    assert_eq!(
        statuses,
        [200, 429, 403],
        "the rule below is read, and a rule's own mode counts"
    );
    shadow.stop().await;
    let enforcing = Instance::start(&[("RULES_FILE", &path)]).await;
    assert_eq!(enforcing.get("/api").await.status().as_u16(), 403);
    enforcing.stop().await;
}

#[test]
fn no_finding_shows_a_secret() {
    let mut hidden = 0;
    for folder in ["broken", "doubtful"] {
        for (name, text) in files(folder) {
            let said = match read(folder, &name, &text) {
                Ok(rules) => format!("{0} {0:?} {1}", rules.warnings, words(&rules)),
                Err(findings) => format!("{findings} {findings:?}"),
            };
            assert!(!said.contains("canary"), "{name}: {said}");
            hidden += usize::from(said.contains('•'));
        }
    }
    assert!(hidden >= 3, "secrets stood in {hidden} files");
}

#[test]
fn the_version_is_that_of_the_file_and_of_the_lists_beside_it() {
    let rules = "lists: {a: {file: a}, b: {file: b}}\nrules:\n\
                 - {name: x, match: {client: ['list:a', 'list:b']}, deny: true}\n";
    let version = |a: &str, b: &str| {
        let beside = &mut |name: &str| Ok(if name == "a" { a } else { b }.to_owned());
        let read = parse(rules, "rules.yaml", &Basis::default(), beside).unwrap();
        read.version.to_string()
    };
    let first = version("10.0.0.1\n10.0.0.2\n", "");
    assert_eq!(first, version("10.0.0.1\n10.0.0.2\n", ""));
    assert_ne!(first, version("10.0.0.1\n10.0.0.3\n", ""));
    assert_ne!(
        first,
        version("10.0.0.1\n", "10.0.0.2\n"),
        "an entry that moved to another list"
    );
    let alone = "rules: [{name: a, limit: 5/s}]\n";
    let none = &mut |_: &str| Err(std::io::Error::other("none"));
    let read = parse(alone, "rules.yaml", &Basis::default(), none).unwrap();
    // printf 'rules: [{name: a, limit: 5/s}]\n' | sha256sum
    assert_eq!(read.version.to_string(), "e0a50b434b21");
}

static ALL: LazyLock<HashMap<&str, Vec<(String, String)>>> = LazyLock::new(|| {
    ["good", "broken", "doubtful"]
        .map(|name| (name, files(name)))
        .into()
});

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Every cut, doubling and exchange of a text that means something.
    #[test]
    fn no_text_is_too_broken_to_be_read(
        (folder, file) in (prop_oneof![Just("good"), Just("broken"), Just("doubtful")], any::<prop::sample::Index>()),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), 0_usize..12, "[-{}\\[\\]:,&*!~'\"|>#% \n\ta0ä/]{0,3}"), 1..12),
    ) {
        let (name, text) = file.get(&ALL[folder]);
        let mut text: Vec<char> = text.chars().take(6_000).collect();
        for (at, taken, put) in changes {
            let from = at.index(text.len() + 1);
            let until = (from + taken).min(text.len());
            text.splice(from..until, put.chars());
        }
        let text: String = text.into_iter().collect();
        match read(folder, name, &text) {
            Ok(rules) => drop(words(&rules)),
            Err(findings) => prop_assert!(findings.errors() > 0 && !findings.to_string().is_empty()),
        }
    }
}

#[tokio::test]
async fn a_rules_file_is_in_force() {
    let folder = Folder::new();
    let path = format!("{}/rules.yaml", folder.path());
    let rules = "lists:\n  banned: {file: banned.txt}\nrules:\n\
                 - {name: bans, match: {client: 'list:banned'}, deny: true}\n\
                 - {name: api, match: {path: /api}, limit: 2/hour}\n";
    fs::write(&path, rules).unwrap();
    fs::write(
        format!("{}/banned.txt", folder.path()),
        "203.0.113.0/24 # who did not stop\n",
    )
    .unwrap();
    let instance = Instance::start(&[("RULES_FILE", &path), ("TRUSTED_PROXIES", "loopback")]).await;
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(instance.get("/api").await.status().as_u16());
    }
    assert_eq!(statuses, [200, 200, 429]);
    let banned = instance
        .get_with("/api", &[("x-forwarded-for", "203.0.113.9")])
        .await;
    assert_eq!(banned.status().as_u16(), 403);
    instance.stop().await;
}
