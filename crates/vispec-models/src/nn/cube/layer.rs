//! One layer of a [`CubeDecoder`](super::CubeDecoder).

use burn::tensor::{Tensor, s};
use burn_cubecl::tensor::CubeTensor;

use super::Stream;
use super::attention::{Seen, attend};
use super::bridge::{empty, ints, own, tensor, unique};
use super::gating::gated;
use super::norm::settle_and_norm;
use super::rotation::{Places, Rotation};
use crate::nn::attention::{DeviceSegment, attend_by_products};
use crate::nn::decoder::{DecoderConfig, DecoderLayer};
use crate::nn::linear::Linear;
use crate::nn::norm::RmsNorm;
use crate::nn::rope::RotaryTable;
use crate::nn::rows::slice_rows;

/// Number of rows of a sequence from which matrix products are faster than the attention kernel,
/// which reads keys and values again for each row. Prompts have that many rows, trees do not.
pub(in crate::nn) const MANY_ROWS: usize = 128;

/// Weights of a layer. Those that are applied to the same rows are joined.
#[derive(Debug, Clone)]
pub(super) struct CubeLayer {
    input_norm: Option<RmsNorm>,
    /// Queries, keys and values, `[(heads + 2 * kv_heads) * head_dim, inputs]`.
    projection: Tensor<2>,
    bias: Option<Tensor<1>>,
    /// Norms of queries and keys, `[2 * head_dim]`.
    head_norms: Option<Tensor<1>>,
    output: Linear,
    post_norm: RmsNorm,
    /// Gate and up projections, `[2 * intermediate, hidden]`.
    gate_up: Tensor<2>,
    down: Linear,
}

/// Stacks the weights of linear layers that are applied to the same rows.
fn joined(layers: &[&Linear]) -> Tensor<2> {
    let weights = layers.iter().map(|layer| {
        let weight = layer.dense_weight();
        weight.expect("quantised weights exist only on the CPU")
    });
    Tensor::cat(weights.collect(), 0)
}

impl CubeLayer {
    /// Joins the weights of a layer. Consumes the layer, so that its weights are not stored twice.
    pub(super) fn new(layer: DecoderLayer) -> Self {
        let [query, key, value, output] = layer.attention().projections();
        let [gate, up, down] = layer.mlp().projections();
        let biases: Option<Vec<_>> = [query, key, value].iter().map(|part| part.bias()).collect();
        let [of_queries, of_keys] = layer.attention().norms();
        let norms = of_queries.zip(of_keys);
        let norms = norms.map(|(q, k)| Tensor::cat(vec![q.weight(), k.weight()], 0));
        Self {
            input_norm: layer.input_norm().cloned(),
            projection: joined(&[query, key, value]),
            bias: biases.map(|biases| Tensor::cat(biases, 0)),
            head_norms: norms,
            output: output.clone(),
            post_norm: layer.post_norm().clone(),
            gate_up: joined(&[gate, up]),
            down: down.clone(),
        }
    }

    /// Runs layer `idx` of a stack. Its last addition to the stream is left pending.
    ///
    /// # Shapes
    /// `given` `[rows, inputs]`, if attention reads rows other than the stream's.
    pub(super) fn forward(
        &self,
        stream: &mut Stream,
        given: Option<Tensor<2>>,
        (rotary, config): (&RotaryTable, &DecoderConfig),
        idx: usize,
        segments: &mut [DeviceSegment<'_>],
    ) {
        let read = match (&self.input_norm, given) {
            (Some(norm), _) => settle_and_norm(stream, norm),
            (None, Some(given)) => given,
            (None, None) => stream.settle(),
        };
        let projected = read.matmul(self.projection.clone().transpose());
        let attended = self.attend(projected, (rotary, config), idx, segments);
        stream.settle();
        stream.pending = Some(self.output.forward(attended));
        let normed = settle_and_norm(stream, &self.post_norm);
        let both = normed.matmul(self.gate_up.clone().transpose());
        stream.pending = Some(self.down.forward(gated(both)));
    }

    /// Appends keys and values of all sequences to their caches and attends according to the plans.
    /// Rows after those of all sequences are padding, and their results are unspecified.
    ///
    /// # Shapes
    /// `projected` `[rows, (heads + 2 * kv_heads) * head_dim]`, the result
    /// `[rows, heads * head_dim]`.
    fn attend(
        &self,
        projected: Tensor<2>,
        (rotary, config): (&RotaryTable, &DecoderConfig),
        idx: usize,
        segments: &mut [DeviceSegment<'_>],
    ) -> Tensor<2> {
        let [n_rows, _] = projected.dims();
        let projected = own(projected);
        let turns = own(rotary.turns());
        let rotation = Rotation {
            joined: &projected,
            bias: self.bias.as_ref(),
            norms: self.head_norms.as_ref(),
            turns: &turns,
        };
        let queries = empty(&projected, [n_rows, config.heads * config.head_dim]);
        let mut attended = empty(&projected, [n_rows, config.heads * config.head_dim]);
        let mut first = 0;
        for segment in segments {
            let rows = segment.plan.n_rows();
            let (keys, values) = segment
                .cache
                .layer(idx)
                .take_with_room(segment.len, segment.len + rows);
            let (keys, values) = (unique(keys), unique(values));
            let places = Places {
                first,
                rows,
                keys: &keys,
                values: &values,
                place: segment.len,
            };
            rotation.run(&queries, &places, config);
            attended = attend_segment(
                segment,
                &queries,
                [&keys, &values],
                (first, attended),
                config,
            );
            segment
                .cache
                .layer(idx)
                .put_back(tensor(keys), tensor(values));
            first += rows;
        }
        tensor(attended)
    }
}

/// Computes the attention of the rows of a sequence, which start at row `first` of `queries` and of
/// `out`.
fn attend_segment(
    segment: &DeviceSegment<'_>,
    queries: &CubeTensor,
    [keys, values]: [&CubeTensor; 2],
    (first, out): (usize, CubeTensor),
    config: &DecoderConfig,
) -> CubeTensor {
    let rows = segment.plan.n_rows();
    if rows >= MANY_ROWS {
        let total = segment.len + rows;
        let view = |all: &CubeTensor| tensor::<4>(all.clone()).slice(s![.., .., 0..total, ..]);
        let of_sequence = slice_rows(&tensor(queries.clone()), first..first + rows);
        let attended = attend_by_products(of_sequence, view(keys), view(values), segment.plan);
        let is_all = rows == queries.meta.shape()[0];
        return own(if is_all {
            attended
        } else {
            tensor::<2>(out).slice_assign(s![first..first + rows, ..], attended)
        });
    }
    let table = ints(segment.seen());
    let seen = Seen {
        table: &table,
        first,
        rows,
    };
    attend(queries, [keys, values], &seen, &out, config);
    out
}
