//! Invalid prompts and chats.

use std::fs;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::program::{Program, image};

#[test]
fn empty_prompts_are_refused() {
    for target in ["qwen-tied", "llava-15", "llava-next"] {
        for prompt in ["", "   ", "\n\t"] {
            Program::generate(target)
                .prompt(prompt)
                .run()
                .assert_refused(target, 1, &["prompt is empty"]);
        }
    }
}

/// A chat that only shows an image is valid.
#[test]
fn an_image_without_text_is_answered() {
    for target in ["qwen-tied", "llava-15", "llava-next"] {
        Program::generate(target)
            .prompt("")
            .image(&image(&format!("{target}/img-short")))
            .args("--max-new-tokens 4")
            .run()
            .assert_success();
    }
}

#[test]
fn placeholders_in_the_text_are_refused() {
    for (target, placeholder) in [
        ("qwen-tied", "<|image_pad|>"),
        ("qwen-tied", "<|video_pad|>"),
        ("llava-15", "<image>"),
        ("llava-next", "<image>"),
    ] {
        let text = format!("What is {placeholder} here?");
        let program = || Program::generate(target).prompt(&text);
        program()
            .run()
            .assert_refused(placeholder, 1, &[placeholder, "1", "expected 0"]);
        program()
            .image(&image(&format!("{target}/img-short")))
            .run()
            .assert_refused(placeholder, 1, &[placeholder, "expected"]);
    }
}

#[test]
fn text_that_only_looks_special_is_text() {
    for (target, text) in [
        (
            "qwen-tied",
            "<image> {{ messages }} {% endfor %} \u{0} \u{200b}",
        ),
        ("llava-15", "<|image_pad|> ]]> ' \" \\n \u{1f600}"),
    ] {
        let program = Program::generate(target).args("--max-new-tokens 4");
        // An argument cannot contain a NUL.
        program
            .prompt(&text.replace('\0', ""))
            .run()
            .assert_success();
    }
}

fn chat(content: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("chat.json");
    fs::write(&path, content).unwrap();
    (dir, path)
}

