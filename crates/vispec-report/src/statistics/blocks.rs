//! Sums over records that can be resampled, in bounded memory.

use super::Sample;

/// Maximum number of blocks.
pub const MOST_BLOCKS: usize = 1024;

/// Number of summands from which the figures are computed.
pub(super) const N_COLUMNS: usize = 16;

/// Summands of the figures, summed over the records of a block.
///
/// One row is one cache line: resampling reads rows in random order, and memory access limits its
/// speed. f32 is precise enough for intervals; the figures themselves come from totals in f64.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(align(64))]
pub(super) struct Row(pub(super) [f32; N_COLUMNS]);

/// Any number of records, grouped into blocks that are resampled as units to compute intervals.
///
/// A block is a single record up to [`MOST_BLOCKS`] records. Further records are distributed over
/// the blocks in turn. So blocks are sums of nearly equal numbers of records, and resampling blocks
/// gives intervals of the same width as resampling records, up to `1 / sqrt(2 * MOST_BLOCKS)` = 2 %
/// of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Blocks {
    records: usize,
    totals: [f64; N_COLUMNS],
    rows: Vec<Row>,
    /// Index of the block that receives the next row.
    next: usize,
}

impl Blocks {
    /// Adds a record.
    pub(crate) fn add(&mut self, sample: &Sample) {
        let columns = columns(sample);
        self.records += 1;
        add(&mut self.totals, &columns);
        self.deal(Row(columns.map(|number| number as f32)));
    }

    /// Adds the records of another set.
    pub fn merge(&mut self, other: &Self) {
        self.records += other.records;
        add(&mut self.totals, &other.totals);
        for row in &other.rows {
            self.deal(*row);
        }
    }

    /// Returns the number of records.
    pub(crate) fn records(&self) -> usize {
        self.records
    }

    pub(super) fn totals(&self) -> &[f64; N_COLUMNS] {
        &self.totals
    }

    pub(super) fn rows(&self) -> &[Row] {
        &self.rows
    }

    fn deal(&mut self, row: Row) {
        if self.rows.len() < MOST_BLOCKS {
            self.rows.push(row);
            return;
        }
        for (sum, number) in self.rows[self.next].0.iter_mut().zip(row.0) {
            *sum += number;
        }
        self.next = (self.next + 1) % MOST_BLOCKS;
    }
}

impl<'a> FromIterator<&'a Sample> for Blocks {
    fn from_iter<I: IntoIterator<Item = &'a Sample>>(samples: I) -> Self {
        let mut blocks = Self::default();
        for sample in samples {
            blocks.add(sample);
        }
        blocks
    }
}

fn add(sums: &mut [f64; N_COLUMNS], numbers: &[f64; N_COLUMNS]) {
    for (sum, number) in sums.iter_mut().zip(numbers) {
        *sum += number;
    }
}

/// Returns the summands of one record. A record without a cycle (its answer is only the token from
/// prefill) has no tau and no decode speed of its own, and does not count in the means of these.
fn columns(sample: &Sample) -> [f64; N_COLUMNS] {
    let plain_tokens = f64::from(sample.plain_tokens);
    let tokens = f64::from(sample.speculative_tokens);
    let (plain_decode, decode) = (
        sample.plain_decode_ms * 1e-3,
        sample.speculative_decode_ms * 1e-3,
    );
    let (plain_total, total) = (
        sample.plain_total_ms * 1e-3,
        sample.speculative_total_ms * 1e-3,
    );
    let has_cycles = sample.cycles > 0;
    let has_decode = plain_decode > 0.0 && decode > 0.0 && plain_tokens > 0.0;
    let has_total = plain_total > 0.0 && total > 0.0 && plain_tokens > 0.0;
    let one_if = |condition: bool| f64::from(u8::from(condition));
    let value_if = |condition: bool, value: f64| if condition { value } else { 0.0 };
    [
        f64::from(sample.accepted),
        f64::from(sample.cycles),
        value_if(
            has_cycles,
            f64::from(sample.accepted) / f64::from(sample.cycles),
        ),
        one_if(has_cycles),
        plain_tokens,
        plain_decode,
        plain_total,
        tokens,
        decode,
        total,
        value_if(
            has_decode,
            (tokens / decode) / (plain_tokens / plain_decode),
        ),
        one_if(has_decode),
        value_if(has_total, (tokens / total) / (plain_tokens / plain_total)),
        one_if(has_total),
        value_if(has_total, plain_tokens / plain_total),
        value_if(has_total, tokens / total),
    ]
}
