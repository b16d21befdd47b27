//! Training kernels are correct within rounding, and bit-identical on any number of threads.

mod common;

use common::{assert_close, bits, pool, values};
use proptest::prelude::*;
use vispec_kernels::{
    Attended, AttendedGradient, CausalAttention, CausalGradients, CausalSample, Isa, Kernels,
    Matrix, OwnGradients, OwnKeys,
};

fn kernels() -> Vec<Kernels> {
    Isa::available().filter_map(Kernels::new).collect()
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}

/// Returns a `[rows, columns]` matrix, which may be stored transposed.
fn matrix(values: &[f32], [rows, columns]: [usize; 2], transposed: bool) -> Matrix<'_> {
    if transposed {
        Matrix::new(values, columns, rows).transposed()
    } else {
        Matrix::new(values, rows, columns)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn products_agree(
        rows in 0_usize..70,
        inner in prop_oneof![4 => 0_usize..50, 1 => 1000_usize..1100],
        columns in 0_usize..150,
        turned: [bool; 2],
        seed: u64,
    ) {
        let (a, b) = (values(rows * inner, seed), values(inner * columns, seed ^ 1));
        let start = values(rows * columns, seed ^ 2);
        let mut expected = Vec::new();
        for row in 0..rows {
            for column in 0..columns {
                let mut sum = f64::from(start[row * columns + column]);
                let mut size = sum.abs();
                for at in 0..inner {
                    let a = a[if turned[0] { at * rows + row } else { row * inner + at }];
                    let b = b[if turned[1] { column * inner + at } else { at * columns + column }];
                    sum += f64::from(a) * f64::from(b);
                    size += (f64::from(a) * f64::from(b)).abs();
                }
                expected.push([sum, size]);
            }
        }
        let (a, b) = (matrix(&a, [rows, inner], turned[0]), matrix(&b, [inner, columns], turned[1]));
        for kernels in kernels() {
            let mut out = start.clone();
            kernels.add_product(a, b, &mut out);
            assert_close(&out, &expected, 4e-6);
        }
    }

    #[test]
    fn causal_attention_agrees(
        lens in prop::collection::vec(0_usize..75, 1..4),
        kv_heads in 1_usize..3,
        group in 1_usize..4,
        head_dim in 1_usize..36,
        n_own in 0_usize..4,
        skipped in 0_usize..60,
        sees_all: bool,
        seed: u64,
    ) {
        let mut case = Case::new(&lens, [kv_heads, group, head_dim, n_own], skipped, seed);
        if sees_all {
            for sample in &mut case.samples {
                sample.first = sample.rows.len();
            }
        }
        let expected = case.reference();
        for kernels in kernels() {
            for (found, expected) in case.run(kernels).iter().zip(&expected) {
                assert_close(found, expected, 2e-5);
            }
        }
    }

    #[test]
    fn rms_norm_backward_agrees(rows in 0_usize..5, hidden in 1_usize..90, seed: u64) {
        let x = values(rows * hidden, seed);
        let (weight, gradient) = (values(hidden, seed ^ 1), values(rows * hidden, seed ^ 2));
        let mut of_x = Vec::new();
        let mut of_weight = vec![[0.0, 1.0]; hidden];
        for (x, gradient) in x.chunks(hidden).zip(gradient.chunks(hidden)) {
            let (x, gradient, weight) = (wide(x), wide(gradient), wide(&weight));
            let mean = x.iter().map(|x| x * x).sum::<f64>() / hidden as f64;
            let scale = 1.0 / (mean + 1e-3).sqrt();
            let inner: f64 = (0..hidden).map(|i| gradient[i] * weight[i] * x[i]).sum();
            for i in 0..hidden {
                let other = x[i] * inner * scale.powi(3) / hidden as f64;
                of_x.push([gradient[i] * weight[i] * scale - other, scale + scale.powi(3)]);
                of_weight[i][0] += gradient[i] * x[i] * scale;
                of_weight[i][1] += scale;
            }
        }
        for kernels in kernels() {
            let (mut x_gradient, mut weight_gradient) = (vec![f32::NAN; x.len()], vec![f32::NAN; hidden]);
            let to = [&mut x_gradient[..], &mut weight_gradient[..]];
            kernels.rms_norm_backward(&x, &weight, 1e-3, &gradient, to);
            assert_close(&x_gradient, &of_x, 1e-6);
            assert_close(&weight_gradient, &of_weight, 1e-6);
        }
    }

    #[test]
    fn silu_mul_backward_agrees(len in 0_usize..100, width in 1_f32..40.0, seed: u64) {
        let gate: Vec<f32> = values(len, seed).into_iter().map(|gate| gate * width).collect();
        let (up, gradient) = (values(len, seed ^ 1), values(len, seed ^ 2));
        let (mut of_gate, mut of_up) = (Vec::new(), Vec::new());
        for ((gate, up), gradient) in wide(&gate).iter().zip(wide(&up)).zip(wide(&gradient)) {
            let sigmoid = 1.0 / (1.0 + (-gate).exp());
            let slope = sigmoid + gate * sigmoid * (1.0 - sigmoid);
            of_gate.push([gradient * up * slope, (gradient * up).abs() * (1.0 + gate.abs())]);
            of_up.push([gradient * gate * sigmoid, (gradient * gate).abs()]);
        }
        for kernels in kernels() {
            let (mut gate_gradient, mut up_gradient) = (vec![f32::NAN; len], vec![f32::NAN; len]);
            let to = [&mut gate_gradient[..], &mut up_gradient[..]];
            kernels.silu_mul_backward(&gate, &up, &gradient, to);
            assert_close(&gate_gradient, &of_gate, 1e-6);
            assert_close(&up_gradient, &of_up, 1e-6);
        }
    }
}

