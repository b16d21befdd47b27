//! Output of the binaries in successful runs.

use std::fs;

use serde_json::{Value, json};

use crate::files::{Copy, bmp};
use crate::program::{Program, fixtures, image, model};

const ASK: &str = "Please tell me what you see here.";

fn case(name: &str) -> Value {
    let path = fixtures().join("cases").join(name).join("case.json");
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn tokens_of(record: &Value) -> Vec<Value> {
    record["token_ids"].as_array().unwrap().clone()
}

fn ask_about_image(target: &str) -> Program {
    Program::generate(target)
        .prompt(ASK)
        .image(&image(&format!("{target}/img-short")))
}

#[test]
fn demo_shows_that_both_answers_are_the_same() {
    let outcome = Program::demo().run();
    outcome.assert_success();
    let out = &outcome.stdout;
    let answer = "This is a simple picture with a pink background, which feels like a candy shop.";
    assert_eq!(out.matches(answer).count(), 2, "{out}");
    assert!(out.contains("identical: yes"), "{out}");
    let tau = out.lines().find(|line| line.starts_with("tau")).unwrap();
    let tau: f64 = tau.split_whitespace().last().unwrap().parse().unwrap();
    // The number of draft tokens, if any, depends on the measured times of passes.
    assert!((0.0..=8.0).contains(&tau), "{out}");
    assert_eq!(outcome.stderr, "");
}

#[test]
fn demo_takes_an_image_and_a_question() {
    let outcome = Program::demo()
        .image(&image("qwen-untied/img-short"))
        .prompt(ASK)
        .run();
    outcome.assert_success();
    assert!(outcome.stdout.contains("identical: yes") && outcome.stdout.contains(ASK));

    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing.png");
    let outcome = Program::demo().image(&missing).run();
    outcome.assert_refused("no image", 1, &["missing.png"]);
}

/// Checks fields and types of one generation, as users parse them.
#[track_caller]
fn assert_record(record: &Value) {
    let fields = record.as_object().unwrap();
    let number = |name: &str| fields[name].as_f64().unwrap();
    let expected = [
        "text",
        "token_ids",
        "finish_reason",
        "prompt_tokens",
        "new_tokens",
        "method",
        "draft_images",
        "accepted_per_cycle",
        "nodes_per_cycle",
        "idle_cycles",
        "tau",
        "tokens_per_cycle",
        "speculation",
        "timings_ms",
        "tokens_per_second",
        "peak_rss_bytes",
    ];
    let names: Vec<&str> = fields.keys().map(String::as_str).collect();
    let others = ["baseline", "identical", "speedup"];
    let own = names.iter().filter(|name| !others.contains(name));
    let mut own: Vec<&str> = own.copied().collect();
    let mut expected = expected.to_vec();
    own.sort_unstable();
    expected.sort_unstable();
    assert_eq!(own, expected);

    assert!(fields["text"].is_string() && fields["method"].is_string());
    let tokens = fields["token_ids"].as_array().unwrap();
    assert!(tokens.iter().all(Value::is_u64));
    assert_eq!(fields["new_tokens"], tokens.len());
    assert!(fields["prompt_tokens"].is_u64());
    let accepted = fields["accepted_per_cycle"].as_array().unwrap();
    let sum: u64 = accepted.iter().map(|n| n.as_u64().unwrap()).sum();
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let tau = sum as f64 / accepted.len() as f64;
    assert!((number("tau") - tau).abs() < 1e-9);
    assert!((number("tokens_per_cycle") - tau - 1.0).abs() < 1e-9);
    assert!(number("tokens_per_second") > 0.0);
    assert!(fields["peak_rss_bytes"].as_u64().unwrap() > 1 << 20);

    let nodes = fields["nodes_per_cycle"].as_array().unwrap();
    assert_eq!(nodes.len(), accepted.len());
    let alone = nodes.iter().filter(|n| n.as_u64() == Some(1)).count();
    let idle = fields["idle_cycles"].as_object().unwrap().values();
    let idle: u64 = idle.map(|count| count.as_u64().unwrap()).sum();
    assert_eq!(idle, alone as u64);

    let speculation = &fields["speculation"];
    let summary = speculation["summary"].as_str().unwrap();
    assert!(summary.starts_with("speculation"), "{summary}");
    let gain = speculation["gain"].as_f64();
    assert!(gain.is_none_or(|gain| gain > 0.0), "{gain:?}");
    let plain = ["not_wanted", "no_drafter"];
    let mut switched_off = false;
    for reason in speculation["reasons"].as_array().unwrap() {
        let reason = reason.as_str().unwrap();
        switched_off |= plain.contains(&reason);
        let known = plain.contains(&reason) || reason == "images_unseen";
        assert!(known || fields["idle_cycles"][reason].is_u64(), "{reason}");
    }
    assert_eq!(switched_off, fields["method"] == "none");

    let times = fields["timings_ms"].as_object().unwrap();
    let names: Vec<&str> = times.keys().map(String::as_str).collect();
    for name in [
        "load",
        "preprocess",
        "vision",
        "prefill",
        "draft",
        "verify",
        "decode",
        "total",
    ] {
        assert!(times[name].as_f64().unwrap() >= 0.0, "{name} in {names:?}");
    }
    assert_eq!(names.len(), 8, "{names:?}");
    let time = |name: &str| times[name].as_f64().unwrap();
    assert!(time("draft") + time("verify") <= time("decode"));
    assert!(time("prefill") + time("decode") <= time("total"));
}

#[test]
fn json_has_the_fields_that_are_promised() {
    let reference = case("qwen-untied/img-short");
    let record = ask_about_image("qwen-untied")
        .draft("qwen-untied-q2")
        .json();
    assert_record(&record);
    assert!(record.get("baseline").is_none() && record.get("identical").is_none());
    assert_eq!(record["method"], "vispec+lookup");
    assert_eq!(record["finish_reason"], "stop");
    assert_eq!(record["token_ids"], reference["ar_ids"]);
    assert_eq!(record["prompt_tokens"], reference["prompt_len"]);
    assert_eq!(
        record["token_ids"].as_array().unwrap().last().unwrap(),
        &reference["eos_token_id"]
    );
    let text = record["text"].as_str().unwrap();
    assert!(
        !text.contains("<|") && text.starts_with("The picture shows"),
        "{text}"
    );
}

#[test]
fn compare_adds_a_baseline() {
    let record = ask_about_image("llava-next")
        .draft("llava-next-q2")
        .arg("--compare")
        .json();
    assert_record(&record);
    assert_record(&record["baseline"]);
    assert_eq!(record["identical"], true);
    assert!(record["speedup"].as_f64().unwrap() > 0.0);
    assert_eq!(record["baseline"]["method"], "none");
    assert_eq!(record["baseline"]["tau"], 0.0);
    assert_eq!(record["baseline"]["token_ids"], record["token_ids"]);
    assert_eq!(record["baseline"].as_object().unwrap().len(), 16);
}

/// Checks that the output is one object on one line.
#[test]
fn json_is_all_there_is_on_stdout() {
    let outcome = ask_about_image("qwen-tied").arg("--json").run();
    outcome.assert_success();
    assert_eq!(outcome.stdout.lines().count(), 1);
    assert!(
        serde_json::from_str::<Value>(&outcome.stdout)
            .unwrap()
            .is_object()
    );
}

#[test]
fn text_goes_to_stdout_and_notes_to_stderr() {
    for compare in [false, true] {
        let program = ask_about_image("qwen-untied").draft("qwen-untied-q2");
        let program = if compare {
            program.arg("--compare")
        } else {
            program
        };
        let outcome = program.run();
        outcome.assert_success();
        let text = case("qwen-untied/img-short")["ar_text"].clone();
        let text = text.as_str().unwrap().replace("<|im_end|>", "");
        assert_eq!(outcome.stdout, format!("{}\n", text.trim_end_matches('\n')));
        assert!(outcome.stderr.contains("tau"), "{}", outcome.stderr);
        assert_eq!(outcome.stderr.contains("identical: yes"), compare);
    }
}

#[test]
fn the_method_is_that_of_the_draft() {
    for (target, draft, method, images) in [
        ("qwen-untied", "qwen-untied-q2", "vispec", "compressed"),
        ("qwen-untied", "qwen-untied-eagle2", "eagle2", "features"),
        ("qwen-untied", "qwen-untied-medusa", "medusa", "nothing"),
        (
            "qwen-tied",
            "qwen-tied-eagle3-sglang",
            "eagle3",
            "placeholders",
        ),
        (
            "qwen-tied",
            "qwen-tied-eagle3-speculators",
            "eagle3",
            "placeholders",
        ),
    ] {
        let short = || {
            ask_about_image(target)
                .draft(draft)
                .args("--max-new-tokens 12")
        };
        let inferred = short().json();
        let joined = format!("{method}+lookup");
        assert_eq!(inferred["method"], joined);
        assert_eq!(inferred["draft_images"], images);
        let reasons = inferred["speculation"]["reasons"].as_array().unwrap();
        let unseen = reasons.contains(&"images_unseen".into());
        assert_eq!(unseen, images == "placeholders", "{reasons:?}");
        let said = short().run().stderr;
        assert_eq!(
            said.contains("placeholder"),
            images == "placeholders",
            "{said}"
        );
        let named = short().args("--method").arg(joined).json();
        assert_eq!(named["accepted_per_cycle"], inferred["accepted_per_cycle"]);
        // Trees of a fixed size are upstream's: only the network drafts.
        let fixed = short().args("--total-token 8").json();
        assert_eq!(fixed["method"], method);
        let named = short().args("--total-token 8 --method").arg(method).json();
        assert_eq!(named["accepted_per_cycle"], fixed["accepted_per_cycle"]);
        // A loaded draft need not be used.
        let plain = short().args("--method none").json();
        assert_eq!(plain["method"], "none");
        assert_eq!(plain["draft_images"], serde_json::Value::Null);
        assert_eq!(plain["token_ids"], inferred["token_ids"]);
    }
    assert_eq!(ask_about_image("qwen-untied").json()["method"], "none");
}

#[test]
fn drafting_can_be_switched_off_and_required() {
    let ask = |draft: &str, wanted: &str| {
        let program = Program::generate("qwen-untied").prompt("Describe the image.");
        let program = if draft.is_empty() {
            program
        } else {
            program.draft(draft)
        };
        program
            .args("--max-new-tokens 12 --speculation")
            .arg(wanted)
    };
    let on = ask("qwen-untied-eagle2", "on").json();
    let required = ask("qwen-untied-eagle2", "required").json();
    assert_eq!(required["speculation"]["wanted"], "required");
    assert_eq!(required["method"], "eagle2+lookup");
    let off = ask("qwen-untied-eagle2", "off").json();
    assert_eq!(off["method"], "none");
    assert_eq!(
        off["speculation"]["reasons"],
        serde_json::json!(["not_wanted"])
    );
    let without = ask("", "on").json();
    let reasons = &without["speculation"]["reasons"];
    assert_eq!(reasons, &serde_json::json!(["no_drafter"]));
    for other in [&required, &off, &without] {
        assert_eq!(other["token_ids"], on["token_ids"]);
    }
    let said = ask("", "on").run().stderr;
    assert!(
        said.contains("speculation off: there is no draft"),
        "{said}"
    );
    let refused = ask("", "required").run();
    refused.assert_refused(
        "nothing drafts",
        1,
        &["speculation is required", "no draft"],
    );
    let refused = ask("", "maybe").run();
    refused.assert_refused("no such choice", 2, &["--speculation", "required"]);
}

#[test]
fn prompt_lookup_needs_no_draft() {
    let text = "one two three one two three one two three one two";
    let program = || Program::generate("qwen-tied").prompt(text);
    let plain = program().json();
    let lookup = program().args("--method prompt-lookup").json();
    assert_eq!(lookup["method"], "prompt-lookup");
    assert_eq!(lookup["token_ids"], plain["token_ids"]);
}

#[test]
fn messages_are_a_chat_of_several_turns() {
    let reference = case("qwen-tied/multi-turn");
    let dir = tempfile::tempdir().unwrap();
    let chat = dir.path().join("chat.json");
    // With the byte order mark that some editors add.
    fs::write(&chat, format!("\u{feff}{}", reference["messages"])).unwrap();
    let record = Program::generate("qwen-tied")
        .path("--messages", &chat)
        .image(&image("qwen-tied/multi-turn"))
        .args("--dtype f32 --max-new-tokens")
        .arg(reference["settings"]["max_new_tokens"].to_string())
        .json();
    assert_eq!(record["token_ids"], reference["ar_ids"]);
    assert_eq!(record["prompt_tokens"], reference["prompt_len"]);
}

#[test]
fn a_system_message_and_plain_content_change_the_prompt() {
    let dir = tempfile::tempdir().unwrap();
    let chat = dir.path().join("chat.json");
    let messages = json!([
        {"role": "system", "content": "You are brief."},
        {"role": "user", "content": [{"type": "text", "text": ASK}]},
    ]);
    fs::write(&chat, messages.to_string()).unwrap();
    let from_file = Program::generate("qwen-tied")
        .path("--messages", &chat)
        .json();
    let from_flags = Program::generate("qwen-tied")
        .prompt(ASK)
        .arg("--system")
        .arg("You are brief.")
        .json();
    assert_eq!(from_file["token_ids"], from_flags["token_ids"]);
    assert_eq!(from_file["prompt_tokens"], from_flags["prompt_tokens"]);
    let without = Program::generate("qwen-tied").prompt(ASK).json();
    assert_ne!(without["prompt_tokens"], from_flags["prompt_tokens"]);
}

#[test]
fn answers_end_where_they_must() {
    let whole = ask_about_image("qwen-untied").json();
    let whole = tokens_of(&whole);
    for drafter in ["none", "prompt-lookup", "vispec"] {
        for n_tokens in [1, 2, 5, whole.len() - 1] {
            let record = ask_about_image("qwen-untied")
                .draft("qwen-untied-q2")
                .args(&format!("--max-new-tokens {n_tokens} --method {drafter}"))
                .json();
            let what = format!("{drafter}, {n_tokens}");
            assert_eq!(tokens_of(&record), whole[..n_tokens], "{what}");
            assert_eq!(record["finish_reason"], "length", "{what}");
            assert_eq!(record["new_tokens"], n_tokens, "{what}");
        }
        // A limit just after the end, and one without effect.
        for limit in [whole.len().to_string(), usize::MAX.to_string()] {
            let record = ask_about_image("qwen-untied")
                .draft("qwen-untied-q2")
                .args(&format!("--max-new-tokens {limit} --method {drafter}"))
                .json();
            assert_eq!(tokens_of(&record), whole, "{drafter}, {limit}");
            assert_eq!(record["finish_reason"], "stop", "{drafter}, {limit}");
        }
    }
}

#[test]
fn a_full_context_ends_the_answer() {
    let reference = case("qwen-untied/img-short");
    let target = Copy::of(&model("qwen-untied"));
    let prompt_tokens = reference["prompt_len"].as_u64().unwrap();
    target.edit_json("config.json", |config| {
        config["max_position_embeddings"] = json!(prompt_tokens + 10);
    });
    for method in ["none", "vispec"] {
        let record = Program::generate_in(target.dir())
            .draft("qwen-untied-q2")
            .prompt(ASK)
            .image(&image("qwen-untied/img-short"))
            .args("--method")
            .arg(method)
            .json();
        assert_eq!(record["finish_reason"], "context", "{method}");
        let expected = reference["ar_ids"].as_array().unwrap();
        assert_eq!(tokens_of(&record), expected[..10], "{method}");
    }
}

#[test]
fn a_seed_decides_a_sampled_answer() {
    let sample = |seed: u32, rest: &str| {
        ask_about_image("qwen-untied")
            .draft("qwen-untied-q2")
            .args(&format!(
                "--temperature 3 --max-new-tokens 16 --seed {seed} {rest}"
            ))
            .json()["token_ids"]
            .clone()
    };
    let first = sample(1, "");
    assert_eq!(first, sample(1, "--method none"));
    assert_eq!(first, sample(1, "--depth 1 --top-k 3 --total-token 9"));
    assert_ne!(first, sample(2, ""));
}

#[test]
fn extreme_trees_are_legal() {
    let expected = case("qwen-untied/img-short")["ar_ids"].clone();
    for shape in [
        "--depth 0 --top-k 1 --total-token 1",
        "--depth 0 --top-k 1 --total-token 2",
        "--depth 0 --top-k 40 --total-token 41",
        "--depth 12 --top-k 1 --total-token 14",
        "--depth 3 --top-k 8 --total-token 201",
    ] {
        for draft in ["qwen-untied-q2", "qwen-untied-eagle2", "qwen-untied-medusa"] {
            let record = ask_about_image("qwen-untied")
                .draft(draft)
                .args(shape)
                .json();
            assert_eq!(record["token_ids"], expected, "{draft}, {shape}");
        }
    }
}

#[test]
fn a_target_of_ones_own_answers_losslessly() {
    let outcome = Program::custom_target().run();
    outcome.assert_success();
    assert!(outcome.stdout.contains("identical: yes"), "{outcome:?}");
}

#[test]
fn inspect_prints_a_tree() {
    let inspect = || {
        Program::inspect()
            .path("--target", &model("qwen-tied"))
            .draft("qwen-tied-q4")
            .prompt(ASK)
            .image(&image("qwen-tied/img-short"))
            .args("--total-token 30")
    };
    let outcome = inspect().run();
    outcome.assert_success();
    let out = &outcome.stdout;
    assert!(out.starts_with("cycle 0 of vispec: 30 nodes"), "{out}");
    let is_node =
        |line: &&str| (line.starts_with("* ") || line.starts_with("  ")) && line.contains('"');
    assert_eq!(out.lines().filter(is_node).count(), 30, "{out}");
    let n_accepted = out.lines().filter(|line| line.starts_with("* ")).count() - 1;
    assert!(
        out.contains(&format!("accepted {n_accepted}, then")),
        "{out}"
    );

    let later = inspect().args("--cycle 2").run();
    later.assert_success();
    assert!(later.stdout.starts_with("cycle 2"), "{}", later.stdout);
    let beyond = inspect().args("--cycle 1000").run();
    beyond.assert_refused("a cycle behind the end", 1, &["cycles"]);
}

/// A closed pipe, as left by `head`, is not a failure.
#[test]
fn a_closed_pipe_ends_a_program_quietly() {
    let ask = || ask_about_image("qwen-tied").draft("qwen-tied-q2");
    let inspect = Program::inspect()
        .path("--target", &model("qwen-tied"))
        .draft("qwen-tied-q2")
        .prompt(ASK)
        .image(&image("qwen-tied/img-short"));
    for program in [ask(), ask().arg("--json"), inspect, Program::demo()] {
        let outcome = program.run_into_closed_pipe();
        outcome.assert_success();
        assert!(!outcome.stderr.contains("panicked"), "{outcome:?}");
    }
}

/// Images of one pixel, and images with a width or height of one pixel.
#[test]
fn extreme_images_are_answered_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    for (width, height) in [(1, 1), (10_000, 1), (1, 10_000), (3, 200)] {
        let path = dir.path().join(format!("{width}x{height}.bmp"));
        fs::write(&path, bmp(width, height)).unwrap();
        for target in ["qwen-tied", "llava-15", "llava-next"] {
            let outcome = Program::generate(target)
                .prompt(ASK)
                .image(&path)
                .draft(&format!("{target}-q2"))
                .args("--max-new-tokens 4 --compare --json")
                .run();
            let what = format!("{target}, {width} x {height}");
            let size = format!("{width} x {height}");
            if target == "qwen-tied" && width.max(height) >= 200 * width.min(height) {
                outcome.assert_refused(&what, 1, &[&size, "aspect ratio"]);
            } else {
                outcome.assert_success();
                let record: Value = serde_json::from_str(&outcome.stdout).unwrap();
                assert_eq!(record["identical"], true, "{what}");
            }
        }
    }
}

