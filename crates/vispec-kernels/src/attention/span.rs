//! The three passes over a span of keys: scores, weights, weighted values.

use std::ops::Range;

use super::heads::{Buffers, Heads, Keys, Running, SCORES};
use crate::vector::{Element, MAX_LANES, TURN, Vector};

/// Tile width, in registers, where the full width does not fit: the number of independent sums.
const FEWER: usize = 4;

impl<E: Element> Heads<'_, E> {
    /// Computes the scores of `keys` for `queries`, each a sum over the head in ascending order.
    ///
    /// # Safety
    /// The CPU must support the instruction set, and the buffers must be large enough.
    #[inline(always)]
    pub(super) unsafe fn score<V: Vector>(
        &self,
        keys: &Keys<E>,
        queries: &Range<usize>,
        buffers: &Buffers,
    ) {
        // SAFETY: upheld by the caller; queries are in range.
        unsafe {
            turn::<E, V>(keys, self.shape.head_dim, buffers.columns);
            let mut query = queries.start;
            while query + 4 <= queries.end {
                self.score_tile::<V, 4, 2>(keys, query, buffers);
                query += 4;
            }
            if query + 2 <= queries.end {
                self.score_tile::<V, 2, 4>(keys, query, buffers);
                query += 2;
            }
            if query < queries.end {
                self.score_tile::<V, 1, 8>(keys, query, buffers);
            }
        }
    }

    /// Computes the scores of all `keys` for `QUERIES` queries, `WIDTH` registers of keys at a
    /// time.
    ///
    /// # Safety
    /// Same as [`Heads::score`].
    #[inline(always)]
    unsafe fn score_tile<V: Vector, const QUERIES: usize, const WIDTH: usize>(
        &self,
        keys: &Keys<E>,
        query: usize,
        buffers: &Buffers,
    ) {
        let registers = keys.len.div_ceil(V::LANES);
        let mut register = 0;
        // SAFETY: upheld by the caller.
        unsafe {
            while register + WIDTH <= registers {
                self.score_block::<V, QUERIES, WIDTH>(keys.first, query, register, buffers);
                register += WIDTH;
            }
            while register + FEWER <= registers {
                self.score_block::<V, QUERIES, FEWER>(keys.first, query, register, buffers);
                register += FEWER;
            }
            while register < registers {
                self.score_block::<V, QUERIES, 1>(keys.first, query, register, buffers);
                register += 1;
            }
        }
    }

    /// Computes the scores of `WIDTH` registers of keys for `QUERIES` queries.
    ///
    /// # Safety
    /// Same as [`Heads::score`].
    #[inline(always)]
    unsafe fn score_block<V: Vector, const QUERIES: usize, const WIDTH: usize>(
        &self,
        first: usize,
        query: usize,
        register: usize,
        buffers: &Buffers,
    ) {
        let head_dim = self.shape.head_dim;
        let column = |index: usize| {
            let key = (register + index) * V::LANES;
            key / MAX_LANES * head_dim * MAX_LANES + key % MAX_LANES
        };
        // SAFETY: upheld by the caller; `at` is the start of a query.
        unsafe {
            let mut scores = [[V::splat(0.0); WIDTH]; QUERIES];
            let mut q = [self.q.as_ptr(); QUERIES];
            for (index, q) in q.iter_mut().enumerate() {
                *q = q.add(self.at(query + index));
            }
            for place in 0..head_dim {
                let mut keys = [V::splat(0.0); WIDTH];
                for (index, keys) in keys.iter_mut().enumerate() {
                    *keys = V::load(buffers.columns.add(column(index) + place * MAX_LANES));
                }
                for (scores, q) in scores.iter_mut().zip(q) {
                    let q = V::splat(*q.add(place));
                    for (score, keys) in scores.iter_mut().zip(keys) {
                        *score = keys.fused(q, *score);
                    }
                }
            }
            let scale = V::splat(self.shape.scale);
            for (row, scores) in scores.into_iter().enumerate() {
                let to = buffers.scores.add((query + row) * SCORES + first);
                for (index, score) in scores.into_iter().enumerate() {
                    score
                        .mul(scale)
                        .store(to.add((register + index) * V::LANES));
                }
            }
        }
    }

    /// Turns the first `count` scores of a query into weights relative to the greatest score so
    /// far.
    ///
    /// # Safety
    /// Same as [`Heads::score`].
    #[inline(always)]
    pub(super) unsafe fn weigh<V: Vector>(
        &self,
        query: usize,
        count: usize,
        running: &mut Running,
        buffers: &Buffers,
    ) {
        let head_dim = self.shape.head_dim;
        let padded = count.next_multiple_of(V::LANES);
        // SAFETY: upheld by the caller; a row of scores has room for one more register.
        unsafe {
            let scores = buffers.scores.add(query * SCORES);
            for place in count..padded {
                *scores.add(place) = f32::NEG_INFINITY;
            }
            let mut greatest = V::load(scores);
            for place in (0..padded).step_by(V::LANES) {
                greatest = greatest.max(V::load(scores.add(place)));
            }
            let greatest = greatest.greatest().max(running.greatest);
            let factor = V::splat(running.greatest - greatest).exp();
            let shift = V::splat(greatest);
            for place in (0..padded).step_by(V::LANES) {
                V::load(scores.add(place))
                    .sub(shift)
                    .exp()
                    .store(scores.add(place));
            }
            for place in count..padded {
                *scores.add(place) = 0.0;
            }
            let mut total = V::splat(0.0);
            for place in (0..padded).step_by(V::LANES) {
                total = total.add(V::load(scores.add(place)));
            }
            let sums = buffers.sums.add(query * head_dim);
            let rest = head_dim % V::LANES;
            for place in (0..head_dim - rest).step_by(V::LANES) {
                V::load(sums.add(place)).mul(factor).store(sums.add(place));
            }
            if rest > 0 {
                let sums = sums.add(head_dim - rest);
                V::load_part(sums.cast_const(), rest)
                    .mul(factor)
                    .store_part(sums, rest);
            }
            *running = Running {
                greatest,
                total: running.total * factor.first() + total.total(),
            };
        }
    }

    /// Adds the weighted values of `keys` to the sums of `queries`, in the order of the keys.
    ///
    /// # Safety
    /// Same as [`Heads::score`].
    #[inline(always)]
    pub(super) unsafe fn add_values<V: Vector>(
        &self,
        keys: &Keys<E>,
        start: usize,
        queries: &Range<usize>,
        buffers: &Buffers,
    ) {
        let seen = |query: usize| {
            self.seen(query, start)
                .saturating_sub(keys.first)
                .min(keys.len)
        };
        let mut query = queries.start;
        // SAFETY: upheld by the caller; queries are in range.
        unsafe {
            while query + 4 <= queries.end {
                let common = (query..query + 4).map(seen).min().unwrap_or(0);
                self.add_tile::<V, 4, 2>(keys, 0..common, query, buffers);
                for query in query..query + 4 {
                    self.add_tile::<V, 1, 8>(keys, common..seen(query), query, buffers);
                }
                query += 4;
            }
            if query + 2 <= queries.end {
                let common = seen(query).min(seen(query + 1));
                self.add_tile::<V, 2, 4>(keys, 0..common, query, buffers);
                for query in query..query + 2 {
                    self.add_tile::<V, 1, 8>(keys, common..seen(query), query, buffers);
                }
                query += 2;
            }
            if query < queries.end {
                self.add_tile::<V, 1, 8>(keys, 0..seen(query), query, buffers);
            }
        }
    }

    /// Adds weighted values for `QUERIES` queries, `WIDTH` registers of the head at a time.
    ///
    /// # Safety
    /// Same as [`Heads::score`].
    #[inline(always)]
    unsafe fn add_tile<V: Vector, const QUERIES: usize, const WIDTH: usize>(
        &self,
        keys: &Keys<E>,
        range: Range<usize>,
        query: usize,
        buffers: &Buffers,
    ) {
        if range.is_empty() {
            return;
        }
        let head_dim = self.shape.head_dim;
        let rest = head_dim % V::LANES;
        let mut place = 0;
        // SAFETY: upheld by the caller.
        unsafe {
            let sums = buffers.sums.add(query * head_dim);
            let weights = buffers.scores.add(query * SCORES + keys.first).cast_const();
            let block = Block {
                values: &keys.values,
                range,
                head_dim,
                weights,
            };
            while place + WIDTH * V::LANES <= head_dim {
                block.add::<V, QUERIES, WIDTH>(place, sums);
                place += WIDTH * V::LANES;
            }
            while place + FEWER * V::LANES <= head_dim {
                block.add::<V, QUERIES, FEWER>(place, sums);
                place += FEWER * V::LANES;
            }
            while place + V::LANES <= head_dim {
                block.add::<V, QUERIES, 1>(place, sums);
                place += V::LANES;
            }
            if rest > 0 {
                block.add_rest::<V, QUERIES>(place, rest, sums);
            }
        }
    }
}

