//! Summaries of runs with a number of clients.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::client::Answer;

/// Figures of a run with a number of clients.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Summary {
    pub(super) clients: usize,
    pub(super) requests: usize,
    pub(super) tokens: usize,
    pub(super) seconds: f64,
    pub(super) tokens_per_second: f64,
    /// Seconds to the first token: median and 95th percentile.
    pub(super) first_token: [f64; 2],
    /// Seconds between parts of an answer: median, 95th percentile and maximum.
    pub(super) between_tokens: [f64; 3],
    /// Whether each answer equals that of the first run.
    pub(super) identical: bool,
}

impl Summary {
    pub(super) fn new(clients: usize, answers: &[Answer], seconds: f64, identical: bool) -> Self {
        let tokens = answers.iter().map(|answer| answer.tokens).sum();
        let first = sorted(answers.iter().filter_map(Answer::first));
        let gaps = sorted(answers.iter().flat_map(Answer::gaps).map(|(_, gap)| gap));
        Self {
            clients,
            requests: answers.len(),
            tokens,
            seconds,
            tokens_per_second: tokens as f64 / seconds,
            first_token: [0.5, 0.95].map(|share| quantile(&first, share)),
            between_tokens: [0.5, 0.95, 1.0].map(|share| quantile(&gaps, share)),
            identical,
        }
    }
}

/// Times between parts of answers before and while a long prompt is processed.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Stall {
    /// Seconds to the first token of the long prompt.
    pub(super) first_token: f64,
    /// Seconds between tokens of the others before it arrives: median and 95th percentile.
    pub(super) usual: [f64; 2],
    /// The same while the prompt is processed, and the maximum.
    pub(super) meanwhile: [f64; 3],
}

impl Stall {
    pub(super) fn new(long: &Answer, others: &[Answer]) -> Option<Self> {
        let first = long.first()?;
        let read = long.asked..long.asked + first;
        let gaps = |inside: &dyn Fn(&Instant) -> bool| {
            let all = others.iter().flat_map(Answer::gaps);
            sorted(all.filter(|(at, _)| inside(at)).map(|(_, gap)| gap))
        };
        let usual = gaps(&|at| *at < read.start);
        let meanwhile = gaps(&|at| read.contains(at));
        Some(Self {
            first_token: first.as_secs_f64(),
            usual: [0.5, 0.95].map(|share| quantile(&usual, share)),
            meanwhile: [0.5, 0.95, 1.0].map(|share| quantile(&meanwhile, share)),
        })
    }
}

fn sorted(times: impl Iterator<Item = Duration>) -> Vec<f64> {
    let mut seconds = Vec::from_iter(times.map(|time| time.as_secs_f64()));
    seconds.sort_by(f64::total_cmp);
    seconds
}

/// Returns the value that a share of all values does not exceed; NaN if there are none.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    let place = rank.clamp(1, sorted.len().max(1)) - 1;
    sorted.get(place).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_occurred() {
        let values: Vec<f64> = (1..=20).map(f64::from).collect();
        let quantiles = [0.0, 0.5, 0.95, 1.0].map(|share| quantile(&values, share));
        assert_eq!(quantiles.map(|value| value as i64), [1, 10, 19, 20]);
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn a_stall_is_seen_where_it_happens() {
        let start = Instant::now();
        let at = |millis: u64| start + Duration::from_millis(millis);
        let answer = |asked: u64, parts: &[u64]| Answer {
            text: String::new(),
            tokens: parts.len(),
            asked: at(asked),
            parts: parts.iter().map(|&part| at(part)).collect(),
            ended: at(1_000),
        };
        let others = [answer(0, &[10, 20, 30, 40, 70, 100, 110, 120])];
        let stall = Stall::new(&answer(35, &[105, 130]), &others).unwrap();
        let millis = |seconds: f64| (seconds * 1e3).round() as u64;
        assert_eq!(millis(stall.first_token), 70);
        assert_eq!(stall.usual.map(millis), [10, 10]);
        assert_eq!(stall.meanwhile.map(millis), [30, 30, 30]);
        assert!(Stall::new(&answer(0, &[]), &others).is_none());
    }
}
