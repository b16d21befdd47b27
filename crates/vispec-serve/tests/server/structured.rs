//! Structured output: JSON, choices and regular expressions.

use serde_json::{Value, json};
use vispec::core::{
    AdjustedPicks, ForcedTokens, GenerationConfig, LogitAdjustments, NoDraft, PositionUniforms,
    Prompt as _, TargetModel as _, generate,
};
use vispec::grammar::GrammarCompiler;
use vispec::{DecodedImage, GrammarSource, ImageOptions, Messages, Sampler};
use vispec_processor::SpecialText;
use vispec_serve::ServeOptions;

use crate::bad_requests::expect_refused;
use crate::running::{Running, chunks};
use crate::tiny_model::{image_file, model, question};

const CHAT: &str = "/v1/chat/completions";
const ASK: &str = "Describe the image.";

async fn start() -> Running {
    Running::start(model(), ServeOptions::default()).await
}

fn asking(fields: Value) -> Value {
    let mut body = question(ASK);
    let fields = fields.as_object().unwrap().clone();
    body.as_object_mut().unwrap().extend(fields);
    body
}

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "colour": {"type": "string", "enum": ["red", "green", "blue"]},
            "shapes": {"type": "array", "items": {"type": "string", "maxLength": 8}, "maxItems": 2},
            "large": {"type": "boolean"},
        },
        "required": ["colour", "shapes", "large"],
        "additionalProperties": false,
    })
}

fn format() -> Value {
    let named = json!({"name": "scene", "schema": schema(), "strict": true});
    json!({"response_format": {"type": "json_schema", "json_schema": named}})
}

/// Returns the answer of plain decoding under the same grammar.
fn plain(source: &GrammarSource, sampler: Sampler, seed: u64) -> String {
    let model = model();
    let models = model.engine.models();
    let image = DecodedImage::from_bytes(&image_file(), &ImageOptions::default()).unwrap();
    let messages = Messages::from_prompt(None, ASK, 1);
    let (prompt, _) = models.encode(&messages, &[image]).unwrap();
    let processor = models.processor();
    let ends = processor.eos_token_ids();
    let vocab_size = models.target().vocab_size();
    let compiler = GrammarCompiler::new(processor.tokenizer(), ends, vocab_size).unwrap();
    let constraint = compiler.compile(source).unwrap().constraint();
    let uniforms = PositionUniforms::new(seed);
    let nothing = LogitAdjustments::default();
    let rule = AdjustedPicks::new(sampler, uniforms, nothing, prompt.token_ids());
    let rule = rule.with_constraint(Box::new(constraint), ForcedTokens::Decoded);
    let config = GenerationConfig {
        max_new_tokens: 512,
        stop_tokens: ends.iter().copied().collect(),
    };
    let answer = generate(models.target(), NoDraft, rule, &prompt, config, &mut ()).unwrap();
    let tokenizer = processor.tokenizer();
    tokenizer.decode(&answer.tokens, SpecialText::Skip).unwrap()
}

#[tokio::test]
async fn an_answer_keeps_to_its_schema_and_is_that_of_plain_decoding() {
    let server = start().await;
    for seed in 0..3 {
        let sampler = Sampler::new(seed as f32 * 0.8, None, None).unwrap();
        let expected = plain(&GrammarSource::JsonSchema(schema()), sampler, seed);
        let mut body = asking(format());
        body["seed"] = seed.into();
        body["temperature"] = (seed as f32 * 0.8).into();
        let answer = server.ask(CHAT, &body).await;
        let choice = &answer["choices"][0];
        assert_eq!(choice["finish_reason"], "stop");
        let text = choice["message"]["content"].as_str().unwrap();
        assert_eq!(text, expected);
        let value: Value = serde_json::from_str(text).unwrap();
        assert!(["red", "green", "blue"].contains(&value["colour"].as_str().unwrap()));
        assert!(value["large"].is_boolean());

        body["stream"] = true.into();
        let chunks = chunks(&server.stream(CHAT, &body).await);
        let pieces = chunks
            .iter()
            .map(|chunk| &chunk["choices"][0]["delta"]["content"]);
        let streamed = pieces.filter_map(Value::as_str).collect::<String>();
        assert_eq!(streamed, expected);
    }
}

