//! The format of rules files as JSON Schema (2020-12), for editors.
//!
//! What a schema cannot say (two rules of one name, lists that are not there, limits that cannot be counted exactly) only
//! the reader finds.

use serde_json::{Value, json};

use super::{MOST_RULES, conditions, key, limit};
use crate::algorithm;
use crate::domain::{OnStoreError, Quota};
use crate::limiter::{Absent, RuleMode};

/// The schema that `tollgate schema` prints.
pub fn schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Tollgate rules",
        "description": "Who is limited, by what and how much; read from top to bottom. docs/rules.md says more.",
        "type": "object",
        "required": ["rules"],
        "additionalProperties": false,
        "properties": {
            "rules": { "type": "array", "maxItems": MOST_RULES, "items": { "$ref": "#/$defs/rule" } },
            "defaults": {
                "description": "What rules have that do not say it themselves.",
                "type": "object",
                "additionalProperties": false,
                "properties": {
                    "algorithm": { "$ref": "#/$defs/algorithm" },
                    "mode": { "$ref": "#/$defs/mode" },
                    "on_store_error": { "$ref": "#/$defs/on_store_error" },
                    "absent": { "$ref": "#/$defs/absent" },
                    "key": { "$ref": "#/$defs/key" },
                },
            },
            "lists": {
                "description": "Named lists of networks or of keys.",
                "type": "object",
                "maxProperties": 100,
                "propertyNames": { "$ref": "#/$defs/name" },
                "additionalProperties": {
                    "oneOf": [
                        { "type": "array", "maxItems": 100_000, "items": { "$ref": "#/$defs/text" } },
                        {
                            "type": "object",
                            "required": ["file"],
                            "additionalProperties": false,
                            "properties": { "file": {
                                "description": "A file beside this one, one entry a line.",
                                "type": "string", "maxLength": 255, "pattern": r"^[^/\\]+$",
                            } },
                        },
                    ],
                },
            },
        },
        "$defs": definitions(),
    })
}

