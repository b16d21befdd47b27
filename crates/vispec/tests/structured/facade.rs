//! The same tests through the engine of the `vispec` crate.

use serde_json::json;
use vispec::{
    AnswerEnd, AnswerError, AnswerRequest, DtypeChoice, Engine, GrammarSource, LoadOptions,
    Messages, Sampler, Submission, TreeChoice, TreeShape,
};

use crate::fixture;

fn engine() -> Engine {
    let place = |name: &str| fixture(name).display().to_string();
    let options = LoadOptions {
        dtype: DtypeChoice::F32,
        tree: TreeChoice::Sized(TreeShape::default().into()),
        ..LoadOptions::default()
    };
    let draft = place("drafts/qwen-scenes-q2");
    Engine::load(&place("models/qwen-scenes"), Some(&draft), options).unwrap()
}

fn request() -> AnswerRequest {
    let messages = Messages::from_prompt(None, "Describe the picture.", 0);
    AnswerRequest::chat(messages, Vec::new())
}

#[test]
fn requests_have_grammars() {
    let engine = engine();
    let schema = json!({
        "type": "object",
        "properties": {"colour": {"enum": ["red", "blue"]}, "round": {"type": "boolean"}},
        "required": ["colour", "round"],
        "additionalProperties": false,
    });
    let request = request().with_grammar(GrammarSource::JsonSchema(schema));
    for seed in 0..3 {
        let sampler = Sampler::new(seed as f32, None, None).unwrap();
        let request = AnswerRequest {
            sampler,
            seed,
            ..request.clone()
        };
        let mut answer = engine.start(request).unwrap();
        let text = answer.text().unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(value["round"].is_boolean(), "{text}");
        let answered = answer.answered().unwrap();
        assert_eq!(answered.end, AnswerEnd::Stop);
        // Forced names and punctuation are drafted for free.
        assert!(answered.stats.tau() > 3.0, "{}", answered.stats.tau());
    }
}

/// With plain decoding, tokens that the grammar forces are not drafted either.
#[test]
fn plain_answers_have_no_forced_drafts() {
    let engine = engine();
    let choice = GrammarSource::Choice(vec!["a red circle".to_owned()]);
    let answer = |submission: Submission| {
        let mut answer = engine.start(submission).unwrap();
        (
            answer.text().unwrap(),
            answer.answered().unwrap().stats.tau(),
        )
    };
    let request = request().with_grammar(choice);
    let (drafted, tau) = answer(request.clone().into());
    assert!(tau > 1.0, "{tau}");
    let (plain, tau) = answer(Submission::plain(request));
    assert_eq!(plain, drafted);
    assert!(tau.abs() < 1e-9, "{tau}");
}

#[test]
fn grammars_that_make_no_sense_are_refused() {
    let engine = engine();
    for source in [
        GrammarSource::JsonSchema(json!({"type": "strin"})),
        GrammarSource::Regex("(".to_owned()),
        GrammarSource::Choice(Vec::new()),
        GrammarSource::Lark("begin: \"a\"".to_owned()),
    ] {
        let mut answer = engine.start(request().with_grammar(source)).unwrap();
        match answer.text() {
            Err(AnswerError::Refused { code, .. }) => assert_eq!(code, "invalid_grammar"),
            other => panic!("{other:?}"),
        }
    }
}
