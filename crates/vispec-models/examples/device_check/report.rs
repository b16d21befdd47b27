//! The results of a device check, as JSON and as a Markdown page.

use std::fmt::{self, Write as _};

use serde::Serialize;

/// Whether tokens equal the expected ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Tokens {
    Equal,
    Other,
}

impl Tokens {
    pub(crate) fn compare(found: &[u32], expected: &[u32]) -> Self {
        if found == expected {
            Self::Equal
        } else {
            Self::Other
        }
    }
}

impl fmt::Display for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Equal => "equal",
            Self::Other => "OTHER",
        })
    }
}

#[derive(Serialize)]
pub(crate) struct Report {
    pub(crate) device: String,
    pub(crate) dtype: String,
    pub(crate) version: &'static str,
    pub(crate) cases: Vec<CaseReport>,
    pub(crate) pairs: Vec<PairReport>,
    pub(crate) disagreement: Disagreement,
    /// Number of rows of padded passes.
    pub(crate) padded_rows: usize,
    /// The same with padded passes, if the device supports them.
    pub(crate) padded_disagreement: Option<Disagreement>,
    pub(crate) bandwidth: Bandwidth,
    pub(crate) models: Vec<ModelReport>,
    pub(crate) not_measured: Vec<NotMeasured>,
}

impl Report {
    /// Returns whether all tokens equal those of the reference and of the CPU.
    pub(crate) fn is_right(&self) -> bool {
        let cases = self.cases.iter();
        let cases = cases.flat_map(|case| [case.plain, case.drafted]);
        let pairs = self.pairs.iter();
        let pairs = pairs.flat_map(|pair| [pair.greedy, pair.sampled]);
        cases.chain(pairs).all(|tokens| tokens == Tokens::Equal)
    }
}

/// A case of the reference implementation.
#[derive(Serialize)]
pub(crate) struct CaseReport {
    pub(crate) name: String,
    pub(crate) plain: Tokens,
    pub(crate) drafted: Tokens,
    pub(crate) tau: f64,
    pub(crate) seconds: f64,
}

/// A drafter on this device, compared with plain decoding on the CPU.
#[derive(Serialize)]
pub(crate) struct PairReport {
    pub(crate) name: String,
    pub(crate) greedy: Tokens,
    pub(crate) sampled: Tokens,
}

/// Rows of trees, compared with passes over single tokens.
#[derive(Serialize, Default)]
pub(crate) struct Disagreement {
    pub(crate) rows: usize,
    pub(crate) other_picks: usize,
    /// Largest difference between two logits of the same token.
    pub(crate) largest: f32,
    /// Largest gap between the best two logits of a row with different picks.
    pub(crate) largest_gap_of_other_picks: f32,
}

/// Memory bandwidth of the device in bytes per second.
#[derive(Serialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bandwidth {
    /// Given with a flag.
    Given(f64),
    /// Measured on the device, by reading and writing buffers.
    Copied(f64),
}

impl Bandwidth {
    fn bytes_per_second(self) -> f64 {
        match self {
            Self::Given(bytes) | Self::Copied(bytes) => bytes,
        }
    }
}

impl fmt::Display for Bandwidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = match self {
            Self::Given(_) => "from --bandwidth",
            Self::Copied(_) => "measured",
        };
        write!(f, "{:.0} GB/s, {origin}", self.bytes_per_second() / 1e9)
    }
}

#[derive(Serialize)]
pub(crate) struct ModelReport {
    pub(crate) target: String,
    pub(crate) dtype: String,
    /// Bytes of the weights that a pass over one token reads.
    pub(crate) weight_bytes: usize,
    pub(crate) prefill_seconds_per_token: f64,
    /// Nodes, seconds and launches of each verify pass.
    pub(crate) verify: Vec<(usize, f64, Option<usize>)>,
    /// Seconds of a padded pass over one node.
    pub(crate) padded_seconds: Option<f64>,
    pub(crate) plain: Decoded,
    pub(crate) drafted: Option<Drafted>,
}

/// A model that could not be measured.
#[derive(Serialize)]
pub(crate) struct NotMeasured {
    pub(crate) target: String,
    pub(crate) reason: String,
}

#[derive(Serialize)]
pub(crate) struct Decoded {
    /// Without the target's prefill, but with the draft's.
    pub(crate) tokens_per_second: f64,
    /// `None` if there were too few cycles.
    pub(crate) cycle: Option<Cycle>,
}

/// Means over consecutive cycles.
#[derive(Serialize, Clone, Copy)]
pub(crate) struct Cycle {
    pub(crate) cycles: usize,
    pub(crate) seconds: f64,
    pub(crate) launches: Option<f64>,
    pub(crate) read_backs: f64,
    /// Share of the time outside read-backs, in which the host launches kernels, chooses tokens or
    /// waits for a full queue. The device may be busy in this time.
    pub(crate) host_share: f64,
}

#[derive(Serialize)]
pub(crate) struct Drafted {
    pub(crate) method: String,
    pub(crate) nodes: usize,
    pub(crate) tau: f64,
    pub(crate) decoded: Decoded,
    pub(crate) beside_plain: Tokens,
}

fn disagreement_line(page: &mut String, passes: &str, found: &Disagreement) {
    let Disagreement {
        rows,
        other_picks,
        largest,
        largest_gap_of_other_picks: gap,
    } = found;
    let _ = writeln!(
        page,
        "| {passes} | {rows} | {other_picks} | {gap:.2e} | {largest:.2e} |"
    );
}

