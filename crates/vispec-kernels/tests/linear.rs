//! Linear layers are correct within rounding, and bit-identical however the work is split.

mod common;

use common::{assert_close, bits, pool, values};
use half::{bf16, f16};
use proptest::prelude::*;
use vispec_kernels::{Bits, GroupedLinear, Isa, Kernels, LinearShape, QuantizedWeight, Weight};

/// A weight that owns its elements.
#[derive(Debug)]
enum Owned {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
    F16(Vec<f16>),
}

impl Owned {
    fn all(values: &[f32]) -> [Self; 3] {
        [
            Self::F32(values.to_vec()),
            Self::Bf16(values.iter().copied().map(bf16::from_f32).collect()),
            Self::F16(values.iter().copied().map(f16::from_f32).collect()),
        ]
    }

    fn borrow(&self) -> Weight<'_> {
        match self {
            Self::F32(values) => Weight::F32(values),
            Self::Bf16(values) => Weight::Bf16(values),
            Self::F16(values) => Weight::F16(values),
        }
    }

    fn widened(&self) -> Vec<f64> {
        match self {
            Self::F32(values) => values.iter().copied().map(f64::from).collect(),
            Self::Bf16(values) => values.iter().copied().map(f64::from).collect(),
            Self::F16(values) => values.iter().copied().map(f64::from).collect(),
        }
    }
}

fn kernels() -> Vec<Kernels> {
    Isa::available().filter_map(Kernels::new).collect()
}

fn run(
    kernels: Kernels,
    x: &[f32],
    weight: Weight<'_>,
    bias: Option<&[f32]>,
    shape: LinearShape,
) -> Vec<f32> {
    let mut out = vec![f32::NAN; shape.rows * shape.outputs];
    kernels.linear(x, weight, bias, &mut out, shape);
    out
}

/// Returns the output and, for its tolerance, the sum of the absolute products.
fn reference(x: &[f32], weight: &[f64], bias: Option<&[f32]>, shape: LinearShape) -> Vec<[f64; 2]> {
    let LinearShape {
        rows,
        inputs,
        outputs,
    } = shape;
    let element = |index: usize| {
        let (row, output) = (index / outputs, index % outputs);
        let products = (0..inputs)
            .map(|input| f64::from(x[row * inputs + input]) * weight[output * inputs + input]);
        let bias = bias.map_or(0.0, |bias| f64::from(bias[output]));
        let magnitude = products.clone().map(f64::abs).sum::<f64>() + bias.abs();
        [products.sum::<f64>() + bias, magnitude]
    };
    (0..rows * outputs).map(element).collect()
}