/// Values of some keys, with their weights `[queries, SCORES]`.
struct Block<'a, E> {
    values: &'a [*const E],
    range: Range<usize>,
    head_dim: usize,
    weights: *const f32,
}

impl<E: Element> Block<'_, E> {
    /// Adds to `WIDTH` registers of the sums of `QUERIES` queries, starting at `place` in the head.
    ///
    /// # Safety
    /// The CPU must support the instruction set, and all places must be in range.
    #[inline(always)]
    unsafe fn add<V: Vector, const QUERIES: usize, const WIDTH: usize>(
        &self,
        place: usize,
        to: *mut f32,
    ) {
        // SAFETY: upheld by the caller.
        unsafe {
            let mut sums = [[V::splat(0.0); WIDTH]; QUERIES];
            for (query, sums) in sums.iter_mut().enumerate() {
                for (index, sum) in sums.iter_mut().enumerate() {
                    *sum = V::load(to.add(query * self.head_dim + place + index * V::LANES));
                }
            }
            for key in self.range.clone() {
                let from = self.values.get_unchecked(key).add(place);
                let mut values = [V::splat(0.0); WIDTH];
                for (index, values) in values.iter_mut().enumerate() {
                    *values = E::load(from.add(index * V::LANES));
                }
                for (query, sums) in sums.iter_mut().enumerate() {
                    let weight = V::splat(*self.weights.add(query * SCORES + key));
                    for (sum, values) in sums.iter_mut().zip(values) {
                        *sum = values.fused(weight, *sum);
                    }
                }
            }
            for (query, sums) in sums.into_iter().enumerate() {
                for (index, sum) in sums.into_iter().enumerate() {
                    sum.store(to.add(query * self.head_dim + place + index * V::LANES));
                }
            }
        }
    }

    /// Adds to the last `len` sums of the head, fewer than one register.
    ///
    /// # Safety
    /// Same as [`Block::add`].
    #[inline(always)]
    unsafe fn add_rest<V: Vector, const QUERIES: usize>(
        &self,
        place: usize,
        len: usize,
        to: *mut f32,
    ) {
        for query in 0..QUERIES {
            // SAFETY: upheld by the caller.
            unsafe {
                let to = to.add(query * self.head_dim + place);
                let mut sum: V = V::load_part(to.cast_const(), len);
                for key in self.range.clone() {
                    let values: V = V::load_part(self.values[key].add(place), len);
                    let weight = V::splat(*self.weights.add(query * SCORES + key));
                    sum = values.fused(weight, sum);
                }
                sum.store_part(to, len);
            }
        }
    }
}

