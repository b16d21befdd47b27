//! The figures of the paper's main table, as in the authors' README.
//!
//! Source: KangJialiang/ViSpec at d0240c8; GPU, half precision, 100 samples per task. Their tau
//! excludes the bonus token, as ours does. Their speed-up includes vision tower and prefill, and
//! equals [`ratio_of_mean_speeds`](crate::statistics::Estimates::ratio_of_mean_speeds) except for
//! how they count the tokens of the baseline.

use crate::record::Method;

const TABLE: &str = include_str!("../data/paper.csv");

/// Names of the table's targets, and the lower-case substring by which a checkpoint's name is
/// recognised.
const TARGETS: [(&str, &str); 4] = [
    ("LLaVA-1.6 7B", "llava-v1.6-vicuna-7b"),
    ("LLaVA-1.6 13B", "llava-v1.6-vicuna-13b"),
    ("Qwen2.5-VL 3B", "qwen2.5-vl-3b"),
    ("Qwen2.5-VL 7B", "qwen2.5-vl-7b"),
];

/// Task name of the mean over tasks.
pub(crate) const AVERAGE: &str = "average";

/// One cell of the table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct PaperFigure {
    /// Target, by its name in the table.
    pub target: &'static str,
    /// 0 or 1.
    pub temperature: f64,
    /// Medusa, EAGLE-2 or ViSpec.
    pub method: Method,
    /// Task, by our name, or [`AVERAGE`].
    pub task: &'static str,
    /// Accepted draft tokens per cycle, without the bonus token.
    pub tau: f64,
    /// End-to-end speed-up.
    pub speed_up: f64,
}

/// Returns all cells of the table, in table order.
pub(crate) fn figures() -> impl Iterator<Item = PaperFigure> {
    TABLE.lines().skip(1).filter_map(parse)
}

/// Returns the table's tasks by our names, in table order, without [`AVERAGE`].
pub(crate) fn tasks() -> impl Iterator<Item = &'static str> {
    let row = figures().take_while(|figure| figure.task != AVERAGE);
    row.map(|figure| figure.task)
}

/// Returns the table's name of a target, given the name of a checkpoint.
pub(crate) fn target_of(checkpoint: &str) -> Option<&'static str> {
    let name = checkpoint.to_lowercase();
    TARGETS
        .into_iter()
        .find(|(_, part)| name.contains(part))
        .map(|(target, _)| target)
}

fn parse(line: &'static str) -> Option<PaperFigure> {
    let mut fields = line.split(',');
    Some(PaperFigure {
        target: fields.next()?,
        temperature: fields.next()?.parse().ok()?,
        method: fields.next()?.parse().ok()?,
        task: fields.next()?,
        tau: fields.next()?.parse().ok()?,
        speed_up: fields.next()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_is_read_and_averages_agree() {
        assert_eq!(figures().count(), TABLE.lines().count() - 1);
        assert_eq!(figures().count(), 4 * 2 * 3 * 9);
        let headline = figures()
            .filter(|figure| figure.task != AVERAGE)
            .map(|figure| figure.speed_up)
            .fold(0.0, f64::max);
        assert!((headline - 3.22).abs() < 1e-9);
        let off: Vec<_> = figures()
            .filter(|figure| figure.task == AVERAGE)
            .filter(|average| {
                let taus: Vec<f64> = figures()
                    .filter(|figure| {
                        (figure.target, figure.method) == (average.target, average.method)
                            && figure.temperature.to_bits() == average.temperature.to_bits()
                            && figure.task != AVERAGE
                    })
                    .map(|figure| figure.tau)
                    .collect();
                (taus.iter().sum::<f64>() / 8.0 - average.tau).abs() > 0.0151
            })
            .collect();
        assert!(off.is_empty(), "{off:?}");
    }

    #[test]
    fn checkpoints_are_recognised() {
        assert_eq!(target_of("Qwen2.5-VL-7B-Instruct"), Some("Qwen2.5-VL 7B"));
        assert_eq!(target_of("qwen-tied"), None);
    }
}
