//! Costs of a grammar with a vocabulary of 152k tokens, the size of Qwen2.5's: compilation, masks
//! in different places, the calls that shape a tree, and all masks of an answer.
//!
//! The vocabulary is synthetic: bytes, and words of a few letters with and without a leading space.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "criterion generates undocumented functions, and a bench may panic"
)]

use std::collections::BTreeSet;
use std::hint::black_box;
use std::path::Path;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use serde_json::{Map, Value, json};
use vispec_core::{Constraint as _, TokenId, UniformStream};
use vispec_grammar::{GrammarCompiler, GrammarConstraint, GrammarSource};
use vispec_processor::{SequenceTokens, Tokenizer};

const VOCAB: usize = 151_936;
const END: TokenId = VOCAB as TokenId - 1;

/// Returns the byte-level character of a byte.
fn spelled(byte: u8) -> char {
    let plain = matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if plain {
        return char::from(byte);
    }
    let before = (0..byte).filter(|&byte| !matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff));
    char::from_u32(0x100 + before.count() as u32).unwrap()
}

fn tokenizer(dir: &Path) -> Tokenizer {
    let mut vocab = Map::new();
    for byte in 0..=255 {
        vocab.insert(spelled(byte).to_string(), byte.into());
    }
    let mut stream = UniformStream::new(0);
    let mut below = |bound: usize| (stream.next_uniform() * bound as f64) as usize;
    while vocab.len() < VOCAB - 1 {
        let mut word = String::from(["", "Ġ"][below(2)]);
        for _ in 0..2 + below(7) {
            word.push(char::from(b"etaoinshrdlucmfwypvbgkjqxz"[below(26)]));
        }
        let id = vocab.len();
        vocab.entry(word).or_insert(id.into());
    }
    let end = json!({
        "id": END, "content": "<end>", "special": true, "normalized": false,
        "single_word": false, "lstrip": false, "rstrip": false,
    });
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true});
    let file = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [end],
        "normalizer": null, "pre_tokenizer": byte_level, "post_processor": null,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    });
    let path = dir.join("tokenizer.json");
    std::fs::write(&path, file.to_string()).unwrap();
    Tokenizer::from_file(&path).unwrap()
}

fn schema() -> GrammarSource {
    let names = (0..10).map(|n| format!("property_{n}"));
    let names = Vec::from_iter(names);
    let properties = names.iter().enumerate().map(|(n, name)| {
        let value = match n % 4 {
            0 => json!({"type": "string", "maxLength": 40}),
            1 => json!({"type": "integer", "minimum": 0, "maximum": 1000}),
            2 => json!({"enum": ["one", "two", "three"]}),
            _ => json!({"type": "array", "items": {"type": "boolean"}, "maxItems": 3}),
        };
        (name.clone(), value)
    });
    let properties = Value::Object(properties.collect());
    GrammarSource::JsonSchema(json!({
        "type": "object", "properties": properties, "required": names,
        "additionalProperties": false,
    }))
}

/// Returns the constraint after a text.
fn after(compiler: &GrammarCompiler, tokenizer: &Tokenizer, text: &str) -> GrammarConstraint {
    let mut constraint = compiler.compile(&schema()).unwrap().constraint();
    for token in tokenizer.encode(text, SequenceTokens::Omit).unwrap() {
        constraint.advance(token).unwrap();
    }
    constraint
}

fn bench(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = tokenizer(dir.path());
    let compiler = GrammarCompiler::new(&tokenizer, &BTreeSet::from([END]), VOCAB).unwrap();
    criterion.bench_function("compile", |bencher| {
        bencher.iter(|| black_box(compiler.compile(&schema()).unwrap().constraint()));
    });
    let mut logits = vec![0.0_f32; VOCAB];
    for (place, text) in [
        ("string", "{\"property_0\": \"some words"),
        (
            "number",
            "{\"property_0\": \"some words\", \"property_1\": 3",
        ),
        ("forced", "{\"property_0\": \"some words\", \"proper"),
    ] {
        let mut constraint = after(&compiler, &tokenizer, text);
        criterion.bench_function(&format!("mask in a {place}"), |bencher| {
            bencher.iter(|| {
                logits.fill(0.0);
                constraint.mask(&mut logits).unwrap();
                black_box(&mut logits);
            });
        });
        let next = (0..VOCAB as TokenId).find(|&token| logits[token as usize].is_finite());
        let next = next.unwrap();
        criterion.bench_function(&format!("a node of a tree in a {place}"), |bencher| {
            bencher.iter(|| {
                assert!(constraint.allows(next).unwrap());
                constraint.advance(next).unwrap();
                black_box(constraint.forced().unwrap());
                constraint.retreat().unwrap();
            });
        });
    }
}

/// Measures whole answers, each with a fresh constraint: masks and steps of all tokens.
fn answers(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = tokenizer(dir.path());
    let compiler = GrammarCompiler::new(&tokenizer, &BTreeSet::from([END]), VOCAB).unwrap();
    let grammar = compiler.compile(&schema()).unwrap();
    let values = json!(["a red circle on the left", 17, "two", [true, false]]);
    let fields = (0..10).map(|n| format!("\"property_{n}\": {}", spaced(&values[n % 4])));
    let text = format!("{{{}}}", Vec::from_iter(fields).join(", "));
    let tokens = tokenizer.encode(&text, SequenceTokens::Omit).unwrap();
    let mut group = criterion.benchmark_group("an answer");
    group.throughput(Throughput::Elements(tokens.len() as u64));
    let mut logits = vec![0.0_f32; VOCAB];
    group.bench_function("by tokens", |bencher| {
        bencher.iter_batched(
            || grammar.constraint(),
            |mut constraint| {
                for &token in &tokens {
                    logits.fill(0.0);
                    constraint.mask(&mut logits).unwrap();
                    assert!(logits[token as usize].is_finite());
                    constraint.advance(token).unwrap();
                }
                black_box(&mut logits);
                constraint
            },
            BatchSize::LargeInput,
        );
    });
}

/// Returns JSON with a space after each comma, as in the grammar.
fn spaced(value: &Value) -> String {
    value.to_string().replace(",", ", ")
}

criterion_group!(benches, bench, answers);
criterion_main!(benches);
