//! `--source self`: questions that the target asks itself, and built-in ones about pictures.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::program::{files, fixtures, refuse, run_args, succeed};

const FLAGS: &str = "--source self --questions 9 --stage 2 --max-new-tokens 8 \
                     --shard-positions 4 --seed 3";

fn run(model: &str, out: &Path, more: &str) -> Vec<String> {
    run_args(model, out, &format!("{FLAGS} {more}"))
}

fn lines(bytes: &[u8]) -> Vec<Value> {
    let lines = bytes.split(|&byte| byte == b'\n');
    let lines = lines.filter(|line| !line.is_empty());
    lines
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

fn texts(files: &BTreeMap<String, Vec<u8>>) -> Vec<String> {
    let rows = lines(&files["questions.jsonl"]).into_iter();
    rows.map(|row| row["messages"][0]["content"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn what_a_target_asks_itself_depends_on_nothing_but_the_seed() {
    // Turns that end with a token, and turns that end with a word.
    for (model, draft) in [
        ("qwen-untied", "qwen-untied-q2"),
        ("llava-15", "llava-15-q2"),
    ] {
        let alone = tempfile::tempdir().unwrap();
        let (stdout, stderr) = succeed(&run(model, alone.path(), "--batch 1"));
        assert!(stderr.contains("9 of 9 questions in "), "{stderr}");
        assert!(stdout.contains("source: self, 9 rows"), "{stdout}");
        assert!(stdout.contains("samples: 9 in 3 shards"), "{stdout}");
        let expected = files(alone.path());
        let asked = texts(&expected);
        assert_eq!(asked.iter().collect::<HashSet<_>>().len(), 9);
        assert!(
            asked.iter().all(|text| !text.contains("ASSISTANT:")),
            "{asked:?}"
        );
        assert!(asked.iter().all(|text| !text.contains("<|")), "{asked:?}");

        let draft = fixtures().join("drafts").join(draft);
        for more in [
            "--batch 8",
            &format!("--batch 3 --draft {}", draft.display()),
        ] {
            let out = tempfile::tempdir().unwrap();
            succeed(&run(model, out.path(), more));
            assert!(files(out.path()) == expected, "{model} {more}");
        }
        let out = tempfile::tempdir().unwrap();
        let mut other = run(model, out.path(), "");
        let seed = other.iter().position(|arg| arg == "--seed").unwrap();
        other[seed + 1] = "4".to_owned();
        succeed(&other);
        assert_ne!(texts(&files(out.path())), asked);
    }
}

#[test]
fn draws_are_gone_on_with_wherever_they_were_cut() {
    let whole = tempfile::tempdir().unwrap();
    succeed(&run("qwen-untied", whole.path(), ""));
    let expected = files(whole.path());
    let draws = &expected["draws.jsonl"];
    for cut in [0, 5, draws.len() / 3, draws.len() / 2, draws.len() - 1] {
        let out = tempfile::tempdir().unwrap();
        fs::write(out.path().join("draws.jsonl"), &draws[..cut]).unwrap();
        succeed(&run("qwen-untied", out.path(), ""));
        assert!(files(out.path()) == expected, "cut at {cut}");
    }
    // Everything is done: nothing is sampled or written again.
    succeed(&run("qwen-untied", whole.path(), ""));
    assert!(files(whole.path()) == expected);

    let other = run("qwen-untied", whole.path(), "--question-temperature 0.5");
    refuse(
        &other,
        1,
        &["draws.jsonl", "temperature is 0.8, expected 0.5"],
    );
    let out = tempfile::tempdir().unwrap();
    fs::write(out.path().join("draws.jsonl"), "my notes\nare dear\n").unwrap();
    refuse(
        &run("qwen-untied", out.path(), ""),
        1,
        &["line 1 is not of a run"],
    );
    fs::write(
        out.path().join("draws.jsonl"),
        [&draws[..], b"{}\n"].concat(),
    )
    .unwrap();
    refuse(&run("qwen-untied", out.path(), ""), 1, &["is not draw"]);
}

/// Copies `qwen-tied` with a different template, whose turns end with a token that never occurs.
fn with_template(template: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(fixtures().join("models/qwen-tied")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    let write = |name: &str, value: Value| {
        fs::write(dir.path().join(name), value.to_string()).unwrap();
    };
    write("chat_template.json", json!({"chat_template": template}));
    let path = dir.path().join("generation_config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let tokenizer = fs::read(dir.path().join("tokenizer.json")).unwrap();
    let tokenizer: Value = serde_json::from_slice(&tokenizer).unwrap();
    let mut added = tokenizer["added_tokens"].as_array().unwrap().iter();
    let token = added
        .find(|token| token["content"] == "<|quad_end|>")
        .unwrap();
    config["eos_token_id"] = token["id"].clone();
    write("generation_config.json", config);
    dir
}

#[test]
fn a_target_that_asks_nothing_is_refused_after_a_bounded_number_of_draws() {
    let template = "{% for m in messages %}Q{{ m['content'] }}{% endfor %}";
    let target = with_template(template);
    let out = tempfile::tempdir().unwrap();
    let args = run(target.path().to_str().unwrap(), out.path(), "");
    let names = [
        "writes no usable questions",
        "64 draws: 64 too long",
        "--source chat",
    ];
    refuse(&args, 1, &names);
    // Draws are kept and not repeated.
    let before = files(out.path());
    assert_eq!(lines(&before["draws.jsonl"]).len(), 65);
    refuse(&args, 1, &names);
    assert!(files(out.path()) == before);
}

#[test]
fn a_template_without_a_users_turn_is_refused() {
    for template in [
        "{% for m in messages %}hello{% endfor %}",
        "{{ messages[0]['content'] }}",
        "{% for m in messages %}Q {{ m['content'] }} {{ m['content'] }}{% endfor %}",
    ] {
        let target = with_template(template);
        let out = tempfile::tempdir().unwrap();
        let args = run(target.path().to_str().unwrap(), out.path(), "");
        refuse(&args, 1, &["chat_template.json", "begins", "--source chat"]);
        assert!(files(out.path()).is_empty());
    }
}

#[test]
fn pictures_are_asked_about_in_turn() {
    let folder = tempfile::tempdir().unwrap();
    for (name, case) in [("b.png", "img-short"), ("a.png", "img-large")] {
        let image = fixtures()
            .join("cases/qwen-tied")
            .join(case)
            .join("image_0.png");
        fs::copy(image, folder.path().join(name)).unwrap();
    }
    let flags = |more: &str| {
        let folder = folder.path().display();
        format!("--images {folder} --storage packed --min-pixels 3136 --max-pixels 12544 {more}")
    };
    let alone = tempfile::tempdir().unwrap();
    let (stdout, _) = succeed(&run("qwen-tied", alone.path(), &flags("--batch 1")));
    assert!(
        stdout.contains("source: self, pictures, 9 rows"),
        "{stdout}"
    );
    assert!(stdout.contains("samples: 9 in 3 shards"), "{stdout}");
    let rows = lines(&fs::read(alone.path().join("questions.jsonl")).unwrap());
    let named: Vec<&Value> = rows.iter().map(|row| &row["images"][0]).collect();
    assert_eq!(named[..4], ["a.png", "b.png", "a.png", "b.png"]);
    let together = tempfile::tempdir().unwrap();
    succeed(&run("qwen-tied", together.path(), &flags("")));
    assert!(files(together.path()) == files(alone.path()));

    // A changed folder gives different questions.
    fs::rename(folder.path().join("b.png"), folder.path().join("c.png")).unwrap();
    let changed = run("qwen-tied", alone.path(), &flags(""));
    refuse(&changed, 1, &["questions.jsonl: holds other questions"]);
    fs::remove_file(folder.path().join("a.png")).unwrap();
    fs::remove_file(folder.path().join("c.png")).unwrap();
    let out = tempfile::tempdir().unwrap();
    refuse(
        &run("qwen-tied", out.path(), &flags("")),
        1,
        &["no pictures"],
    );
}

#[test]
fn flags_that_do_not_go_together_are_refused() {
    let out = tempfile::tempdir().unwrap();
    let out = out.path().join("never");
    for (flags, names) in [
        ("--source self --stage 1", "needs --stage 2"),
        ("--source self --stage 2 --data x.json", "reads no --data"),
        ("--source self --stage 2 --shard 1/2", "--source chat"),
        ("--source self --stage 2 --questions 0", "--questions is 0"),
        (
            "--source self --stage 2 --question-temperature -1",
            "temperature",
        ),
        (
            "--source scenes-long --stage 2 --questions 4",
            "takes no --questions",
        ),
    ] {
        refuse(&run_args("qwen-tied", &out, flags), 2, &[names]);
        assert!(!out.exists());
    }
}
