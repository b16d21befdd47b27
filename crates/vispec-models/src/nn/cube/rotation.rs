//! Processes joined queries, keys and values in one launch: adds the bias, normalises heads,
//! rotates, and writes keys and values to the cache.

use burn::tensor::Tensor;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

use super::bridge::{argument, element, number, own};
use super::grid::{cubes_of_rows, row_of_cube};
use crate::nn::decoder::DecoderConfig;

/// Heads of a row and the operations on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Heads {
    queries: usize,
    kv: usize,
    /// Half the size of a head: a unit rotates one pair.
    half: usize,
    bias: Part,
    norms: Part,
}

/// Whether an optional part is present.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Part {
    There,
    Absent,
}

impl Part {
    fn of<T>(part: Option<&T>) -> Self {
        match part {
            Some(_) => Self::There,
            None => Self::Absent,
        }
    }
}

#[cube(launch)]
fn rotation_kernel<F: Float>(
    joined: &[F],
    bias: &[F],
    norms: &[F],
    turns: &[f32],
    queries: &mut [F],
    keys: &mut [F],
    values: &mut [F],
    first: usize,
    rows: usize,
    place: usize,
    capacity: usize,
    eps: f32,
    #[comptime] heads: Heads,
    #[define(F)] _element: ElemType,
) {
    let half = comptime!(heads.half);
    let size = comptime!(2 * heads.half);
    let n_rotated = comptime!(heads.queries + heads.kv);
    let n_slots = comptime!(heads.queries + 2 * heads.kv);
    let unit = UNIT_POS as usize;
    let of_sequence = row_of_cube();
    if of_sequence >= rows {
        terminate!();
    }
    let row = first + of_sequence;
    let slot = CUBE_POS_Y as usize;
    let start = (row * n_slots + slot) * size;
    let mut a = f32::cast_from(joined[start + unit]);
    let mut b = f32::cast_from(joined[start + half + unit]);
    if comptime!(heads.bias == Part::There) {
        a += f32::cast_from(bias[slot * size + unit]);
        b += f32::cast_from(bias[slot * size + half + unit]);
    }
    if comptime!(heads.norms == Part::There) {
        let mut squares = Shared::<[f32]>::new_slice(half);
        squares[unit] = a * a + b * b;
        sync_cube();
        let mut sum = 0.0f32;
        for i in 0..half {
            sum += squares[i];
        }
        if slot < n_rotated {
            let mut norm = unit;
            if slot >= comptime!(heads.queries) {
                norm += size;
            }
            let scale = 1.0f32 / (sum / f32::cast_from(size) + eps).sqrt();
            a = f32::cast_from(F::cast_from(a * scale)) * f32::cast_from(norms[norm]);
            b = f32::cast_from(F::cast_from(b * scale)) * f32::cast_from(norms[norm + half]);
        }
    }
    if slot < n_rotated {
        let cos = turns[row * size + unit];
        let sin = turns[row * size + half + unit];
        let turned = a * cos - b * sin;
        b = b * cos + a * sin;
        a = turned;
    }
    let to = place + of_sequence;
    if slot < comptime!(heads.queries) {
        let at = (row * comptime!(heads.queries) + slot) * size + unit;
        queries[at] = F::cast_from(a);
        queries[at + half] = F::cast_from(b);
    } else if slot < n_rotated {
        let at = ((slot - comptime!(heads.queries)) * capacity + to) * size + unit;
        keys[at] = F::cast_from(a);
        keys[at + half] = F::cast_from(b);
    } else {
        let at = ((slot - n_rotated) * capacity + to) * size + unit;
        values[at] = F::cast_from(a);
        values[at + half] = F::cast_from(b);
    }
}

/// Joined queries, keys and values, and the parameters that are applied to them.
#[derive(Debug)]
pub(super) struct Rotation<'a> {
    /// Queries, keys and values, `[rows, (heads + 2 * kv_heads) * head_dim]`.
    pub(super) joined: &'a CubeTensor,
    /// Bias of the same width.
    pub(super) bias: Option<&'a Tensor<1>>,
    /// Weights of the norms of queries and of keys, `[2 * head_dim]`.
    pub(super) norms: Option<&'a Tensor<1>>,
    /// Cosines and sines, `[rows, head_dim]`.
    pub(super) turns: &'a CubeTensor,
}

/// The rows of a sequence in a pass, and their destination in the cache.
#[derive(Debug)]
pub(super) struct Places<'a> {
    /// First row in the pass, and number of rows.
    pub(super) first: usize,
    pub(super) rows: usize,
    /// Cache `[1, kv_heads, capacity, head_dim]`, and the cache row of the first row.
    pub(super) keys: &'a CubeTensor,
    pub(super) values: &'a CubeTensor,
    pub(super) place: usize,
}

impl Rotation<'_> {
    /// Writes the queries of the rows to `queries` `[rows of the pass, heads * head_dim]`, and keys
    /// and values to the cache.
    pub(super) fn run(&self, queries: &CubeTensor, places: &Places<'_>, config: &DecoderConfig) {
        let heads = Heads {
            queries: config.heads,
            kv: config.kv_heads,
            half: config.head_dim / 2,
            bias: Part::of(self.bias),
            norms: Part::of(self.norms),
        };
        // A kernel needs all of its arguments; those that it does not read may be any buffer.
        let part = |part: Option<&Tensor<1>>| match part {
            Some(part) => own(part.clone()).into_buffer_arg(),
            None => argument(self.joined),
        };
        let slots = heads.queries + 2 * heads.kv;
        #[expect(clippy::cast_possible_truncation, reason = "computed in f32")]
        let eps = config.rms_eps as f32;
        rotation_kernel::launch(
            &self.joined.client,
            cubes_of_rows(places.rows, slots),
            CubeDim::new_1d(number(heads.half)),
            argument(self.joined),
            part(self.bias),
            part(self.norms),
            argument(self.turns),
            argument(queries),
            argument(places.keys),
            argument(places.values),
            places.first,
            places.rows,
            places.place,
            places.keys.meta.shape()[2],
            eps,
            heads,
            element(self.joined.dtype),
        );
    }
}