#[tokio::test]
async fn every_field_that_asks_for_a_grammar_is_read() {
    let server = start().await;
    let choices = ["a red circle", "a blue square"];
    let cases = [
        json!({"guided_json": schema()}),
        json!({"guided_json": schema().to_string()}),
        json!({"structured_outputs": {"json": schema()}}),
        json!({"response_format": {"type": "json_object"}, "max_tokens": 60}),
        json!({"structured_outputs": {"json_object": true}, "max_tokens": 60}),
        json!({"guided_choice": choices}),
        json!({"structured_outputs": {"choice": choices}}),
        json!({"guided_regex": "[0-9]{3}-[a-c]{2}"}),
        json!({"structured_outputs": {"regex": "[0-9]{3}-[a-c]{2}"}}),
        json!({"guided_grammar": "start: \"(\" /[0-9]{3}/ \")\""}),
        json!({"structured_outputs": {"grammar": "start: \"(\" /[0-9]{3}/ \")\""}}),
    ];
    for (index, fields) in cases.into_iter().enumerate() {
        let answer = server.ask(CHAT, &asking(fields)).await;
        let choice = &answer["choices"][0];
        let text = choice["message"]["content"].as_str().unwrap();
        match index {
            0..3 => assert!(serde_json::from_str::<Value>(text).unwrap()["large"].is_boolean()),
            3..5 => assert!(text.starts_with('{'), "{text}"),
            5..7 => assert!(choices.contains(&text), "{text}"),
            7..9 => assert_eq!((text.len(), text.find('-')), (6, Some(3)), "{text}"),
            _ => assert_eq!((text.len(), text.find(')')), (5, Some(4)), "{text}"),
        }
    }
    let body = json!({"model": "tiny", "prompt": "It is", "guided_choice": ["so", "not so"]});
    let answer = server.ask("/v1/completions", &body).await;
    let text = answer["choices"][0]["text"].as_str().unwrap();
    assert!(["so", "not so"].contains(&text), "{text}");
}

#[tokio::test]
async fn a_grammar_that_does_not_end_in_time_is_cut_off() {
    let server = start().await;
    let fields = json!({"guided_regex": "(ab){500}", "max_tokens": 12});
    let answer = server.ask(CHAT, &asking(fields)).await;
    let choice = &answer["choices"][0];
    assert_eq!(choice["finish_reason"], "length");
    assert_eq!(answer["usage"]["completion_tokens"], 12);
    assert!(
        choice["message"]["content"]
            .as_str()
            .unwrap()
            .starts_with("abab")
    );
}

#[tokio::test]
async fn what_must_be_said_is_drafted_for_free() {
    let server = start().await;
    let mut body = asking(format());
    body["vispec"] = json!({"detail": true});
    let answer = server.ask(CHAT, &body).await;
    let per_cycle = answer["vispec"]["tokens_per_cycle"].as_f64().unwrap();
    assert!(per_cycle > 3.0, "{per_cycle}");
}

#[tokio::test]
async fn bad_grammars_are_refused_by_the_name_of_their_field() {
    let server = start().await;
    let huge = Vec::from_iter((0..20_000).map(|n| format!("value number {n}")));
    let contradiction = json!({"type": "string", "minLength": 9, "maxLength": 3});
    let schemas = [
        json!({"type": "strin"}),
        json!({"$ref": "#"}),
        json!({"$ref": "https://example.org/s"}),
        json!({"not": {"type": "string"}}),
        json!({"enum": huge}),
        json!({"enum": []}),
        json!({"properties": {"a": contradiction}, "required": ["a"], "type": "object"}),
    ];
    let cases = schemas.map(|schema| {
        let named = json!({"name": "x", "schema": schema});
        let fields = json!({"response_format": {"type": "json_schema", "json_schema": named}});
        (fields, "invalid_grammar", "response_format")
    });
    let others = [
        (json!({"guided_regex": "(a"}), "guided_regex"),
        (json!({"guided_grammar": "root ::= a"}), "guided_grammar"),
    ];
    let others = others.map(|(fields, param)| (fields, "invalid_grammar", param));
    let started = std::time::Instant::now();
    expect_refused(&server, &[&cases[..], &others[..]].concat()).await;
    assert!(started.elapsed().as_secs() < 60);
}

#[tokio::test]
async fn fields_that_ask_for_no_grammar_are_refused() {
    let server = start().await;
    let named = json!({"type": "json_schema", "json_schema": {"name": "x"}});
    let cases = [
        (json!({"guided_json": "{"}), "invalid_value", "guided_json"),
        (json!({"guided_json": 3}), "invalid_type", "guided_json"),
        (
            json!({"guided_choice": []}),
            "invalid_value",
            "guided_choice",
        ),
        (
            json!({"guided_choice": [1]}),
            "invalid_type",
            "guided_choice",
        ),
        (
            json!({"structured_outputs": {"structural_tag": "x"}}),
            "unknown_field",
            "structured_outputs.structural_tag",
        ),
        (
            json!({"guided_regex": "a", "guided_choice": ["a"]}),
            "invalid_value",
            "guided_choice",
        ),
        (
            json!({"response_format": {"type": "xml"}}),
            "unsupported_value",
            "response_format.type",
        ),
        (
            json!({"response_format": {"type": "json_schema"}}),
            "missing_field",
            "response_format.json_schema",
        ),
        (
            json!({"response_format": named}),
            "missing_field",
            "response_format.json_schema.schema",
        ),
    ];
    expect_refused(&server, &cases).await;
}
