//! Weights in bf16 and f16. On the CPU every row of a pass is computed as in a separate pass, so
//! speculative answers equal plain ones exactly in these types, too.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod reference;

use burn::tensor::DType;
use reference::{DRAFTERS, Decoding, load, question, shape};
use vispec_core::Sampler;
use vispec_models::{DtypeChoice, Method};

fn check(dtype: DtypeChoice, storage: DType) {
    for (target, draft, method) in DRAFTERS {
        let engine = load(target, draft, dtype);
        let precision = engine.target().precision();
        assert_eq!(precision.storage, storage, "{target}");
        let prompt = question(&engine, target, "Describe the image in detail.");
        let mut decodings = vec![Decoding::greedy(48)];
        decodings.extend((0..4).map(|seed| Decoding {
            sampler: Sampler::new(1.0, Some(0.95), None).unwrap(),
            seed,
            max_new_tokens: 24,
        }));
        let mut accepted = 0;
        for (n, decoding) in decodings.into_iter().enumerate() {
            let shape = [shape(3, 8, 30), shape(4, 10, 60)][n % 2];
            let plain = decoding.answer(&engine, &prompt, Method::None, shape);
            let found = decoding.answer(&engine, &prompt, method, shape);
            assert_eq!(
                found.tokens, plain.tokens,
                "{target}, {method}, {dtype:?}, {decoding:?}"
            );
            accepted += found.stats.accepted_per_cycle().iter().sum::<u32>();
        }
        // A short answer need not repeat words of the question.
        assert!(
            accepted > 0 || method == Method::PromptLookup,
            "{target}, {method}: nothing was accepted"
        );
    }
}

#[test]
fn bf16_is_exact() {
    check(DtypeChoice::Bf16, DType::BF16);
}

#[test]
fn f16_is_exact() {
    check(DtypeChoice::F16, DType::F16);
}

/// Rounding the weights of these models does not change their answers, so a wrong conversion would
/// be noticed.
#[test]
fn half_precision_answers_like_f32() {
    for (target, draft, method) in DRAFTERS {
        let greedy = |dtype| {
            let engine = load(target, draft, dtype);
            let prompt = question(&engine, target, "Please tell me what you see here.");
            Decoding::greedy(8)
                .answer(&engine, &prompt, method, shape(3, 8, 30))
                .tokens
        };
        let wide = greedy(DtypeChoice::F32);
        assert_eq!(greedy(DtypeChoice::F16), wide, "{target}, {method}: f16");
        assert_eq!(greedy(DtypeChoice::Bf16), wide, "{target}, {method}: bf16");
    }
}
