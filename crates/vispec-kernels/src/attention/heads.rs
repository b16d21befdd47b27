//! Attention of a few queries that share a key head.
//!
//! Keys are processed in spans of [`SPAN`], ordered by their place in the visible sequence, not in
//! the cache. Within a span, each score is a sum over the head in ascending order. The weights
//! follow from the greatest score so far (online softmax). Then each output element adds its
//! weighted values in the order of the keys. So a query's result depends only on its sequence of
//! keys and values.

use std::ops::Range;

use super::{AttentionSegment, AttentionShape};
use crate::linear::{CACHE_LINE, Cache, prefetch};
use crate::pool::Out;
use crate::scratch::Scratch;
use crate::vector::{Element, MAX_LANES, Routine, Vector};

/// Maximum number of queries per routine.
pub(super) const MOST_QUERIES: usize = 64;
/// Number of keys between two updates of the greatest score.
const SPAN: usize = 64;
/// Length of the score buffer of a span, including overhang of the last register.
pub(super) const SCORES: usize = SPAN + MAX_LANES;

/// Queries of one key head of a segment: query `index` is head `index % group` of row
/// `index / group`.
///
/// `segment` was checked against `shape`; `q`, `keys`, `values` and `out` are those of the segment.
pub(super) struct Heads<'a, E> {
    pub(super) shape: AttentionShape,
    pub(super) segment: &'a AttentionSegment<'a>,
    /// `[segment.rows, heads, head_dim]`
    pub(super) q: &'a [f32],
    /// `[kv_heads, segment.cache_stride, head_dim]`
    pub(super) keys: &'a [E],
    /// Same shape as `keys`.
    pub(super) values: &'a [E],
    /// Same length as `q`.
    pub(super) out: Out,
    pub(super) kv_head: usize,
    pub(super) queries: Range<usize>,
}

/// State of a query that is carried from one span to the next.
#[derive(Clone, Copy)]
pub(super) struct Running {
    /// The greatest score so far.
    pub(super) greatest: f32,
    /// The sum of the weights relative to `greatest`.
    pub(super) total: f32,
}

/// Thread-local buffers.
pub(super) struct Buffers {
    /// Keys of a span, transposed in blocks of [`MAX_LANES`]: `[SPAN / 16, head_dim, 16]`.
    pub(super) columns: *mut f32,
    /// Scores, then weights: `[queries, SCORES]`.
    pub(super) scores: *mut f32,
    /// Weighted values: `[queries, head_dim]`.
    pub(super) sums: *mut f32,
}

/// Cache rows of consecutive keys of a span.
pub(super) struct Keys<E> {
    /// Place of the first key in the span.
    pub(super) first: usize,
    /// Number of keys.
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
        let (mut shared, mut own) = (Keys::none(), Keys::none());
        for start in (0..len).step_by(SPAN) {
            self.fetch(&rows, start);
            self.find_shared(&rows, start, &mut shared);
            let all = 0..self.queries.len();
            // SAFETY: the caller guarantees the instruction set; pointers to keys and values come
            // from checked rows, and the buffers have room for all queries.
            unsafe {
                if shared.len > 0 {
                    self.score::<V>(&shared, &all, &buffers);
                }
                for row in rows.clone() {
                    if self.find_own(row, start, &mut own) {
                        self.score::<V>(&own, &self.of_row(row), &buffers);
                    }
                }
                for (query, running) in running.iter_mut().enumerate().take(self.queries.len()) {
                    let count = self.seen(query, start);
                    if count > 0 {
                        self.weigh::<V>(query, count, running, &buffers);
                    }
                }
                if shared.len > 0 {
                    self.add_values::<V>(&shared, start, &all, &buffers);
                }
                for row in rows.clone() {
                    if self.find_own(row, start, &mut own) {
                        self.add_values::<V>(&own, start, &self.of_row(row), &buffers);
                    }
                }
            }
        }
        for query in 0..self.queries.len() {
            let at = self.at(query);
            for (index, sum) in sums[query * head_dim..][..head_dim].iter().enumerate() {
                // SAFETY: only this routine writes the query's head, and the head is in range.
                unsafe { *self.out.at(at + index) = sum / running[query].total };
            }
        }
    }
}