/// Writes keys as columns, so that a register holds one place of the head of several keys. The last
/// column is repeated to fill the last register.
///
/// # Safety
/// The CPU must support the instruction set, and `columns` must have room for a span.
#[inline(always)]
unsafe fn turn<E: Element, V: Vector>(keys: &Keys<E>, head_dim: usize, columns: *mut f32) {
    let rest = head_dim % TURN;
    for first in (0..keys.len.next_multiple_of(V::LANES)).step_by(TURN) {
        let mut rows = [keys.keys[keys.len - 1]; TURN];
        for (row, key) in rows.iter_mut().zip(first..keys.len) {
            *row = keys.keys[key];
        }
        // SAFETY: upheld by the caller; each key has `head_dim` elements.
        unsafe {
            let to = columns.add(first / MAX_LANES * head_dim * MAX_LANES + first % MAX_LANES);
            for place in (0..head_dim - rest).step_by(TURN) {
                let rows = rows.map(|row| row.add(place));
                V::transpose(rows, to.add(place * MAX_LANES), MAX_LANES);
            }
            for place in head_dim - rest..head_dim {
                for (index, row) in rows.iter().enumerate() {
                    *to.add(place * MAX_LANES + index) = (*row.add(place)).widen();
                }
            }
        }
    }
}
