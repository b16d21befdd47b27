//! Flags that are out of range, in conflict or unknown: exit code 2 before anything is loaded.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use crate::program::{Program, draft, model};

/// Flags after `--target DIR --prompt hi`, and the strings that the message must contain.
const OUT_OF_RANGE: &[(&str, &[&str])] = &[
    ("--temperature -1", &["temperature", "-1"]),
    ("--temperature=-0.5", &["temperature", "-0.5"]),
    ("--temperature nan", &["temperature", "NaN"]),
    ("--temperature inf", &["temperature", "inf"]),
    ("--temperature warm", &["--temperature", "warm"]),
    ("--top-p 0", &["top-p", "0"]),
    ("--top-p 2", &["top-p", "2"]),
    ("--top-p -1", &["top-p", "-1"]),
    ("--top-p nan", &["top-p", "NaN"]),
    ("--temperature 1 --top-p 1.5", &["top-p", "1.5"]),
    ("--sample-top-k 0", &["--sample-top-k", "0"]),
    ("--sample-top-k -3", &["--sample-top-k", "-3"]),
    ("--seed -1", &["--seed", "-1"]),
    ("--seed 99999999999999999999", &["--seed"]),
    ("--max-new-tokens 0", &["--max-new-tokens", "0"]),
    ("--max-new-tokens -5", &["--max-new-tokens", "-5"]),
    ("--max-new-tokens many", &["--max-new-tokens", "many"]),
    ("--depth -1", &["--depth", "-1"]),
    ("--depth 100000", &["--depth", "100000"]),
    ("--depth 18446744073709551615", &["--depth"]),
    ("--top-k 0", &["--top-k", "0"]),
    ("--top-k 100000", &["--top-k", "100000"]),
    ("--top-k 18446744073709551615", &["--top-k"]),
    ("--total-token 0", &["--total-token", "0"]),
    ("--total-token 100000", &["--total-token", "100000"]),
    ("--total-token 202", &["201", "200"]), // 8 + 3 * 8 * 8 candidates
    ("--total-token many", &["--total-token", "many", "auto"]),
    ("--depth 0 --top-k 4 --total-token 6", &["5", "4"]),
    ("--depth 2 --top-k 1 --total-token 5", &["4", "3"]),
    (
        "--method telepathy",
        &["--method", "telepathy", "prompt-lookup"],
    ),
    ("--device gpu", &["--device", "gpu", "cuda"]),
    ("--device cuda:x", &["--device", "cuda:x"]),
    ("--dtype f64", &["--dtype", "f64", "bf16"]),
    ("--dtype int5", &["--dtype", "int5", "int4"]),
    ("--dtype int8:many", &["--dtype", "int8:many"]),
    ("--draft-vocab 100", &["--draft-vocab", "--draft"]),
    ("--messages chat.json", &["--messages", "--prompt"]),
    ("--method vispec", &["vispec", "--draft"]),
    ("--method eagle2", &["eagle2", "--draft"]),
    ("--method medusa", &["medusa", "--draft"]),
    ("--method eagle3", &["eagle3", "--draft"]),
    (
        "--draft-layer-ids inputs",
        &["--draft-layer-ids", "--draft"],
    ),
    (
        "--draft x --draft-layer-ids middle",
        &["--draft-layer-ids", "middle", "outputs"],
    ),
    ("--speed 2", &["--speed"]),
    ("--image", &["--image"]),
    ("and more", &["and"]),
];

#[test]
fn values_out_of_range_are_usage_errors() {
    for (flags, names) in OUT_OF_RANGE {
        let programs = [
            Program::generate("qwen-tied"),
            Program::inspect().path("--target", &model("qwen-tied")),
        ];
        for program in programs {
            program
                .prompt("hi")
                .args(flags)
                .run()
                .assert_refused(flags, 2, names);
        }
    }
}

/// Wrong flags are detected even if the files that they name do not exist.
#[test]
fn usage_is_checked_before_files_are_read() {
    Program::generate_in(Path::new("/nonexistent"))
        .prompt("hi")
        .args("--image /nonexistent.png --top-p 7")
        .run()
        .assert_refused("top-p", 2, &["top-p"]);
    Program::generate_in(Path::new("/nonexistent"))
        .prompt("hi")
        .args("--image /nonexistent.png --method medusa")
        .run()
        .assert_refused("no draft", 2, &["--draft"]);
}

#[test]
fn what_is_missing_is_named() {
    Program::bare()
        .prompt("hi")
        .args("--draft somewhere")
        .run()
        .assert_refused("a draft alone", 2, &["--target"]);
    Program::generate("qwen-tied")
        .run()
        .assert_refused("no prompt", 2, &["--prompt"]);
    Program::generate("qwen-tied")
        .args("--messages chat.json --system short")
        .run()
        .assert_refused("system beside messages", 2, &["--system"]);
    Program::demo()
        .arg("--fast")
        .run()
        .assert_refused("demo", 2, &["--fast"]);
}

