//! Conversations in their published layouts.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};

use vispec_data::conversations::{
    Conversation, ConversationFiles, ConversationLayout, ConversationSource, DropReason, Row,
    long_answer_prompt,
};
use vispec_data::scenes::{QuestionKind, SceneStyle};
use vispec_data::{DataError, order};
use vispec_processor::{Content, ImageOptions, Part};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/conversations")
}

fn files(layout: ConversationLayout, names: &[&str]) -> ConversationFiles {
    ConversationFiles {
        layout,
        files: names.iter().map(|name| fixtures().join(name)).collect(),
        images: fixtures(),
        shuffle_seed: None,
    }
}

fn rows(files: &ConversationFiles) -> Vec<Row> {
    let mut source = files.open().unwrap();
    let rows = (0..source.len()).map(|position| source.conversation(position).unwrap());
    rows.collect()
}

fn kept(row: &Row) -> &Conversation {
    match row {
        Row::Kept(conversation) => conversation,
        Row::Dropped { origin, reason } => panic!("dropped: {origin}: {reason}"),
    }
}

fn dropped(row: &Row) -> &DropReason {
    match row {
        Row::Dropped { reason, .. } => reason,
        Row::Kept(conversation) => panic!("kept: {conversation:?}"),
    }
}

/// Returns roles and texts.
fn said(conversation: &Conversation) -> Vec<(String, String)> {
    let messages = conversation.messages.as_slice().iter();
    messages
        .map(|message| {
            let texts: Vec<&str> = message.content.texts().collect();
            (message.role.clone(), texts.join("|"))
        })
        .collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |&(role, text): &(&str, &str)| (role.to_owned(), text.to_owned());
    expected.iter().map(owned).collect()
}

#[test]
fn share_gpt_is_the_same_in_every_format() {
    let sum = [("user", "What is two plus two?"), ("assistant", "Four.")];
    let sure = [("user", "Sure?"), ("assistant", "Yes.")];
    for name in ["sharegpt.json", "sharegpt.jsonl", "sharegpt.parquet"] {
        let rows = rows(&files(ConversationLayout::ShareGpt, &[name]));
        assert_eq!(rows.len(), 7, "{name}");
        assert_eq!(said(kept(&rows[0])), pairs(&[sum, sure].concat()), "{name}");
        assert_eq!(kept(&rows[0]).id, "a_0");
        // Upstream ignores a leading answer; a question without an answer cannot be trained on.
        assert_eq!(said(kept(&rows[1])), pairs(&sum), "{name}");
        assert_eq!(said(kept(&rows[6])), pairs(&sum), "{name}");
        assert!(kept(&rows[1]).is_answered() && !kept(&rows[2]).is_answered());
        assert_eq!(kept(&rows[2]).messages.as_slice().len(), 1);
        assert_eq!(*dropped(&rows[3]), DropReason::NotAlternating);
        assert_eq!(
            *dropped(&rows[4]),
            DropReason::UnknownSpeaker("bing".to_owned())
        );
        assert_eq!(*dropped(&rows[5]), DropReason::NoQuestion);
    }
}