/// Attention with a gradient of its output.
#[derive(Debug)]
struct Case {
    samples: Vec<CausalSample>,
    queries: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    q: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    own: Vec<[Vec<f32>; 2]>,
    gradient: Vec<f32>,
}

impl Case {
    /// Creates samples of these lengths, with one row outside of all samples before the last sample
    /// and after it. The first `skipped` rows of each sample have no query.
    fn new(
        lens: &[usize],
        [kv_heads, group, head_dim, n_own]: [usize; 4],
        skipped: usize,
        seed: u64,
    ) -> Self {
        let (mut rows, mut queries) = (0, 0);
        let mut samples = Vec::new();
        for (index, len) in lens.iter().enumerate() {
            let apart = usize::from(index + 1 == lens.len());
            rows += apart;
            queries += apart;
            let n_queries = len.saturating_sub(skipped);
            samples.push(CausalSample {
                queries: queries..queries + n_queries,
                rows: rows..rows + len,
                first: skipped + 1,
            });
            rows += len;
            queries += n_queries;
        }
        rows += 1;
        queries += 1;
        let heads = kv_heads * group;
        let of_queries = |heads: usize, salt| values(queries * heads * head_dim, seed ^ salt);
        Self {
            samples,
            queries,
            heads,
            kv_heads,
            head_dim,
            q: of_queries(heads, 0),
            keys: values(rows * kv_heads * head_dim, seed ^ 1),
            values: values(rows * kv_heads * head_dim, seed ^ 2),
            own: (0..n_own as u64)
                .map(|own| [4, 5].map(|salt| of_queries(kv_heads, salt + 2 * own)))
                .collect(),
            gradient: of_queries(heads, 3),
        }
    }

