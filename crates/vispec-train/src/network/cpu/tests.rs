//! Compares each operation and its gradients with Burn's operations.

use burn::tensor::{Device, Tensor, TensorData, activation, module};
use proptest::prelude::*;
use vispec_kernels::CausalSample;
use vispec_models::nn::{Bias, DecoderConfig, QkNorm};

use super::{attend, linear, rms_norm, rotate, silu_mul};
use crate::network::attention::{Projected, Rotary, attend_samples};
use crate::network::layers::{self, LayerNorm};

/// Returns numbers in -1..1 that depend only on `seed`.
fn values(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        f32::from(u16::try_from(state >> 48).unwrap_or(0)) / 32768.0 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

fn recorded<const D: usize>(shape: [usize; D], seed: u64) -> Tensor<D> {
    let values = TensorData::new(values(shape.iter().product(), seed), shape);
    Tensor::from_data(values, &Device::flex().autodiff()).require_grad()
}

fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    let floats = tensor.into_data().try_into_vec();
    floats.expect("tensors of f32")
}

const CONFIG: DecoderConfig = DecoderConfig {
    hidden: 1,
    intermediate: 1,
    layers: 1,
    heads: 1,
    kv_heads: 1,
    head_dim: 2,
    qkv_bias: Bias::No,
    qk_norm: QkNorm::No,
    rms_eps: 1e-5,
    rope_theta: 100.0,
};

const RECORDED: &str = "a gradient of each input";

/// Returns the output, and the gradients of `matrices` and `vectors` for a loss with random slopes.
fn outcome<const M: usize, const V: usize>(
    matrices: &[Tensor<2>; M],
    vectors: &[Tensor<1>; V],
    of: impl Fn([Tensor<2>; M], [Tensor<1>; V]) -> Tensor<2>,
) -> Vec<Vec<f32>> {
    let out = of(matrices.clone(), vectors.clone());
    let slopes = recorded(out.dims(), 99).detach();
    let tape = (out.clone() * slopes).sum().backward();
    let mut found = vec![floats(out.inner())];
    found.extend(
        matrices
            .iter()
            .map(|m| floats(m.grad(&tape).expect(RECORDED))),
    );
    found.extend(
        vectors
            .iter()
            .map(|v| floats(v.grad(&tape).expect(RECORDED))),
    );
    found
}