fn definitions() -> Value {
    let name = "^[a-z][a-z0-9_-]{0,63}$";
    let algorithms: Vec<_> = algorithm::ALL
        .iter()
        .map(|algorithm| algorithm.name())
        .collect();
    json!({
        "name": { "type": "string", "pattern": name },
        // Scalars stay texts, however YAML would read them.
        "text": { "type": ["string", "number", "boolean"], "minLength": 1, "maxLength": conditions::LONGEST },
        "algorithm": { "description": "How it is counted.", "enum": algorithms },
        "mode": {
            "description": "`shadow` counts and refuses nothing; `off` is as if it were not there.",
            "enum": RuleMode::ALL.map(RuleMode::name),
        },
        "on_store_error": {
            "description": "What is answered when the store cannot decide.",
            "enum": OnStoreError::ALL.map(OnStoreError::name),
        },
        "absent": {
            "description": "What is done about a request that lacks a part of the key.",
            "enum": Absent::ALL.map(Absent::name),
        },
        "limit": { "description": "Such as `100/min`, `10 per 250ms`.", "type": "string", "pattern": limit::PATTERN },
        "burst": {
            "description": "Most tokens at once; the count of `limit` if not given.",
            "type": "integer", "minimum": 1, "maximum": Quota::LARGEST,
        },
        "part": {
            "type": "string",
            "maxLength": conditions::LONGEST,
            "pattern": r"^(ip|path|method|host|(header|cookie):[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}|(query|constant):.{1,128})$",
        },
        "key": {
            "description": "By what requests are counted together; an empty list is one bucket for everybody.",
            "oneOf": [
                { "$ref": "#/$defs/part" },
                { "type": "array", "maxItems": key::MOST_PARTS, "uniqueItems": true, "items": { "$ref": "#/$defs/part" } },
            ],
        },
        "methods": one_or_more(&json!({ "type": "string", "pattern": "^[A-Z_-]{1,32}$" })),
        "path": one_or_more(&json!({ "type": "string", "pattern": "^/[^?#]*$", "maxLength": conditions::LONGEST })),
        "host": one_or_more(&json!({
            "type": "string",
            "pattern": r"^([A-Za-z0-9._*-]*[A-Za-z0-9_*-]|\[[A-Za-z0-9.:_*-]*\])$",
            "maxLength": conditions::LONGEST,
        })),
        "headers": {
            "description": "Each is there and has the value, or one of them; `\"*\"` is any value.",
            "type": "object",
            "minProperties": 1,
            "maxProperties": conditions::MOST,
            "propertyNames": { "pattern": r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}$" },
            "additionalProperties": one_or_more(&json!({ "$ref": "#/$defs/text" })),
        },
        "client": one_or_more(&json!({ "type": "string", "pattern": "^(loopback|private|list:.*|[0-9A-Fa-f:./]+)$" })),
        "match": {
            "description": "Which requests the rule is for; every request if not given.",
            "type": "object",
            "additionalProperties": false,
            "properties": with(conditions(), "not", json!({
                "description": "A request of which any of these holds is not meant.",
                "type": "object", "additionalProperties": false, "properties": conditions(),
            })),
        },
        "cost": {
            "description": "Tokens that a request takes; of a list the first case that matches counts.",
            "oneOf": [
                { "$ref": "#/$defs/burst" },
                { "type": "array", "maxItems": 100, "items": {
                    "type": "object",
                    "required": ["cost"],
                    "additionalProperties": false,
                    "properties": with(conditions(), "cost", json!({ "$ref": "#/$defs/burst" })),
                } },
            ],
        },
        "override": {
            "type": "object",
            "required": ["limit"],
            "oneOf": [{ "required": ["key"] }, { "required": ["plan"] }],
            "additionalProperties": false,
            "properties": {
                "key": {
                    "description": "The exact value that is counted, hashed by `tollgate hash-key` where it is a secret.",
                    "oneOf": [
                        { "$ref": "#/$defs/text" },
                        { "type": "array", "minItems": 1, "maxItems": key::MOST_PARTS, "items": { "$ref": "#/$defs/text" } },
                    ],
                },
                "plan": { "$ref": "#/$defs/text" },
                "limit": { "$ref": "#/$defs/limit" },
                "burst": { "$ref": "#/$defs/burst" },
            },
        },
        "rule": rule(),
    })
}

fn rule() -> Value {
    let common = json!({
        "name": { "$ref": "#/$defs/name" },
        "match": { "$ref": "#/$defs/match" },
        "mode": { "$ref": "#/$defs/mode" },
    });
    let limiting = json!({
        "limit": { "$ref": "#/$defs/limit" },
        "burst": { "$ref": "#/$defs/burst" },
        "key": { "$ref": "#/$defs/key" },
        "absent": { "$ref": "#/$defs/absent" },
        "algorithm": { "$ref": "#/$defs/algorithm" },
        "cost": { "$ref": "#/$defs/cost" },
        "on_store_error": { "$ref": "#/$defs/on_store_error" },
        "overrides": { "type": "array", "maxItems": 10_000, "items": { "$ref": "#/$defs/override" } },
        "plan_header": { "type": "string", "pattern": r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}$" },
    });
    let kind = |required: &str, properties: Value| {
        json!({
            "type": "object",
            "required": ["name", required],
            "additionalProperties": false,
            "properties": properties,
        })
    };
    let yes = || json!({ "const": true });
    let exempt = json!({
        "name": { "$ref": "#/$defs/name" },
        "match": { "$ref": "#/$defs/match" },
        "mode": { "enum": ["enforce", "off"] },
        "exempt": yes(),
    });
    json!({ "oneOf": [
        kind("limit", merged(common.clone(), limiting)),
        kind("exempt", exempt),
        kind("deny", with(common, "deny", yes())),
    ] })
}

