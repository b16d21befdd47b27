//! Statistics compared with numpy and scipy; `make_fixture.py` generates the expected values.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;

use serde::Deserialize;
use vispec_report::collection::{Cell, Collection};
use vispec_report::predict::{Recorded, TreeChoice};
use vispec_report::record::{
    CellHeader, CellStatus, CostPoint, CostTable, Method, PhaseTimes, TotalToken,
};
use vispec_report::statistics::{
    Acceptance, Blocks, Estimate, Estimates, ImageBins, MOST_BLOCKS, Measurements, PhaseShares,
    Sample, Subset, quantile, tau_difference,
};
use vispec_report::synthetic;

#[derive(Deserialize)]
struct Fixture {
    samples: Vec<SampleForm>,
    figures: BTreeMap<String, Figure>,
    quantiles: BTreeMap<String, f64>,
    histogram: Vec<u64>,
    reached: Vec<f64>,
    conditional: Vec<f64>,
    bins: Vec<Bin>,
    many: Many,
}

#[derive(Deserialize)]
struct Many {
    records: u64,
    intervals: BTreeMap<String, (f64, f64, f64)>,
}

#[derive(Deserialize)]
struct SampleForm {
    image_tokens: u32,
    cycles: u32,
    accepted: u32,
    plain_tokens: u32,
    speculative_tokens: u32,
    plain_decode_ms: f64,
    plain_total_ms: f64,
    speculative_decode_ms: f64,
    speculative_total_ms: f64,
}

#[derive(Deserialize)]
struct Figure {
    value: f64,
    low: f64,
    high: f64,
    scipy_low: f64,
    scipy_high: f64,
}

#[derive(Deserialize)]
struct Bin {
    from: u32,
    to: u32,
    records: usize,
    tau: f64,
}

fn fixture() -> (Fixture, Vec<Sample>) {
    let fixture: Fixture = serde_json::from_str(include_str!("fixture.json")).unwrap();
    let samples = fixture
        .samples
        .iter()
        .map(|form| Sample {
            image_tokens: form.image_tokens,
            cycles: form.cycles,
            accepted: form.accepted,
            plain_tokens: form.plain_tokens,
            speculative_tokens: form.speculative_tokens,
            plain_decode_ms: form.plain_decode_ms,
            plain_total_ms: form.plain_total_ms,
            speculative_decode_ms: form.speculative_decode_ms,
            speculative_total_ms: form.speculative_total_ms,
        })
        .collect();
    (fixture, samples)
}

#[track_caller]
fn close(found: f64, expected: f64, tolerance: f64) {
    assert!(
        (found - expected).abs() <= tolerance * expected.abs().max(1e-12),
        "found {found}, expected {expected}"
    );
}

#[test]
fn figures_and_intervals_are_those_of_numpy() {
    let (fixture, samples) = fixture();
    let blocks = samples.iter().collect();
    let found = Estimates::of(&blocks);
    let by_name: [(&str, Estimate); 10] = [
        ("tau", found.tau),
        ("tau_sample_mean", found.tau_sample_mean),
        ("decode_pooled", found.decode.pooled),
        ("decode_sample_mean", found.decode.sample_mean),
        ("end_to_end_pooled", found.end_to_end.pooled),
        ("end_to_end_sample_mean", found.end_to_end.sample_mean),
        ("ratio_of_mean_speeds", found.ratio_of_mean_speeds),
        ("plain_tokens_per_second", found.plain_tokens_per_second),
        (
            "speculative_tokens_per_second",
            found.speculative_tokens_per_second,
        ),
        (
            "end_to_end_tokens_per_second",
            found.end_to_end_tokens_per_second,
        ),
    ];
    assert_eq!(by_name.len(), fixture.figures.len());
    for (name, estimate) in by_name {
        let expected = &fixture.figures[name];
        close(estimate.value, expected.value, 1e-12);
        close(estimate.low, expected.low, 1e-9);
        close(estimate.high, expected.high, 1e-9);
        // scipy has another generator and four times the resamples: a tenth of the width is noise.
        let noise = 0.1 * (expected.scipy_high - expected.scipy_low);
        assert!((estimate.low - expected.scipy_low).abs() < noise, "{name}");
        assert!(
            (estimate.high - expected.scipy_high).abs() < noise,
            "{name}"
        );
    }
    assert_eq!(found, Estimates::of(&blocks), "intervals never change");
}

