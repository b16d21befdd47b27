//! Stacks through the kernels and through Burn, in separate and in shared passes.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[cfg(feature = "wgpu")]
mod gpu;

use std::path::Path;

use burn::tensor::TensorData;

use super::*;
use crate::draft::Draft;
use crate::families::read_family;
use crate::nn::{FirstInput, LayerRows, join_rows};
use crate::precision::{DtypeChoice, Precision};
use crate::target::VlmTarget;
use crate::weights::{Checkpoint, Weights};

fn stack() -> DecoderStack {
    let (decoder, config) = decoder("qwen-tied", &Device::flex());
    DecoderStack::new(decoder, &config)
}

/// Returns the device of a stack.
fn device(stack: &DecoderStack) -> Device {
    match &stack.layers {
        #[cfg(feature = "wgpu")]
        Layers::Cube(_) => gpu::device(),
        #[cfg(feature = "wgpu")]
        Layers::Burn(decoder) => decoder.any_weight().unwrap().device(),
        _ => Device::flex(),
    }
}

fn decoder(model: &str, device: &Device) -> (Decoder, DecoderConfig) {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/models");
    let dir = models.join(model);
    let family = read_family(&dir).unwrap();
    let checkpoint = Checkpoint::open(&dir, family.rules).unwrap();
    let precision = Precision::choose(DtypeChoice::F32, checkpoint.main_dtype(), device).unwrap();
    let weights = Weights::new(&checkpoint, device, precision).at(family.model);
    let decoder = Decoder::load(&weights, &family.decoder, FirstInput::Normed);
    (decoder, family.decoder)
}

/// Creates a stack that runs through Burn's operations, as on devices without kernels.
fn through_burn(decoder: Decoder, config: &DecoderConfig) -> DecoderStack {
    DecoderStack {
        n_weights: decoder.n_weights(config),
        layers: Layers::Burn(decoder),
        config: *config,
    }
}

/// Like [`stack`], but through Burn's operations, as on devices without kernels.
fn burn_stack() -> DecoderStack {
    let (decoder, config) = decoder("qwen-tied", &Device::flex());
    through_burn(decoder, &config)
}

fn rows(stack: &DecoderStack, n_rows: usize, seed: usize) -> Tensor<2> {
    let hidden = stack.config().hidden;
    let value = |i: usize| ((i * 7_919 + seed * 104_729) % 2_003) as f32 / 1_001.0 - 1.0;
    let values: Vec<f32> = (0..n_rows * hidden).map(value).collect();
    let data = TensorData::new(values, [n_rows, hidden]);
    Tensor::from_data(data, &device(stack))
}

fn rotary(stack: &DecoderStack, positions: &[i64]) -> RotaryTable {
    let config = stack.config();
    let like = (&device(stack), DType::F32);
    RotaryTable::new(positions, config.head_dim, config.rope_theta, like)
}

/// The rows of a sequence in a pass, and the number of rows that it has read before.
struct Sequence {
    n_before: usize,
    plan: AttentionPlan,
    positions: Vec<i64>,
}

fn sequences() -> Vec<Sequence> {
    let paths: [&[usize]; 4] = [&[0], &[0, 1], &[0, 2], &[0, 2, 3]];
    vec![
        Sequence {
            n_before: 5,
            plan: AttentionPlan::Causal { prefix: 5, rows: 7 },
            positions: (5..12).collect(),
        },
        Sequence {
            n_before: 9,
            plan: AttentionPlan::tree(9, paths.into_iter()),
            positions: vec![9, 10, 10, 11],
        },
        Sequence {
            n_before: 0,
            plan: AttentionPlan::Causal { prefix: 0, rows: 1 },
            positions: vec![0],
        },
    ]
}

/// Returns the cache of a sequence before the pass.
fn cache(stack: &DecoderStack, sequence: &Sequence, seed: usize) -> ModelCache {
    let mut cache = stack.new_cache((&device(stack), DType::F32));
    let n_rows = sequence.n_before;
    if n_rows > 0 {
        let plan = AttentionPlan::Causal {
            prefix: 0,
            rows: n_rows,
        };
        let positions: Vec<i64> = (0..).take(n_rows).collect();
        let x = rows(stack, n_rows, seed);
        let segment = StackSegment {
            plan: &plan,
            cache: &mut cache,
        };
        let _ = stack.forward(x, &rotary(stack, &positions), &mut [segment]);
    }
    cache
}

fn floats(tensor: Tensor<2>) -> Vec<f32> {
    tensor.into_data().try_into_vec().unwrap()
}