fn compare(found: &[Vec<f32>], expected: &[Vec<f32>]) -> Result<(), TestCaseError> {
    for (found, expected) in found.iter().zip(expected) {
        prop_assert_eq!(found.len(), expected.len());
        let size = expected.iter().fold(1.0_f32, |size, x| size.max(x.abs()));
        for (found, expected) in found.iter().zip(expected) {
            prop_assert!(
                (found - expected).abs() < 1e-5 * size,
                "{found}, not {expected}"
            );
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn linear_layers(rows in 1_usize..40, inputs in 1_usize..40, outputs in 1_usize..80, seed: u64) {
        let matrices = [recorded([rows, inputs], seed), recorded([inputs, outputs], seed ^ 1)];
        let found = outcome(&matrices, &[], |[x, w], []| linear(&x, &w, None).unwrap());
        let expected = outcome(&matrices, &[], |[x, w], []| module::linear(x, w, None));
        compare(&found, &expected)?;
        let bias = [recorded([outputs], seed ^ 2)];
        let found = outcome(&matrices, &bias, |[x, w], [b]| linear(&x, &w, Some(&b)).unwrap());
        let expected = outcome(&matrices, &bias, |[x, w], [b]| module::linear(x, w, Some(b)));
        compare(&found, &expected)?;
    }

    #[test]
    fn pointwise_operations(rows in 1_usize..9, hidden in 1_usize..70, seed: u64) {
        let (x, weight) = ([recorded([rows, hidden], seed)], [recorded([hidden], seed ^ 1)]);
        let found = outcome(&x, &weight, |[x], [w]| rms_norm(&x, &w, 1e-3).unwrap());
        let expected = outcome(&x, &weight, |[x], [w]| layers::rms_norm(x, w, 1e-3));
        compare(&found, &expected)?;
        let bias = [weight[0].clone(), recorded([hidden], seed ^ 2)];
        let found = outcome(&x, &bias, |[x], [w, b]| LayerNorm::new(w, b, 1e-3).forward(x));
        let expected = outcome(&x, &bias, |[x], [w, b]| {
            let centred = x.clone() - x.mean_dim(1);
            let variance = centred.clone().square().mean_dim(1);
            centred / (variance + 1e-3).sqrt() * w.unsqueeze() + b.unsqueeze()
        });
        compare(&found, &expected)?;
        let gated = [recorded([rows, hidden], seed), recorded([rows, hidden], seed ^ 1)];
        let found = outcome(&gated, &[], |[gate, up], []| silu_mul(&gate, &up).unwrap());
        let expected = outcome(&gated, &[], |[gate, up], []| activation::silu(gate) * up);
        compare(&found, &expected)?;
    }

    #[test]
    fn attention(
        lens in prop::collection::vec(1_usize..70, 1..4),
        kv_heads in 1_usize..3,
        groups in 1_usize..4,
        half in 1_usize..10,
        skipped in 0_usize..40,
        sees_all: bool,
        seed: u64,
    ) {
        let config = DecoderConfig {
            heads: kv_heads * groups,
            kv_heads,
            head_dim: 2 * half,
            ..CONFIG
        };
        let mut samples = Vec::new();
        let (mut rows, mut n_queries) = (0, 0);
        for len in lens {
            let queries = n_queries..n_queries + len.saturating_sub(skipped);
            n_queries = queries.end;
            let first = if sees_all { len } else { skipped + 1 };
            samples.push(CausalSample { queries, rows: rows..rows + len, first });
            rows += len;
        }
        prop_assume!(n_queries > 0);
        let matrix = |rows: usize, heads: usize, seed| recorded([rows, heads * config.head_dim], seed);
        let inputs = [
            matrix(n_queries, config.heads, seed),
            matrix(rows, kv_heads, seed ^ 1),
            matrix(rows, kv_heads, seed ^ 2),
            matrix(n_queries, kv_heads, seed ^ 3),
            matrix(n_queries, kv_heads, seed ^ 4),
            matrix(n_queries, kv_heads, seed ^ 5),
            matrix(n_queries, kv_heads, seed ^ 6),
        ];
        for n_own in 0..3 {
            let of = |[queries, keys, values, own @ ..]: [Tensor<2>; 7]| {
                let projected = |keys: &Tensor<2>, values: &Tensor<2>| Projected {
                    queries: queries.clone(),
                    keys: keys.clone(),
                    values: values.clone(),
                };
                let own: Vec<Projected> = own
                    .chunks(2)
                    .take(n_own)
                    .map(|own| projected(&own[0], &own[1]))
                    .collect();
                (queries.clone(), projected(&keys, &values), own)
            };
            // Inputs that are unused with this number of own keys still get a gradient.
            let all = |inputs: &[Tensor<2>; 7]| {
                inputs.iter().map(|input| input.clone().sum() * 0.0).reduce(|a, b| a + b).unwrap()
            };
            let found = outcome(&inputs, &[], |inputs, []| {
                let zero = all(&inputs);
                let (queries, rows, own) = of(inputs);
                attend(&queries, &rows, &own, &samples, &config).unwrap() + zero.unsqueeze()
            });
            let expected = outcome(&inputs, &[], |inputs, []| {
                let zero = all(&inputs);
                let (queries, rows, own) = of(inputs);
                attend_samples(&queries, &rows, &own, &samples, &config) + zero.unsqueeze()
            });
            compare(&found, &expected)?;
        }
    }

    #[test]
    fn rotation(rows in 1_usize..20, heads in 1_usize..4, half in 1_usize..10, seed: u64) {
        let config = DecoderConfig { head_dim: 2 * half, ..CONFIG };
        let positions: Vec<usize> = (0..rows).map(|row| row * 3).collect();
        let rotary = Rotary::new(&positions, &config, &Device::flex().autodiff());
        let x = [recorded([rows, heads * config.head_dim], seed)];
        let found = outcome(&x, &[], |[x], []| {
            rotate(&x, rotary.angles(), config.head_dim).unwrap()
        });
        let expected = outcome(&x, &[], |[x], []| rotary.rotate_on_device(x));
        compare(&found, &expected)?;
    }
}

#[test]
fn other_tensors_are_left_to_burn() {
    let plain = recorded::<2>([2, 2], 1).inner();
    assert!(linear(&plain, &plain, None).is_none());
    assert!(silu_mul(&plain, &plain).is_none());
}