#[test]
fn a_list_of_frequent_tokens_is_made_and_used() {
    let dir = tempfile::tempdir().unwrap();
    let (corpus, lines) = (dir.path().join("a.txt"), dir.path().join("b.jsonl"));
    std::fs::write(&corpus, "The picture shows a small yellow cross.\n").unwrap();
    std::fs::write(&lines, "{\"text\": [\"a pink background\", 3]}\n").unwrap();
    let list = dir.path().join("tokens.json");
    let make = || {
        Program::draft_vocab()
            .path("--target", &model("qwen-tied"))
            .path("--out", &list)
    };
    let outcome = make().arg(&corpus).arg(&lines).args("--size 40").run();
    outcome.assert_success();
    assert!(outcome.stdout.contains("100.00 %"), "{outcome:?}");
    let record = ask_about_image("qwen-tied")
        .draft("qwen-tied-q4")
        .path("--draft-vocab", &list)
        .args("--total-token 30 --compare")
        .json();
    assert_eq!(record["identical"], true);
    assert!(record["tau"].as_f64().unwrap() > 0.5, "{record}");

    let refused = |what: &str, names: &[&str]| {
        make()
            .arg(dir.path().join(what))
            .run()
            .assert_refused(what, 1, names);
    };
    refused("missing.txt", &["missing.txt"]);
    std::fs::write(dir.path().join("bad.jsonl"), "{}\nnot json\n").unwrap();
    refused("bad.jsonl", &["bad.jsonl", "line 2"]);

    let with = |content: &str, names: &[&str]| {
        std::fs::write(&list, content).unwrap();
        ask_about_image("qwen-tied")
            .draft("qwen-tied-q4")
            .path("--draft-vocab", &list)
            .run()
            .assert_refused(content, 1, names);
    };
    with(
        "{\"vocab_size\": 5, \"tokens\": [1, 99999]}",
        &["99999", "tokens.json"],
    );
    with("{\"vocab_size\": 5, \"tokens\": []}", &["no token"]);
    with("[1, 2", &["tokens.json"]);
}

