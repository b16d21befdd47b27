//! Losses, gradients and three steps of AdamW, compared with the reference implementation.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../common/devices.rs"]
mod devices;
mod fixture;

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor};
use devices::devices;
use fixture::{Fixture, Golden, Stats};
use vispec_train::loss::Head;
use vispec_train::network::{HostTensor, Trainable as _};
use vispec_train::{AdamWSettings, Gradients, Objective, Optimizer};

const TOLERANCE: f64 = 1e-4;

fn stage1() -> Objective {
    Objective::Stage1 {
        value_weight: 1.0,
        probability_weight: 0.1,
        ranking_weight: 0.1,
    }
}

fn stage2(unrolled_passes: usize) -> Objective {
    Objective::Stage2 {
        unrolled_passes,
        probability_weight: 10.0,
        ranking_weight: 0.1,
    }
}

fn assert_close(what: &str, found: f64, expected: f64, floor: f64) {
    let limit = TOLERANCE * expected.abs().max(floor);
    assert!(
        (found - expected).abs() <= limit,
        "{what}: {found}, expected {expected}, tolerance {limit}"
    );
}

fn l2(tensor: &Tensor<1>) -> f64 {
    f64::from(tensor.clone().square().sum().sqrt().into_scalar::<f32>())
}

/// Threshold below which a gradient is rounding error. Gradients of the adaptor's `k_proj.bias`
/// cancel, because it shifts all keys alike, so only rounding errors remain.
const ROUNDING: f64 = 1e-6;

const N_STEPS: u16 = 3;

fn assert_gradients(key: &str, gradients: &Gradients, expected: &BTreeMap<String, f64>) {
    let found: BTreeMap<&str, f64> = gradients.iter().map(|(n, g)| (n, l2(g))).collect();
    assert_eq!(
        found.keys().copied().collect::<Vec<_>>(),
        expected.keys().map(String::as_str).collect::<Vec<_>>(),
        "{key}: parameters with gradients"
    );
    for (name, norm) in expected {
        if *norm < ROUNDING {
            assert!(found[name.as_str()] < ROUNDING, "{key}: gradient of {name}");
        } else {
            assert_close(
                &format!("{key}: gradient of {name}"),
                found[name.as_str()],
                *norm,
                0.0,
            );
        }
    }
}

/// Returns the L2 norm of a tensor and the mean of its elements.
#[expect(clippy::cast_precision_loss, reason = "few elements")]
fn stats(tensor: &HostTensor) -> (f64, f64) {
    let sum: f64 = tensor.values.iter().map(|&v| f64::from(v)).sum();
    let squares: f64 = tensor.values.iter().map(|&v| f64::from(v).powi(2)).sum();
    (squares.sqrt(), sum / tensor.values.len() as f64)
}

/// Checks a parameter whose gradient is only rounding error. AdamW divides a gradient by its own
/// size, so rounding, which differs between machines, moves elements by up to the learning rate in
/// each step.
#[expect(clippy::cast_precision_loss, reason = "few elements")]
fn assert_moved_by_rounding(what: &str, tensor: &HostTensor, expected: &Stats, lr: f64) {
    let (l2, mean) = stats(tensor);
    let reach = f64::from(N_STEPS) * lr;
    let distance = (mean - expected.mean).abs();
    assert!(
        distance <= reach,
        "{what}: mean is {distance} away, at most {reach}"
    );
    let distance = (l2 - expected.l2).abs();
    let reach = reach * (tensor.values.len() as f64).sqrt();
    assert!(
        distance <= reach,
        "{what}: l2 is {distance} away, at most {reach}"
    );
}

#[expect(clippy::cast_precision_loss, reason = "few elements")]
fn assert_parameter(what: &str, tensor: &HostTensor, expected: &Stats) {
    let n = tensor.values.len() as f64;
    let (l2, mean) = stats(tensor);
    assert_close(&format!("{what}: l2"), l2, expected.l2, 0.0);
    // The mean of elements of both signs is small compared with the elements.
    let magnitude = 0.1 * (expected.l2.powi(2) / n).sqrt();
    assert_close(&format!("{what}: mean"), mean, expected.mean, magnitude);
}

fn check(key: &str, weights: &str, objective: &Objective) {
    for device in devices() {
        check_on(&device, key, weights, objective);
    }
}

fn check_on(device: &Device, key: &str, weights: &str, objective: &Objective) {
    let golden = Golden::read(key);
    let fixture = Fixture::read(key, weights);
    let sample = fixture.prepared(objective.loss_mask());
    fixture.assert_prepared(&sample);
    let head = Head::new(fixture.head(device));
    let mut network = fixture.network(&device.clone().autodiff());
    let mut optimizer = Optimizer::new(&AdamWSettings::default());
    let samples = [sample];
    let settings = &golden.optimizer;
    for step in 0..usize::from(N_STEPS) {
        let (losses, gradients) = network.backward(&samples, objective, &head).unwrap();
        assert_close(
            &format!("{key}: loss of step {step}"),
            losses.loss,
            golden.losses[step],
            0.0,
        );
        if step == 0 {
            golden.assert_parts(&losses);
            assert_gradients(key, &gradients, &golden.grad_l2_before_clip);
            let largest = gradients
                .iter()
                .map(|(_, g)| f64::from(g.clone().abs().max().into_scalar::<f32>()))
                .fold(0.0, f64::max);
            assert_close(
                &format!("{key}: largest gradient"),
                largest,
                golden.grad_abs_max,
                0.0,
            );
        }
        let clipped = gradients.clip(settings.clip_grad_value);
        if step == 0 {
            assert_gradients(key, &clipped, &golden.grad_l2_after_clip);
        }
        network = optimizer.step(network, clipped, settings.lr);
    }
    let last = network.losses(&samples, objective, &head).unwrap();
    assert_close(
        &format!("{key}: last loss"),
        last.loss,
        golden.losses[3],
        0.0,
    );

    let parameters = network.parameters().unwrap();
    for (name, expected) in &golden.after_3_steps {
        // The embedding is frozen and not a parameter of the network.
        let tensor = parameters
            .get(name)
            .unwrap_or_else(|| fixture.tensor(&format!("weights.{name}")));
        let what = format!("{key}: {name}");
        match golden.grad_l2_before_clip.get(name) {
            Some(norm) if *norm < ROUNDING => {
                assert_moved_by_rounding(&what, tensor, expected, settings.lr);
            }
            _ => assert_parameter(&what, tensor, expected),
        }
    }
    for name in &golden.no_grad_params {
        if let Some(tensor) = parameters.get(name) {
            assert_eq!(
                tensor,
                fixture.tensor(&format!("weights.{name}")),
                "{key}: {name}"
            );
        }
    }
    assert_eq!(golden.after_3_steps.len(), parameters.len() + 1, "{key}");
}

#[test]
fn stage_1() {
    check("stage1", "stage1", &stage1());
}

#[test]
fn stage_2() {
    check("stage2_q2_mtp1", "stage2_q2_mtp1", &stage2(1));
}

#[test]
fn stage_2_with_four_queries_and_two_unrolled_passes() {
    check("stage2_q4_mtp2", "stage2_q4_mtp2", &stage2(2));
}

#[test]
fn stage_2_without_image() {
    check("stage2_q2_mtp1_text", "stage2_q2_mtp1", &stage2(1));
}

#[test]
fn stage_2_with_clipping() {
    check("stage2_q2_mtp1_fresh", "stage2_q2_mtp1_fresh", &stage2(1));
}
