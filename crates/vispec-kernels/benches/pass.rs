//! One pass of a small language model for various numbers of rows, with the time of each part.
//!
//! `cargo bench -p vispec-kernels --bench pass -- avx2 int8 1 8` measures only the named
//! instruction sets, dtypes and numbers of rows. If none of a kind is named, all of that kind are
//! measured.
//!
//! Passes of different numbers of rows alternate, so that a busy period of the machine affects all
//! of them. On a shared machine, perhaps no whole pass runs undisturbed, but each part of each
//! layer does in some passes. So the time of a part is the sum over layers of the 1/16 quantile
//! over passes, and `alone` is the sum of the parts.

use std::time::{Duration, Instant};

use half::bf16;
use vispec_kernels::measure::{Unit, dot_peak, read_bandwidth};
use vispec_kernels::{
    AttentionSegment, AttentionShape, Bits, GroupedLinear, Isa, Kernels, KeyValues,
    QuantizedWeight, VisibleRows, Weight, in_pool, n_threads,
};

/// SmolLM2-135M.
const LAYERS: usize = 30;
const HIDDEN: usize = 576;
const INTERMEDIATE: usize = 1_536;
const VOCAB: usize = 49_152;
const SHAPE: AttentionShape = AttentionShape {
    heads: 9,
    kv_heads: 3,
    head_dim: 64,
    scale: 0.125,
};
const KEYS: usize = SHAPE.kv_heads * SHAPE.head_dim;

/// Rows in the cache before the pass, and its capacity.
const PREFIX: usize = 200;
const CAPACITY: usize = 512;
/// Decoding, then trees of growing size.
const ROWS: [usize; 9] = [1, 2, 3, 4, 6, 8, 12, 16, 32];
const DTYPES: [&str; 4] = ["f32", "bf16", "int8", "int4"];
/// Number of passes for each number of rows.
const ROUNDS: usize = 40;

/// Parts into which the time of a pass is split.
const PARTS: [&str; 9] = [
    "norms",
    "q k v",
    "rotary",
    "append",
    "attention",
    "output",
    "gate up",
    "silu",
    "down",
];
/// The parts and the head.
const COLUMNS: usize = PARTS.len() + 1;

/// Numbers in -0.05..0.05.
fn values(len: usize) -> Vec<f32> {
    (0..len)
        .map(|index| (index * 7_919 % 1_000) as f32 / 10_000.0 - 0.05)
        .collect()
}

/// A weight that owns its memory.
enum Owned {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
    Quantized(QuantizedWeight),
}

impl Owned {
    fn new(dtype: &str, inputs: usize, outputs: usize) -> Self {
        let wide = values(inputs * outputs);
        let quantized = |bits| {
            let weight = QuantizedWeight::new(Weight::F32(&wide), inputs, 64, bits);
            Self::Quantized(weight.expect("64 divides the inputs"))
        };
        match dtype {
            "int8" => quantized(Bits::Eight),
            "int4" => quantized(Bits::Four),
            "bf16" => Self::Bf16(wide.into_iter().map(bf16::from_f32).collect()),
            _ => Self::F32(wide),
        }
    }

    fn borrow(&self) -> Weight<'_> {
        match self {
            Self::F32(values) => Weight::F32(values),
            Self::Bf16(values) => Weight::Bf16(values),
            Self::Quantized(weight) => weight.borrow(),
        }
    }
}

/// One layer: query, key, value, output, gate, up and down weights, and its cache. The outputs of a
/// weight follow from its length.
struct Layer {
    weights: [Owned; 7],
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl Layer {
    fn new(dtype: &str) -> Self {
        let shapes = [
            (HIDDEN, HIDDEN),
            (HIDDEN, KEYS),
            (HIDDEN, KEYS),
            (HIDDEN, HIDDEN),
            (HIDDEN, INTERMEDIATE),
            (HIDDEN, INTERMEDIATE),
            (INTERMEDIATE, HIDDEN),
        ];
        Self {
            weights: shapes.map(|(inputs, outputs)| Owned::new(dtype, inputs, outputs)),
            keys: values(KEYS * CAPACITY),
            values: values(KEYS * CAPACITY),
        }
    }
}

struct Model {
    layers: Vec<Layer>,
    head: Owned,
    norm: Vec<f32>,
}

/// Times of the parts of a pass, in execution order.
struct Clock {
    last: Instant,
    parts: Vec<(usize, Duration)>,
}

impl Clock {
    /// Attributes the time since the last call to `part`.
    fn stop(&mut self, part: usize) {
        let now = Instant::now();
        self.parts.push((part, now - self.last));
        self.last = now;
    }
}

/// Times of all passes with one number of rows.
#[derive(Default)]
struct Times {
    totals: Vec<Duration>,
    /// Times of each part of each layer, in execution order.
    parts: Vec<(usize, Vec<Duration>)>,
}

impl Times {
    fn add(&mut self, total: Duration, parts: Vec<(usize, Duration)>) {
        self.totals.push(total);
        self.parts.resize_with(parts.len(), || (0, Vec::new()));
        for ((of, times), (part, time)) in self.parts.iter_mut().zip(parts) {
            *of = part;
            times.push(time);
        }
    }

