//! The engine as programs embed it.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};

use futures_util::StreamExt as _;
use vispec::core::{GenerationConfig, MatchPicks, NoDraft, generate};
use vispec::{
    Answer, AnswerEnd, AnswerError, AnswerPrompt, AnswerRequest, CalibrationPlace, DecodedImage,
    Engine, ImageInput, ImageOptions, LoadOptions, Messages, Method, ModelError, SpecialText,
    TreeChoice, TreeShape,
};

const ASK: &str = "Describe the image briefly.";

fn place(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fixtures")
        .join(path)
}

fn options() -> LoadOptions {
    LoadOptions {
        tree: TreeChoice::Sized(TreeShape::default().into()),
        conversation_memory: 32 << 20,
        ..LoadOptions::default()
    }
}

fn load(options: LoadOptions) -> Result<Engine, ModelError> {
    let target = place("models/qwen-tied").display().to_string();
    let draft = place("drafts/qwen-tied-q4").display().to_string();
    Engine::load(&target, Some(&draft), options)
}

fn image() -> DecodedImage {
    let path = place("cases/qwen-tied/q4-img-large/image_0.png");
    DecodedImage::open(path, &ImageOptions::default()).unwrap()
}

fn ask(engine: &Engine) -> Answer {
    let messages = Messages::from_prompt(None, ASK, 1);
    engine.generate(messages, vec![image()]).unwrap()
}

fn plain(engine: &Engine) -> String {
    let models = engine.models();
    let messages = Messages::from_prompt(None, ASK, 1);
    let (prompt, _) = models.encode(&messages, &[image()]).unwrap();
    let config = GenerationConfig {
        max_new_tokens: 512,
        stop_tokens: models.processor().eos_token_ids().iter().copied().collect(),
    };
    let rule = MatchPicks::greedy();
    let answer = generate(models.target(), NoDraft, rule, &prompt, config, &mut ()).unwrap();
    let tokenizer = models.processor().tokenizer();
    tokenizer.decode(&answer.tokens, SpecialText::Skip).unwrap()
}

#[test]
fn an_answer_is_an_iterator_over_cycles() {
    let engine = load(options()).unwrap();
    let mut answer = ask(&engine);
    let cycles: Vec<_> = answer.by_ref().map(Result::unwrap).collect();
    let text: String = cycles.iter().map(ToString::to_string).collect();
    assert_eq!(text, plain(&engine));
    assert!(cycles.iter().any(|cycle| cycle.accepted > 1));
    let answered = answer.answered().unwrap();
    assert_eq!(answered.end, AnswerEnd::Stop);
    assert!(answered.stats.tau() > 1.0);
    assert!(answer.next().is_none());
}

#[tokio::test]
async fn an_answer_is_a_stream() {
    let engine = load(options()).unwrap();
    let mut stream = ask(&engine).into_stream();
    let mut text = String::new();
    while let Some(cycle) = stream.next().await {
        text.push_str(&cycle.unwrap().text());
    }
    assert_eq!(text, plain(&engine));
    assert!(stream.answered().is_some());
    assert!(stream.next().await.is_none());
}

#[test]
fn threads_share_the_weights() {
    let engine = load(options()).unwrap();
    let expected = plain(&engine);
    let answers = (0..4).map(|_| {
        let engine = engine.clone();
        std::thread::spawn(move || ask(&engine).text().unwrap())
    });
    for answer in Vec::from_iter(answers) {
        assert_eq!(answer.join().unwrap(), expected);
    }
    // All of them asked the same, so that one conversation is kept.
    assert_eq!(engine.kept_conversations().count, 1);
}

#[test]
fn answers_can_be_cancelled() {
    let engine = load(options()).unwrap();
    let mut request = AnswerRequest::new(AnswerPrompt::Text("The picture".to_owned()));
    request.max_new_tokens = 4000;
    let mut answer = engine.start(request).unwrap();
    assert!(answer.next().unwrap().is_ok());
    answer.cancel_handle().cancel();
    let mut text = String::new();
    for cycle in &mut answer {
        text.push_str(&cycle.unwrap().text());
    }
    let answered = answer.answered().unwrap();
    assert_eq!(answered.end, AnswerEnd::Cancelled);
    assert!(
        answered.completion_tokens < 3000,
        "{}",
        answered.completion_tokens
    );
}

#[test]
fn what_cannot_be_answered_is_told_by_the_answer() {
    let engine = load(options()).unwrap();
    let messages = Messages::from_prompt(None, ASK, 1);
    let file = |images| AnswerPrompt::Chat {
        messages: messages.clone(),
        images,
    };
    for (prompt, expected) in [
        (file(Vec::new()), "invalid_messages"),
        (
            file(vec![ImageInput::File(b"no image".to_vec())]),
            "invalid_image",
        ),
        (
            AnswerPrompt::Text("x ".repeat(9000)),
            "context_length_exceeded",
        ),
        (AnswerPrompt::Text(String::new()), "invalid_messages"),
    ] {
        let mut answer = engine.start(AnswerRequest::new(prompt)).unwrap();
        match answer.next() {
            Some(Err(AnswerError::Refused { code, .. })) => assert_eq!(code, expected),
            other => panic!("{expected}: {other:?}"),
        }
        assert!(answer.next().is_none());
    }
}

#[test]
fn trees_can_follow_from_measured_costs() {
    let dir = tempfile::tempdir().unwrap();
    let tree = TreeChoice::Measured(CalibrationPlace::InDir(dir.path().to_owned()));
    let engine = load(LoadOptions { tree, ..options() }).unwrap();
    assert_eq!(ask(&engine).text().unwrap(), plain(&engine));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_method_that_the_draft_is_not_for_is_refused() {
    let method = Some(Method::Medusa);
    let error = load(LoadOptions {
        method,
        ..options()
    })
    .unwrap_err();
    assert!(matches!(error, ModelError::DraftKind { .. }), "{error}");
    let error = Engine::load("/no/such/target", None, options()).unwrap_err();
    assert!(error.to_string().contains("/no/such/target"), "{error}");
}
