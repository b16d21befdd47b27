//! Linear layers: time per call, and throughput as a share of the machine's read bandwidth.
//!
//! `cargo bench -p vispec-kernels --bench linear` prints the machine's figures first, to compare
//! the results with.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use half::{bf16, f16};
use vispec_kernels::measure::{Unit, dot_peak, read_bandwidth};
use vispec_kernels::{Bits, Isa, LinearShape, QuantizedWeight, Weight, linear};

/// Rows of a call: decoding, then trees of growing size.
const ROWS: [usize; 7] = [1, 2, 4, 8, 16, 30, 60];
/// Copies of a weight that calls cycle through; together far larger than the caches.
const TURNS: usize = 8;

/// Numbers in -0.5..0.5.
fn values(len: usize) -> Vec<f32> {
    (0..len)
        .map(|index| (index * 7_919 % 1_000) as f32 / 1_000.0 - 0.5)
        .collect()
}

/// Prints the limits of the machine, to compare the layers with.
#[expect(clippy::print_stderr, reason = "a benchmark reports to the terminal")]
fn machine() {
    let threads = rayon::current_num_threads();
    eprintln!(
        "{} on {threads} threads: {:.1} GB/s, {:.0} GFLOP/s in f32, {:.0} GFLOP/s in bf16",
        Isa::detected().name(),
        read_bandwidth(threads) / 1e9,
        dot_peak(Unit::F32, threads) / 1e9,
        dot_peak(Unit::Bf16, threads) / 1e9,
    );
}

/// Measures one layer in one dtype for each number of rows.
fn layer(criterion: &mut Criterion, name: &str, weights: &[Weight<'_>], inputs: usize) {
    let outputs = weights[0].len() / inputs;
    let mut group = criterion.benchmark_group(format!("linear {inputs}x{outputs} {name}"));
    group.sample_size(20);
    for rows in ROWS {
        let shape = LinearShape {
            rows,
            inputs,
            outputs,
        };
        let x = values(rows * inputs);
        let mut out = vec![0.0; rows * outputs];
        let mut turn = 0;
        group.throughput(Throughput::Bytes(weights[0].bytes() as u64));
        group.bench_function(BenchmarkId::from_parameter(rows), |bencher| {
            bencher.iter(|| {
                turn = (turn + 1) % weights.len();
                linear(&x, weights[turn], None, &mut out, shape);
            });
        });
    }
}

fn layers(criterion: &mut Criterion) {
    machine();
    for (inputs, outputs) in [(2_048, 11_008), (576, 1_536)] {
        let len = inputs * outputs;
        let wide = values(TURNS * len);
        let turns = || wide.chunks_exact(len);

        let weights: Vec<_> = turns().map(Weight::F32).collect();
        layer(criterion, "f32", &weights, inputs);

        let half: Vec<bf16> = wide.iter().copied().map(bf16::from_f32).collect();
        let weights: Vec<_> = half.chunks_exact(len).map(Weight::Bf16).collect();
        layer(criterion, "bf16", &weights, inputs);

        let half: Vec<f16> = wide.iter().copied().map(f16::from_f32).collect();
        let weights: Vec<_> = half.chunks_exact(len).map(Weight::F16).collect();
        layer(criterion, "f16", &weights, inputs);

        for (bits, name) in [(Bits::Eight, "int8"), (Bits::Four, "int4")] {
            let quantized: Result<Vec<_>, _> = turns()
                .map(|w| QuantizedWeight::new(Weight::F32(w), inputs, 64, bits))
                .collect();
            let quantized = quantized.expect("64 divides the inputs");
            let weights: Vec<_> = quantized.iter().map(QuantizedWeight::borrow).collect();
            layer(criterion, name, &weights, inputs);
        }
    }
}

criterion_group!(benches, layers);
criterion_main!(benches);
