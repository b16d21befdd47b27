//! What is found out about a device, as JSON and as a page.

use std::fmt::{self, Write as _};

use serde::Serialize;

/// Tokens beside those that are expected.
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
    /// Rows of padded passes.
    pub(crate) padded_rows: usize,
    /// With padded passes, where there are any.
    pub(crate) padded_disagreement: Option<Disagreement>,
    pub(crate) bandwidth: Bandwidth,
    pub(crate) models: Vec<ModelReport>,
    pub(crate) not_measured: Vec<NotMeasured>,
}

impl Report {
    /// Whether all tokens are those of the reference and of the CPU.
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

/// A drafter on this device and plain decoding on the CPU.
#[derive(Serialize)]
pub(crate) struct PairReport {
    pub(crate) name: String,
    pub(crate) greedy: Tokens,
    pub(crate) sampled: Tokens,
}

/// Rows of trees beside passes over single tokens.
#[derive(Serialize, Default)]
pub(crate) struct Disagreement {
    pub(crate) rows: usize,
    pub(crate) other_picks: usize,
    /// Largest difference of a logit.
    pub(crate) largest: f32,
    /// Gap of the best two logits where the picks differ, at most.
    pub(crate) largest_gap_of_other_picks: f32,
}

/// Bytes per second that the memory of the device gives.
#[derive(Serialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bandwidth {
    /// As the caller says.
    Given(f64),
    /// Read and written by a copy on the device.
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
            Self::Given(_) => "as it was given",
            Self::Copied(_) => "measured by a copy",
        };
        write!(f, "{:.0} GB/s, {origin}", self.bytes_per_second() / 1e9)
    }
}

#[derive(Serialize)]
pub(crate) struct ModelReport {
    pub(crate) target: String,
    pub(crate) dtype: String,
    /// Weights that a pass over one token reads.
    pub(crate) weight_bytes: usize,
    pub(crate) prefill_seconds_per_token: f64,
    /// Nodes, seconds, launches.
    pub(crate) verify: Vec<(usize, f64, Option<usize>)>,
    /// One node in a padded pass.
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
    /// Prefill aside, the draft's reading of the prompt included.
    pub(crate) tokens_per_second: f64,
    /// Unless there were too few.
    pub(crate) cycle: Option<Cycle>,
}

/// The mean of some cycles in a row.
#[derive(Serialize, Clone, Copy)]
pub(crate) struct Cycle {
    pub(crate) cycles: usize,
    pub(crate) seconds: f64,
    pub(crate) launches: Option<f64>,
    pub(crate) read_backs: f64,
    /// Share of the time outside read-backs: the host launches, chooses tokens, or is held up by a full
    /// queue. The device may be at work meanwhile.
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

/// The report for people.
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
        "Cases of the reference implementation with its tokens: {} of {n} in plain decoding, {} of {n} drafted, in {:.0} s.\n",
        count(|case| case.plain == Tokens::Equal),
        count(|case| case.drafted == Tokens::Equal),
        report.cases.iter().map(|case| case.seconds).sum::<f64>(),
    );
    let count =
        |equal: fn(&PairReport) -> bool| report.pairs.iter().filter(|pair| equal(pair)).count();
    let n = report.pairs.len();
    let _ = writeln!(
        page,
        "Pairs of a target and a drafter, of every family and method, with the tokens of plain decoding on the CPU: {} of {n} greedy, {} of {n} at temperature 1.\n",
        count(|pair| pair.greedy == Tokens::Equal),
        count(|pair| pair.sampled == Tokens::Equal),
    );
    page.push_str("Rows read one at a time and sixteen at a time:\n\n");
    page.push_str("| passes | rows | pick another token | where the best two logits are apart by at most | largest difference of a logit |\n|---|---|---|---|---|\n");
    disagreement_line(&mut page, "as they are", &report.disagreement);
    if let Some(padded) = &report.padded_disagreement {
        let passes = format!("padded to {} rows", report.padded_rows);
        disagreement_line(&mut page, &passes, padded);
    }
    page.push('\n');
    let _ = writeln!(page, "Memory: {}.\n", report.bandwidth);
    for model in &report.models {
        model_section(&mut page, model, report);
    }
    for NotMeasured { target, reason } in &report.not_measured {
        let _ = writeln!(page, "## {target}\n\nNot measured: {reason}.\n");
    }
    page
}

/// Accepted draft tokens a cycle for which the page foresees the speed, since random weights have none.
const FORESEEN_TAU: f64 = 2.0;

fn model_section(page: &mut String, model: &ModelReport, report: &Report) {
    let _ = writeln!(
        page,
        "## {} in {}\n\nA pass over one token reads {:.1} MB of weights. Prefill {:.2} ms a token, plain decoding {:.1} tokens/s.\n",
        model.target,
        model.dtype,
        model.weight_bytes as f64 / 1e6,
        1e3 * model.prefill_seconds_per_token,
        model.plain.tokens_per_second
    );
    if let Some(drafted) = &model.drafted {
        let _ = writeln!(
            page,
            "With {} and trees of {} nodes {:.1} tokens/s ({:.2} times), tau {:.2}, tokens beside plain decoding: {}.",
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
                "With a draft of which {FORESEEN_TAU:.0} tokens a cycle are accepted it would be {:.2} times.",
                (1.0 + FORESEEN_TAU) * plain.seconds / cycle.seconds
            );
        }
        page.push('\n');
    }
    page.push_str("| a cycle | ms | the target's weights, of the bandwidth | launches | read-backs | outside read-backs |\n|---|---|---|---|---|---|\n");
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
    page.push_str("\n| nodes verified | ms | of one | launches |\n|---|---|---|---|\n");
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
