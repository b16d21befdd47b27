//! The host sampler and top-k against naive references, and against broken logits.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::num::NonZeroUsize;

use proptest::prelude::*;
use vispec_core::{
    ConfigError, HostLogits, LogitsError, PositionUniforms, Sampler, TargetLogits, TokenId, TopK,
    UniformStream,
};

/// Softmax after temperature, top-p and top-k: a naive implementation in f64.
fn naive(logits: &[f32], temperature: f32, top_p: Option<f32>, top_k: Option<usize>) -> Vec<f64> {
    let scaled: Vec<f64> = logits
        .iter()
        .map(|&x| f64::from(x) / f64::from(temperature))
        .collect();
    let softmax = |kept: &[bool]| -> Vec<f64> {
        let weights = scaled
            .iter()
            .zip(kept)
            .map(|(x, &kept)| if kept { x.exp() } else { 0.0 });
        let weights: Vec<f64> = weights.collect();
        let total: f64 = weights.iter().sum();
        weights.iter().map(|weight| weight / total).collect()
    };
    let mut kept = vec![true; logits.len()];
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| scaled[b].total_cmp(&scaled[a]).then(a.cmp(&b)));
    if let Some(top_p) = top_p {
        let probabilities = softmax(&kept);
        let mut before = 0.0;
        for &id in &order {
            kept[id] = before < f64::from(top_p);
            before += probabilities[id];
        }
    }
    if let Some(top_k) = top_k
        && top_k < order.iter().filter(|&&id| kept[id]).count()
    {
        let edge = scaled[order[top_k - 1]];
        (0..kept.len()).for_each(|id| kept[id] &= scaled[id] >= edge);
    }
    softmax(&kept)
}

fn row(len: usize, seed: u64) -> Vec<f32> {
    let mut stream = UniformStream::new(seed);
    (0..len)
        .map(|_| 12.0 * stream.next_uniform() as f32 - 6.0)
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn probabilities_equal_the_naive_reference(
        len in 1..2000_usize,
        seed: u64,
        temperature in 0.05..3.0_f32,
        top_p in prop::option::of(0.01..1.0_f32),
        top_k in prop::option::of(1..300_usize),
    ) {
        let logits = row(len, seed);
        let sampler = Sampler::new(temperature, top_p, top_k.and_then(NonZeroUsize::new)).unwrap();
        let ours = sampler.probabilities(&logits).unwrap();
        let theirs = naive(&logits, temperature, top_p, top_k);
        // Rounding may include or exclude the token at the edge of top-p; its probability is then
        // spread over the others.
        let at_edge = |a: f64, b: f64| (a > 0.0) != (b > 0.0) && a.max(b) > 1e-12;
        let pairs = || ours.iter().copied().zip(theirs.iter().copied());
        let edge: Vec<f64> = pairs().filter(|&(a, b)| at_edge(a, b)).map(|(a, b)| a.max(b)).collect();
        prop_assert!(edge.len() <= 1);
        let tolerance = 1e-5 + 2.0 * edge.iter().sum::<f64>();
        for (id, (a, b)) in pairs().enumerate().filter(|&(_, (a, b))| !at_edge(a, b)) {
            prop_assert!((a - b).abs() <= tolerance * b.max(1e-6), "{id}: {a} {b}");
        }
        prop_assert!((ours.iter().sum::<f64>() - 1.0).abs() < 1e-9);
    }

    /// The pick is the first token at which the accumulated probability exceeds the uniform number.
    #[test]
    fn picks_invert_the_cumulative_law(
        len in 1..2000_usize,
        seed: u64,
        temperature in 0.05..3.0_f32,
        top_p in prop::option::of(0.01..1.0_f32),
        top_k in prop::option::of(1..300_usize),
        uniform in 0.0..1.0_f64,
    ) {
        let logits = row(len, seed);
        let sampler = Sampler::new(temperature, top_p, top_k.and_then(NonZeroUsize::new)).unwrap();
        let probabilities = sampler.probabilities(&logits).unwrap();
        let pick = sampler.pick(&logits, uniform).unwrap() as usize;
        prop_assert!(probabilities[pick] > 0.0);
        let before: f64 = probabilities[..pick].iter().sum();
        prop_assert!(before <= uniform + 1e-6);
        prop_assert!(before + probabilities[pick] >= uniform - 1e-6);
    }

    #[test]
    fn zero_probability_is_never_picked(
        len in 2..1500_usize,
        seed: u64,
        temperature in 0.05..3.0_f32,
        filtered: bool,
    ) {
        // Masks two thirds of the tokens, including the first and the last.
        let mut logits = row(len, seed);
        for (id, logit) in logits.iter_mut().enumerate() {
            if id % 3 != 1 || id + 1 == len && len > 2 {
                *logit = f32::NEG_INFINITY;
            }
        }
        let top_k = filtered.then_some(NonZeroUsize::new(1_000).unwrap());
        let sampler = Sampler::new(temperature, None, top_k).unwrap();
        for uniform in [0.0, 1e-300, 0.5, 1.0 - f64::EPSILON / 2.0] {
            let pick = sampler.pick(&logits, uniform).unwrap() as usize;
            prop_assert!(logits[pick].is_finite());
        }
    }

    #[test]
    fn top_k_equals_sorting(
        vocab in 1..1500_usize,
        n_rows in 1..4_usize,
        k in 0..20_usize,
        seed: u64,
        coarse: bool,
    ) {
        let mut logits = row(vocab * n_rows, seed);
        if coarse {
            // Coarse rounding creates many equal values.
            logits.iter_mut().for_each(|logit| *logit = logit.round() + 0.0);
        }
        let top = TopK::from_logits(&logits, vocab, k).unwrap();
        prop_assert_eq!(top.k, k.min(vocab));
        prop_assert_eq!(top.tokens.len(), top.k * n_rows);
        for (row_idx, row) in logits.chunks_exact(vocab).enumerate() {
            let mut order: Vec<usize> = (0..vocab).collect();
            order.sort_by(|&a, &b| row[b].total_cmp(&row[a]).then(a.cmp(&b)));
            let total: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
            for ((token, log_prob), &id) in top.row(row_idx).zip(&order) {
                prop_assert_eq!(token as usize, id);
                let exact = f64::from(row[id]) - total.ln();
                prop_assert!((f64::from(log_prob) - exact).abs() < 2e-6, "{} {}", log_prob, exact);
                prop_assert!(log_prob <= 0.0);
            }
        }
    }
}

