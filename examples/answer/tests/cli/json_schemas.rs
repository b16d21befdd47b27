//! JSON answers that follow a schema in a file.

use std::fs;

use serde_json::{Value, json};

use crate::program::{Outcome, Program, image};

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "colour": {"enum": ["red", "green", "blue"]},
            "note": {"type": "string", "maxLength": 12},
            "count": {"type": "integer", "minimum": 0, "maximum": 20},
            "large": {"type": "boolean"},
        },
        "required": ["colour", "note", "count", "large"],
    })
}

fn is_by_schema(text: &str) -> bool {
    let Ok(Value::Object(answer)) = serde_json::from_str(text) else {
        return false;
    };
    let count = answer["count"].as_u64();
    answer.len() == 4
        && matches!(answer["colour"].as_str(), Some("red" | "green" | "blue"))
        && answer["note"]
            .as_str()
            .is_some_and(|note| note.chars().count() <= 12)
        && count.is_some_and(|count| count <= 20)
        && answer["large"].is_boolean()
}

fn ask() -> Program {
    Program::generate("qwen-scenes")
        .draft("qwen-scenes-q2")
        .prompt("Describe the picture as JSON.")
        .image(&image("qwen-tied/img-short"))
}

#[test]
fn an_answer_is_by_its_schema_and_that_of_plain_decoding() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("schema.json");
    fs::write(&path, schema().to_string()).unwrap();
    for sampling in ["--temperature 0", "--temperature 1 --seed 3"] {
        let ask = || ask().path("--json-schema", &path).args(sampling);
        let outcome = ask().run();
        outcome.assert_success();
        assert!(is_by_schema(&outcome.stdout), "{}", outcome.stdout);
        let record = ask().arg("--compare").json();
        assert_eq!(record["identical"], true);
        assert_eq!(record["finish_reason"], "stop");
        let text = record["text"].as_str().unwrap();
        assert_eq!(text.trim_end(), outcome.stdout.trim_end());
        // Property names are drafted for free, but never in plain decoding.
        assert!(record["tau"].as_f64().unwrap() > 1.0, "{}", record["tau"]);
        assert_eq!(record["baseline"]["tau"], 0.0);
    }
}

#[test]
fn schemas_that_cannot_be_followed_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |name: &str, text: &str| -> Outcome {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        ask().path("--json-schema", &path).run()
    };
    let broken = refused("broken.json", "{\"type\": ");
    broken.assert_refused("no JSON", 1, &["broken.json", "line 1"]);
    for (name, text, what) in [
        ("unknown.json", "{\"type\": \"strin\"}", "strin"),
        ("never.json", "false", "--json-schema"),
        ("ref.json", "{\"$ref\": \"#/nowhere\"}", "nowhere"),
    ] {
        refused(name, text).assert_refused(name, 2, &[name, what]);
    }
    let missing = dir.path().join("missing.json");
    let outcome = ask().path("--json-schema", &missing).run();
    outcome.assert_refused("no file", 1, &["missing.json"]);
}
