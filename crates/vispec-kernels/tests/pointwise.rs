//! Tests of the small operations against double precision, and row by row.

mod common;

use common::{assert_close, bits, values};
use proptest::prelude::*;
use vispec_kernels::{Isa, Kernels};

fn kernels() -> Vec<Kernels> {
    Isa::available().filter_map(Kernels::new).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn rms_norm_agrees(rows in 0_usize..5, hidden in 1_usize..90, seed: u64) {
        let (x, weight) = (values(rows * hidden, seed), values(hidden, seed ^ 1));
        let mut expected = Vec::new();
        for row in x.chunks(hidden) {
            let mean = row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / hidden as f64;
            for (x, weight) in row.iter().zip(&weight) {
                let normed = f64::from(*x) / (mean + 1e-5).sqrt() * f64::from(*weight);
                expected.push([normed, normed.abs()]);
            }
        }
        for kernels in kernels() {
            let mut out = vec![f32::NAN; x.len()];
            kernels.rms_norm(&x, &weight, 1e-5, &mut out);
            assert_close(&out, &expected, 1e-6);
            for (row, x) in x.chunks(hidden).enumerate() {
                let mut alone = vec![f32::NAN; hidden];
                kernels.rms_norm(x, &weight, 1e-5, &mut alone);
                prop_assert_eq!(bits(&alone), bits(&out[row * hidden..][..hidden]));
            }
        }
    }

    #[test]
    fn silu_mul_agrees(len in 0_usize..100, width in 1_f32..40.0, seed: u64) {
        let gate: Vec<f32> = values(len, seed).into_iter().map(|gate| gate * width).collect();
        let up = values(len, seed ^ 1);
        let silu = |(gate, up): (&f32, &f32)| {
            let product = f64::from(*gate) / (1.0 + (-f64::from(*gate)).exp()) * f64::from(*up);
            [product, product.abs()]
        };
        let expected: Vec<_> = gate.iter().zip(&up).map(silu).collect();
        for kernels in kernels() {
            let mut out = vec![f32::NAN; len];
            kernels.silu_mul(&gate, &up, &mut out);
            assert_close(&out, &expected, 1e-6);
        }
    }

    #[test]
    fn rotary_agrees(rows in 0_usize..4, heads in 1_usize..4, half in 1_usize..40, seed: u64) {
        let x = values(rows * heads * 2 * half, seed);
        let angles: Vec<f32> = values(rows * half, seed ^ 1).iter().map(|a| a * 7.0).collect();
        let (sin, cos): (Vec<f32>, Vec<f32>) = angles.iter().map(|a| a.sin_cos()).unzip();
        let mut expected = Vec::new();
        for (index, head) in x.chunks(2 * half).enumerate() {
            let row = index / heads;
            for place in 0..2 * half {
                let angle = row * half + place % half;
                let (sin, cos) = (f64::from(sin[angle]), f64::from(cos[angle]));
                let other = f64::from(head[(place + half) % (2 * half)]);
                let other = if place < half { -other } else { other };
                let this = f64::from(head[place]);
                expected.push([this * cos + other * sin, 1.0]);
            }
        }
        for kernels in kernels() {
            let mut turned = x.clone();
            kernels.rotary(&mut turned, &cos, &sin, 2 * half);
            assert_close(&turned, &expected, 1e-6);
        }
    }
}

#[test]
fn large_slices_are_cut_up_without_a_trace() {
    cut_up_without_a_trace();
    // Within a step, smaller slices are split, too.
    vispec_kernels::in_pool(usize::MAX, cut_up_without_a_trace);
}

fn cut_up_without_a_trace() {
    let (gate, up) = (values(300_001, 1), values(300_001, 2));
    for kernels in kernels() {
        let mut whole = vec![f32::NAN; gate.len()];
        kernels.silu_mul(&gate, &up, &mut whole);
        let mut pieces = vec![f32::NAN; gate.len()];
        for ((gate, up), out) in gate
            .chunks(997)
            .zip(up.chunks(997))
            .zip(pieces.chunks_mut(997))
        {
            kernels.silu_mul(gate, up, out);
        }
        assert_eq!(bits(&whole), bits(&pieces));

        let (mut all, angles) = (gate[..200 * 1_280].to_vec(), values(200 * 32, 3));
        let mut rows = all.clone();
        kernels.rotary(&mut all, &angles, &angles, 64);
        for (x, angles) in rows.chunks_mut(1_280).zip(angles.chunks(32)) {
            kernels.rotary(x, angles, angles, 64);
        }
        assert_eq!(bits(&all), bits(&rows));

        let mut all = vec![f32::NAN; 200 * 1_280];
        kernels.rms_norm(&gate[..200 * 1_280], &up[..1_280], 1e-6, &mut all);
        let mut rows = vec![f32::NAN; 200 * 1_280];
        for (x, out) in gate.chunks(1_280).zip(rows.chunks_mut(1_280)) {
            kernels.rms_norm(x, &up[..1_280], 1e-6, out);
        }
        assert_eq!(bits(&all), bits(&rows));
    }
}

#[test]
fn nan_and_infinity_show() {
    for kernels in kernels() {
        for poison in [f32::NAN, f32::INFINITY] {
            let x = [1.0, poison, 2.0];
            let mut out = [0.0; 3];
            kernels.rms_norm(&x, &[1.0; 3], 1e-6, &mut out);
            assert!(!out[1].is_finite(), "{kernels:?}");
            kernels.silu_mul(&x, &[1.0; 3], &mut out);
            assert_eq!(out.map(f32::is_finite), [true, false, true], "{kernels:?}");
            kernels.silu_mul(&[1.0; 3], &x, &mut out);
            assert_eq!(out.map(f32::is_finite), [true, false, true], "{kernels:?}");
        }
    }
}

#[test]
#[should_panic(expected = "`head_dim` must be even")]
fn rotary_refuses_odd_heads() {
    Kernels::detected().rotary(&mut [0.0; 3], &[1.0], &[0.0], 3);
}
