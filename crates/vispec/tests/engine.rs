//! Tests of the engine as programs embed it.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::StreamExt as _;
use vispec::core::{GenerationConfig, MatchPicks, NoDraft, PromptLookupDrafter, generate};
use vispec::models::AnyDrafter;
use vispec::{
    Answer, AnswerEnd, AnswerError, AnswerPrompt, AnswerRequest, CalibrationPlace, DecodedImage,
    DraftEmbeds, DraftReading, Engine, EngineSettings, ImageInput, ImageOptions, LayerIds,
    LoadOptions, Messages, Method, ModelError, PositionsOf, SpecialText, Speculation,
    SpeculationReason, Submission, TreeChoice, TreeShape,
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
        settings: EngineSettings {
            conversation_memory: 32 << 20,
            ..EngineSettings::default()
        },
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
    // All of them asked the same question, so only one conversation is kept.
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
        videos: Vec::new(),
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

#[test]
fn drafting_is_told_required_or_left_out() {
    let answered = |engine: &Engine, speculation| {
        let messages = Messages::from_prompt(None, ASK, 1);
        let mut answer = engine
            .start(Submission {
                speculation,
                ..AnswerRequest::chat(messages, vec![image()]).into()
            })
            .unwrap();
        let text = answer.text()?;
        Ok::<_, AnswerError>((text, answer.answered().unwrap().clone()))
    };
    let target = place("models/qwen-tied").display().to_string();
    let blind = place("drafts/qwen-tied-eagle3-sglang")
        .display()
        .to_string();
    let blind = Engine::load(&target, Some(&blind), options()).unwrap();
    let (text, drafted) = answered(&blind, Speculation::Required).unwrap();
    assert_eq!(text, plain(&blind));
    assert_eq!(drafted.speculation, [SpeculationReason::ImagesUnseen]);
    let (text, left) = answered(&blind, Speculation::Off).unwrap();
    assert_eq!(text, plain(&blind));
    assert_eq!(left.speculation, [SpeculationReason::NotWanted]);
    assert!(left.stats.tau() < 1e-9 && drafted.stats.tau() > 0.1);

    let without = Engine::load(&target, None, options()).unwrap();
    let (_, told) = answered(&without, Speculation::On).unwrap();
    assert_eq!(told.speculation, [SpeculationReason::NoDrafter]);
    let error = answered(&without, Speculation::Required).unwrap_err();
    let reason = SpeculationReason::NoDrafter;
    assert!(
        matches!(error, AnswerError::SpeculationUnavailable { reason: found } if found == reason)
    );
    // A custom drafter satisfies the requirement.
    let messages = Messages::from_prompt(None, ASK, 1);
    let own = Submission {
        speculation: Speculation::Required,
        drafter: Some(Arc::new(|| {
            AnyDrafter::PromptLookup(PromptLookupDrafter::default())
        })),
        ..AnswerRequest::chat(messages, vec![image()]).into()
    };
    assert!(without.start(own).unwrap().text().is_ok());
}

#[test]
fn drafts_of_eagle3_read_prompts_as_they_are_told() {
    let target = place("models/qwen-tied").display().to_string();
    let draft = place("drafts/qwen-tied-eagle3-sglang")
        .display()
        .to_string();
    let with = |embeds, positions| LoadOptions {
        draft_reading: DraftReading { embeds, positions },
        ..options()
    };
    let mut accepted = Vec::new();
    for reading in [
        with(DraftEmbeds::Tokens, PositionsOf::State),
        with(DraftEmbeds::Target, PositionsOf::State),
        with(DraftEmbeds::Target, PositionsOf::Next),
    ] {
        let engine = Engine::load(&target, Some(&draft), reading).unwrap();
        let mut answer = ask(&engine);
        assert_eq!(answer.text().unwrap(), plain(&engine));
        let stats = &answer.answered().unwrap().stats;
        accepted.push(stats.accepted_per_cycle().to_vec());
    }
    assert_ne!(accepted[0], accepted[1]);
    let error = load(with(DraftEmbeds::Target, PositionsOf::State)).unwrap_err();
    assert!(matches!(error, ModelError::DraftKind { .. }), "{error}");
    // A different way to count layers selects different layers.
    let outputs = LoadOptions {
        draft_layer_ids: LayerIds::Outputs,
        ..options()
    };
    let inputs = LoadOptions {
        draft_layer_ids: LayerIds::Inputs,
        ..options()
    };
    let features = |options| {
        let engine = Engine::load(&target, Some(&draft), options);
        engine.map(|engine| format!("{:?}", engine.models().target().features()))
    };
    let (inputs, outputs) = (features(inputs), features(outputs));
    assert_ne!(inputs.ok(), outputs.ok());
}