    /// Returns the undisturbed time of `part`, summed over layers.
    fn of_part(&self, part: usize) -> Duration {
        let of_part = self.parts.iter().filter(|(of, _)| *of == part);
        of_part.map(|(_, times)| below(times, 16)).sum()
    }
}

/// Returns the 1/`parts` quantile of `times`.
fn below(times: &[Duration], parts: usize) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times[times.len() / parts]
}

/// A pass over a number of rows.
struct Pass {
    kernels: Kernels,
    rows: usize,
    angles: Vec<f32>,
    offsets: Vec<usize>,
    listed: Vec<usize>,
    x: Vec<f32>,
    normed: Vec<f32>,
    query: Vec<f32>,
    new: [Vec<f32>; 2],
    attended: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
    product: Vec<f32>,
    added: Vec<f32>,
    logits: Vec<f32>,
}

impl Pass {
    fn new(kernels: Kernels, rows: usize) -> Self {
        let (mut offsets, mut listed) = (vec![0], Vec::new());
        for row in 0..rows {
            let start = listed.len();
            let mut node = row + 1; // heap order: the parent of node n is n / 2
            while node > 0 {
                listed.push(PREFIX + node - 1);
                node /= 2;
            }
            listed[start..].reverse();
            offsets.push(listed.len());
        }
        let zeros = |len: usize| vec![0.0; rows * len];
        Self {
            kernels,
            rows,
            angles: values(rows * SHAPE.head_dim / 2),
            offsets,
            listed,
            x: zeros(HIDDEN),
            normed: zeros(HIDDEN),
            query: zeros(HIDDEN),
            new: [zeros(KEYS), zeros(KEYS)],
            attended: zeros(HIDDEN),
            gate: zeros(INTERMEDIATE),
            up: zeros(INTERMEDIATE),
            product: zeros(INTERMEDIATE),
            added: zeros(HIDDEN),
            logits: zeros(VOCAB),
        }
    }

    /// Runs all layers and the head.
    fn run(&mut self, model: &mut Model) -> Vec<(usize, Duration)> {
        self.x = values(self.x.len());
        let mut clock = Clock {
            last: Instant::now(),
            parts: Vec::new(),
        };
        for layer in &mut model.layers {
            self.attend(layer, &model.norm, &mut clock);
            self.feed_forward(layer, &model.norm, &mut clock);
        }
        self.kernels
            .rms_norm(&self.x, &model.norm, 1e-5, &mut self.normed);
        clock.stop(0);
        let calls = [(&model.head, &mut self.logits)];
        linear(self.kernels, &self.normed, self.rows, calls);
        clock.stop(COLUMNS - 1);
        clock.parts
    }

    fn attend(&mut self, layer: &mut Layer, norm: &[f32], clock: &mut Clock) {
        let kernels = self.kernels;
        kernels.rms_norm(&self.x, norm, 1e-5, &mut self.normed);
        clock.stop(0);
        let [q, k, v, o, ..] = &layer.weights;
        let [keys, values] = &mut self.new;
        let calls = [(q, &mut self.query), (k, &mut *keys), (v, &mut *values)];
        linear(kernels, &self.normed, self.rows, calls);
        clock.stop(1);
        kernels.rotary(&mut self.query, &self.angles, &self.angles, SHAPE.head_dim);
        kernels.rotary(keys, &self.angles, &self.angles, SHAPE.head_dim);
        clock.stop(2);
        let head_dim = SHAPE.head_dim;
        for (all, new) in [(&mut layer.keys, keys), (&mut layer.values, values)] {
            for (row, new) in new.chunks_exact(KEYS).enumerate() {
                for (head, new) in new.chunks_exact(head_dim).enumerate() {
                    let at = (head * CAPACITY + PREFIX + row) * head_dim;
                    all[at..at + head_dim].copy_from_slice(new);
                }
            }
        }
        clock.stop(3);
        let segment = AttentionSegment {
            rows: self.rows,
            cache: KeyValues::F32 {
                keys: &layer.keys,
                values: &layer.values,
            },
            cache_stride: CAPACITY,
            prefix: PREFIX,
            visible: VisibleRows::Lists {
                offsets: &self.offsets,
                rows: &self.listed,
            },
        };
        kernels.attention(&self.query, &[segment], &mut self.attended, SHAPE);
        clock.stop(4);
        linear(kernels, &self.attended, self.rows, [(o, &mut self.added)]);
        clock.stop(5);
        add(&mut self.x, &self.added);
        clock.stop(0);
    }

