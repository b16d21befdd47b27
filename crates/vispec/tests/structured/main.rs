//! Answers under a grammar equal those of plain decoding under the same grammar, for every drafter.
#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test may panic, and nothing is used from outside"
)]

mod facade;
mod schemas;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use schemas::Schemas;
use serde_json::{Value, json};
use vispec::core::{
    AdjustedPicks, AutoTree, FinishReason, ForcedTokens, Generation, GenerationConfig,
    LogitAdjustments, NoDraft, PositionUniforms, Sampler, TargetModel as _, TreeShape, TreeSize,
    generate,
};
use vispec::grammar::{Grammar, GrammarCompiler};
use vispec::models::{
    CalibrationPlace, DeviceSpec, DraftVocab, DtypeChoice, EncodedPrompt, Engine, EngineOptions,
    KvPrecision, LayerIds, calibrate,
};
use vispec::{CallCount, GrammarSource, Messages, Method, SpecialText, ToolSignature};

/// Maximum number of tokens of an answer; some schemas allow longer ones.
const MAX_TOKENS: usize = 80;

fn fixture(place: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fixtures")
        .join(place)
}

/// Targets, their drafts, and the methods to test with them. The first pair is trained; the
/// networks of the others are random and rarely guess correctly.
const PAIRS: [(&str, &str, &[&str]); 5] = [
    (
        "qwen-scenes",
        "qwen-scenes-q2",
        &["prompt-lookup", "vispec", "vispec+lookup"],
    ),
    (
        "qwen-untied",
        "qwen-untied-medusa",
        &["medusa", "medusa+lookup"],
    ),
    (
        "qwen-untied",
        "qwen-untied-eagle2",
        &["eagle2", "eagle2+lookup"],
    ),
    (
        "qwen-tied",
        "qwen-tied-eagle3-sglang",
        &["eagle3", "eagle3+lookup"],
    ),
    (
        "qwen3-untied",
        "qwen3-untied-eagle3-vllm-mrope-qwen3vl",
        &["eagle3"],
    ),
];

/// A loaded pair with a prompt and a grammar compiler.
struct Pair {
    engine: Engine,
    prompt: EncodedPrompt,
    compiler: GrammarCompiler,
    /// The first drafts only forced tokens.
    drafters: Vec<(Method, TreeSize)>,
}

/// Counts over several answers.
struct Tally {
    /// Number of answers that ended on their own.
    finished: usize,
    /// Number of cycles per drafter.
    cycles: Vec<usize>,
}

impl Pair {
    fn load((target, draft, methods): (&str, &str, &[&str])) -> Self {
        let engine = Engine::load(&EngineOptions {
            target: fixture("models").join(target),
            draft: Some(fixture("drafts").join(draft)),
            draft_vocab: DraftVocab::Auto,
            draft_layer_ids: LayerIds::Auto,
            device: DeviceSpec::Flex.open().unwrap(),
            dtype: DtypeChoice::Auto,
            kv: KvPrecision::Auto,
        });
        let engine = engine.unwrap();
        let messages = Messages::from_prompt(None, "Describe the picture as JSON.", 0);
        let (prompt, _) = engine.encode(&messages, &[]).unwrap();
        let processor = engine.processor();
        let vocab_size = engine.target().vocab_size();
        let ends = processor.eos_token_ids();
        let compiler = GrammarCompiler::new(processor.tokenizer(), ends, vocab_size).unwrap();
        let mut drafters = vec![(Method::None, TreeShape::default().into())];
        for method in methods {
            let method: Method = method.parse().unwrap();
            drafters.push((method, TreeShape::default().into()));
            let costs = calibrate(&engine, method, &CalibrationPlace::Nowhere).unwrap();
            let mut auto = AutoTree::new(Arc::new(costs.costs));
            auto.max_loss = 0.5;
            drafters.push((method, auto.into()));
        }
        Self {
            engine,
            prompt,
            compiler,
            drafters,
        }
    }

    fn rule(&self, grammar: &Grammar, asked: Asked, forced: ForcedTokens) -> AdjustedPicks {
        let uniforms = PositionUniforms::new(asked.seed);
        let nothing = LogitAdjustments::default();
        let rule = AdjustedPicks::new(asked.sampler(), uniforms, nothing, &[]);
        rule.with_constraint(Box::new(grammar.constraint()), forced)
    }

    fn config(&self) -> GenerationConfig {
        let ends = self.engine.processor().eos_token_ids();
        GenerationConfig {
            max_new_tokens: MAX_TOKENS,
            stop_tokens: ends.iter().copied().collect(),
        }
    }

    fn plain(&self, grammar: &Grammar, asked: Asked) -> Generation {
        let rule = self.rule(grammar, asked, ForcedTokens::Decoded);
        let target = self.engine.target();
        generate(target, NoDraft, rule, &self.prompt, self.config(), &mut ()).unwrap()
    }