/// Without a target, a program runs the built-in pair.
#[test]
fn the_carried_pair_answers_by_default() {
    let carried = Program::bare().prompt("What is this?").run();
    let named = Program::generate("qwen-scenes")
        .prompt("What is this?")
        .run();
    carried.assert_success();
    assert_eq!(carried.stdout, named.stdout);
}

#[test]
fn a_question_can_come_from_standard_input() {
    let piped = Program::bare()
        .args("--prompt -")
        .run_with_input("What is this?\n");
    assert_eq!(
        piped.stdout,
        Program::bare().prompt("What is this?").run().stdout
    );
    let nothing = Program::bare().args("--prompt -").run_with_input("");
    nothing.assert_refused("no question", 1, &["the prompt is empty"]);
}

#[test]
fn programs_say_their_name_and_complete_for_shells() {
    let version = Program::captions().arg("--version").run();
    assert!(
        version.stdout.starts_with("captions 0."),
        "{}",
        version.stdout
    );
    let script = Program::bare().args("--completions zsh").run();
    assert!(
        script.stdout.contains("#compdef generate"),
        "{}",
        script.stdout
    );
    Program::bare()
        .args("--completions dos")
        .run()
        .assert_refused("no shell", 2, &["--completions", "bash"]);
}

#[test]
fn arguments_that_are_not_utf8_are_refused() {
    Program::generate("qwen-tied")
        .arg("--prompt")
        .arg(OsStr::from_bytes(b"caf\xe9"))
        .run()
        .assert_refused("not UTF-8", 2, &["UTF-8"]);
}

#[test]
#[cfg(not(feature = "cuda"))]
fn a_device_without_its_feature_names_it() {
    for device in ["cuda", "cuda:1"] {
        Program::generate("qwen-tied")
            .prompt("hi")
            .args("--device")
            .arg(device)
            .run()
            .assert_refused(device, 1, &["cuda", "--features cuda"]);
    }
}

#[test]
fn checkpoints_that_are_not_there() {
    let cases: [(&str, &[&str]); 5] = [
        ("no-such-dir", &["no-such-dir", "no such directory"]),
        ("/no/such/dir", &["/no/such/dir", "no such directory"]),
        ("a/b/c", &["a/b/c"]),
        ("", &["no such directory"]),
        #[cfg(feature = "hub")]
        ("Nobody/Nothing-3B", &["Nobody/Nothing-3B", "cache"]),
    ];
    for (name, names) in cases {
        Program::bare()
            .args("--target")
            .arg(name)
            .prompt("hi")
            .run()
            .assert_refused(name, 1, names);
        Program::generate("qwen-tied")
            .args("--draft")
            .arg(name)
            .prompt("hi")
            .run()
            .assert_refused(name, 1, names);
    }
    let file = model("qwen-tied").join("config.json");
    Program::generate_in(&file)
        .prompt("hi")
        .run()
        .assert_refused("a file", 1, &["config.json", "directory"]);
}

#[test]
fn a_draft_of_another_kind_is_refused() {
    for (kind, other) in [
        ("vispec", "eagle2"),
        ("eagle2", "medusa"),
        ("medusa", "vispec"),
    ] {
        let name = if kind == "vispec" { "q2" } else { kind };
        Program::generate("qwen-untied")
            .path("--draft", &draft(&format!("qwen-untied-{name}")))
            .prompt("hi")
            .args("--method")
            .arg(other)
            .run()
            .assert_refused(kind, 1, &[kind, other]);
    }
}

/// `docs/cli.md` has a row for each flag that `generate --help` lists.
#[test]
fn every_flag_is_documented() {
    let help = Program::bare().arg("--help").run().stdout;
    let listed = help.lines().filter_map(|line| line.trim().split_once("--"));
    let flags: Vec<_> = listed
        .filter(|(before, _)| before.is_empty() || before.ends_with(", "))
        .map(|(_, flag)| flag.split([' ', '=']).next().unwrap())
        .filter(|flag| !["help", "version"].contains(flag))
        .collect();
    assert!(flags.contains(&"max-new-tokens"), "{help}");
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli.md");
    let page = std::fs::read_to_string(page).unwrap();
    let rows: Vec<_> = page
        .lines()
        .filter(|line| line.starts_with("| `--"))
        .collect();
    for flag in flags {
        let flag = format!("--{flag}");
        let documented = rows
            .iter()
            .any(|row| row.split([' ', '`']).any(|word| word == flag));
        assert!(documented, "docs/cli.md has no row for {flag}");
    }
}
