//! Attention of a few queries that share a key head.
//!
//! Keys come in spans of [`SPAN`] by their place in the visible sequence, not in the
//! cache. Within a span each score is a sum over the head in ascending order, then weights
//! follow from the greatest score so far (online softmax), then each output element adds its
//! weighted values in the order of the keys. So a query's result is a function of its sequence
//! of keys and values alone.

use std::ops::Range;

use super::{AttentionSegment, AttentionShape};
use crate::pool::Out;
use crate::scratch::Scratch;
use crate::vector::{Element, MAX_LANES, Routine, Vector};

/// Most queries of one routine.
pub(super) const MOST_QUERIES: usize = 64;
/// Keys between two updates of the greatest score.
const SPAN: usize = 64;
/// Room for the scores of a span, of which the last register may stick out.
pub(super) const SCORES: usize = SPAN + MAX_LANES;

/// Queries of one key head of a segment: query `index` is head `index % group` of row
/// `index / group`.
///
/// The segment was checked against `shape`, and these are its own rows, keys and values.
pub(super) struct Heads<'a, E> {
    pub(super) shape: AttentionShape,
    pub(super) segment: &'a AttentionSegment<'a>,
    /// `[segment.rows, heads, head_dim]`
    pub(super) q: &'a [f32],
    /// `[kv_heads, segment.cache_stride, head_dim]`
    pub(super) keys: &'a [E],
    /// As `keys`.
    pub(super) values: &'a [E],
    /// As long as `q`.
    pub(super) out: Out,
    pub(super) kv_head: usize,
    pub(super) queries: Range<usize>,
}

/// What is kept of a query from one span to the next.
#[derive(Clone, Copy)]
pub(super) struct Running {
    /// The greatest score so far.
    pub(super) greatest: f32,
    /// The sum of weights relative to it.
    pub(super) total: f32,
}

/// Buffers of the thread.
pub(super) struct Buffers {
    /// Keys of a span, [`MAX_LANES`] at a time as columns: `[SPAN / 16, head_dim, 16]`.
    pub(super) columns: *mut f32,
    /// Scores, then weights: `[queries, SCORES]`.
    pub(super) scores: *mut f32,
    /// Weighted values: `[queries, head_dim]`.
    pub(super) sums: *mut f32,
}

/// Cache rows of consecutive keys of a span.
pub(super) struct Keys<E> {
    /// Place of the first one in the span.
    pub(super) first: usize,
    /// How many.
    pub(super) len: usize,
    pub(super) keys: [*const E; SPAN],
    pub(super) values: [*const E; SPAN],
}

impl<E: Element> Routine for Heads<'_, E> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let group = self.shape.group();
        let head_dim = self.shape.head_dim;
        let rows = self.queries.start / group..(self.queries.end - 1) / group + 1;
        let len = rows
            .clone()
            .map(|row| self.segment.len(row))
            .max()
            .unwrap_or(0);
        let columns = SPAN * head_dim;
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
        for start in (0..len).step_by(SPAN) {
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
                unsafe { *self.out.at(at + index) = sum / running[query].total };
            }
        }
    }
}

impl<E: Element> Heads<'_, E> {
    /// Start of a query in `q` and in `out`.
    pub(super) fn at(&self, query: usize) -> usize {
        let (query, group) = (self.queries.start + query, self.shape.group());
        let head = self.kv_head * group + query % group;
        (query / group * self.shape.heads + head) * self.shape.head_dim
    }

    /// How many keys of the span at `start` a query sees.
    pub(super) fn seen(&self, query: usize, start: usize) -> usize {
        let row = (self.queries.start + query) / self.shape.group();
        self.segment.len(row).saturating_sub(start).min(SPAN)
    }

    /// The queries of a row.
    fn of_row(&self, row: usize) -> Range<usize> {
        let group = self.shape.group();
        let first = self.queries.start;
        (row * group).max(first) - first..((row + 1) * group).min(self.queries.end) - first
    }

    /// Keys at the given rows of the cache; `first` is their place in the span.
    fn keys(&self, first: usize, rows: impl Iterator<Item = usize>) -> Keys<E> {
        let head_dim = self.shape.head_dim;
        let stride = self.segment.cache_stride * head_dim;
        let keys = &self.keys[self.kv_head * stride..][..stride];
        let values = &self.values[self.kv_head * stride..][..stride];
        let none = std::ptr::null();
        let mut found = Keys {
            first,
            len: 0,
            keys: [none; SPAN],
            values: [none; SPAN],
        };
        for row in rows {
            found.keys[found.len] = keys[row * head_dim..][..head_dim].as_ptr();
            found.values[found.len] = values[row * head_dim..][..head_dim].as_ptr();
            found.len += 1;
        }
        found
    }

    /// Keys of the span at `start` with the queries that see them: part 0 are those that all
    /// see at the same place in the cache, part `1 + index` those listed for a row.
    fn part(
        &self,
        rows: &Range<usize>,
        part: usize,
        start: usize,
    ) -> Option<(Keys<E>, Range<usize>)> {
        if part == 0 {
            let end = self.segment.shared(rows).min(start + SPAN);
            return (start < end).then(|| (self.keys(0, start..end), 0..self.queries.len()));
        }
        let row = rows.start + part - 1;
        let listed = self.segment.visible.own(row);
        let prefix = self.segment.prefix;
        let first = start.max(prefix);
        let end = (prefix + listed.len()).min(start + SPAN);
        (first < end).then(|| {
            let rows = listed[first - prefix..end - prefix].iter().copied();
            (self.keys(first - start, rows), self.of_row(row))
        })
    }
}