    fn own(&self) -> Vec<OwnKeys<'_>> {
        let own = self.own.iter();
        own.map(|[keys, values]| OwnKeys { keys, values }).collect()
    }

    fn call<'a>(&'a self, own: &'a [OwnKeys<'a>]) -> CausalAttention<'a> {
        CausalAttention {
            q: &self.q,
            keys: &self.keys,
            values: &self.values,
            samples: &self.samples,
            own,
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            scale: 0.7,
        }
    }

    /// Returns the output, and the gradients of queries, keys and values, and of own keys and
    /// values.
    fn run(&self, kernels: Kernels) -> Vec<Vec<f32>> {
        let own = self.own();
        let call = self.call(&own);
        let same = |of: &[f32]| vec![f32::NAN; of.len()];
        let (mut out, mut log_sums) = (same(&self.q), vec![0.0; self.queries * self.heads]);
        kernels.causal_attention(
            &call,
            Attended {
                out: &mut out,
                log_sums: &mut log_sums,
            },
        );
        let (mut q, mut keys, mut values) = (same(&self.q), same(&self.keys), same(&self.values));
        let attended = AttendedGradient {
            out: &out,
            log_sums: &log_sums,
            gradient: &self.gradient,
        };
        let mut own: Vec<[Vec<f32>; 2]> = self.own.clone();
        let mut of_own: Vec<OwnGradients<'_>> = own
            .iter_mut()
            .map(|[keys, values]| OwnGradients { keys, values })
            .collect();
        let gradients = CausalGradients {
            q: &mut q,
            keys: &mut keys,
            values: &mut values,
            own: &mut of_own,
        };
        kernels.causal_attention_backward(&call, attended, gradients);
        let own = own.into_iter().flatten();
        [out, q, keys, values].into_iter().chain(own).collect()
    }

    /// Returns the same in double precision, each with the magnitude that errors are relative to.
    fn reference(&self) -> Vec<Vec<[f64; 2]>> {
        let dim = self.head_dim;
        let row = |of: &[f32], row: usize, head: usize, heads: usize| {
            wide(&of[(row * heads + head) * dim..][..dim])
        };
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let parts = [&self.q, &self.q, &self.keys, &self.keys];
        let parts = parts.into_iter().chain(self.own.iter().flatten());
        let mut all: Vec<Vec<[f64; 2]>> = parts
            .map(|part| vec![[0.0, 1.0 + dim as f64]; part.len()])
            .collect();
        let heads = self.heads;
        for (sample, head) in self
            .samples
            .iter()
            .flat_map(|sample| (0..heads).map(move |head| (sample, head)))
        {
            for (index, i) in sample.queries.clone().enumerate() {
                let kv = head / (heads / self.kv_heads);
                let (q, gradient) = (
                    row(&self.q, i, head, heads),
                    row(&self.gradient, i, head, heads),
                );
                // The places of keys and values in `parts`, and their rows.
                let seen = (sample.first + index).min(sample.rows.len());
                let seen = sample.rows.start..sample.rows.start + seen;
                let own = (0..self.own.len()).map(|own| (4 + 2 * own, i));
                let seen: Vec<(usize, usize)> = seen.map(|j| (2, j)).chain(own).collect();
                let keys = |&(part, j): &(usize, usize)| match part {
                    2 => row(&self.keys, j, kv, self.kv_heads),
                    _ => row(&self.own[(part - 4) / 2][0], j, kv, self.kv_heads),
                };
                let values = |&(part, j): &(usize, usize)| match part {
                    2 => row(&self.values, j, kv, self.kv_heads),
                    _ => row(&self.own[(part - 4) / 2][1], j, kv, self.kv_heads),
                };
                let scores = seen
                    .iter()
                    .map(|at| (f64::from(0.7_f32) * dot(&q, &keys(at))).exp());
                let scores: Vec<f64> = scores.collect();
                let total: f64 = scores.iter().sum();
                let slopes: Vec<f64> = seen.iter().map(|at| dot(&gradient, &values(at))).collect();
                let mean = dot(&scores, &slopes) / total;
                for (at, place) in seen.iter().enumerate() {
                    let p = scores[at] / total;
                    let slope = p * (slopes[at] - mean) * f64::from(0.7_f32);
                    let (key, value) = (keys(place), values(place));
                    let &(part, j) = place;
                    for d in 0..dim {
                        let (query, other) = (
                            (i * heads + head) * dim + d,
                            (j * self.kv_heads + kv) * dim + d,
                        );
                        for (of, place, term) in [
                            (0, query, p * value[d]),
                            (1, query, slope * key[d]),
                            (part, other, slope * q[d]),
                            (part + 1, other, p * gradient[d]),
                        ] {
                            all[of][place][0] += term;
                        }
                    }
                }
            }
        }
        all
    }
}

#[test]
fn threads_change_no_bit() {
    let case = Case::new(&[130, 97], [3, 2, 16, 2], 20, 5);
    let (a, b) = (values(300 * 96, 1), values(96 * 200, 2));
    let product = |kernels: Kernels| {
        let mut out = vec![0.0; 300 * 200];
        let (a, b) = (Matrix::new(&a, 300, 96), Matrix::new(&b, 96, 200));
        kernels.add_product(a, b, &mut out);
        bits(&out)
    };
    for kernels in kernels() {
        let both = || {
            (
                case.run(kernels)
                    .iter()
                    .map(|values| bits(values))
                    .collect::<Vec<_>>(),
                product(kernels),
            )
        };
        let one = pool(1).install(both);
        for threads in [2, 3] {
            assert!(pool(threads).install(both) == one);
        }
    }
}

#[test]
fn sharp_attention_has_no_subnormal_gradients() {
    let mut case = Case::new(&[40, 23], [3, 2, 16, 0], 0, 0);
    // Scores are up to hundreds apart, so most keys have hardly any probability.
    case.q.iter_mut().for_each(|q| *q *= 200.0);
    for kernels in kernels() {
        let [_, q, keys, values] = case.run(kernels).try_into().unwrap();
        for gradients in [q, keys, values] {
            assert!(gradients.iter().any(|gradient| gradient.abs() > 1e-3));
            assert!(!gradients.iter().any(|gradient| gradient.is_subnormal()));
        }
    }
}
