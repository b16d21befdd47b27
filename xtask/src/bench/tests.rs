//! Tests of arguments, and of tables with made-up figures.

use clap::Parser;

use super::generation::{Compared, Outcome};
use super::layers::Cell;
use super::*;

#[derive(Parser, Debug)]
struct Line {
    #[command(flatten)]
    flags: BenchFlags,
}

fn parse(arguments: &[&str]) -> Result<BenchFlags, clap::Error> {
    let line = std::iter::once("bench").chain(arguments.iter().copied());
    Line::try_parse_from(line).map(|line| line.flags)
}

fn machine() -> Machine {
    Machine {
        processor: "made up".to_owned(),
        isa: "avx2",
        threads: 2,
        bandwidth: 20e9,
        f32_peak: 100e9,
        bf16_peak: 200e9,
    }
}

#[test]
fn arguments_that_make_no_sense_are_refused() {
    for (arguments, part) in [
        (&["--draft", "x"][..], "--target"),
        (&["--prompt", "x"], "--draft"),
        (&["--dtypes", "f32,int3"], "int3"),
        (&["--quick", "twice"], "twice"),
    ] {
        let error = parse(arguments).unwrap_err().to_string();
        assert!(error.contains(part), "{part} not in {error}");
    }
    for (arguments, part) in [
        (&["--target", "/no/such"][..], "/no/such: no such directory"),
        (&["--generate", "/no/such"], "/no/such: no such file"),
        (&["--out", "/no/such/x.md"], "/no/such: no such directory"),
    ] {
        let error = check(&parse(arguments).unwrap()).unwrap_err().to_string();
        assert_eq!(error, part);
    }
    check(&parse(&["--out", "x.md"]).unwrap()).unwrap();
}

#[test]
fn a_target_is_measured_with_its_draft_and_with_lookup() {
    let fixtures = crate::root().join("fixtures");
    let drafts = |arguments: &[&str]| -> Vec<bool> {
        let cases = cases(&parse(arguments).unwrap(), &fixtures);
        cases.iter().map(|case| case.draft.is_some()).collect()
    };
    assert_eq!(drafts(&[]), [true]);
    assert_eq!(drafts(&["--target", "t"]), [true, false]);
    assert_eq!(
        drafts(&["--target", "t", "--draft", "d"]),
        [true, true, false]
    );
    let flags = parse(&["--dtypes", "bf16,int4"]).unwrap();
    assert_eq!(flags.dtypes, [Dtype::Bf16, Dtype::Int4]);
}

#[test]
fn layers_are_compared_with_bandwidth_and_peak() {
    // 2048 x 11008 in bf16 is 45.1 MB and 45.1 million operations per row.
    let cell = |rows, least| Cell {
        rows,
        least: Duration::from_micros(least),
        median: Duration::from_micros(2 * least),
    };
    let layer = Layer {
        dtype: Dtype::Bf16,
        inputs: 2_048,
        outputs: 11_008,
        cells: vec![cell(1, 2_500), cell(4, 5_000), cell(16, 10_000)],
    };
    let mut table = layers::table();
    layer.tabulate(&machine(), &mut table);
    let text = table.to_string();
    let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in [
        "| bf16  |    1 | 2.50 ms | 5.00 ms | 90 % of bandwidth |     1.00 |",
        "| bf16  |    4 | 5.00 ms | 10.0 ms |                 - |     2.00 |",
        "| bf16  |   16 | 10.0 ms | 20.0 ms |  36 % of bf16 peak |     4.00 |",
    ] {
        assert!(squeezed(&text).contains(&squeezed(part)), "{part}\n{text}");
    }
    assert_eq!(text.lines().count(), 5);
}

/// Parses a line of `generate --json --compare` that has only the fields that are read.
fn compared(plain: f64, speculative: f64) -> Compared {
    let record = |tokens_per_second: f64| {
        serde_json::json!({
            "method": "vispec", "new_tokens": 29, "tau": 1.5, "tokens_per_cycle": 2.5,
            "tokens_per_second": tokens_per_second, "peak_rss_bytes": 3_000_000,
            "timings_ms": { "load": 1500.0, "preprocess": 1.0, "vision": 2.0, "prefill": 3.0 },
        })
    };
    let mut line = record(speculative);
    line["baseline"] = record(plain);
    line["identical"] = true.into();
    serde_json::from_value(line).unwrap()
}

#[test]
fn generations_are_medians_and_one_difference_shows() {
    let mut outcome = Outcome {
        name: "demo".to_owned(),
        dtype: Dtype::F32,
        weight_bytes: 1_000_000_000,
        runs: vec![
            compared(10.0, 1.0),
            compared(1.0, 20.0),
            compared(30.0, 40.0),
        ],
    };
    let row = |outcome: &Outcome| {
        let mut table = speed_table();
        outcome.tabulate_speed(&machine(), &mut table);
        let text = table.to_string();
        let cells = text.lines().last().unwrap().split('|').map(str::trim);
        cells.collect::<Vec<_>>().join(",")
    };
    assert_eq!(
        row(&outcome),
        ",demo,f32,vispec,29,10.0,50 %,20.0,2.00,1.50,2.50,yes,"
    );
    outcome.runs[1].identical = false;
    assert!(row(&outcome).ends_with(",NO,"));

    let mut table = start_table();
    outcome.tabulate_start(&mut table);
    let text = table.to_string();
    assert!(text.contains("1.50 s"), "{text}");
    assert!(text.contains("6.00 ms"), "{text}");
    assert!(text.contains("3.00 |"), "{text}");
}

#[test]
fn a_report_names_the_machine() {
    let text = machine().table().to_string();
    for part in ["made up", "avx2", "20.0 GB/s", "200 GFLOP/s"] {
        assert!(text.contains(part), "{part} not in {text}");
    }
}

#[test]
fn a_program_that_fails_is_named_with_what_it_said() {
    let case = &cases(&parse(&[]).unwrap(), &crate::root().join("fixtures"))[0];
    let error = case.run(Path::new("/no/such"), Dtype::F32).err().unwrap();
    assert!(error.to_string().contains("/no/such"), "{error}");
}
