//! Self-attention of vision towers, within windows or frames.

use burn::module::Module;
use burn::tensor::{Tensor, s};

use super::attention::{QUERY_BLOCK, attend_all};
use super::linear::{Bias, Linear};
use super::rope::RotaryTable;
use crate::weights::Weights;

/// Maximum number of attention scores in memory at a time; 2^25 scores take 128 MB in f32.
const MAX_SCORES: usize = 1 << 25;

/// Consecutive groups of `len` patches each. Every patch attends only to its own group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PatchGroups {
    pub(crate) start: usize,
    pub(crate) groups: usize,
    pub(crate) len: usize,
}

impl PatchGroups {
    /// Returns the index after the last patch.
    pub(crate) fn end(&self) -> usize {
        self.start + self.groups * self.len
    }
}

/// Self-attention within groups of consecutive patches.
#[derive(Module, Debug)]
pub(crate) struct VisionAttention {
    qkv: Linear,
    proj: Linear,
}

impl VisionAttention {
    /// Takes `qkv` and `proj` from `weights`.
    pub(crate) fn load(weights: &Weights<'_>, hidden: usize) -> Self {
        Self {
            qkv: Linear::load(&weights.at("qkv"), hidden, 3 * hidden, Bias::Yes),
            proj: Linear::load(&weights.at("proj"), hidden, hidden, Bias::Yes),
        }
    }

    /// Applies attention. `runs` must cover all patches in order.
    ///
    /// # Shapes
    /// `x` and the result `[patches, hidden]`.
    pub(crate) fn forward(
        &self,
        x: Tensor<2>,
        rotary: &RotaryTable,
        runs: &[PatchGroups],
    ) -> Tensor<2> {
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

/// Splits the rows of a run, `[patches, heads * head_dim]`, into
/// `[1, groups * heads, len, head_dim]`.
fn split_heads(rows: &Tensor<2>, run: &PatchGroups, head_dim: usize) -> Tensor<4> {
    let [_, hidden] = rows.dims();
    let heads = hidden / head_dim;
    rows.clone()
        .slice(s![run.start..run.end(), ..])
        .reshape([run.groups, run.len, heads, head_dim])
        .swap_dims(1, 2) // [groups, heads, len, head_dim]
        .reshape([1, run.groups * heads, run.len, head_dim])
}

/// Reverses [`split_heads`] and returns the rows of the run, `[groups * len, heads * head_dim]`.
fn join_heads(heads: Tensor<4>, run: &PatchGroups, hidden: usize) -> Tensor<2> {
    let [_, n_heads, len, head_dim] = heads.dims();
    heads
        .reshape([run.groups, n_heads / run.groups, len, head_dim])
        .swap_dims(1, 2) // [groups, len, heads, head_dim]
        .reshape([run.groups * len, hidden])
}

/// Like [`attend_all`], but processes the heads in groups, so that at most `max_scores` scores are
/// in memory. A group has at least one head. The limit matters because a large image has tens of
/// thousands of patches.
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