/// Returns the record that the script generates for the same index.
fn one_of_many(index: u64) -> Sample {
    let mut state = index.wrapping_mul(0x1234_5678_9abc_def1);
    let mut unit = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    };
    let tokens = (20.0 + 180.0 * unit()).floor();
    let cycles = (tokens / (1.5 + 2.0 * unit())).floor().max(1.0);
    let plain_decode_ms = tokens * (18.0 + 7.0 * unit());
    let speculative_decode_ms = cycles * (25.0 + 15.0 * unit());
    Sample {
        image_tokens: 0,
        cycles: cycles as u32,
        accepted: (tokens - cycles) as u32,
        plain_tokens: tokens as u32,
        speculative_tokens: tokens as u32,
        plain_decode_ms,
        plain_total_ms: plain_decode_ms + 100.0,
        speculative_decode_ms,
        speculative_total_ms: speculative_decode_ms + 100.0,
    }
}

/// Beyond [`MOST_BLOCKS`] records, intervals come from blocks, while numpy resamples single
/// records.
#[test]
fn intervals_of_many_records_are_those_of_numpy() {
    let (fixture, _) = fixture();
    let many = fixture.many;
    assert!(many.records > 10 * MOST_BLOCKS as u64);
    let samples: Vec<Sample> = (0..many.records).map(one_of_many).collect();
    let found = Estimates::of(&samples.iter().collect());
    let mut halves: Blocks = samples[..7_000].iter().collect();
    halves.merge(&samples[7_000..].iter().collect());
    let merged = Estimates::of(&halves);
    for estimates in [found, merged] {
        assert_eq!(estimates.records as u64, many.records);
        for (name, estimate) in [
            ("tau", estimates.tau),
            ("decode_pooled", estimates.decode.pooled),
            ("decode_sample_mean", estimates.decode.sample_mean),
            ("ratio_of_mean_speeds", estimates.ratio_of_mean_speeds),
        ] {
            let (value, low, high) = many.intervals[name];
            close(estimate.value, value, 1e-9);
            // 2 % from the number of blocks, plus the noise of 1000 resamples on both sides.
            let noise = 0.15 * (high - low);
            assert!((estimate.low - low).abs() < noise, "{name}: {estimate:?}");
            assert!((estimate.high - high).abs() < noise, "{name}: {estimate:?}");
        }
    }
}

#[test]
fn quantiles_are_those_of_numpy() {
    let (fixture, samples) = fixture();
    let mut times = Subset::default();
    for (key, sample) in (0..).zip(&samples) {
        times.add(key, sample.speculative_total_ms);
    }
    let sorted = times.sorted();
    for (q, expected) in fixture.quantiles {
        close(
            quantile(&sorted, q.parse().unwrap()).unwrap(),
            expected,
            1e-12,
        );
    }
    assert_eq!(quantile(&[], 0.5), None);
    assert_eq!(quantile(&[3.0], 0.99), Some(3.0));
}

#[test]
fn acceptance_by_depth_is_that_of_numpy() {
    let (fixture, _) = fixture();
    let found = Acceptance::from_histogram(&fixture.histogram);
    for (found, expected) in found.reached.iter().zip(&fixture.reached) {
        close(*found, *expected, 1e-12);
    }
    for (found, expected) in found.conditional.iter().zip(&fixture.conditional) {
        close(*found, *expected, 1e-12);
    }
    assert_eq!(found.reached.len(), fixture.reached.len());
    let cycles: u64 = fixture.histogram.iter().sum();
    let accepted: u64 = (0..)
        .zip(&fixture.histogram)
        .map(|(n, count)| n * count)
        .sum();
    close(found.tau_within(99), accepted as f64 / cycles as f64, 1e-12);
    assert_eq!(Acceptance::from_histogram(&[]), Acceptance::default());
}