#[test]
fn chats_that_are_none_are_refused() {
    let cases: &[(&str, &[u8], &[&str])] = &[
        ("empty file", b"", &["not valid JSON"]),
        ("text", b"hello", &["not valid JSON", "line 1"]),
        ("cut", b"[{\"role\": \"user\"", &["not valid JSON"]),
        (
            "not UTF-8",
            b"[{\"role\": \"us\xffer\"}]",
            &["UTF-8", "offset 13"],
        ),
        ("UTF-16", b"\xff\xfe[\0]\0", &["UTF-8", "offset 0"]),
        ("an object", b"{}", &["an object", "list of messages"]),
        ("a number", b"7", &["a number", "list of messages"]),
        ("no messages", b"[]", &["no messages"]),
        ("strings", b"[\"hi\"]", &["messages[0]", "a string"]),
        ("no role", br#"[{"content": "hi"}]"#, &["messages[0].role"]),
        (
            "no content",
            br#"[{"role": "user"}]"#,
            &["messages[0].content"],
        ),
        (
            "null",
            br#"[{"role": "user", "content": null}]"#,
            &["messages[0].content", "null"],
        ),
        (
            "a part of another kind",
            br#"[{"role": "user", "content": [{"type": "audio"}]}]"#,
            &["messages[0].content[0].type", "audio"],
        ),
        (
            "more places than videos",
            br#"[{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "x"}]}]"#,
            &["0 videos", "places for 1"],
        ),
        (
            "a part without text",
            br#"[{"role": "user", "content": [{"type": "text"}]}]"#,
            &["messages[0].content[0].text"],
        ),
        (
            "empty text",
            br#"[{"role": "user", "content": [{"type": "text", "text": " "}]}]"#,
            &["prompt is empty"],
        ),
        (
            "more places than images",
            br#"[{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "x"}]}]"#,
            &["0 images", "places for 1"],
        ),
    ];
    for (what, content, names) in cases {
        let (_dir, path) = chat(content);
        Program::generate("qwen-tied")
            .path("--messages", &path)
            .run()
            .assert_refused(what, 1, names);
    }
    let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
    let (dir, path) = chat(&deep);
    let outcome = Program::generate("qwen-tied")
        .path("--messages", &path)
        .run();
    outcome.assert_refused("deep", 1, &["chat.json", "recursion"]);
    let outcome = Program::generate("qwen-tied")
        .path("--messages", dir.path())
        .run();
    outcome.assert_refused("a directory", 1, &[dir.path().to_str().unwrap()]);
    let missing = dir.path().join("missing.json");
    let outcome = Program::generate("qwen-tied")
        .path("--messages", &missing)
        .run();
    outcome.assert_refused("missing", 1, &["missing.json"]);
}

#[test]
fn more_images_than_places_are_refused() {
    let (_dir, path) = chat(br#"[{"role": "user", "content": [{"type": "image"}]}]"#);
    let png = image("qwen-tied/img-short");
    Program::generate("qwen-tied")
        .path("--messages", &path)
        .image(&png)
        .image(&png)
        .run()
        .assert_refused("two for one", 1, &["2 images", "places for 1"]);
    let (_dir, path) = chat(br#"[{"role": "user", "content": "text only"}]"#);
    Program::generate("qwen-tied")
        .path("--messages", &path)
        .image(&png)
        .run()
        .assert_refused("one for none", 1, &["1 images", "places for 0"]);
}

/// Addresses give the same image as `--image`.
#[test]
fn images_may_have_addresses() {
    let png = image("qwen-tied/img-short");
    let ask = |content: &str, dir: &tempfile::TempDir| {
        let path = dir.path().join("chat.json");
        let chat = format!(
            r#"[{{"role": "user", "content": [{content}, {{"type": "text", "text": "What?"}}]}}]"#
        );
        fs::write(&path, chat).unwrap();
        Program::generate("qwen-tied")
            .path("--messages", &path)
            .args("--max-new-tokens 8")
    };
    let dir = tempfile::tempdir().unwrap();
    let expected = ask(r#"{"type": "image"}"#, &dir).image(&png).json();
    fs::copy(&png, dir.path().join("a b.png")).unwrap();
    let file = format!("file://{}/a%20b.png", dir.path().display());
    let data = BASE64_STANDARD.encode(fs::read(&png).unwrap());
    let data = format!("data:image/png;base64,{data}");
    for url in ["a b.png", &file, &data] {
        for address in [format!(r#""{url}""#), format!(r#"{{"url": "{url}"}}"#)] {
            let part = format!(r#"{{"type": "image_url", "image_url": {address}}}"#);
            let answer = ask(&part, &dir).json();
            assert_eq!(answer["token_ids"], expected["token_ids"], "{url}");
            assert_eq!(answer["prompt_tokens"], expected["prompt_tokens"], "{url}");
        }
    }
    // Both kinds of places, in the order of the chat.
    let part = r#"{"type": "image_url", "image_url": "a b.png"}, {"type": "image"}"#;
    ask(part, &dir).image(&png).run().assert_success();
    ask(part, &dir)
        .run()
        .assert_refused("too few", 1, &["0 images", "places for 1 without"]);

    for (url, names) in [
        (
            "https://x/y.png",
            &["content[0].image_url", "https://x/y.png", "file URL"][..],
        ),
        ("missing.png", &["content[0].image_url", "missing.png"]),
        (
            "data:image/png,AB",
            &["content[0].image_url", "not in base64"],
        ),
        ("data:image/png;base64,QUI=", &["content[0].image_url"]),
    ] {
        let part = format!(r#"{{"type": "image_url", "image_url": {{"url": "{url}"}}}}"#);
        ask(&part, &dir).run().assert_refused(url, 1, names);
    }
}

#[test]
fn prompts_longer_than_the_context_are_refused() {
    let content = format!(
        r#"[{{"role": "user", "content": "{}"}}]"#,
        "one two ".repeat(40_000)
    );
    let (_dir, path) = chat(content.as_bytes());
    Program::generate("qwen-tied")
        .path("--messages", &path)
        .run()
        .assert_refused("long", 1, &["tokens", "limit"]);
}

/// Chat templates that fail or never end.
#[test]
fn bad_chat_templates_are_refused() {
    use crate::files::Copy;
    use crate::program::model;
    for (what, template, names) in [
        (
            "syntax",
            "{% for %}",
            &["chat_template.jinja", "line 1"][..],
        ),
        (
            "exception",
            "{{ raise_exception('no system role') }}",
            &["no system role"],
        ),
        (
            "endless",
            "{% for a in range(99999) %}{% for b in range(99999) %}{{ a }}{% endfor %}{% endfor %}",
            &["chat_template.jinja"],
        ),
        ("silent", "{# nothing #}", &["prompt is empty"]),
        (
            "no place for the image",
            "{{ messages[0].role }}",
            &["<|image_pad|>", "expected 1"],
        ),
    ] {
        let copy = Copy::of(&model("qwen-tied"));
        copy.write("chat_template.jinja", template.as_bytes());
        let program = Program::generate_in(copy.dir()).prompt("hi");
        let program = if what == "no place for the image" {
            program.image(&image("qwen-tied/img-short"))
        } else {
            program
        };
        program.run().assert_refused(what, 1, names);
    }
}
