//! Quantised weights are close to the originals, so are their products, and layers are
//! batch-invariant.

mod common;

use common::{bits, pool, values};
use half::bf16;
use proptest::prelude::*;
use vispec_kernels::{
    Bits, Isa, Kernels, LinearShape, QuantizeError, QuantizedWeight, Weight, check_group,
};

fn kernels() -> Vec<Kernels> {
    Isa::available().filter_map(Kernels::new).collect()
}

fn run(kernels: Kernels, x: &[f32], weight: Weight<'_>, shape: LinearShape) -> Vec<f32> {
    let mut out = vec![f32::NAN; shape.rows * shape.outputs];
    kernels.linear(x, weight, None, &mut out, shape);
    out
}

/// Returns the root mean square.
fn size(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, len) = values.fold((0.0, 0), |(sum, len), value| (sum + value * value, len + 1));
    (sum / f64::from(len.max(1))).sqrt()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn weights_are_within_half_a_step(
        outputs in 1_usize..5,
        groups in 1_usize..5,
        group in prop_oneof![Just(32_usize), Just(64), Just(128)],
        scale in 1e-4_f32..10.0,
        seed: u64,
    ) {
        let inputs = groups * group;
        let weight: Vec<f32> = values(outputs * inputs, seed).iter().map(|w| w * scale).collect();
        for (bits, steps) in [(Bits::Eight, 127.0), (Bits::Four, 8.0)] {
            let quantized = QuantizedWeight::new(Weight::F32(&weight), inputs, group, bits).unwrap();
            for (group, back) in weight.chunks(group).zip(quantized.to_f32().chunks(group)) {
                let greatest = group.iter().fold(0.0_f32, |a, w| a.max(w.abs()));
                // Half a step, or a whole one where nibbles end at 7, plus the rounding of the
                // scale.
                let bound = if bits == Bits::Eight { 1.02 } else { 1.05 } * greatest / steps;
                for (weight, back) in group.iter().zip(back) {
                    prop_assert!((weight - back).abs() <= bound, "{weight} became {back}");
                }
            }
        }
    }

    #[test]
    fn products_are_close_and_every_instruction_set_agrees(
        rows in 1_usize..12,
        outputs in 1_usize..40,
        groups in 1_usize..6,
        group in prop_oneof![Just(32_usize), Just(64), Just(96), Just(128)],
        seed: u64,
    ) {
        let shape = LinearShape { rows, inputs: groups * group, outputs };
        let x = values(rows * shape.inputs, seed);
        let weight: Vec<bf16> =
            values(outputs * shape.inputs, seed ^ 1).iter().map(|w| bf16::from_f32(*w)).collect();
        for bits in [Bits::Eight, Bits::Four] {
            let quantized = QuantizedWeight::new(Weight::Bf16(&weight), shape.inputs, group, bits).unwrap();
            let back = quantized.to_f32();
            let portable = run(Kernels::new(Isa::Portable).unwrap(), &x, quantized.borrow(), shape);
            for kernels in kernels() {
                let out = run(kernels, &x, quantized.borrow(), shape);
                for (index, (out, portable)) in out.iter().zip(&portable).enumerate() {
                    let x = &x[index / outputs * shape.inputs..][..shape.inputs];
                    let row = &back[index % outputs * shape.inputs..][..shape.inputs];
                    let products = x.iter().zip(row).map(|(x, w)| f64::from(*x) * f64::from(*w));
                    let magnitude: f64 = products.clone().map(f64::abs).sum();
                    let error = (f64::from(*out) - products.sum::<f64>()).abs();
                    prop_assert!(error <= 0.01 * magnitude + 1e-6, "{kernels:?}: off by {error}");
                    let apart = f64::from((out - portable).abs());
                    prop_assert!(apart <= 1e-5 * magnitude + 1e-6, "{kernels:?}: {out} {portable}");
                }
            }
        }
    }
}

#[test]
fn rows_can_be_picked_and_parts_put_together() {
    let weight = values(37 * 96, 3);
    for bits in [Bits::Eight, Bits::Four] {
        let quantized = QuantizedWeight::new(Weight::F32(&weight), 96, 32, bits).unwrap();
        let all = quantized.to_f32();
        let picked = [
            36_u32, 0, 17, 17, 5, 31, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13,
        ];
        let rows = picked.map(|row| &all[96 * row as usize..][..96]).concat();
        assert_eq!(quantized.select_outputs(&picked).to_f32(), rows);

        let scales = quantized.scales().to_vec();
        let parts = |values: &[u8], outputs| {
            QuantizedWeight::from_parts(values, scales.clone(), [outputs, 96], (32, bits))
        };
        assert_eq!(parts(quantized.value_bytes(), 37).as_ref(), Ok(&quantized));
        let cut = &quantized.value_bytes()[1..];
        assert!(matches!(parts(cut, 37), Err(QuantizeError::Length { .. })));
        let other = parts(quantized.value_bytes(), 49);
        assert!(matches!(other, Err(QuantizeError::Length { .. })));
    }
}