/// Returns the report as Markdown.
pub(crate) fn page(report: &Report) -> String {
    let mut page = format!(
        "# Check of `{}` in {}, vispec-models {}\n\n",
        report.device, report.dtype, report.version
    );
    let count =
        |equal: fn(&CaseReport) -> bool| report.cases.iter().filter(|case| equal(case)).count();
    let n = report.cases.len();
    let _ = writeln!(
        page,
        "Cases with the tokens of the reference implementation: {} of {n} in plain decoding, {} of {n} with a draft ({:.0} s).\n",
        count(|case| case.plain == Tokens::Equal),
        count(|case| case.drafted == Tokens::Equal),
        report.cases.iter().map(|case| case.seconds).sum::<f64>(),
    );
    let count =
        |equal: fn(&PairReport) -> bool| report.pairs.iter().filter(|pair| equal(pair)).count();
    let n = report.pairs.len();
    let _ = writeln!(
        page,
        "Pairs of target and drafter, covering every family and method, with the tokens of plain decoding on the CPU: {} of {n} greedy, {} of {n} at temperature 1.\n",
        count(|pair| pair.greedy == Tokens::Equal),
        count(|pair| pair.sampled == Tokens::Equal),
    );
    page.push_str("Passes over sixteen tokens, compared with passes over single tokens:\n\n");
    page.push_str("| passes | rows | rows with another best token | largest gap of the best two logits in such a row | largest difference of a logit |\n|---|---|---|---|---|\n");
    disagreement_line(&mut page, "not padded", &report.disagreement);
    if let Some(padded) = &report.padded_disagreement {
        let passes = format!("padded to {} rows", report.padded_rows);
        disagreement_line(&mut page, &passes, padded);
    }
    page.push('\n');
    let _ = writeln!(page, "Memory bandwidth: {}.\n", report.bandwidth);
    for model in &report.models {
        model_section(&mut page, model, report);
    }
    for NotMeasured { target, reason } in &report.not_measured {
        let _ = writeln!(page, "## {target}\n\nNot measured: {reason}.\n");
    }
    page
}

/// Accepted draft tokens per cycle for which the page predicts the speed. A draft with random
/// weights guesses nothing right.
const FORESEEN_TAU: f64 = 2.0;

fn model_section(page: &mut String, model: &ModelReport, report: &Report) {
    let _ = writeln!(
        page,
        "## {} in {}\n\nA pass over one token reads {:.1} MB of weights. Prefill: {:.2} ms per token. Plain decoding: {:.1} tokens/s.\n",
        model.target,
        model.dtype,
        model.weight_bytes as f64 / 1e6,
        1e3 * model.prefill_seconds_per_token,
        model.plain.tokens_per_second
    );
    if let Some(drafted) = &model.drafted {
        let _ = writeln!(
            page,
            "With {} and trees of {} nodes: {:.1} tokens/s, speed-up {:.2}, tau {:.2}, tokens compared with plain decoding: {}.",
            drafted.method,
            drafted.nodes,
            drafted.decoded.tokens_per_second,
            drafted.decoded.tokens_per_second / model.plain.tokens_per_second,
            drafted.tau,
            drafted.beside_plain
        );
        if let (Some(plain), Some(cycle)) = (model.plain.cycle, drafted.decoded.cycle) {
            let _ = writeln!(
                page,
                "With {FORESEEN_TAU:.0} accepted draft tokens per cycle, the speed-up would be {:.2}.",
                (1.0 + FORESEEN_TAU) * plain.seconds / cycle.seconds
            );
        }
        page.push('\n');
    }
    page.push_str("| cycle | ms | share of the bandwidth for the target's weights | launches | read-backs | time outside read-backs |\n|---|---|---|---|---|---|\n");
    let bytes = model.weight_bytes as f64;
    let plain = ("plain", &model.plain);
    let drafted = model
        .drafted
        .iter()
        .map(|drafted| ("drafted", &drafted.decoded));
    for (name, decoded) in [plain].into_iter().chain(drafted) {
        let Some(cycle) = decoded.cycle else {
            continue;
        };
        let launched = or_dash(cycle.launches.map(|launched| format!("{launched:.0}")));
        let _ = writeln!(
            page,
            "| {name} | {:.2} | {:.0} % | {launched} | {:.1} | {:.0} % |",
            1e3 * cycle.seconds,
            1e2 * bytes / cycle.seconds / report.bandwidth.bytes_per_second(),
            cycle.read_backs,
            1e2 * cycle.host_share
        );
    }
    page.push_str("\n| nodes verified | ms | times one node | launches |\n|---|---|---|---|\n");
    for (rows, seconds, launched) in &model.verify {
        let launched = or_dash(launched.map(|launched| launched.to_string()));
        let _ = writeln!(
            page,
            "| {rows} | {:.2} | {:.2} | {launched} |",
            1e3 * seconds,
            seconds / model.verify[0].1
        );
    }
    if let Some(seconds) = model.padded_seconds {
        let _ = writeln!(
            page,
            "| 1, padded to {} | {:.2} | {:.2} | - |",
            report.padded_rows,
            1e3 * seconds,
            seconds / model.verify[0].1
        );
    }
    page.push('\n');
}

fn or_dash(cell: Option<String>) -> String {
    cell.unwrap_or_else(|| "-".to_owned())
}
