//! One block of the vision tower: attention within groups of patches, gated feed-forward block.

use burn::module::Module;
use burn::tensor::{Tensor, s};

use super::vision::NORM_EPS;
use super::vision_config::QwenVisionConfig;
use super::window::Run;
use crate::nn::{Bias, GatedMlp, Linear, RmsNorm, RotaryTable, attend_all};
use crate::weights::Weights;

/// Attention scores that are in memory at a time; 2^25 take 128 MB in f32.
const MAX_SCORES: usize = 1 << 25;

/// Rows of queries that [`attend_all`] scores at a time.
const QUERY_BLOCK: usize = 512;

/// A pre-norm block.
#[derive(Module, Debug)]
pub(super) struct VisionBlock {
    norm1: RmsNorm,
    attn: VisionAttention,
    norm2: RmsNorm,
    mlp: GatedMlp,
}

impl VisionBlock {
    pub(super) fn load(weights: &Weights<'_>, config: &QwenVisionConfig) -> Self {
        let norm = |name: &str| RmsNorm::load(&weights.at(name), config.hidden, NORM_EPS);
        Self {
            norm1: norm("norm1"),
            attn: VisionAttention::load(&weights.at("attn"), config),
            norm2: norm("norm2"),
            mlp: GatedMlp::load(
                &weights.at("mlp"),
                config.hidden,
                config.intermediate,
                Bias::Yes,
            ),
        }
    }

    /// `runs` cover all patches, in order.
    ///
    /// # Shapes
    /// `x` and the result `[patches, hidden]`.
    pub(super) fn forward(&self, x: Tensor<2>, rotary: &RotaryTable, runs: &[Run]) -> Tensor<2> {
        let x = x.clone() + self.attn.forward(self.norm1.forward(x), rotary, runs);
        let normed = self.norm2.forward(x.clone());
        x + self.mlp.forward(normed)
    }
}

/// Self-attention within groups of consecutive patches.
#[derive(Module, Debug)]
struct VisionAttention {
    qkv: Linear,
    proj: Linear,
}

impl VisionAttention {
    fn load(weights: &Weights<'_>, config: &QwenVisionConfig) -> Self {
        let hidden = config.hidden;
        Self {
            qkv: Linear::load(&weights.at("qkv"), hidden, 3 * hidden, Bias::Yes),
            proj: Linear::load(&weights.at("proj"), hidden, hidden, Bias::Yes),
        }
    }

    fn forward(&self, x: Tensor<2>, rotary: &RotaryTable, runs: &[Run]) -> Tensor<2> {
        let [_, hidden] = x.dims();
        let head_dim = rotary.head_dim();
        let qkv = self.qkv.forward(x);
        let part = |idx: usize| qkv.clone().slice(s![.., idx * hidden..(idx + 1) * hidden]);
        let (query, keys, values) = (rotary.rotate(part(0)), rotary.rotate(part(1)), part(2));
        let attended = runs
            .iter()
            .map(|run| {
                let heads = |rows: &Tensor<2>| split_heads(rows, run, head_dim);
                let attended =
                    attend_bounded(heads(&query), heads(&keys), heads(&values), MAX_SCORES);
                join_heads(attended, run, hidden)
            })
            .collect();
        self.proj.forward(Tensor::cat(attended, 0))
    }
}

/// Rows of a run, `[patches, heads * head_dim]`, to `[1, groups * heads, len, head_dim]`.
fn split_heads(rows: &Tensor<2>, run: &Run, head_dim: usize) -> Tensor<4> {
    let [_, hidden] = rows.dims();
    let heads = hidden / head_dim;
    rows.clone()
        .slice(s![run.start..run.end(), ..])
        .reshape([run.groups, run.len, heads, head_dim])
        .swap_dims(1, 2) // [groups, heads, len, head_dim]
        .reshape([1, run.groups * heads, run.len, head_dim])
}

/// The reverse of [`split_heads`]; gives the rows of the run, `[groups * len, heads * head_dim]`.
fn join_heads(heads: Tensor<4>, run: &Run, hidden: usize) -> Tensor<2> {
    let [_, n_heads, len, head_dim] = heads.dims();
    heads
        .reshape([run.groups, n_heads / run.groups, len, head_dim])
        .swap_dims(1, 2) // [groups, len, heads, head_dim]
        .reshape([run.groups * len, hidden])
}

/// [`attend_all`] on so many heads at a time that the scores are at most `max_scores`, or one head
/// at a time: a large image has tens of thousands of patches.
fn attend_bounded(
    query: Tensor<4>,
    keys: Tensor<4>,
    values: Tensor<4>,
    max_scores: usize,
) -> Tensor<4> {
    let [_, heads, len, _] = query.dims();
    let at_once = (max_scores / (len * len.min(QUERY_BLOCK)).max(1)).max(1);
    if at_once >= heads {
        return attend_all(query, keys, values);
    }
    let attended = (0..heads).step_by(at_once).map(|start| {
        let some = |t: &Tensor<4>| {
            t.clone()
                .slice(s![.., start..heads.min(start + at_once), .., ..])
        };
        attend_all(some(&query), some(&keys), some(&values))
    });
    Tensor::cat(attended.collect(), 1)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Distribution;

    use super::*;
    use crate::qwen2_5_vl::golden::device;

    #[test]
    fn a_bound_on_memory_does_not_change_the_result() {
        let random =
            || Tensor::<4>::random([1, 5, 7, 4], Distribution::Normal(0.0, 1.0), &device());
        let (query, keys, values) = (random(), random(), random());
        let bounded = |max_scores: usize| {
            attend_bounded(query.clone(), keys.clone(), values.clone(), max_scores).into_data()
        };
        let expected = bounded(MAX_SCORES);
        for max_scores in [0, 50, 100, 150] {
            let tolerance = burn::tensor::Tolerance::<f32>::default();
            bounded(max_scores).assert_approx_eq(&expected, tolerance);
        }
    }
}
