//! The terminal chat, fed from a pipe.

use crate::program::{Program, image};

const ASK: &str = "Describe the image briefly.";

#[test]
fn a_conversation_goes_on_and_starts_again() {
    let picture = image("qwen-tied/q4-img-large");
    let expected = Program::generate("qwen-scenes")
        .image(&picture)
        .prompt(ASK)
        .run();
    let answer = expected.stdout.trim().to_owned();
    assert!(!answer.is_empty());

    let picture = picture.display();
    let lines = format!(
        "/image {picture}\n{ASK}\n/stats\n/tree\nAnd again?\n/reset\n/image {picture}\n{ASK}\n/quit\nno\n"
    );
    // Trees of a fixed size; the size of others depends on measured times.
    let outcome = Program::chat()
        .args("--total-token 30")
        .run_with_input(&lines);
    outcome.assert_success();
    let stdout = &outcome.stdout;
    assert_eq!(stdout.matches(&answer).count(), 2, "{stdout}");
    for part in [
        "tau",
        "tokens per cycle",
        "ended by stop",
        "accepted nodes are marked *",
    ] {
        assert!(stdout.contains(part), "{part} not in {stdout}");
    }
}

#[test]
fn mistakes_end_a_line_and_not_the_chat() {
    let outcome = Program::chat().run_with_input(
        "/nonsense\n/image /nonexistent/x.png\n/stats\n/tree\n<|image_pad|>\n/help\n",
    );
    outcome.assert_success();
    for part in [
        "/nonsense",
        "/nonexistent/x.png",
        "there is no answer yet",
        "no tree",
        "placeholder",
    ] {
        assert!(outcome.stderr.contains(part), "{part} not in {outcome:?}");
    }
    assert!(outcome.stdout.contains("/reset"), "{outcome:?}");
}

#[test]
fn flags_that_make_no_sense_are_refused() {
    for (args, names) in [
        ("--draft somewhere", &["--draft", "--target"][..]),
        ("--temperature -1", &["temperature"]),
    ] {
        Program::chat()
            .args(args)
            .run()
            .assert_refused(args, 2, names);
    }
    let outcome = Program::chat().args("--method eagle2").run();
    outcome.assert_refused("another method", 1, &["vispec", "eagle2"]);
}
