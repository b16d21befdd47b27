//! Attention of a few queries that share a key head.
//!
//! Keys come in segments of [`SEGMENT`] by their place in the visible sequence, not in the
//! cache. Within a segment each score is a sum over the head in ascending order, then weights
//! follow from the greatest score so far (online softmax), then each output element adds its
//! weighted values in the order of the keys. So a query's result is a function of its sequence
//! of keys and values alone.

use std::ops::Range;

use super::Call;
use crate::scratch::Scratch;
use crate::vector::{Element, MAX_LANES, Routine, Vector};

/// Most queries of one routine.
pub(super) const MOST_QUERIES: usize = 64;
/// Keys between two updates of the greatest score.
const SEGMENT: usize = 64;
/// Room for the scores of a segment, of which the last register may stick out.
pub(super) const SCORES: usize = SEGMENT + MAX_LANES;

/// Queries of one key head: query `index` is head `index % group` of row `index / group`.
pub(super) struct Heads<'a, 'b, E> {
    pub(super) call: &'a Call<'b, E>,
    pub(super) kv_head: usize,
    pub(super) queries: Range<usize>,
}

/// What is kept of a query from one segment to the next.
#[derive(Clone, Copy)]
pub(super) struct Running {
    /// The greatest score so far.
    pub(super) greatest: f32,
    /// The sum of weights relative to it.
    pub(super) total: f32,
}

/// Buffers of the thread.
pub(super) struct Buffers {
    /// Keys of a segment, [`MAX_LANES`] at a time as columns: `[SEGMENT / 16, head_dim, 16]`.
    pub(super) columns: *mut f32,
    /// Scores, then weights: `[queries, SCORES]`.
    pub(super) scores: *mut f32,
    /// Weighted values: `[queries, head_dim]`.
    pub(super) sums: *mut f32,
}

/// Cache rows of consecutive keys of a segment.
pub(super) struct Keys<E> {
    /// Place of the first one in the segment.
    pub(super) first: usize,
    /// How many.
    pub(super) len: usize,
    pub(super) keys: [*const E; SEGMENT],
    pub(super) values: [*const E; SEGMENT],
}

impl<E: Element> Routine for Heads<'_, '_, E> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let group = self.call.group();
        let head_dim = self.call.shape.head_dim;
        let rows = self.queries.start / group..(self.queries.end - 1) / group + 1;
        let len = rows
            .clone()
            .map(|row| self.call.len(row))
            .max()
            .unwrap_or(0);
        let columns = SEGMENT * head_dim;
        let scores = self.queries.len() * SCORES;
        let mut scratch = Scratch::take();
        let buffer = scratch.slice::<f32>(columns + scores + self.queries.len() * head_dim);
        let (columns, rest) = buffer.split_at_mut(columns);
        let (scores, sums) = rest.split_at_mut(scores);
        sums.fill(0.0);
        let buffers = Buffers {
            columns: columns.as_mut_ptr(),
            scores: scores.as_mut_ptr(),
            sums: sums.as_mut_ptr(),
        };
        let mut running = [Running {
            greatest: f32::NEG_INFINITY,
            total: 0.0,
        }; MOST_QUERIES];
        for start in (0..len).step_by(SEGMENT) {
            // SAFETY: the caller promises the machine; pointers to keys and values were taken
            // from checked rows, and the buffers have room for all queries.
            unsafe {
                for part in 0..=rows.len() {
                    if let Some((keys, queries)) = self.part(&rows, part, start) {
                        self.score::<V>(&keys, &queries, &buffers);
                    }
                }
                for (query, running) in running.iter_mut().enumerate().take(self.queries.len()) {
                    let count = self.seen(query, start);
                    if count > 0 {
                        self.weigh::<V>(query, count, running, &buffers);
                    }
                }
                for part in 0..=rows.len() {
                    if let Some((keys, queries)) = self.part(&rows, part, start) {
                        self.add_values::<V>(&keys, start, &queries, &buffers);
                    }
                }
            }
        }
        for query in 0..self.queries.len() {
            let at = self.at(query);
            for (index, sum) in sums[query * head_dim..][..head_dim].iter().enumerate() {
                // SAFETY: the query belongs to this routine alone, and its head is in range.
                unsafe { *self.call.out.0.add(at + index) = sum / running[query].total };
            }
        }
    }
}

impl<E: Element> Heads<'_, '_, E> {
    /// Start of a query in `q` and in `out`.
    pub(super) fn at(&self, query: usize) -> usize {
        let (query, group) = (self.queries.start + query, self.call.group());
        let head = self.kv_head * group + query % group;
        (query / group * self.call.shape.heads + head) * self.call.shape.head_dim
    }

    /// How many keys of the segment at `start` a query sees.
    pub(super) fn seen(&self, query: usize, start: usize) -> usize {
        let row = (self.queries.start + query) / self.call.group();
        self.call.len(row).saturating_sub(start).min(SEGMENT)
    }

    /// The queries of a row.
    fn of_row(&self, row: usize) -> Range<usize> {
        let group = self.call.group();
        let first = self.queries.start;
        (row * group).max(first) - first..((row + 1) * group).min(self.queries.end) - first
    }

    /// Keys at the given rows of the cache; `first` is their place in the segment.
    fn keys(&self, first: usize, rows: impl Iterator<Item = usize>) -> Keys<E> {
        let head_dim = self.call.shape.head_dim;
        let stride = self.call.shape.cache_stride * head_dim;
        let keys = &self.call.keys[self.kv_head * stride..][..stride];
        let values = &self.call.values[self.kv_head * stride..][..stride];
        let none = std::ptr::null();
        let mut found = Keys {
            first,
            len: 0,
            keys: [none; SEGMENT],
            values: [none; SEGMENT],
        };
        for row in rows {
            found.keys[found.len] = keys[row * head_dim..][..head_dim].as_ptr();
            found.values[found.len] = values[row * head_dim..][..head_dim].as_ptr();
            found.len += 1;
        }
        found
    }

    /// Keys of the segment at `start` with the queries that see them: part 0 are those that all
    /// see at the same place in the cache, part `1 + index` those listed for a row.
    fn part(
        &self,
        rows: &Range<usize>,
        part: usize,
        start: usize,
    ) -> Option<(Keys<E>, Range<usize>)> {
        if part == 0 {
            let end = self.call.shared(rows).min(start + SEGMENT);
            return (start < end).then(|| (self.keys(0, start..end), 0..self.queries.len()));
        }
        let row = rows.start + part - 1;
        let listed = self.call.visible.own(row);
        let prefix = self.call.shape.prefix;
        let first = start.max(prefix);
        let end = (prefix + listed.len()).min(start + SEGMENT);
        (first < end).then(|| {
            let rows = listed[first - prefix..end - prefix].iter().copied();
            (self.keys(first - start, rows), self.of_row(row))
        })
    }
}
