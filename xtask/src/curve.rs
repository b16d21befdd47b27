//! `cargo xtask curve`: plots learning curves of trainings.
//!
//! In the first epoch every answer is new. The share of its tokens that the draft predicts before
//! it learns from them therefore measures how well it predicts unseen answers, at no extra cost.
//! From the second epoch on, only held-out answers measure that.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Deserialize;
use vispec_report::plots::{Line, LineChart, LineUnit, Point, Stroke, Theme, XScale, to_png};
use vispec_report::write_whole;

/// Ratio of the token counts of consecutive points.
const APART: f64 = std::f64::consts::SQRT_2;
/// First point, in thousands of tokens; before it the learning rate is close to zero.
const FIRST: f64 = 4.0;
/// File name of the plots, without extension.
const NAME: &str = "learning-curve";

#[derive(Args)]
pub(crate) struct Flags {
    /// Output directories of `train`, each with its name in the plot: NAME=DIR
    #[arg(required = true, value_name = "NAME=DIR")]
    runs: Vec<Run>,
    /// Directory to write to
    #[arg(long)]
    out: PathBuf,
}

#[derive(Clone)]
struct Run {
    name: String,
    dir: PathBuf,
}

impl FromStr for Run {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, dir) = text
            .split_once('=')
            .filter(|(name, dir)| !name.is_empty() && !dir.is_empty())
            .ok_or_else(|| format!("{text}: expected NAME=DIR"))?;
        Ok(Self {
            name: name.to_owned(),
            dir: dir.into(),
        })
    }
}

/// The fields of a line of `metrics.jsonl` that are used.
#[derive(Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
enum Record {
    Step {
        epoch: usize,
        losses: Option<Losses>,
    },
    Epoch {
        held_out: Option<HeldOut>,
    },
}

#[derive(Deserialize)]
struct Losses {
    /// Shares of supervised tokens that are the draft's first guess, among its first two, and among
    /// its first three.
    top: Vec<f64>,
    supervised: usize,
}

#[derive(Deserialize)]
struct HeldOut {
    losses: Losses,
}

/// Number of tokens, and of those that the draft predicted.
#[derive(Default)]
struct Tally {
    tokens: f64,
    foreseen: f64,
}

impl Tally {
    fn add(&mut self, losses: &Losses) {
        let tokens = losses.supervised as f64;
        self.tokens += tokens;
        self.foreseen += tokens * losses.top.first().copied().unwrap_or(0.0);
    }

    fn point(&self, x: f64) -> Point {
        Point {
            x,
            y: self.foreseen / self.tokens,
            interval: None,
        }
    }
}

/// Returns the lines of a run: for new answers, and for held-out answers after each epoch.
fn lines(text: &str, name: &str, color: usize) -> Result<Vec<Line>> {
    let mut seen = 0.0;
    let mut next = FIRST;
    let mut tally = Tally::default();
    let mut new = Vec::new();
    let mut held_out = Vec::new();
    for (idx, line) in text.lines().enumerate() {
        let record = serde_json::from_str(line).with_context(|| format!("line {}", idx + 1))?;
        match record {
            Record::Step { epoch, losses } => {
                let Some(losses) = losses else { continue };
                seen += losses.supervised as f64 / 1e3;
                if epoch > 0 {
                    continue;
                }
                tally.add(&losses);
                if seen >= next {
                    new.push(tally.point(seen));
                    tally = Tally::default();
                    next *= APART;
                }
            }
            Record::Epoch { held_out: Some(at) } => {
                let mut tally = Tally::default();
                tally.add(&at.losses);
                held_out.push(tally.point(seen));
            }
            Record::Epoch { held_out: None } => {}
        }
    }
    ensure!(
        !new.is_empty(),
        "{name}: trained on fewer than {FIRST} thousand tokens of answers"
    );
    let line = |label: String, stroke, points| Line {
        label,
        color,
        stroke,
        points,
    };
    let mut lines = vec![line(name.to_owned(), Stroke::Full, new)];
    if !held_out.is_empty() {
        let label = format!("{name}, held-out answers");
        lines.push(line(label, Stroke::Hollow, held_out));
    }
    Ok(lines)
}

fn chart(lines: Vec<Line>) -> LineChart {
    LineChart {
        title: "Accuracy of the first guess".to_owned(),
        subtitle: "over the tokens of answers that the draft had not seen before".to_owned(),
        x_axis: ("answer tokens seen, in thousands".to_owned(), XScale::Sizes),
        y_axis: ("correct first guesses".to_owned(), LineUnit::Share),
        lines,
        horizontals: Vec::new(),
    }
}

/// Draws the curves of the runs as SVG and PNG.
#[expect(clippy::print_stdout, reason = "output of the program")]
pub(crate) fn run(flags: &Flags) -> Result<()> {
    let mut all = Vec::new();
    for (color, run) in flags.runs.iter().enumerate() {
        let path = metrics(&run.dir);
        let at = || path.display().to_string();
        let text = fs::read_to_string(&path).with_context(at)?;
        all.extend(lines(&text, &run.name, color).with_context(at)?);
    }
    let svg = chart(all).to_svg(Theme::File);
    fs::create_dir_all(&flags.out).with_context(|| flags.out.display().to_string())?;
    let file = |ending: &str| flags.out.join(format!("{NAME}.{ending}"));
    write_whole(&file("png"), &to_png(NAME, &svg)?)?;
    write_whole(&file("svg"), svg.as_bytes())?;
    println!("{}", file("svg").display());
    Ok(())
}

fn metrics(dir: &Path) -> PathBuf {
    dir.join("metrics.jsonl")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(epoch: usize, right: f64) -> String {
        format!(
            r#"{{"record":"step","epoch":{epoch},"step":0,"losses":{{"top":[{right},1.0],"supervised":1000}}}}"#
        )
    }

    #[test]
    fn points_average_new_answers_only() {
        let epoch = r#"{"record":"epoch","held_out":{"losses":{"top":[0.5],"supervised":10}}}"#;
        let text: Vec<String> = [0.0, 0.0, 0.5, 0.5, 0.25, 0.75]
            .map(|right| step(0, right))
            .into_iter()
            .chain([epoch.to_owned(), step(1, 1.0), epoch.to_owned()])
            .collect();
        let found = lines(&text.join("\n"), "run", 3).unwrap();
        let points = |line: &Line| -> Vec<(f64, f64)> {
            line.points.iter().map(|point| (point.x, point.y)).collect()
        };
        assert_eq!(found.len(), 2);
        assert_eq!(points(&found[0]), [(4.0, 0.25), (6.0, 0.5)]);
        assert_eq!(points(&found[1]), [(6.0, 0.5), (7.0, 0.5)]);
    }

    #[test]
    fn what_is_no_run_is_said() {
        let found = lines("{\"record\":\"step\"}", "run", 0).unwrap_err();
        assert!(format!("{found:#}").contains("line 1"), "{found:#}");
        let found = lines("", "run", 0).unwrap_err();
        assert!(found.to_string().contains("4 thousand tokens"), "{found}");
        assert!("=dir".parse::<Run>().is_err() && "name".parse::<Run>().is_err());
    }
}
