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
    pub(crate) models: Vec<ModelReport>,
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

#[derive(Serialize)]
pub(crate) struct ModelReport {
    pub(crate) target: String,
    pub(crate) prefill_seconds_per_token: f64,
    /// Nodes, seconds, launches.
    pub(crate) verify: Vec<(usize, f64, Option<usize>)>,
    /// One node in a padded pass.
    pub(crate) padded_seconds: Option<f64>,
    pub(crate) plain_tokens_per_second: f64,
    pub(crate) drafted: Option<Drafted>,
}

#[derive(Serialize)]
pub(crate) struct Drafted {
    pub(crate) method: String,
    pub(crate) nodes: usize,
    pub(crate) tau: f64,
    pub(crate) tokens_per_second: f64,
    pub(crate) launches_per_cycle: Option<f64>,
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
    for model in &report.models {
        let _ = writeln!(
            page,
            "## {}\n\nPrefill {:.2} ms a token, plain decoding {:.1} tokens/s.\n",
            model.target,
            1e3 * model.prefill_seconds_per_token,
            model.plain_tokens_per_second
        );
        if let Some(drafted) = &model.drafted {
            let launched = drafted.launches_per_cycle;
            let launched = launched.map_or("-".to_owned(), |launched| format!("{launched:.0}"));
            let _ = writeln!(
                page,
                "With {} and trees of {} nodes {:.1} tokens/s ({:.2} times), tau {:.2}, {launched} launches a cycle, tokens beside plain decoding: {}.\n",
                drafted.method,
                drafted.nodes,
                drafted.tokens_per_second,
                drafted.tokens_per_second / model.plain_tokens_per_second,
                drafted.tau,
                drafted.beside_plain
            );
        }
        page.push_str("| nodes verified | ms | of one | launches |\n|---|---|---|---|\n");
        for (rows, seconds, launched) in &model.verify {
            let launched = launched.map_or("-".to_owned(), |launched| launched.to_string());
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
    page
}
