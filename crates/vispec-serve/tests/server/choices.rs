//! Several answers per request, penalties, biases and log-probabilities.

use serde_json::{Value, json};
use vispec::core::generate;
use vispec::core::{
    AdjustedPicks, GenerationConfig, NoDraft, PickLog, PositionUniforms, Prompt as _,
};
use vispec::{DecodedImage, ImageOptions, LogitAdjustments, Messages, Sampler};
use vispec_serve::ServeOptions;

use crate::running::{Running, chunks};
use crate::tiny_model::{image_file, model, plain, question};

const CHAT: &str = "/v1/chat/completions";
const ASK: &str = "Describe the image briefly.";

fn with(fields: Value) -> Value {
    let mut body = question(ASK);
    let fields = fields.as_object().unwrap().clone();
    body.as_object_mut().unwrap().extend(fields);
    body
}

/// Tokens and log-probabilities of plain decoding with adjustments.
fn adjusted(
    adjustments: LogitAdjustments,
    sampler: Sampler,
    n_tokens: usize,
) -> (Vec<u32>, Vec<f32>) {
    let model = model();
    let models = model.engine.models();
    let image = DecodedImage::from_bytes(&image_file(), &ImageOptions::default()).unwrap();
    let messages = Messages::from_prompt(None, ASK, 1);
    let (prompt, _) = models.encode(&messages, &[image]).unwrap();
    let config = GenerationConfig {
        max_new_tokens: n_tokens,
        stop_tokens: models.processor().eos_token_ids().iter().copied().collect(),
    };
    let log = PickLog::new(0);
    let uniforms = PositionUniforms::new(0);
    let rule = AdjustedPicks::new(sampler, uniforms, adjustments, prompt.token_ids());
    let rule = rule.with_log(log.clone());
    let answer = generate(models.target(), NoDraft, rule, &prompt, config, &mut ()).unwrap();
    let noted = log.take().into_iter().map(|noted| noted.log_prob);
    let noted = noted.take(answer.tokens.len()).collect();
    (answer.tokens, noted)
}

fn text(tokens: &[u32]) -> String {
    let model = model();
    let tokenizer = model.engine.models().processor().tokenizer();
    tokenizer
        .decode(tokens, vispec_processor::SpecialText::Skip)
        .unwrap()
}

#[tokio::test]
async fn penalties_and_biases_are_those_of_plain_decoding() {
    let server = Running::start(model(), ServeOptions::default()).await;
    // The tiny model's greedy answers are so confident that penalties do not change them.
    let sampler = Sampler::new(1.5, None, None).unwrap();
    let (usual, _) = adjusted(LogitAdjustments::default(), sampler, 40);
    let unwanted = usual[3];
    let cases = [
        (
            json!({"repetition_penalty": 20}),
            LogitAdjustments {
                repetition_penalty: 20.0,
                ..Default::default()
            },
        ),
        (
            json!({"presence_penalty": 2, "frequency_penalty": 2}),
            LogitAdjustments {
                presence_penalty: 2.0,
                frequency_penalty: 2.0,
                ..Default::default()
            },
        ),
        (
            json!({"logit_bias": {unwanted.to_string(): -100}}),
            LogitAdjustments {
                logit_bias: [(unwanted, -100.0)].into(),
                ..Default::default()
            },
        ),
    ];
    for (mut fields, adjustments) in cases {
        fields["max_tokens"] = 40.into();
        fields["temperature"] = 1.5.into();
        let answer = server.ask(CHAT, &with(fields.clone())).await;
        let (tokens, _) = adjusted(adjustments, sampler, 40);
        assert_ne!(tokens, usual, "{fields} changes nothing");
        assert_eq!(
            answer["choices"][0]["message"]["content"],
            text(&tokens),
            "{fields}"
        );
        assert_eq!(answer["usage"]["completion_tokens"], tokens.len());
    }
    let nothing = json!({"logit_bias": {"4000000000": 1}});
    let response = server.post(CHAT, &with(nothing)).send().await.unwrap();
    assert_eq!(response.status(), 400);
}

#[tokio::test]
async fn log_probabilities_come_with_every_token() {
    let server = Running::start(model(), ServeOptions::default()).await;
    let (tokens, expected) = adjusted(LogitAdjustments::default(), Sampler::Greedy, 12);
    let fields = json!({"logprobs": true, "top_logprobs": 2, "max_tokens": 12});
    let answer = server.ask(CHAT, &with(fields.clone())).await;
    let content = answer["choices"][0]["logprobs"]["content"]
        .as_array()
        .unwrap();
    assert_eq!(content.len(), tokens.len());
    for (entry, expected) in content.iter().zip(&expected) {
        let log_prob = entry["logprob"].as_f64().unwrap();
        assert!((log_prob - f64::from(*expected)).abs() < 1e-6);
        // The greedy token is the most likely one.
        assert_eq!(entry["top_logprobs"].as_array().unwrap().len(), 2);
        assert_eq!(entry["top_logprobs"][0]["token"], entry["token"]);
    }
    let said: String = content
        .iter()
        .map(|entry| entry["token"].as_str().unwrap())
        .collect();
    assert_eq!(answer["choices"][0]["message"]["content"], said);

    let mut streamed = with(fields);
    streamed["stream"] = true.into();
    let chunks = chunks(&server.stream(CHAT, &streamed).await);
    let told = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["logprobs"]["content"].as_array())
        .flatten();
    assert_eq!(Vec::from_iter(told.cloned()), *content);

    let body = json!({"prompt": "The picture", "max_tokens": 6, "logprobs": 1});
    let answer = server.ask("/v1/completions", &body).await;
    let choice = &answer["choices"][0];
    let tokens = choice["logprobs"]["tokens"].as_array().unwrap();
    assert_eq!(tokens.len(), 6);
    assert_eq!(choice["logprobs"]["text_offset"][0], 0);
    assert_eq!(
        choice["logprobs"]["text_offset"][1],
        tokens[0].as_str().unwrap().chars().count()
    );
}

/// Answer `i` equals that of a request with the seed plus `i`.
#[tokio::test]
async fn several_answers_have_seeds_of_their_own() {
    let server = Running::start(model(), ServeOptions::default()).await;
    let fields = json!({"n": 3, "temperature": 1.5, "seed": 11, "max_tokens": 16});
    let expected = (11..14).map(|seed| {
        let sampler = Sampler::new(1.5, None, None).unwrap();
        plain(ASK, sampler, seed, 16)
    });
    let expected = Vec::from_iter(expected);
    let answer = server.ask(CHAT, &with(fields.clone())).await;
    let choices = answer["choices"].as_array().unwrap();
    assert_eq!(choices.len(), 3);
    let mut tokens = 0;
    for (index, (choice, expected)) in choices.iter().zip(&expected).enumerate() {
        assert_eq!(choice["index"], index);
        assert_eq!(choice["message"]["content"], expected.text);
        tokens += expected.tokens.len();
    }
    assert_eq!(answer["usage"]["completion_tokens"], tokens);

    let mut streamed = with(fields);
    streamed["stream"] = true.into();
    let chunks = chunks(&server.stream(CHAT, &streamed).await);
    for (index, expected) in expected.iter().enumerate() {
        let own = chunks
            .iter()
            .filter(|chunk| chunk["choices"][0]["index"] == index);
        let own = Vec::from_iter(own);
        let said = own
            .iter()
            .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str());
        assert_eq!(said.collect::<String>(), expected.text);
        assert!(own.last().unwrap()["choices"][0]["finish_reason"].is_string());
    }
}