#[test]
fn every_number_of_rows_and_threads_gives_the_same_bits() {
    let shape = LinearShape {
        rows: 70,
        inputs: 384,
        outputs: 91,
    };
    let (x, weight) = (values(70 * 384, 1), values(384 * 91, 2));
    for (bits_of, group) in [(Bits::Eight, 32), (Bits::Eight, 128), (Bits::Four, 64)] {
        let quantized = QuantizedWeight::new(Weight::F32(&weight), 384, group, bits_of).unwrap();
        for kernels in kernels() {
            let all = bits(&run(kernels, &x, quantized.borrow(), shape));
            for rows in 1..70 {
                let x = &x[(70 - rows) * 384..];
                let some = bits(&run(
                    kernels,
                    x,
                    quantized.borrow(),
                    LinearShape { rows, ..shape },
                ));
                assert!(some == all[(70 - rows) * 91..], "{kernels:?}: {rows} rows");
            }
            for threads in [1, 2, 3] {
                let linear = || bits(&run(kernels, &x, quantized.borrow(), shape));
                assert!(
                    pool(threads).install(linear) == all,
                    "{kernels:?}: {threads} threads"
                );
            }
        }
    }
}

/// Guards the accuracy: the relative error of a layer with normal-like weights and inputs.
#[test]
fn a_layer_is_as_accurate_as_promised() {
    let shape = LinearShape {
        rows: 4,
        inputs: 2_048,
        outputs: 256,
    };
    let normal = |len: usize, seed: u64| -> Vec<f32> {
        values(12 * len, seed)
            .chunks(12)
            .map(|parts| parts.iter().sum::<f32>() / 2.0)
            .collect()
    };
    let (x, weight) = (normal(4 * 2_048, 1), normal(256 * 2_048, 2));
    let exact = run(Kernels::detected(), &x, Weight::F32(&weight), shape);
    for (bits, group, promised) in [
        (Bits::Eight, 32, 0.011),
        (Bits::Eight, 128, 0.014),
        (Bits::Four, 32, 0.095),
        (Bits::Four, 128, 0.14),
    ] {
        let quantized = QuantizedWeight::new(Weight::F32(&weight), 2_048, group, bits).unwrap();
        let out = run(Kernels::detected(), &x, quantized.borrow(), shape);
        let error = size(exact.iter().zip(&out).map(|(a, b)| f64::from(a - b)))
            / size(exact.iter().map(|out| f64::from(*out)));
        println!("{bits:?} in groups of {group}: relative error {error:.4}");
        assert!(
            error < promised,
            "{bits:?} in groups of {group}: relative error {error}"
        );
    }
}

#[test]
fn zeros_and_non_finite_inputs() {
    let shape = LinearShape {
        rows: 1,
        inputs: 64,
        outputs: 3,
    };
    for bits in [Bits::Eight, Bits::Four] {
        let zeros = QuantizedWeight::new(Weight::F32(&[0.0; 192]), 64, 32, bits).unwrap();
        let ones = QuantizedWeight::new(Weight::F32(&[1.0; 192]), 64, 32, bits).unwrap();
        for kernels in kernels() {
            let out = run(kernels, &[1.0; 64], zeros.borrow(), shape);
            assert!(out.iter().all(|out| out.abs() < f32::MIN_POSITIVE));
            let out = run(kernels, &[0.0; 64], ones.borrow(), shape);
            assert!(out.iter().all(|out| out.abs() < f32::MIN_POSITIVE));
            for poison in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut x = [1.0; 64];
                x[40] = poison;
                assert!(
                    run(kernels, &x, ones.borrow(), shape)
                        .iter()
                        .all(|out| !out.is_finite())
                );
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let weight = [0.5; 128];
    let quantize = |weight: &[f32], inputs, group| {
        QuantizedWeight::new(Weight::F32(weight), inputs, group, Bits::Eight).map(|_| ())
    };
    assert_eq!(
        quantize(&weight, 64, 48),
        Err(QuantizeError::Group {
            group: 48,
            inputs: 64
        })
    );
    assert_eq!(
        quantize(&weight, 64, 0),
        Err(QuantizeError::Group {
            group: 0,
            inputs: 64
        })
    );
    assert_eq!(
        check_group(64, 96),
        Err(QuantizeError::Group {
            group: 64,
            inputs: 96
        })
    );
    let short = QuantizeError::Length {
        expected: 128,
        found: 100,
    };
    assert_eq!(quantize(&weight[..100], 64, 32), Err(short));
    let poisoned: Vec<f32> = (0..128)
        .map(|i| if i == 70 { f32::NAN } else { 1.0 })
        .collect();
    assert_eq!(
        quantize(&poisoned, 64, 32),
        Err(QuantizeError::NonFinite { output: 1 })
    );
    let once = QuantizedWeight::new(Weight::F32(&weight), 64, 32, Bits::Four).unwrap();
    let twice = QuantizedWeight::new(once.borrow(), 64, 32, Bits::Four);
    assert_eq!(twice, Err(QuantizeError::Quantized));
}