/// Returns the tolerance relative to the sum of absolute products: bf16 dot products round `x` to 8
/// bits.
fn tolerance(kernels: Kernels, weight: &Owned) -> f64 {
    match (kernels.isa(), weight) {
        (Isa::Avx512Bf16, Owned::Bf16(_)) => 5e-3,
        _ => 2e-6,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn agrees_with_the_reference(
        rows in 1_usize..40,
        inputs in 0_usize..300,
        outputs in 1_usize..70,
        with_bias: bool,
        seed: u64,
    ) {
        let shape = LinearShape { rows, inputs, outputs };
        let x = values(rows * inputs, seed);
        let bias = with_bias.then(|| values(outputs, seed ^ 1));
        for weight in Owned::all(&values(outputs * inputs, seed ^ 2)) {
            let expected = reference(&x, &weight.widened(), bias.as_deref(), shape);
            for kernels in kernels() {
                let out = run(kernels, &x, weight.borrow(), bias.as_deref(), shape);
                assert_close(&out, &expected, tolerance(kernels, &weight));
            }
        }
    }

    /// Also covers several blocks of inputs and of rows, and weights at any offset.
    #[test]
    fn a_row_has_the_same_bits_alone_and_among_others(
        rows in 1_usize..70,
        inputs in prop_oneof![1_usize..200, 1_000_usize..2_300],
        outputs in 1_usize..60,
        offset in 0_usize..8,
        seed: u64,
    ) {
        let x = values(rows * inputs, seed);
        let row = seed as usize % rows;
        for weight in Owned::all(&values(outputs * inputs + offset, seed ^ 2)) {
            let weight = match weight.borrow() {
                Weight::F32(values) => Weight::F32(&values[offset..]),
                Weight::Bf16(values) => Weight::Bf16(&values[offset..]),
                Weight::F16(values) => Weight::F16(&values[offset..]),
                _ => unreachable!(),
            };
            for kernels in kernels() {
                let together = run(kernels, &x, weight, None, LinearShape { rows, inputs, outputs });
                let alone = run(
                    kernels,
                    &x[row * inputs..][..inputs],
                    weight,
                    None,
                    LinearShape { rows: 1, inputs, outputs },
                );
                prop_assert_eq!(bits(&together[row * outputs..][..outputs]), bits(&alone));
            }
        }
    }
}

#[test]
fn every_number_of_rows_gives_the_same_bits() {
    // With the first size, a few rows fill the caches; with the second, all rows fit into them.
    for (inputs, outputs) in [(1_100, 29), (90, 131)] {
        let x = values(140 * inputs, 7);
        for weight in Owned::all(&values(outputs * inputs, 8)) {
            for kernels in kernels() {
                let linear = |rows: usize| {
                    let shape = LinearShape {
                        rows,
                        inputs,
                        outputs,
                    };
                    let x = &x[..rows * inputs];
                    bits(&run(kernels, x, weight.borrow(), None, shape))
                };
                let all = linear(140);
                for rows in (1..=70).chain([128, 129]) {
                    assert!(
                        linear(rows) == all[..rows * outputs],
                        "{kernels:?}: {rows} rows of {inputs}"
                    );
                }
            }
        }
    }
}

#[test]
fn every_number_of_threads_gives_the_same_bits() {
    let shape = LinearShape {
        rows: 9,
        inputs: 512,
        outputs: 1_000,
    };
    let x = values(shape.rows * shape.inputs, 1);
    let bias = values(shape.outputs, 2);
    for weight in Owned::all(&values(shape.outputs * shape.inputs, 3)) {
        for kernels in kernels() {
            let linear = || bits(&run(kernels, &x, weight.borrow(), Some(&bias), shape));
            let one = pool(1).install(linear);
            for threads in [2, 3, 7] {
                assert!(
                    pool(threads).install(linear) == one,
                    "{kernels:?}: {threads} threads"
                );
            }
        }
    }
}

/// Large `x` is packed in several panels of rows.
#[test]
fn many_rows_have_the_bits_of_one() {
    let shape = LinearShape {
        rows: 600,
        inputs: 9_000,
        outputs: 3,
    };
    let x = values(shape.rows * shape.inputs, 1);
    let weight = values(shape.outputs * shape.inputs, 2);
    let kernels = Kernels::detected();
    let all = run(kernels, &x, Weight::F32(&weight), None, shape);
    for row in [0, 1, 300, 511, 512, 513, 599] {
        let x = &x[row * shape.inputs..][..shape.inputs];
        let alone = run(
            kernels,
            x,
            Weight::F32(&weight),
            None,
            LinearShape { rows: 1, ..shape },
        );
        assert_eq!(
            bits(&all[row * shape.outputs..][..shape.outputs]),
            bits(&alone)
        );
    }
}

#[test]
fn non_finite_inputs_and_weights_show() {
    let shape = LinearShape {
        rows: 2,
        inputs: 37,
        outputs: 3,
    };
    for poison in [f32::NAN, f32::INFINITY] {
        for place in [0, 17, 36] {
            let mut x = vec![1.0; shape.rows * shape.inputs];
            x[place] = poison;
            let mut weight = vec![1.0; shape.outputs * shape.inputs];
            weight[shape.inputs + place] = poison;
            for weight in Owned::all(&weight) {
                for kernels in kernels() {
                    let out = run(kernels, &x, weight.borrow(), None, shape);
                    let finite: Vec<bool> = out.iter().map(|out| out.is_finite()).collect();
                    assert_eq!(
                        finite,
                        [false, false, false, true, false, true],
                        "{kernels:?}"
                    );
                }
            }
        }
    }
}

#[test]
#[should_panic(expected = "`weight` must be [outputs, inputs]")]
fn a_weight_of_another_shape_is_refused() {
    let shape = LinearShape {
        rows: 1,
        inputs: 4,
        outputs: 2,
    };
    run(
        Kernels::detected(),
        &[0.0; 4],
        Weight::F32(&[0.0; 7]),
        None,
        shape,
    );
}

/// Returns the layers of a group; the quantised ones need inputs in whole groups.
fn layers(inputs: usize, outputs: &[usize], dtypes: &[u8], seed: u64) -> Vec<(usize, AnyWeight)> {
    let layer = |(index, (&outputs, dtype)): (usize, (&usize, &u8))| {
        let weight = values(outputs * inputs, seed ^ index as u64);
        let quantized = |group, bits| {
            QuantizedWeight::new(Weight::F32(&weight), inputs, group, bits).expect("whole groups")
        };
        let [wide, bf16, f16] = Owned::all(&weight);
        let weight = match dtype {
            0 => AnyWeight::Float(wide),
            1 => AnyWeight::Float(f16),
            3 if inputs > 0 && inputs.is_multiple_of(64) => {
                AnyWeight::Quantized(quantized(64, Bits::Eight))
            }
            4 if inputs > 0 && inputs.is_multiple_of(32) => {
                AnyWeight::Quantized(quantized(32, Bits::Eight))
            }
            5 if inputs > 0 && inputs.is_multiple_of(32) => {
                AnyWeight::Quantized(quantized(32, Bits::Four))
            }
            _ => AnyWeight::Float(bf16),
        };
        (outputs, weight)
    };
    outputs.iter().zip(dtypes).enumerate().map(layer).collect()
}

enum AnyWeight {
    Float(Owned),
    Quantized(QuantizedWeight),
}

impl AnyWeight {
    fn borrow(&self) -> Weight<'_> {
        match self {
            Self::Float(weight) => weight.borrow(),
            Self::Quantized(weight) => weight.borrow(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_group_has_the_bits_of_its_layers(
        rows in 0_usize..40,
        inputs in prop_oneof![0_usize..300, (1_usize..20).prop_map(|steps| 32 * steps), Just(2_112)],
        outputs in prop::collection::vec(0_usize..130, 0..6),
        dtypes in prop_oneof![prop::collection::vec(0_u8..6, 6), (0_u8..6).prop_map(|one| vec![one; 6])],
        threads in 1_usize..4,
        seed: u64,
    ) {
        let x = values(rows * inputs, seed);
        let bias = values(130, seed ^ 100);
        let layers = layers(inputs, &outputs, &dtypes, seed);
        for kernels in kernels() {
            let mut outs: Vec<_> =
                layers.iter().map(|(outputs, _)| vec![f32::NAN; rows * outputs]).collect();
            let mut grouped = Vec::new();
            for (index, ((outputs, weight), out)) in layers.iter().zip(&mut outs).enumerate() {
                grouped.push(GroupedLinear {
                    weight: weight.borrow(),
                    bias: (index % 2 == 1).then_some(&bias[..*outputs]),
                    out,
                    outputs: *outputs,
                });
            }
            pool(threads).install(|| kernels.linear_group(&x, rows, inputs, &mut grouped));
            for (index, ((outputs, weight), out)) in layers.iter().zip(&outs).enumerate() {
                let bias = (index % 2 == 1).then_some(&bias[..*outputs]);
                let shape = LinearShape { rows, inputs, outputs: *outputs };
                let alone = run(kernels, &x, weight.borrow(), bias, shape);
                prop_assert!(bits(out) == bits(&alone), "{kernels:?}: layer {index}");
            }
        }
    }
}