#[test]
fn image_bins_are_those_of_numpy() {
    let (fixture, samples) = fixture();
    let mut bins = ImageBins::default();
    for sample in &samples {
        bins.add(sample);
    }
    let found = bins.figures();
    assert_eq!(found.len(), fixture.bins.len());
    for (found, expected) in found.iter().zip(fixture.bins) {
        assert_eq!((found.from, found.to), (expected.from, expected.to));
        assert_eq!(found.records, expected.records);
        close(found.tau.value, expected.tau, 1e-12);
    }
}

#[test]
fn nothing_is_not_a_number() {
    let found = Estimates::of(&Blocks::default());
    assert!(found.tau.value.is_nan() && found.tau.low.is_nan());
    assert_eq!(
        PhaseShares::of(&PhaseTimes::default()),
        PhaseShares::default()
    );
    assert_eq!(Measurements::default().exact_share(), None);
}

/// Builds cells in memory, without files.
fn collection(methods: &[Method], costs: Option<&CostTable>) -> Collection {
    let cells = methods.iter().flat_map(|&method| {
        ["a", "b"].map(|task| {
            let mut header = CellHeader::new(synthetic::settings(method, task, 30), "test");
            header.costs = costs.cloned();
            let mut measurements = Measurements::default();
            for index in 0..30 {
                measurements.add(&synthetic::record(&header.settings, index));
            }
            Cell {
                dir: header.settings.directory_name().into(),
                status: CellStatus::Complete,
                failed: BTreeMap::new(),
                run_failure: None,
                header,
                measurements,
            }
        })
    });
    Collection {
        cells: cells.collect(),
        problems: Vec::new(),
    }
}

#[test]
fn measurements_keep_counts_and_sums() {
    let settings = synthetic::settings(Method::Vispec, "a", 2);
    let records = [0, 1].map(|index| synthetic::record(&settings, index));
    let mut both = Measurements::default();
    let mut merged = Measurements::default();
    for record in &records {
        both.add(record);
        let mut one = Measurements::default();
        one.add(record);
        merged.merge(&one);
    }
    assert_eq!(both, merged);
    let cycles: usize = records
        .iter()
        .map(|record| record.speculative.accepted_per_cycle.len())
        .sum();
    assert_eq!(both.cycles(), cycles as u64);
    assert_eq!(both.mean_nodes(), Some(30.0));
    let shares: f64 = PhaseShares::of(&both.speculative_ms).values().iter().sum();
    close(shares, 1.0, 1e-12);
}

#[test]
fn series_are_told_apart_by_what_differs() {
    let mut cells = collection(&[Method::None, Method::Vispec], None);
    let mut other = cells.cells[2].clone();
    other.header.settings.tree.as_mut().unwrap().total_token = TotalToken::Auto;
    cells.cells.push(other);
    let labels: Vec<_> = cells.series().into_iter().map(|s| s.label).collect();
    assert_eq!(labels, ["No draft", "ViSpec 3/8/30", "ViSpec 3/8/auto"]);
}

#[test]
fn drafts_are_told_apart_by_their_queries_and_others_by_name() {
    let mut cells = collection(&[Method::Vispec], None);
    cells.cells.truncate(1);
    cells.cells[0].header.num_q = Some(2);
    let labels = |cells: &Collection| -> Vec<_> {
        let series = cells.series().into_iter();
        series.map(|series| series.label).collect()
    };
    let mut more_queries = cells.cells[0].clone();
    more_queries.header.num_q = Some(4);
    more_queries.header.settings.draft = Some("drafts/q4".to_owned());
    cells.cells.push(more_queries);
    assert_eq!(labels(&cells), ["ViSpec num_q 4", "ViSpec num_q 2"]);
    let mut other = cells.cells[0].clone();
    other.header.settings.draft = Some("drafts/trained-longer".to_owned());
    cells.cells.push(other);
    assert_eq!(
        labels(&cells),
        [
            "ViSpec num_q 4",
            "ViSpec num_q 2 qwen-untied-vispec",
            "ViSpec num_q 2 trained-longer"
        ]
    );
}