    /// Answers with all drafters, adds their cycles to `cycles`, and returns the plain answer.
    fn check(&self, source: &GrammarSource, asked: Asked, cycles: &mut [usize]) -> Generation {
        let grammar = self.compiler.compile(source).unwrap();
        let plain = self.plain(&grammar, asked);
        let target = self.engine.target();
        for ((method, size), cycles) in self.drafters.iter().zip(cycles) {
            let drafter = self.engine.drafter(*method, size.clone()).unwrap();
            let rule = self.rule(&grammar, asked, ForcedTokens::Drafted);
            let drafted = generate(target, drafter, rule, &self.prompt, self.config(), &mut ());
            let drafted = drafted.unwrap();
            assert_eq!(
                (&drafted.tokens, drafted.finish_reason),
                (&plain.tokens, plain.finish_reason),
                "{method} {source:?} {asked:?}"
            );
            *cycles += drafted.stats.n_cycles();
        }
        plain
    }

    fn text(&self, generation: &Generation) -> String {
        let tokenizer = self.engine.processor().tokenizer();
        tokenizer
            .decode(&generation.tokens, SpecialText::Skip)
            .unwrap()
    }

    /// Checks random schemas, greedy and sampled.
    fn check_schemas(&self, seeds: std::ops::Range<u64>) -> Tally {
        let mut finished = 0;
        let mut cycles = vec![0; self.drafters.len()];
        for seed in seeds {
            let schema = Schemas::new(seed).object(2);
            let asked = Asked {
                temperature: [0.0, 0.7, 1.3][seed as usize % 3],
                seed,
            };
            let source = GrammarSource::JsonSchema(schema.clone());
            let generation = self.check(&source, asked, &mut cycles);
            if generation.finish_reason == FinishReason::Stop {
                finished += 1;
                let text = self.text(&generation);
                let value: Value = serde_json::from_str(&text).unwrap();
                let validator = jsonschema::validator_for(&schema).unwrap();
                let verdict = validator.validate(&value);
                assert!(verdict.is_ok(), "{verdict:?} of {text} by {schema}");
            }
        }
        Tally { finished, cycles }
    }

    /// Asserts that every drafter with trees of a fixed shape drafted tokens that the grammar did
    /// not force.
    fn assert_drafters_took_part(&self, cycles: &[usize]) {
        let forced = cycles[0];
        for ((method, size), cycles) in self.drafters.iter().zip(cycles).skip(1) {
            if matches!(size, TreeSize::Fixed(_)) {
                assert!(
                    *cycles < forced,
                    "{method}: {cycles} cycles, {forced} without a draft"
                );
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    temperature: f32,
    seed: u64,
}

impl Asked {
    fn sampler(self) -> Sampler {
        Sampler::new(self.temperature, Some(0.95), None).unwrap()
    }
}

#[test]
fn schemas_with_all_drafters() {
    for (index, pair) in PAIRS.into_iter().enumerate() {
        let n = if index == 0 { 30 } else { 10 };
        let loaded = Pair::load(pair);
        let tally = loaded.check_schemas(0..n);
        let finished = tally.finished as u64;
        assert!(
            2 * finished > n,
            "{finished} answers of {n} came to their end with {pair:?}"
        );
        loaded.assert_drafters_took_part(&tally.cycles);
    }
}

/// The same test at a larger scale, which takes many minutes; prints the results.
#[test]
#[ignore = "takes many minutes"]
fn a_thousand_schemas_with_all_drafters() {
    for pair in PAIRS {
        let loaded = Pair::load(pair);
        let Tally { finished, cycles } = loaded.check_schemas(1000..2000);
        for ((method, size), cycles) in loaded.drafters.iter().zip(&cycles) {
            let trees = if matches!(size, TreeSize::Fixed(_)) {
                "fixed"
            } else {
                "auto"
            };
            println!("{}: {method}, {trees} trees: {cycles} cycles", pair.1);
        }
        println!("{}: {finished} answers of 1000 came to their end", pair.1);
        assert!(finished > 500, "{finished} of {pair:?}");
        loaded.assert_drafters_took_part(&cycles);
    }
}

#[test]
fn other_grammars() {
    let pair = Pair::load(PAIRS[0]);
    let choices = ["red circle", "red square", "blue circle \"quoted\""];
    let choices = choices.map(str::to_owned).to_vec();
    let look = ToolSignature {
        name: "look".to_owned(),
        parameters: Some(json!({"properties": {"large": {"type": "boolean"}}, "type": "object"})),
    };
    let texts = [
        GrammarSource::Choice(choices.clone()),
        GrammarSource::Regex("[a-z]{3,8}( and [a-z]{3,8}){1,3}\\.".to_owned()),
        GrammarSource::Lark("start: \"x = \" expr\nexpr: /[0-9]{1,3}/ (\" + \" expr)?".to_owned()),
        GrammarSource::CallsOrText {
            tools: vec![look],
            count: CallCount::One,
            text: Box::new(GrammarSource::Choice(choices.clone())),
        },
    ];
    for (index, source) in texts.iter().enumerate() {
        for seed in 0..4 {
            let temperature = seed as f32 * 0.4;
            let cycles = &mut vec![0; pair.drafters.len()];
            let generation = pair.check(source, Asked { temperature, seed }, cycles);
            let text = pair.text(&generation);
            match index {
                0 => assert!(choices.contains(&text), "{text}"),
                1 => assert!(text.contains(" and "), "{text}"),
                2 => assert!(text.starts_with("x = "), "{text}"),
                _ => assert!(
                    choices.contains(&text) || text.ends_with("</tool_call>"),
                    "{text}"
                ),
            }
        }
    }
}