#[test]
fn greedy_takes_the_lowest_id_of_equals() {
    let mut logits = vec![1.0; 700];
    logits[300] = 2.0;
    logits[299] = 2.0;
    assert_eq!(Sampler::Greedy.pick(&logits, 0.9).unwrap(), 299);
    let probabilities = Sampler::Greedy.probabilities(&logits).unwrap();
    assert_eq!(probabilities.iter().position(|&p| p > 0.0), Some(299));
    assert!((probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-12);
}

/// Tokens equal to the k-th stay (as in upstream's processor); among equals at the edge of top-p,
/// the lowest ids stay.
#[test]
fn equals_at_the_edge() {
    let logits = [1.0, 3.0, 2.0, 2.0, 2.0, 0.0];
    let kept = |top_p, top_k| -> Vec<usize> {
        let sampler = Sampler::new(1.0, top_p, NonZeroUsize::new(top_k)).unwrap();
        let probabilities = sampler.probabilities(&logits).unwrap();
        (0..6).filter(|&id| probabilities[id] > 0.0).collect()
    };
    assert_eq!(kept(None, 1), [1]);
    assert_eq!(kept(None, 2), [1, 2, 3, 4]);
    assert_eq!(kept(Some(0.55), 0), [1, 2]);
    assert_eq!(kept(Some(1e-6), 0), [1]);
    assert_eq!(kept(Some(0.55), 3), [1, 2], "top-p comes first");
    assert_eq!(kept(Some(1.0), 0), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn settings_are_checked() {
    assert_eq!(Sampler::new(0.0, Some(0.5), None), Ok(Sampler::Greedy));
    assert_eq!(Sampler::new(1e-5, None, None), Ok(Sampler::Greedy));
    for temperature in [-1.0, -0.1, f32::INFINITY, f32::NEG_INFINITY] {
        let error = Sampler::new(temperature, None, None).unwrap_err();
        assert_eq!(error, ConfigError::Temperature(temperature));
    }
    assert!(Sampler::new(f32::NAN, None, None).is_err());
    for top_p in [0.0, -0.5, 1.001, f32::INFINITY] {
        assert_eq!(
            Sampler::new(1.0, Some(top_p), None),
            Err(ConfigError::TopP(top_p))
        );
    }
    assert!(Sampler::new(1.0, Some(f32::NAN), None).is_err());
    // Unchecked settings are harmless.
    let odd = Sampler::Stochastic {
        temperature: 0.0,
        top_k: None,
        top_p: Some(7.0),
    };
    assert!(odd.is_greedy() || odd.pick(&[0.0, 1.0], 0.3).is_ok());
}

#[test]
fn extreme_temperatures_and_logits() {
    let logits = [1e30, -1e30, 1e30, 3.0];
    for temperature in [1.1e-5, 1.0, 1e30] {
        let sampler = Sampler::new(temperature, None, None).unwrap();
        assert_eq!(sampler.pick(&logits, 0.1).unwrap(), 0);
        assert!(sampler.pick(&logits, 0.999).unwrap() >= 2);
        let probabilities = sampler.probabilities(&logits).unwrap();
        assert!((probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        let top_p = Sampler::new(temperature, Some(0.5), NonZeroUsize::new(2)).unwrap();
        assert_eq!(top_p.pick(&logits, 0.1).unwrap(), 0);
    }
}

#[test]
fn broken_logits_are_errors() {
    let samplers = [
        Sampler::Greedy,
        Sampler::new(1.0, None, None).unwrap(),
        Sampler::new(0.5, Some(0.9), NonZeroUsize::new(3)).unwrap(),
    ];
    let mut nan = vec![0.0; 600];
    nan[599] = f32::NAN;
    let mut infinite = vec![0.0; 600];
    infinite[300] = f32::INFINITY;
    let masked = vec![f32::NEG_INFINITY; 600];
    for broken in [nan, infinite, masked, Vec::new()] {
        for sampler in samplers {
            assert!(sampler.pick(&broken, 0.5).is_err());
            assert!(sampler.probabilities(&broken).is_err());
        }
        if broken.is_empty() {
            continue;
        }
        let two_rows = [vec![0.0; 600], broken].concat();
        let error = TopK::from_logits(&two_rows, 600, 4).unwrap_err();
        assert!(matches!(error, LogitsError::NonFinite { row: 1 }));
        let mut logits = HostLogits::new(two_rows.as_slice(), 600);
        assert_eq!(logits.n_rows(), 2);
        assert!(logits.read_row(0).is_ok());
        assert!(matches!(
            logits.read_row(1),
            Err(LogitsError::NonFinite { row: 1 })
        ));
        for sampler in &samplers {
            assert!(logits.pick(0, sampler, 0.5).is_ok());
            let error = logits.pick(1, sampler, 0.5).unwrap_err();
            assert!(matches!(error, LogitsError::NonFinite { row: 1 }));
        }
    }
}

#[test]
fn position_uniforms_are_uniform_and_unrelated() {
    let n_positions = 100_000;
    for seed in [0, 1, 2, u64::MAX] {
        let uniforms = PositionUniforms::new(seed);
        let next = PositionUniforms::new(seed.wrapping_add(1));
        let mut counts = [0_u32; 64];
        let (mut serial, mut across) = (0.0, 0.0);
        for position in 0..n_positions {
            let uniform = uniforms.at(position);
            assert!((0.0..1.0).contains(&uniform));
            assert_eq!(uniform.to_bits(), uniforms.at(position).to_bits());
            counts[(uniform * 64.0) as usize] += 1;
            serial += (uniform - 0.5) * (uniforms.at(position + 1) - 0.5);
            across += (uniform - 0.5) * (next.at(position) - 0.5);
        }
        let expected = n_positions as f64 / 64.0;
        let chi: f64 = counts
            .iter()
            .map(|&n| (f64::from(n) - expected).powi(2) / expected)
            .sum();
        // 0.9999 quantile for 63 degrees of freedom is 113.
        assert!(chi < 113.0, "seed {seed}: {chi}");
        // Standard deviation of a mean product is 1/12 / sqrt(n).
        let spread = 4.0 / 12.0 / (n_positions as f64).sqrt();
        assert!(
            (serial / n_positions as f64).abs() < spread,
            "seed {seed}: serial"
        );
        assert!(
            (across / n_positions as f64).abs() < spread,
            "seed {seed}: across seeds"
        );
    }
}

/// The numbers are part of the interface: a seed must give the same answer in the next release.
#[test]
fn position_uniforms_stay_the_same() {
    let first: Vec<u64> = (0..3)
        .map(|at| (PositionUniforms::new(42).at(at) * 1e9) as u64)
        .collect();
    assert_eq!(first, POSITION_UNIFORMS_OF_42);
}

const POSITION_UNIFORMS_OF_42: [u64; 3] = [775_575_778, 1_499_909, 3_501_486];

#[test]
fn picks_follow_the_probabilities_of_a_large_row() {
    let logits = row(700, 4);
    let sampler = Sampler::new(0.8, None, None).unwrap();
    let probabilities = sampler.probabilities(&logits).unwrap();
    let mut counts = vec![0_u32; 700];
    let n_runs = 50_000;
    // Stratified numbers: counts must be within rounding of the expectation.
    for run in 0..n_runs {
        let uniform = (f64::from(run) + 0.5) / f64::from(n_runs);
        counts[sampler.pick(&logits, uniform).unwrap() as usize] += 1;
    }
    for (id, (&count, probability)) in counts.iter().zip(&probabilities).enumerate() {
        let expected = probability * f64::from(n_runs);
        assert!(
            (f64::from(count) - expected).abs() < 1.5,
            "{id}: {count} {expected}"
        );
        assert!(TokenId::try_from(id).is_ok());
    }
}