#[test]
fn predictions_meet_what_was_measured_and_are_bounded_by_it() {
    let points = |cost: fn(f64) -> f64| {
        [1, 2, 4, 8, 16, 32, 64].map(|rows| CostPoint {
            rows,
            ms: cost(f64::from(rows)),
        })
    };
    let costs = CostTable {
        context_tokens: 100,
        draft_step: points(|_| 1.2).to_vec(),
        verify: points(|rows| 20.0 + 0.15 * rows).to_vec(),
    };
    let series = collection(&[Method::Vispec], Some(&costs)).series();
    let recorded = Recorded::of(&series[0]).unwrap();
    let same = recorded.predict(recorded.tree()).unwrap();
    let measured = Estimates::of(&series[0].pooled.blocks);
    close(same.tau.low, measured.tau.value, 1e-12);
    close(same.tau.high, measured.tau.value, 1e-12);
    // Synthetic times follow the costs with up to 5 % of noise, and the first token is free.
    close(same.speed_up.high, measured.decode.pooled.value, 0.08);

    let grid = recorded.grid();
    assert!(grid.len() > 8);
    for prediction in &grid {
        assert!(prediction.tau.low <= prediction.tau.high + 1e-12);
        assert!(prediction.tau.high <= same.tau.high + 1e-12);
        assert!(prediction.cycle_ms <= same.cycle_ms + 1e-12);
    }
    // A cost table that ends early is extended with the verify time of the recorded tree.
    let mut short = costs.clone();
    short.verify.truncate(4);
    let series = collection(&[Method::Vispec], Some(&short)).series();
    let recorded_short = Recorded::of(&series[0]).unwrap();
    let same_short = recorded_short.predict(recorded_short.tree()).unwrap();
    close(same_short.cycle_ms, same.cycle_ms, 0.05);

    let tree = recorded.tree();
    for unknown in [
        TreeChoice {
            levels: tree.levels + 1,
            ..tree
        },
        TreeChoice {
            nodes: tree.nodes + 1,
            ..tree
        },
        TreeChoice {
            width: tree.width - 1,
            ..tree
        },
        TreeChoice { levels: 0, ..tree },
    ] {
        assert_eq!(recorded.predict(unknown), None, "{unknown:?}");
    }
    assert!(Recorded::of(&collection(&[Method::None], Some(&costs)).series()[0]).is_none());
    assert!(Recorded::of(&collection(&[Method::Vispec], None).series()[0]).is_none());
}

#[test]
fn differences_of_tau_are_paired() {
    let (_, samples) = fixture();
    // Each cycle of every record accepts one more token: the difference is 1 in any resample,
    // however much the records vary.
    let better: Vec<Sample> = samples
        .iter()
        .map(|sample| Sample {
            accepted: sample.accepted + sample.cycles,
            ..*sample
        })
        .collect();
    let difference = tau_difference(&better, &samples).unwrap();
    for value in [difference.value, difference.low, difference.high] {
        assert!((value - 1.0).abs() < 1e-9, "{difference:?}");
    }
    // The intervals of the two figures themselves are much wider.
    let own = Estimates::of(&samples.iter().collect()).tau;
    assert!(own.high - own.low > 0.01, "{own:?}");

    let mut others = samples.clone();
    others[3].plain_tokens += 1;
    assert_eq!(tau_difference(&samples, &others), None);
    assert_eq!(tau_difference(&samples, &samples[1..]), None);
}