fn conditions() -> Value {
    json!({
        "methods": { "$ref": "#/$defs/methods" },
        "path": { "$ref": "#/$defs/path" },
        "host": { "$ref": "#/$defs/host" },
        "headers": { "$ref": "#/$defs/headers" },
        "client": { "$ref": "#/$defs/client" },
    })
}

fn one_or_more(one: &Value) -> Value {
    let list =
        json!({ "type": "array", "minItems": 1, "maxItems": conditions::MOST, "items": one });
    json!({ "oneOf": [one, list] })
}

fn with(mut properties: Value, name: &str, value: Value) -> Value {
    properties[name] = value;
    properties
}

fn merged(mut properties: Value, more: Value) -> Value {
    if let (Value::Object(properties), Value::Object(more)) = (&mut properties, more) {
        properties.extend(more);
    }
    properties
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use jsonschema::Validator;

    use super::super::findings::Report;
    use super::super::tree::{self, Node, Value as Yaml};
    use super::*;

    /// A tree as an editor reads it: by the core schema of YAML.
    fn as_json(node: &Node) -> Value {
        match &node.value {
            Yaml::Nothing | Yaml::Refused => Value::Null,
            Yaml::Text { text, plain: true } if text == "true" => true.into(),
            Yaml::Text { text, plain: true } if text == "false" => false.into(),
            Yaml::Text { text, plain: true } => {
                let number = serde_json::from_str(text).ok().filter(Value::is_number);
                number.unwrap_or_else(|| text.as_str().into())
            }
            Yaml::Text { text, .. } => text.as_str().into(),
            Yaml::List(nodes) => nodes.iter().map(as_json).collect(),
            Yaml::Members(members) => {
                let member = |(name, node): &(tree::Name, Node)| (name.text.clone(), as_json(node));
                Value::Object(members.iter().map(member).collect())
            }
        }
    }

    /// Every file in that folder of examples, with whether the schema allows it; `None` if it is no tree.
    fn judged(folder: &str) -> Vec<(String, Option<bool>)> {
        let validator = Validator::new(&schema()).unwrap();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/rules")
            .join(folder);
        let files = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let files = files.filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "yaml")
        });
        let judged = files.map(|path| {
            let mut report = Report::default();
            let file = report.add_file("rules.yaml", &fs::read_to_string(&path).unwrap());
            let tree = tree::read(file, &mut report).filter(|_| !report.has_errors());
            let allowed = tree.map(|tree| validator.is_valid(&as_json(&tree)));
            (
                path.file_stem().unwrap().to_str().unwrap().to_owned(),
                allowed,
            )
        });
        judged.collect()
    }

    #[test]
    fn every_file_that_is_read_is_allowed() {
        for folder in ["good", "doubtful"] {
            let judged = judged(folder);
            assert!(judged.len() > 5);
            for (name, allowed) in judged {
                assert_eq!(allowed, Some(true), "{folder}/{name}");
            }
        }
    }

    /// What no schema can say: it needs another part of the file, another file, or the place of a member.
    const BEYOND: &[&str] = &[
        "burst-of-a-window",
        "burst-with-a-default-window",
        "doubled-member",
        "doubled-rules",
        "key-with-a-part-twice",
        "limit-too-large",
        "list-file-of-keys",
        "list-file-of-networks",
        "list-of-networks",
        "override-burst-of-a-window",
        "override-of-addresses",
        "override-of-several-parts",
        "override-twice",
        "override-without-a-key",
        "second-name",
    ];

    #[test]
    fn every_broken_file_is_refused_whose_fault_a_schema_can_say() {
        let judged = judged("broken");
        let allowed = judged.iter().filter(|(_, allowed)| *allowed == Some(true));
        let mut allowed: Vec<&str> = allowed.map(|(name, _)| &**name).collect();
        allowed.sort_unstable();
        assert_eq!(allowed, BEYOND);
        assert!(
            judged
                .iter()
                .filter(|(_, allowed)| *allowed == Some(false))
                .count()
                > 40
        );
    }
}
