//! Attention of the rows of a pass over the cache rows that are visible to each, without a mask and
//! without repeating keys and values for the heads that share them.
//!
//! A cube handles one head of a row. Its units score one key each; then each unit sums one entry of
//! the values of these keys. The softmax is computed online.

#![expect(
    clippy::too_many_lines,
    reason = "the steps of the kernel share its registers and its shared memory"
)]

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

use super::bridge::{argument, element, number};
use crate::nn::attention::scale;
use crate::nn::decoder::DecoderConfig;

/// Target number of units of a cube. Heads larger than this have one unit per entry.
const UNITS: usize = 128;
/// Largest supported head size. A cube has at least one unit per entry.
const LARGEST_HEAD: usize = 256;
/// Lower than any score, but finite, so that its difference from itself is 0.
const LEAST: f32 = -1e30;

/// Returns whether there is a kernel for heads of this size.
pub(super) fn supports(head_dim: usize) -> bool {
    head_dim.is_multiple_of(2) && (2..=LARGEST_HEAD).contains(&head_dim)
}

/// Sizes for which a kernel is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Sizes {
    head: usize,
    /// Number of values that are summed in parallel for each entry.
    parts: usize,
}

impl Sizes {
    fn new(head: usize) -> Self {
        Self {
            head,
            parts: (UNITS / head).max(1),
        }
    }

    fn units(self) -> usize {
        self.head * self.parts
    }
}

#[cube(launch)]
fn attention_kernel<F: Float>(
    queries: &[F],
    keys: &[F],
    values: &[F],
    seen: &[u32],
    out: &mut [F],
    first: usize,
    rows: usize,
    capacity: usize,
    group: usize,
    scale: f32,
    #[comptime] sizes: Sizes,
    #[define(F)] _element: ElemType,
) {
    let size = comptime!(sizes.head);
    let parts = comptime!(sizes.parts);
    let units = comptime!(sizes.head * sizes.parts);
    let unit = UNIT_POS as usize;
    let (entry, part) = (unit % size, unit / size);
    let row = CUBE_POS_X as usize;
    let head = CUBE_POS_Y as usize;
    let n_heads = CUBE_COUNT_Y as usize;
    let at = ((first + row) * n_heads + head) * size;
    let cache = head / group * capacity;

    // The numbers of leading rows, then the offsets of the lists, then the lists.
    let leading = seen[row] as usize;
    let from = seen[rows + row] as usize;
    let to = seen[rows + row + 1] as usize;
    let lists = 2 * rows + 1;
    let total = leading + (to - from);

    let mut query = Shared::<[f32]>::new_slice(size);
    let mut scores = Shared::<[f32]>::new_slice(units);
    let mut places = Shared::<[u32]>::new_slice(units);
    if unit < size {
        query[unit] = f32::cast_from(queries[at + unit]) * scale;
    }
    sync_cube();

    let mut greatest = f32::new(LEAST);
    let mut weight = 0.0f32;
    let mut sum = 0.0f32;
    let mut start = 0usize;
    while start < total {
        let seen_row = start + unit;
        let mut score = f32::new(LEAST);
        let mut place = 0usize;
        if seen_row < total {
            place = if seen_row < leading {
                seen_row
            } else {
                seen[lists + from + seen_row - leading] as usize
            };
            let key = (cache + place) * size;
            score = 0.0f32;
            for i in 0..size {
                score += query[i] * f32::cast_from(keys[key + i]);
            }
        }
        scores[unit] = score;
        places[unit] = place as u32;
        sync_cube();
        let mut now = greatest;
        for i in 0..units {
            now = now.max(scores[i]);
        }
        sync_cube();
        if seen_row < total {
            scores[unit] = (score - now).exp();
        } else {
            scores[unit] = 0.0f32;
        }
        sync_cube();
        let kept = (greatest - now).exp();
        greatest = now;
        weight *= kept;
        sum *= kept;
        let mut end = total - start;
        if end > units {
            end = units;
        }
        let mut i = part;
        while i < end {
            let value = (cache + places[i] as usize) * size + entry;
            weight += scores[i];
            sum += scores[i] * f32::cast_from(values[value]);
            i += parts;
        }
        sync_cube();
        start += units;
    }

    if comptime!(sizes.parts > 1) {
        let mut weights = Shared::<[f32]>::new_slice(units);
        scores[unit] = sum;
        weights[unit] = weight;
        sync_cube();
        if part == 0 {
            for i in 1..parts {
                sum += scores[i * size + entry];
                weight += weights[i * size + entry];
            }
        }
    }
    if part == 0 {
        out[at + entry] = F::cast_from(sum / weight);
    }
}

/// Cache rows that are visible to the rows of a sequence. The table contains the number of leading
/// cache rows for each row, then `rows + 1` offsets of lists, then the concatenated lists.
#[derive(Debug)]
pub(super) struct Seen<'a> {
    pub(super) table: &'a CubeTensor,
    /// First row in the pass, and number of rows.
    pub(super) first: usize,
    pub(super) rows: usize,
}

/// Computes the attention of the rows of one sequence.
///
/// # Shapes
/// `queries` and `out` `[rows of the pass, heads * head_dim]`, of which only the rows of the
/// sequence are read and written; `keys` and `values` `[1, kv_heads, capacity, head_dim]`.
pub(super) fn attend(
    queries: &CubeTensor,
    [keys, values]: [&CubeTensor; 2],
    seen: &Seen<'_>,
    out: &CubeTensor,
    config: &DecoderConfig,
) {
    let sizes = Sizes::new(config.head_dim);
    attention_kernel::launch(
        &queries.client,
        CubeCount::Static(number(seen.rows), number(config.heads), 1),
        CubeDim::new_1d(number(sizes.units())),
        argument(queries),
        argument(keys),
        argument(values),
        argument(seen.table),
        argument(out),
        seen.first,
        seen.rows,
        keys.meta.shape()[2],
        config.heads / config.kv_heads,
        scale(config.head_dim),
        sizes,
        element(queries.dtype),
    );
}
