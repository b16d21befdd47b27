//! Times `vispec_kernels::linear` over several weights in turn; prints one JSON object.
//!
//! Usage: `linear_times INPUTS OUTPUTS DTYPES ROWS SECONDS`, lists separated by commas. Built and
//! run by `run_torch.py`. Weights of the size of a large layer are used in turn, so that no cache
//! holds them. Inputs and outputs are f32, as everywhere in these kernels.

use std::hint::black_box;
use std::time::{Duration, Instant};

use half::{bf16, f16};
use vispec_kernels::measure::read_bandwidth;
use vispec_kernels::{Bits, Isa, LinearShape, QuantizedWeight, Weight, in_pool, linear};

/// Number of weights used in turn.
const TURNS: usize = 8;
/// Minimum number of calls per measurement.
const LEAST: usize = 8;

/// Returns numbers in -0.5..0.5.
fn values(len: usize) -> Vec<f32> {
    (0..len)
        .map(|index| (index * 7_919 % 1_000) as f32 / 1_000.0 - 0.5)
        .collect()
}

fn list(argument: &str) -> Vec<usize> {
    argument.split(',').map(|n| n.parse().expect("a number")).collect()
}

/// Times `linear` for each number of rows; pushes JSON objects to `found`.
fn time(
    dtype: &str,
    weights: &[Weight<'_>],
    inputs: usize,
    rows: &[usize],
    patience: Duration,
    found: &mut Vec<String>,
) {
    let outputs = weights[0].len() / inputs;
    for &rows in rows {
        let shape = LinearShape { rows, inputs, outputs };
        let x = values(rows * inputs);
        let mut out = vec![0.0; rows * outputs];
        linear(&x, weights[0], None, &mut out, shape); // warms up
        let (started, mut times) = (Instant::now(), Vec::new());
        while times.len() < LEAST || started.elapsed() < patience {
            let weight = weights[(times.len() + 1) % weights.len()];
            let start = Instant::now();
            linear(black_box(&x), weight, None, &mut out, shape);
            black_box(&mut out);
            times.push(start.elapsed().as_secs_f64());
        }
        times.sort_by(f64::total_cmp);
        found.push(format!(
            "{{\"dtype\":\"{dtype}\",\"rows\":{rows},\"min\":{:e},\"median\":{:e},\
             \"repeats\":{},\"bytes\":{}}}",
            times[0],
            times[times.len() / 2],
            times.len(),
            weights[0].bytes(),
        ));
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [inputs, outputs, dtypes, rows, seconds] = &arguments[..] else {
        eprintln!("usage: linear_times INPUTS OUTPUTS DTYPES ROWS SECONDS");
        std::process::exit(2);
    };
    let (inputs, outputs): (usize, usize) =
        (inputs.parse().expect("a number"), outputs.parse().expect("a number"));
    let patience = Duration::from_secs_f64(seconds.parse().expect("a number"));
    let (rows, mut found) = (list(rows), Vec::new());
    let threads = rayon::current_num_threads();
    let bandwidth = read_bandwidth(threads);

    // The numbers of one weight, copied TURNS times: addresses matter, values do not.
    let one = values(inputs * outputs);
    for dtype in dtypes.split(',') {
        let mut run = |weights: &[Weight<'_>]| {
            // Models run whole steps within the pool.
            in_pool(usize::MAX, || time(dtype, weights, inputs, &rows, patience, &mut found));
        };
        match dtype {
            "f32" => {
                let all = vec![one.clone(); TURNS];
                run(&all.iter().map(|w| Weight::F32(w)).collect::<Vec<_>>());
            }
            "bf16" => {
                let half: Vec<bf16> = one.iter().copied().map(bf16::from_f32).collect();
                let all = vec![half; TURNS];
                run(&all.iter().map(|w| Weight::Bf16(w)).collect::<Vec<_>>());
            }
            "f16" => {
                let half: Vec<f16> = one.iter().copied().map(f16::from_f32).collect();
                let all = vec![half; TURNS];
                run(&all.iter().map(|w| Weight::F16(w)).collect::<Vec<_>>());
            }
            "int8" | "int4" => {
                let bits = if dtype == "int8" { Bits::Eight } else { Bits::Four };
                let quantized = QuantizedWeight::new(Weight::F32(&one), inputs, 64, bits);
                let all = vec![quantized.expect("64 divides the inputs"); TURNS];
                run(&all.iter().map(QuantizedWeight::borrow).collect::<Vec<_>>());
            }
            other => panic!("unknown dtype {other}"),
        }
    }
    println!(
        "{{\"isa\":\"{}\",\"threads\":{threads},\"bytes_per_second\":{bandwidth:e},\
         \"times\":[{}]}}",
        Isa::detected().name(),
        found.join(",")
    );
}
