//! Tests of stacks on a GPU or a software Vulkan device. Without either, they print that they are
//! skipped.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

use burn_cubecl::cubecl::logging::{LaunchObservation, LaunchObserver};
use vispec_core::{KvCache, LogitsError, NodeId, Sampler, TargetLogits, TargetModel, TokenTree};

use super::*;
use crate::device::{DeviceSpec, check_arithmetic};
use crate::logits::DeviceLogits;
use crate::row_picks::WantedRows;

/// Maximum number of launches per layer.
const LAUNCHES_PER_LAYER: usize = 14;

pub(super) fn device() -> Device {
    DeviceSpec::Wgpu.open().unwrap()
}

/// Returns the stacks of `model` on the GPU and on the CPU.
#[expect(clippy::print_stderr, reason = "reports that the test is skipped")]
fn stacks(model: &str) -> Option<[DecoderStack; 2]> {
    if DeviceSpec::Wgpu.open().is_err() {
        eprintln!("skipped: no GPU and no software Vulkan (Mesa)");
        return None;
    }
    let stacks = [device(), Device::flex()].map(|device| {
        let (decoder, config) = decoder(model, &device);
        DecoderStack::new(decoder, &config)
    });
    assert!(matches!(stacks[0].layers, Layers::Cube(_)));
    Some(stacks)
}

fn assert_close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (idx, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!(
            (found - expected).abs() < 1e-4,
            "{idx}: {found}, expected {expected}"
        );
    }
}

#[test]
fn sequences_share_a_pass_on_a_gpu() {
    // The first model has biases, the second has norms of heads.
    for model in ["qwen-tied", "qwen3-tied"] {
        let Some([gpu, host]) = stacks(model) else {
            return;
        };
        let [alone, _] = alone_and_together(&host);
        let [gpu_alone, gpu_together] = alone_and_together(&gpu);
        assert_close(&gpu_alone, &alone);
        assert_close(&gpu_together, &alone);
    }
}

/// The rows of an accepted path move, and later passes attend to them at their new places.
#[test]
fn an_accepted_path_moves_and_copies_of_a_cache_stay() {
    let Some(stacks) = stacks("qwen-tied") else {
        return;
    };
    let [gpu, host] = stacks.each_ref().map(|stack| {
        let sequence = &sequences()[1];
        let mut cache = cache(stack, sequence, 3);
        let run = |cache: &mut ModelCache, plan: &AttentionPlan, at: &[i64], seed: usize| {
            let x = rows(stack, at.len(), seed);
            let segment = StackSegment { plan, cache };
            floats(stack.forward(x, &rotary(stack, at), &mut [segment]))
        };
        let mut found = run(&mut cache, &sequence.plan, &sequence.positions, 4);
        let mut kept = cache.clone();
        cache.keep_path(9, &[0, 2, 3].map(NodeId::from_index));
        let next = |len: usize| AttentionPlan::Causal {
            prefix: len,
            rows: 2,
        };
        found.extend(run(&mut cache, &next(12), &[12, 13], 5));
        kept.truncate(11);
        found.extend(run(&mut kept, &next(11), &[11, 12], 5));
        found
    });
    assert_close(&gpu, &host);
}

/// Long prompts use matrix products and grow the cache.
#[test]
fn a_long_prompt_is_read_on_a_gpu() {
    let Some(stacks) = stacks("qwen-tied") else {
        return;
    };
    let [gpu, host] = stacks.each_ref().map(|stack| {
        let mut cache = stack.new_cache((&super::device(stack), DType::F32));
        let mut found = Vec::new();
        for (from, to) in [(0, 300), (300, 303)] {
            let plan = AttentionPlan::Causal {
                prefix: from,
                rows: to - from,
            };
            let at: Vec<i64> = (from..to).map(|at| i64::try_from(at).unwrap()).collect();
            let x = rows(stack, at.len(), from);
            let segment = StackSegment {
                plan: &plan,
                cache: &mut cache,
            };
            found.extend(floats(stack.forward(
                x,
                &rotary(stack, &at),
                &mut [segment],
            )));
        }
        found
    });
    assert_close(&gpu, &host);
}

