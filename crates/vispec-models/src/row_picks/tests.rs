//! Tests on a GPU or a software implementation of one. Without either they print a message and do
//! nothing.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use burn::tensor::Device;
use vispec_core::{HostLogits, PositionUniforms, TargetLogits, UniformStream};

use super::*;
use crate::DeviceSpec;
use crate::logits::DeviceLogits;
use crate::read_backs::ReadBacks;

const MASKED: f32 = f32::NEG_INFINITY;

#[expect(clippy::print_stderr, reason = "says that it is skipped")]
fn device() -> Option<Device> {
    let device = DeviceSpec::Wgpu.open();
    if device.is_err() {
        eprintln!("skipped: no GPU and no software Vulkan (Mesa)");
    }
    device.ok()
}

fn tensor(values: &[f32], vocab: usize, device: &Device) -> Tensor<2> {
    let rows = values.len() / vocab;
    let data = burn::tensor::TensorData::new(values.to_vec(), [rows, vocab]);
    Tensor::from_data(data, (device, DType::F32))
}

/// Returns rows as peaked as those of models, with a quarter of the tokens masked.
fn rows(n: usize, vocab: usize) -> Vec<f32> {
    let mut numbers = UniformStream::new(7);
    let mut logit = || {
        let (spread, masked) = (numbers.next_uniform(), numbers.next_uniform());
        #[expect(clippy::cast_possible_truncation, reason = "any number is good")]
        let value = -4.0 * spread.ln() as f32;
        if masked < 0.25 { MASKED } else { value }
    };
    (0..n * vocab).map(|_| logit()).collect()
}

/// Returns the distance of a number to the nearest border between two tokens, in probability.
fn to_border(probabilities: &[f64], uniform: f64) -> f64 {
    let mut sum = 0.0;
    let borders = probabilities.iter().map(|probability| {
        sum += probability;
        (sum - uniform).abs()
    });
    borders.fold(f64::INFINITY, f64::min)
}

#[test]
fn draws_on_a_gpu_are_those_of_the_host() {
    let Some(device) = device() else {
        return;
    };
    let (mut drawn, mut others) = (0, 0);
    // Fewer tokens than GPU units, as many, and more, not a multiple of them.
    for vocab in [3, 256, 1_000, 33_333] {
        let n = 24;
        let values = rows(n, vocab);
        for temperature in [0.3, 1.0, 2.5] {
            let sampler = Sampler::new(temperature, None, None).unwrap();
            let uniforms = PositionUniforms::new(vocab as u64);
            let picks: Vec<RowPick> = (0..n)
                .map(|row| RowPick::Drawn {
                    temperature,
                    uniform: uniforms.at(row),
                })
                .collect();
            let found = read_picked(tensor(&values, vocab, &device), &picks).unwrap();
            for (row, found) in found.iter().enumerate() {
                let logits = &values[row * vocab..][..vocab];
                let Ok(expected) = sampler.pick(logits, uniforms.at(row)) else {
                    assert!(!found.sound, "all of a row is masked");
                    continue;
                };
                assert!(found.sound);
                drawn += 1;
                if found.token != expected {
                    others += 1;
                    let probabilities = sampler.probabilities(logits).unwrap();
                    let distance = to_border(&probabilities, uniforms.at(row));
                    assert!(distance < 1e-5, "{vocab}, row {row}: {distance}");
                }
            }
        }
    }
    assert!(drawn > 250 && others < 5, "{others} of {drawn}");
}

#[test]
fn extreme_numbers_on_a_gpu_draw_tokens_that_may_come() {
    let Some(device) = device() else {
        return;
    };
    let logits = [MASKED, 1.0, 2.0, 1.0, MASKED];
    for (uniform, expected) in [(0.0, 1), (1.0 - f64::EPSILON / 2.0, 3)] {
        for temperature in [2e-5, 1.0, 1e6] {
            let pick = RowPick::Drawn {
                temperature,
                uniform,
            };
            let found = read_picked(tensor(&logits, 5, &device), &[pick]).unwrap();
            // At a low temperature the best token is sampled.
            let expected = if temperature < 1.0 { 2 } else { expected };
            let token = expected;
            assert_eq!(found, [Picked { token, sound: true }], "{uniform}");
        }
    }
}

#[test]
fn broken_rows_on_a_gpu_are_told() {
    let Some(device) = device() else {
        return;
    };
    let vocab = 700;
    let mut values = vec![0.0; 5 * vocab];
    values[699] = f32::NAN;
    values[vocab] = f32::NAN;
    values[2 * vocab + 300] = f32::INFINITY;
    values[3 * vocab..4 * vocab].fill(MASKED);
    values[4 * vocab + 650] = 1.0;
    let drawn = RowPick::Drawn {
        temperature: 1.0,
        uniform: 0.5,
    };
    for pick in [RowPick::Best, drawn] {
        let found = read_picked(tensor(&values, vocab, &device), &[pick; 5]).unwrap();
        let sound: Vec<bool> = found.iter().map(|row| row.sound).collect();
        assert_eq!(sound, [false, false, false, false, true], "{pick:?}");
    }
    let best = read_picked(tensor(&values, vocab, &device), &[RowPick::Best; 5]).unwrap();
    assert_eq!(best[4].token, 650);
}

/// Greedy and sampled sequences share a read-back. A pick with other settings than announced reads
/// the rows.
#[test]
fn sequences_on_a_gpu_are_picked_from_with_one_read() {
    let Some(device) = device() else {
        return;
    };
    let vocab = 50;
    let values = rows(5, vocab);
    let mut host = HostLogits::new(values.clone(), vocab);
    let sampler = Sampler::new(0.8, None, None).unwrap();
    let uniforms = PositionUniforms::new(3);
    let picks = KnownPicks::new(sampler, uniforms);
    let wanted = || {
        vec![
            WantedRows::new(None, [9, 10]),
            WantedRows::new(picks, [20, 21, 22]),
        ]
    };
    let logits = DeviceLogits::of_sequences(tensor(&values, vocab, &device), wanted());
    let [mut greedy, mut drawn] = Vec::from_iter(logits).try_into().unwrap();
    let before = ReadBacks::of_this_thread().count;
    for row in 0..2 {
        let expected = host.pick(row, &Sampler::Greedy, 0.0).unwrap();
        assert_eq!(greedy.pick(row, &Sampler::Greedy, 0.3).unwrap(), expected);
    }
    for (row, position) in (20..23).enumerate() {
        let uniform = uniforms.at(position);
        let expected = host.pick(row + 2, &sampler, uniform).unwrap();
        assert_eq!(drawn.pick(row, &sampler, uniform).unwrap(), expected);
    }
    assert_eq!(ReadBacks::of_this_thread().count - before, 1);

    let other = Sampler::new(0.7, None, None).unwrap();
    let expected = host.pick(3, &other, 0.4).unwrap();
    assert_eq!(drawn.pick(1, &other, 0.4).unwrap(), expected);
    assert_eq!(ReadBacks::of_this_thread().count - before, 2);
}