impl<E: Element> Heads<'_, E> {
    /// Returns the offset of a query in `q` and in `out`.
    pub(super) fn at(&self, query: usize) -> usize {
        let (query, group) = (self.queries.start + query, self.shape.group());
        let head = self.kv_head * group + query % group;
        (query / group * self.shape.heads + head) * self.shape.head_dim
    }

    /// Returns the number of keys that a query sees in the span at `start`.
    pub(super) fn seen(&self, query: usize, start: usize) -> usize {
        let row = (self.queries.start + query) / self.shape.group();
        self.segment.len(row).saturating_sub(start).min(SPAN)
    }

    /// Returns the queries of a row.
    fn of_row(&self, row: usize) -> Range<usize> {
        let group = self.shape.group();
        let first = self.queries.start;
        (row * group).max(first) - first..((row + 1) * group).min(self.queries.end) - first
    }

    /// Returns the keys and values of this head, each `[cache_stride, head_dim]`.
    fn of_head(&self) -> [&[E]; 2] {
        let len = self.segment.cache_stride * self.shape.head_dim;
        [self.keys, self.values].map(|all| &all[self.kv_head * len..][..len])
    }

    /// Finds the keys of the span at `start` that all `rows` see in cache order.
    fn find_shared(&self, rows: &Range<usize>, start: usize, keys: &mut Keys<E>) {
        let end = self.segment.shared(rows).min(start + SPAN);
        keys.find(0, start..end, self.of_head(), self.shape.head_dim);
    }

    /// Finds the keys of the span at `start` that are listed for a row. Returns whether there are
    /// any.
    fn find_own(&self, row: usize, start: usize, keys: &mut Keys<E>) -> bool {
        let listed = self.segment.visible.own(row);
        let prefix = self.segment.prefix;
        let first = start.max(prefix);
        let end = (prefix + listed.len()).min(start + SPAN);
        if first >= end {
            return false;
        }
        let rows = listed[first - prefix..end - prefix].iter().copied();
        keys.find(first - start, rows, self.of_head(), self.shape.head_dim);
        true
    }

    /// Prefetches the values of the span at `start` and the keys of the next one. Each is read too
    /// briefly for the hardware prefetcher to get ahead.
    fn fetch(&self, rows: &Range<usize>, start: usize) {
        let end = self.segment.shared(rows);
        let [keys, values] = self.of_head();
        for (all, start) in [(values, start), (keys, start + SPAN)] {
            let span = start.min(end)..end.min(start + SPAN);
            let head_dim = self.shape.head_dim;
            for at in
                (span.start * head_dim..span.end * head_dim).step_by(CACHE_LINE / size_of::<E>())
            {
                prefetch(Cache::Second, &raw const all[at]);
            }
        }
    }
}

impl<E> Keys<E> {
    /// Creates an empty list of keys.
    fn none() -> Self {
        Self {
            first: 0,
            len: 0,
            keys: [std::ptr::null(); SPAN],
            values: [std::ptr::null(); SPAN],
        }
    }

    /// Sets the keys and values to the given rows of the head; `first` is the place of the first
    /// one in the span.
    fn find(
        &mut self,
        first: usize,
        rows: impl Iterator<Item = usize>,
        [keys, values]: [&[E]; 2],
        head_dim: usize,
    ) {
        self.first = first;
        self.len = 0;
        let places = self.keys.iter_mut().zip(&mut self.values);
        for (row, (key, value)) in rows.zip(places) {
            let row = row * head_dim..(row + 1) * head_dim;
            *key = keys[row.clone()].as_ptr();
            *value = values[row].as_ptr();
            self.len += 1;
        }
    }
}