#[test]
fn a_calibration_file_that_cannot_be_used_is_made_anew_and_said_so() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("costs.json");
    let ask = || {
        ask_about_image("qwen-tied")
            // Too few passes to detect wrong times.
            .args("--method prompt-lookup --max-new-tokens 40")
            .path("--calibration", &file)
            .run()
    };
    let first = ask();
    first.assert_success();
    assert!(
        first.stderr.contains("measured costs of passes"),
        "{first:?}"
    );
    let second = ask();
    second.assert_success();
    assert!(!second.stderr.contains("measured"), "{second:?}");
    assert_eq!(first.stdout, second.stdout);
    std::fs::write(&file, "{\"key\"").unwrap();
    let third = ask();
    third.assert_success();
    assert!(third.stderr.contains("measured again"), "{third:?}");
    assert_eq!(first.stdout, third.stdout);
    let in_the_way = ask_about_image("qwen-tied")
        .args("--method prompt-lookup")
        .path("--calibration", &file.join("below"))
        .run();
    in_the_way.assert_refused("a file in the way", 1, &["costs.json"]);
}

/// Multiplies all times of a calibration file.
fn inflate(costs: &mut Value, factor: f64) {
    match costs {
        Value::Array(costs) => costs.iter_mut().for_each(|cost| inflate(cost, factor)),
        Value::Object(fields) => fields.iter_mut().for_each(|(name, value)| match value {
            Value::Number(number) if ["seconds", "prefill", "per_token"].contains(&&**name) => {
                *value = json!(number.as_f64().unwrap() * factor);
            }
            other => inflate(other, factor),
        }),
        _ => {}
    }
}

#[test]
fn times_from_a_busy_machine_are_noticed_and_measured_again() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("costs.json");
    // At this temperature answers do not end.
    let ask = |tokens: usize| {
        let ask = ask_about_image("qwen-tied")
            .args("--method prompt-lookup --temperature 3 --seed 1")
            .args(&format!("--max-new-tokens {tokens}"))
            .path("--calibration", &file)
            .run();
        ask.assert_success();
        ask
    };
    let doubted = "times as long as measured before, when the machine must have been busy";
    assert!(!ask(20).stderr.contains(doubted));
    let mut costs: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    inflate(&mut costs, 100.0);
    std::fs::write(&file, costs.to_string()).unwrap();
    let first = ask(200);
    assert!(first.stderr.contains(doubted), "{first:?}");
    assert!(first.stderr.contains("speculation"), "{first:?}");
    let second = ask(20);
    assert!(second.stderr.contains("measured again"), "{second:?}");
    assert!(second.stderr.contains(doubted), "{second:?}");
    assert!(!ask(20).stderr.contains("measured"));
    assert!(first.stdout.starts_with(second.stdout.trim_end()));
}
