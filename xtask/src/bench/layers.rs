//! Measures single linear layers: time of a call by number of rows.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use half::{bf16, f16};
use vispec_kernels::{LinearShape, QuantizedWeight, Weight, in_pool, linear};

use super::dtype::{Dtype, group};
use super::machine::Machine;
use super::table::{NONE, Table, percent, time};

/// Inputs and outputs of the layers: one of a model with 3 billion parameters, one of a small
/// model.
pub(super) const LAYERS: [(usize, usize); 2] = [(2_048, 11_008), (512, 1_408)];
/// Numbers of rows of a call: decoding, then trees of growing size.
const ROWS: [usize; 7] = [1, 2, 4, 8, 16, 30, 60];
/// Number of rows from which a layer is bound by arithmetic rather than memory.
const MANY_ROWS: usize = 16;
/// Minimum size of all copies of a weight that are used in turn, far more than caches hold.
const TURN_BYTES: usize = 256 << 20;
const LEAST_REPEATS: usize = 5;
/// Number of rows of made-up weights that are repeated to fill the matrix.
const TILE: usize = 32;

/// Times of one layer in one dtype.
pub(super) struct Layer {
    pub(super) dtype: Dtype,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    pub(super) cells: Vec<Cell>,
}

/// Times for one number of rows.
pub(super) struct Cell {
    pub(super) rows: usize,
    pub(super) least: Duration,
    pub(super) median: Duration,
}

impl Layer {
    /// Measures each number of rows for about `patience`.
    pub(super) fn measure(
        dtype: Dtype,
        (inputs, outputs): (usize, usize),
        patience: Duration,
    ) -> Result<Self> {
        let one = values(TILE * inputs).repeat(outputs / TILE);
        let bytes = dtype.matrix_bytes(outputs, inputs);
        let turns = TURN_BYTES.div_ceil(bytes).max(2);
        let cells = |weights: Vec<Weight<'_>>| {
            let cell = |rows| {
                let shape = LinearShape {
                    rows,
                    inputs,
                    outputs,
                };
                time_calls(&weights, shape, patience)
            };
            // Models run whole steps in the pool, too.
            in_pool(usize::MAX, || ROWS.map(cell).into())
        };
        let cells = match (dtype, dtype.bits()) {
            (_, Some(bits)) => {
                let first = QuantizedWeight::new(Weight::F32(&one), inputs, group(inputs), bits)
                    .map_err(|error| anyhow!("{error}"))?;
                let all = vec![first; turns];
                cells(all.iter().map(QuantizedWeight::borrow).collect())
            }
            (Dtype::Bf16, None) => {
                let all = convert(&one, bf16::from_f32).repeat(turns);
                cells(all.chunks_exact(one.len()).map(Weight::Bf16).collect())
            }
            (Dtype::F16, None) => {
                let all = convert(&one, f16::from_f32).repeat(turns);
                cells(all.chunks_exact(one.len()).map(Weight::F16).collect())
            }
            (_, None) => {
                let all = one.repeat(turns);
                cells(all.chunks_exact(one.len()).map(Weight::F32).collect())
            }
        };
        Ok(Self {
            dtype,
            inputs,
            outputs,
            cells,
        })
    }

    /// Adds one table row per number of rows.
    pub(super) fn tabulate(&self, machine: &Machine, table: &mut Table) {
        let single = self.cells.first().map(|cell| cell.least.as_secs_f64());
        for cell in &self.cells {
            let seconds = cell.least.as_secs_f64();
            table.push([
                self.dtype.name().to_owned(),
                cell.rows.to_string(),
                time(cell.least),
                time(cell.median),
                self.share(cell, machine),
                single.map_or(NONE.to_owned(), |single| format!("{:.2}", seconds / single)),
            ]);
        }
    }

    /// Returns the share of the bandwidth for one row and of the peak for many; between them the
    /// bound is not clear.
    fn share(&self, cell: &Cell, machine: &Machine) -> String {
        let seconds = cell.least.as_secs_f64();
        if cell.rows == 1 {
            let bytes = self.dtype.matrix_bytes(self.outputs, self.inputs);
            let share = bytes as f64 / seconds / machine.bandwidth;
            format!("{} of bandwidth", percent(share))
        } else if cell.rows >= MANY_ROWS {
            let operations = 2 * cell.rows * self.inputs * self.outputs;
            let unit = self.dtype.unit();
            let share = operations as f64 / seconds / machine.peak(unit);
            format!("{} of {unit:?} peak", percent(share)).to_lowercase()
        } else {
            NONE.to_owned()
        }
    }
}

/// Creates an empty table for [`Layer::tabulate`].
pub(super) fn table() -> Table {
    Table::new(&["dtype", "rows", "minimum", "median", "share", "vs 1 row"])
}

/// Calls the layer with each weight in turn, for about `patience`.
fn time_calls(weights: &[Weight<'_>], shape: LinearShape, patience: Duration) -> Cell {
    let x = values(shape.rows * shape.inputs);
    let mut out = vec![0.0; shape.rows * shape.outputs];
    let mut turns = weights.iter().cycle();
    let mut call = || {
        let weight = turns.next().copied().unwrap_or(Weight::F32(&[]));
        let start = Instant::now();
        linear(&x, weight, None, &mut out, shape);
        start.elapsed()
    };
    // The first call allocates scratch memory.
    call();
    let start = Instant::now();
    let mut times = Vec::new();
    while times.len() < LEAST_REPEATS || start.elapsed() < patience {
        times.push(call());
    }
    times.sort_unstable();
    Cell {
        rows: shape.rows,
        least: times[0],
        median: times[times.len() / 2],
    }
}

/// Returns numbers in -0.5..0.5.
fn values(len: usize) -> Vec<f32> {
    (0..len)
        .map(|index| (index * 7_919 % 1_000) as f32 / 1_000.0 - 0.5)
        .collect()
}

fn convert<T: Copy>(tiled: &[f32], narrow: impl Fn(f32) -> T) -> Vec<T> {
    tiled.iter().map(|value| narrow(*value)).collect()
}