/// Names of the launched kernels, in order.
#[derive(Default)]
struct Launches(Mutex<Vec<&'static str>>);

impl LaunchObserver for Launches {
    fn launched(&self, kernel: &'static str) {
        self.0.lock().unwrap().push(kernel);
    }
}

/// Counts the launches of a pass over a tree of four nodes, by kernel name.
fn launches(stack: &DecoderStack) -> BTreeMap<&'static str, usize> {
    let sequence = &sequences()[1];
    let mut cache = cache(stack, sequence, 3);
    let x = rows(stack, 4, 4);
    let rotary = rotary(stack, &sequence.positions);
    let segment = StackSegment {
        plan: &sequence.plan,
        cache: &mut cache,
    };
    let launches = Arc::new(Launches::default());
    let observation = LaunchObservation::new(launches.clone());
    let _ = floats(stack.forward(x, &rotary, &mut [segment]));
    drop(observation);
    let mut kernels = BTreeMap::new();
    for &kernel in launches.0.lock().unwrap().iter() {
        *kernels.entry(kernel).or_default() += 1;
    }
    kernels
}

#[test]
fn a_layer_takes_few_launches() {
    let Some([gpu, _]) = stacks("qwen-tied") else {
        return;
    };
    let layers = gpu.config().layers;
    let kernels = launches(&gpu);
    let launched: usize = kernels.values().sum();
    println!("{launched} launches in {layers} layers: {kernels:#?}");
    assert!(launched <= LAUNCHES_PER_LAYER * layers);
    assert!(launched >= 9 * layers, "some launches were not counted");

    // Check the counting: through Burn's operations the same layers take many more launches.
    let (decoder, config) = decoder("qwen-tied", &device());
    let through_burn: usize = launches(&through_burn(decoder, &config)).values().sum();
    println!("{through_burn} launches through Burn's operations");
    assert!(through_burn > LAUNCHES_PER_LAYER * layers);
}

/// With padding, the rows of a shared pass are bitwise equal to those of separate passes, and match
/// the CPU's rows.
#[test]
fn rows_of_padded_passes_are_those_of_rows_alone() {
    let Some([gpu, host]) = stacks("qwen-tied") else {
        return;
    };
    let [expected, _] = alone_and_together(&host);
    let padded = gpu.padded(16).unwrap();
    let [alone, together] = alone_and_together(&padded);
    assert_close(&alone, &expected);
    assert_eq!(together, alone);
    assert!(host.padded(16).is_none());
}

#[test]
fn a_tree_that_does_not_fit_a_padded_pass_is_refused() {
    let Some(_) = stacks("qwen-tied") else {
        return;
    };
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/models");
    let target = VlmTarget::load(&models.join("qwen-tied"), &device(), DtypeChoice::F32).unwrap();
    let target = target
        .with_padded_passes(NonZeroUsize::new(4).unwrap())
        .unwrap();
    let mut cache = target.new_cache().unwrap();
    let mut tree = TokenTree::new(3);
    for token in 0..3 {
        tree.push(NodeId::ROOT, token).unwrap();
    }
    let fits = target.verify(&tree, &mut cache).unwrap();
    assert_eq!(fits.logits.n_rows(), 4);
    cache.truncate(0);
    tree.push(NodeId::ROOT, 9).unwrap();
    let error = target.verify(&tree, &mut cache).unwrap_err();
    assert!(error.to_string().contains("a tree of 5 nodes"), "{error}");
}

/// A device that cannot allocate memory reports it on the next read, in one line, and keeps
/// working.
#[test]
fn memory_that_there_is_not_is_told_in_one_line() {
    let Some(_) = stacks("qwen-tied") else {
        return;
    };
    let device = device();
    let much = Tensor::<2>::ones([1 << 20, 1 << 14], (&device, DType::F32));
    let one = |logits| {
        let wanted = vec![WantedRows::new(None, [0])];
        DeviceLogits::of_sequences(logits, wanted).next().unwrap()
    };
    let error = one(much.slice([0..1, 0..4]))
        .pick(0, &Sampler::Greedy, 0.0)
        .unwrap_err();
    let LogitsError::Device(error) = error else {
        panic!("{error}");
    };
    let told = error.to_string();
    assert!(told.contains("allocate") && !told.contains('\n'), "{told}");
    let fits = Tensor::<2>::from_floats([[1.0, 3.0, 2.0]], &device);
    let token = one(fits).pick(0, &Sampler::Greedy, 0.0);
    assert_eq!(token.unwrap(), 1);
}

#[test]
fn arithmetic_of_a_device_is_tried() {
    let Some(_) = stacks("qwen-tied") else {
        return;
    };
    check_arithmetic(&device(), DType::F32).unwrap();
    check_arithmetic(&Device::flex(), DType::F32).unwrap();
}