    fn feed_forward(&mut self, layer: &Layer, norm: &[f32], clock: &mut Clock) {
        let kernels = self.kernels;
        kernels.rms_norm(&self.x, norm, 1e-5, &mut self.normed);
        clock.stop(0);
        let [.., gate, up, down] = &layer.weights;
        let calls = [(gate, &mut self.gate), (up, &mut self.up)];
        linear(kernels, &self.normed, self.rows, calls);
        clock.stop(6);
        kernels.silu_mul(&self.gate, &self.up, &mut self.product);
        clock.stop(7);
        linear(kernels, &self.product, self.rows, [(down, &mut self.added)]);
        clock.stop(8);
        add(&mut self.x, &self.added);
        clock.stop(0);
    }
}

fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

fn linear<const N: usize>(
    kernels: Kernels,
    x: &[f32],
    rows: usize,
    layers: [(&Owned, &mut Vec<f32>); N],
) {
    let mut calls = layers.map(|(weight, out)| GroupedLinear {
        weight: weight.borrow(),
        bias: None,
        outputs: out.len() / rows,
        out,
    });
    kernels.linear_group(x, rows, x.len() / rows, &mut calls);
}

/// Prints the table of one instruction set and dtype.
#[expect(clippy::print_stdout, reason = "a benchmark reports to the terminal")]
fn table(kernels: Kernels, dtype: &str, rows: &[usize]) {
    let mut model = Model {
        layers: (0..LAYERS).map(|_| Layer::new(dtype)).collect(),
        head: Owned::new(dtype, HIDDEN, VOCAB),
        norm: vec![1.0; HIDDEN],
    };
    let mut passes: Vec<_> = rows.iter().map(|&rows| Pass::new(kernels, rows)).collect();
    let mut times: Vec<_> = rows.iter().map(|_| Times::default()).collect();
    for round in 0..=ROUNDS {
        for (pass, times) in passes.iter_mut().zip(&mut times) {
            let start = Instant::now();
            let parts = in_pool(usize::MAX, || pass.run(&mut model));
            if round > 0 {
                times.add(start.elapsed(), parts);
            }
        }
    }
    println!("\n{} {dtype}, ms", kernels.isa().name());
    print!("rows  median   alone");
    PARTS
        .iter()
        .chain(&["head"])
        .for_each(|part| print!(" {part:>9}"));
    println!();
    for (rows, times) in rows.iter().zip(times) {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let parts: Vec<_> = (0..COLUMNS).map(|part| times.of_part(part)).collect();
        let alone = parts.iter().sum();
        print!(
            "{rows:>4} {:7.2} {:7.2}",
            ms(below(&times.totals, 2)),
            ms(alone)
        );
        parts.iter().for_each(|part| print!(" {:9.2}", ms(*part)));
        println!();
    }
}

#[expect(clippy::print_stdout, reason = "a benchmark reports to the terminal")]
fn main() {
    let named: Vec<String> = std::env::args().skip(1).collect();
    let is_named = |name: &str| named.iter().any(|named| named == name);
    let chosen = |all: Vec<&'static str>| -> Vec<&'static str> {
        if all.iter().any(|name| is_named(name)) {
            all.into_iter().filter(|name| is_named(name)).collect()
        } else {
            all
        }
    };
    let rows: Vec<usize> = named.iter().filter_map(|name| name.parse().ok()).collect();
    let rows = if rows.is_empty() { ROWS.to_vec() } else { rows };
    let threads = n_threads();
    println!(
        "{threads} threads: {:.1} GB/s, {:.0} GFLOP/s in f32, {:.0} GFLOP/s in bf16",
        read_bandwidth(threads) / 1e9,
        dot_peak(Unit::F32, threads) / 1e9,
        dot_peak(Unit::Bf16, threads) / 1e9,
    );
    let isas = chosen(Isa::available().map(Isa::name).collect());
    for kernels in Isa::available().filter_map(Kernels::new) {
        if isas.contains(&kernels.isa().name()) {
            for dtype in chosen(DTYPES.to_vec()) {
                table(kernels, dtype, &rows);
            }
        }
    }
}