#[test]
fn the_shuffle_is_that_of_datasets() {
    let mut files = files(
        ConversationLayout::ShareGpt,
        &["sharegpt.json", "sharegpt.jsonl"],
    );
    let in_order = rows(&files);
    files.shuffle_seed = Some(42);
    let shuffled = rows(&files);
    for (position, row) in order::numpy_permutation(42, 14).into_iter().enumerate() {
        let text = |row: &Row| format!("{row:?}");
        assert_eq!(text(&shuffled[position]), text(&in_order[row]));
    }
    let mut source = files.open().unwrap();
    let error = source.conversation(14).unwrap_err();
    assert!(
        matches!(
            error,
            DataError::NoSuchSample {
                index: 14,
                found: 14,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn pictures_of_llava_pretrain_are_files_or_cells() {
    let all = [
        "pretrain.json",
        "pretrain.parquet",
        "pretrain_paths.parquet",
    ];
    for name in all {
        let rows = rows(&files(ConversationLayout::LlavaPretrain, &[name]));
        assert_eq!(rows.len(), 4, "{name}");
        for (index, row) in rows.iter().enumerate() {
            let conversation = kept(row);
            assert_eq!(conversation.id, format!("00000000{index}"));
            let image = conversation.images[0]
                .decode(&ImageOptions::default())
                .unwrap();
            assert_eq!(image.size().width, 10 + index, "{name}");
            assert_eq!(conversation.images[0].file_path().is_some(), name != all[1]);
            let path = fixtures().join(format!("00000/00000000{index}.png"));
            assert_eq!(
                conversation.images[0].image_file().unwrap(),
                fs::read(path).unwrap()
            );
            let text =
                Part::Text(["What is this?", "Give a brief description."][index % 2].to_owned());
            let mut parts = vec![text.clone(), Part::Image];
            if index % 2 == 1 {
                parts.reverse();
            }
            let messages = conversation.messages.as_slice();
            assert_eq!(messages[0].content, Content::Parts(parts));
            assert_eq!(messages[1].role, "assistant");
        }
    }
}

#[test]
fn long_answers_are_asked_for_as_upstream_does() {
    let rows = rows(&files(
        ConversationLayout::LlavaPretrain,
        &["pretrain.json"],
    ));
    let prompt = long_answer_prompt(kept(&rows[1])).unwrap();
    let [system, user] = prompt.as_slice() else {
        panic!("{prompt:?}");
    };
    let system: String = system.content.texts().collect();
    assert_eq!(
        system,
        "A chat between a curious human and an artificial intelligence assistant. The assistant \
         gives helpful, detailed, and polite answers to the human's questions."
    );
    let text = |text: &str| Part::Text(text.to_owned());
    let expected = vec![
        text("Give a brief description."),
        Part::Image,
        text("Please answer with at least 1000 words."),
    ];
    assert_eq!(user.content, Content::Parts(expected));
}

#[test]
fn chats_keep_their_images_in_order() {
    let rows = rows(&files(ConversationLayout::Chat, &["chat.jsonl"]));
    let chat = kept(&rows[0]);
    assert_eq!(chat.id, "row 1");
    assert_eq!(said(chat).len(), 5);
    assert_eq!(chat.images.len(), 2);
    let (question, images, _) = chat.question();
    assert_eq!((question.len(), images.len()), (2, 1));
    let expected = DropReason::ImageCount {
        found: 1,
        expected: 2,
    };
    assert_eq!(*dropped(&rows[1]), expected);
    assert_eq!(*dropped(&rows[2]), DropReason::NoQuestion);
}

#[test]
fn scenes_are_conversations_without_files() {
    let style = SceneStyle::new(84, 3, 2..=5).unwrap();
    for questions in [QuestionKind::Short, QuestionKind::Long] {
        let layout = ConversationLayout::Scenes {
            style,
            seed: 3,
            count: 5,
            questions,
        };
        let rows = rows(&files(layout, &[]));
        assert_eq!(rows.len(), 5);
        for row in &rows {
            let conversation = kept(row);
            let file = conversation.images[0].image_file().unwrap();
            let limits = ImageOptions::default();
            let decoded = vispec_processor::DecodedImage::from_bytes(&file, &limits).unwrap();
            let drawn = conversation.images[0].decode(&limits).unwrap();
            assert_eq!(decoded.size(), drawn.size());
            assert!(!said(conversation)[1].1.is_empty());
        }
    }
}

fn source_of(
    layout: ConversationLayout,
    name: &str,
    text: &str,
) -> Result<ConversationSource, DataError> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(name);
    fs::write(&file, text).unwrap();
    let files = ConversationFiles {
        layout,
        files: vec![file],
        images: dir.path().into(),
        shuffle_seed: None,
    };
    files.open()
}

#[test]
fn broken_rows_say_where_and_why() {
    let cases = [
        (r#"{"id": 1}"#, "field \"conversations\" is no list"),
        (
            r#"{"conversations": [{"from": "human"}]}"#,
            "a turn {\"from\":\"human\"}",
        ),
        ("[1]", "not a JSON object"),
    ];
    for (row, expected) in cases {
        let text = format!("[{row}]");
        let mut source = source_of(ConversationLayout::ShareGpt, "x.json", &text).unwrap();
        let error = source.conversation(0).unwrap_err();
        assert!(error.is_of_one_row(), "{error}");
        let error = error.to_string();
        assert!(
            error.contains("x.json, row 1") && error.contains(expected),
            "{error}"
        );
    }
    let row = r#"{"image": "../x.png", "conversations": [{"from": "human", "value": "<image>"}]}"#;
    let mut source = source_of(ConversationLayout::LlavaPretrain, "x.jsonl", row).unwrap();
    let error = source.conversation(0).unwrap_err();
    assert!(matches!(error, DataError::PathOutside { .. }), "{error}");
    let error = source_of(ConversationLayout::Chat, "x.csv", "").unwrap_err();
    assert!(matches!(error, DataError::UnknownFormat { .. }), "{error}");
    let error = source_of(ConversationLayout::Chat, "x.json", "{").unwrap_err();
    assert!(matches!(error, DataError::FileSyntax { .. }), "{error}");
    let error = source_of(ConversationLayout::Chat, "x.parquet", "PAR1").unwrap_err();
    assert!(matches!(error, DataError::FileSyntax { .. }), "{error}");
    let error = files(ConversationLayout::Chat, &["none.json"])
        .open()
        .unwrap_err();
    assert!(matches!(error, DataError::MissingFile { .. }), "{error}");
    let error = files(ConversationLayout::Chat, &["sharegpt.parquet"])
        .open()
        .unwrap_err();
    assert!(matches!(error, DataError::MissingColumn { .. }), "{error}");
}