/// Runs each sequence in a separate pass, then all in one pass, and returns both outputs.
fn alone_and_together(stack: &DecoderStack) -> [Vec<f32>; 2] {
    let sequences = sequences();
    let inputs = |index: usize| rows(stack, sequences[index].plan.n_rows(), 50 + index);
    let mut alone = Vec::new();
    for (index, sequence) in sequences.iter().enumerate() {
        let segment = StackSegment {
            plan: &sequence.plan,
            cache: &mut cache(stack, sequence, index),
        };
        let rotary = rotary(stack, &sequence.positions);
        alone.extend(floats(stack.forward(
            inputs(index),
            &rotary,
            &mut [segment],
        )));
    }
    let caches = sequences.iter().enumerate();
    let caches = caches.map(|(index, sequence)| cache(stack, sequence, index));
    let mut caches: Vec<ModelCache> = caches.collect();
    let segments = sequences.iter().zip(&mut caches);
    let segments = segments.map(|(sequence, cache)| StackSegment {
        plan: &sequence.plan,
        cache,
    });
    let positions = sequences.iter().flat_map(|sequence| &sequence.positions);
    let rotary = rotary(stack, &positions.copied().collect::<Vec<_>>());
    let x = join_rows((0..sequences.len()).map(inputs).collect());
    let together = stack.forward(x, &rotary, &mut segments.collect::<Vec<_>>());
    for (sequence, cache) in sequences.iter().zip(&caches) {
        assert_eq!(cache.n_rows(), sequence.n_before + sequence.plan.n_rows());
    }
    [alone, floats(together)]
}

#[test]
fn states_on_the_way_are_the_same_through_kernels_and_through_burn() {
    let stack = stack();
    let layers = stack.config().layers;
    let run = |stack: &DecoderStack, wanted: &[usize]| {
        let plan = AttentionPlan::Causal { prefix: 0, rows: 3 };
        let mut cache = stack.new_cache((&device(stack), DType::F32));
        let segment = StackSegment {
            plan: &plan,
            cache: &mut cache,
        };
        let rotary = rotary(stack, &[0, 1, 2]);
        stack.forward_noting(rows(stack, 3, 1).into(), &rotary, &mut [segment], wanted)
    };
    let wanted: Vec<usize> = (0..=layers).collect();
    let noted = |stack: &DecoderStack| {
        let stream = run(stack, &wanted);
        let numbers: Vec<usize> = stream.noted.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, wanted);
        let (_, last) = stream.noted.last().unwrap();
        assert_eq!(floats(last.clone()), floats(stream.last));
        let states = stream.noted.into_iter().map(|(_, state)| floats(state));
        states.collect::<Vec<_>>()
    };
    let (kernels, burn) = (noted(&stack), noted(&burn_stack()));
    assert_eq!(kernels[0], floats(rows(&stack, 3, 1)));
    for (kernels, burn) in kernels.iter().zip(&burn) {
        let pairs = kernels.iter().zip(burn);
        assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-4));
    }
    assert!(kernels.windows(2).all(|pair| pair[0] != pair[1]));
    assert!(run(&stack, &[]).noted.is_empty());
}

#[test]
fn sequences_share_a_pass_through_kernels_and_through_burn() {
    let stack = stack();
    let [alone, together] = alone_and_together(&stack);
    assert!(alone == together);
    let close = |found: &[f32]| {
        let pairs = found.iter().zip(&alone);
        found.len() == alone.len() && pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-4)
    };
    let [burn_alone, burn_together] = alone_and_together(&burn_stack());
    assert!(close(&burn_alone));
    assert!(close(&burn_together));
    // Burn's operations sum in another order, so the bitwise comparison above can fail.
    assert!(burn_alone != alone);
}

/// In an EAGLE-3 draft, attention reads rows that are passed in separately from the residual
/// stream.
#[test]
fn rows_that_are_given_enter_through_kernels_and_through_burn() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
    let model = fixtures.join("models/qwen-tied");
    let target = VlmTarget::load(&model, &Device::flex(), DtypeChoice::F32).unwrap();
    for dialect in ["sglang", "speculators-norm-before-fc"] {
        let dir = fixtures.join(format!("drafts/qwen-tied-eagle3-{dialect}"));
        let Draft::Neural(_, draft) = Draft::load(&dir, &target).unwrap() else {
            panic!("not a network");
        };
        let network = draft.network();
        let stack = DecoderStack::new(network.decoder().clone(), network.config());
        let run = |stack: &DecoderStack, seed: usize| {
            let mut cache = stack.new_cache((&device(stack), DType::F32));
            let mut outputs = Vec::new();
            for sequence in sequences().iter().take(2) {
                let n_rows = sequence.plan.n_rows();
                let n_before = cache.n_rows();
                let plan = if let AttentionPlan::Causal { rows, .. } = &sequence.plan {
                    AttentionPlan::Causal {
                        prefix: 0,
                        rows: *rows,
                    }
                } else {
                    let paths: [&[usize]; 4] = [&[0], &[0, 1], &[0, 2], &[0, 2, 3]];
                    AttentionPlan::tree(n_before, paths.into_iter())
                };
                let [embeds, residual] = [seed, seed + 1].map(|seed| rows(stack, n_rows, seed));
                let input = StackInput {
                    given: Some(Tensor::cat(vec![embeds, residual.clone()], 1)),
                    residual,
                    later: LayerRows::default(),
                };
                let segment = StackSegment {
                    plan: &plan,
                    cache: &mut cache,
                };
                let rotary = rotary(stack, &sequence.positions);
                outputs.extend(floats(stack.forward(input, &rotary, &mut [segment])));
            }
            outputs
        };
        let burn = through_burn(network.decoder().clone(), network.config());
        let (kernels, burn) = (run(&stack, 7), run(&burn, 7));
        let pairs = kernels.iter().zip(&burn);
        assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-4));
        assert!(kernels != burn && run(&stack, 8) != kernels);
    }
}
