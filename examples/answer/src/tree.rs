//! Sizes of draft trees from flags.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use clap::Args;
use clap::builder::ArgPredicate;
use indicatif::ProgressBar;
use vispec_core::{AutoTree, CostTable, TreeShape, TreeSize};
use vispec_models::{CalibrationOrigin, CalibrationPlace, Engine, Method, calibrate};

use crate::failure::Failure;

// The time and memory of a cycle grow with the tree. These limits catch typing mistakes; they lie
// far above useful values.
const MAX_DEPTH: usize = 128;
const MAX_TOP_K: usize = 256;
const MAX_TOTAL_TOKEN: usize = 4096;
/// Maximum of `--max-loss`; a larger value would not be a meaningful bound.
const MAX_MAX_LOSS: f64 = 100.0;
/// Upstream's depth: the default for trees with a fixed number of nodes.
const FIXED_DEPTH: usize = 3;

/// Default of `--total-token` on devices other than the CPU.
pub const DEVICE_TOTAL_TOKEN: &str = "30";

/// Nodes that the target verifies in a cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TotalToken {
    /// The most profitable number, by measured cost.
    Auto,
    /// A fixed number, the root included.
    Fixed(usize),
}

impl FromStr for TotalToken {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        text.parse()
            .map(Self::Fixed)
            .map_err(|_| format!("{text:?}, expected a number or auto"))
    }
}

/// Size of draft trees.
#[derive(Args, Debug, Clone)]
pub struct TreeFlags {
    /// Tree: number of drafting steps after the first, so that paths have at most depth + 1 drafted
    /// tokens; by default 3, or at most 7 with --total-token auto
    #[arg(long, allow_negative_numbers = true)]
    pub depth: Option<usize>,
    /// Tree: number of candidates per node, and of nodes expanded in each step
    #[arg(long, default_value_t = 8, allow_negative_numbers = true)]
    pub top_k: usize,
    /// Tree: number of nodes that the target verifies, the root included; or auto: the most
    /// profitable number, from times that are measured once for these models on this machine. The
    /// default on devices other than the CPU is 30, because a tree there takes little more time
    /// than a token
    #[arg(
        long,
        value_name = "N|auto",
        default_value = "auto",
        default_value_ifs([
            ("device", ArgPredicate::Equals("flex".into()), Some("auto")),
            ("device", ArgPredicate::IsPresent, Some(DEVICE_TOTAL_TOKEN)),
        ]),
        allow_negative_numbers = true
    )]
    pub total_token: TotalToken,
    /// Tree, with --total-token auto: maximum loss by drafting, as a share of the time of plain
    /// decoding; with a larger share drafting starts sooner
    #[arg(
        long,
        value_name = "SHARE",
        default_value_t = AutoTree::DEFAULT_MAX_LOSS,
        allow_negative_numbers = true
    )]
    pub max_loss: f64,
    /// File of the measured times; by default one in the user's cache directory
    #[arg(long, value_name = "FILE")]
    pub calibration: Option<PathBuf>,
}

/// The costs of passes, with notes on their origin.
#[derive(Debug, Clone)]
pub struct MeasuredCosts {
    /// The costs.
    pub table: CostTable,
    /// Notes for stderr.
    pub notes: Vec<String>,
}

impl TreeFlags {
    /// Checks every value without loading anything.
    ///
    /// # Errors
    /// [`Failure::Usage`] if a value is out of range or the shape is impossible.
    pub fn check(&self) -> Result<(), Failure> {
        in_range("--depth", self.depth.unwrap_or(0), 0, MAX_DEPTH)?;
        in_range("--top-k", self.top_k, 1, MAX_TOP_K)?;
        if !(0.0..=MAX_MAX_LOSS).contains(&self.max_loss) {
            let loss = self.max_loss;
            let message = format!("--max-loss is {loss}, expected 0 to {MAX_MAX_LOSS}");
            return Err(Failure::Usage(message));
        }
        match self.total_token {
            TotalToken::Auto => Ok(()),
            TotalToken::Fixed(nodes) => self.shape(nodes).map(drop),
        }
    }

    fn shape(&self, nodes: usize) -> Result<TreeShape, Failure> {
        in_range("--total-token", nodes, 1, MAX_TOTAL_TOKEN)?;
        let depth = self.depth.unwrap_or(FIXED_DEPTH);
        TreeShape::from_upstream(depth, self.top_k, nodes).map_err(Failure::usage)
    }

    /// Returns the default drafting method. With trees sized by cost, lookup competes with the
    /// network; trees of a fixed size are upstream's, in which only the network drafts.
    #[must_use]
    pub fn default_method(&self, engine: &Engine) -> Method {
        match self.total_token {
            TotalToken::Auto => engine.default_method().with_lookup(),
            TotalToken::Fixed(_) => engine.default_method(),
        }
    }

    /// Returns the place where measured times are saved.
    #[must_use]
    pub fn place(&self) -> CalibrationPlace {
        match (&self.calibration, cache_dir()) {
            (Some(file), _) => CalibrationPlace::File(file.clone()),
            (None, Some(dir)) => CalibrationPlace::InDir(dir),
            (None, None) => CalibrationPlace::Nowhere,
        }
    }

    /// Returns the costs of passes for `method`: from the file of an earlier run, or measured now.
    ///
    /// # Errors
    /// Any error of the models during the measurement, or of a file that the user named.
    pub fn costs(&self, engine: &Engine, method: Method) -> Result<MeasuredCosts, Failure> {
        let spinner = ProgressBar::new_spinner().with_message("measuring the cost of passes");
        spinner.enable_steady_tick(std::time::Duration::from_millis(100));
        let calibration = calibrate(engine, method, &self.place())?;
        spinner.finish_and_clear();
        let mut notes = Vec::from_iter(note(&calibration.origin));
        match calibration.unsaved {
            // The user asked for this file by name.
            Some(error) if self.calibration.is_some() => return Err(error.into()),
            Some(error) => notes.push(format!("measured times could not be saved: {error}")),
            None => {}
        }
        Ok(MeasuredCosts {
            table: calibration.costs,
            notes,
        })
    }

    /// Returns the size of trees that `method` drafts, with notes for the user on the origin of its
    /// costs. If the size depends on costs, measures them or reads those of an earlier run.
    ///
    /// # Errors
    /// Same as [`check`](Self::check) and [`costs`](Self::costs).
    pub fn measured_size(
        &self,
        engine: &Engine,
        method: Method,
    ) -> Result<(TreeSize, Vec<String>), Failure> {
        self.check()?;
        if self.total_token != TotalToken::Auto || method == Method::None {
            return Ok((self.size(method, None)?, Vec::new()));
        }
        let costs = self.costs(engine, method)?;
        Ok((self.size(method, Some(costs.table))?, costs.notes))
    }

    /// Returns the size of trees that `method` drafts, given the costs of passes. Without costs,
    /// only plain decoding and trees of a fixed size are possible.
    ///
    /// # Errors
    /// Same as [`check`](Self::check); also [`Failure::Usage`] if the size depends on costs and
    /// there are none.
    pub fn size(&self, method: Method, costs: Option<CostTable>) -> Result<TreeSize, Failure> {
        self.check()?;
        let nodes = match (self.total_token, method, costs) {
            (TotalToken::Fixed(nodes), _, _) => nodes,
            (TotalToken::Auto, Method::None, _) => 1,
            (TotalToken::Auto, _, Some(costs)) => return Ok(self.auto(costs).into()),
            (TotalToken::Auto, method, None) => {
                let message = format!("--total-token auto: the costs of {method} are not known");
                return Err(Failure::Usage(message));
            }
        };
        Ok(self.shape(nodes)?.into())
    }

    /// Returns the bounds of trees sized by `costs`.
    #[must_use]
    pub fn auto(&self, costs: CostTable) -> AutoTree {
        let limits = AutoTree::new(Arc::new(costs));
        AutoTree {
            max_levels: self.depth.map_or(limits.max_levels, |depth| depth + 1),
            beam_width: self.top_k,
            max_loss: self.max_loss,
            ..limits
        }
    }
}

fn in_range(flag: &str, found: usize, least: usize, most: usize) -> Result<(), Failure> {
    if (least..=most).contains(&found) {
        return Ok(());
    }
    let message = format!("{flag} is {found}, expected {least} to {most}");
    Err(Failure::Usage(message))
}

/// Returns the default directory of measured times.
fn cache_dir() -> Option<PathBuf> {
    let cache = match std::env::var_os("XDG_CACHE_HOME") {
        Some(dir) if !dir.is_empty() => PathBuf::from(dir),
        _ => PathBuf::from(std::env::var_os("HOME")?).join(".cache"),
    };
    Some(cache.join("vispec").join("calibration"))
}

/// Returns a note for the user about measured times, if needed.
fn note(origin: &CalibrationOrigin) -> Option<String> {
    match origin {
        CalibrationOrigin::File => None,
        CalibrationOrigin::Measured => Some("measured costs of passes on this machine".to_owned()),
        CalibrationOrigin::Remeasured { reason } => Some(format!(
            "costs of passes were measured again: the calibration file is not used: {reason}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[arg(long, default_value = "flex")]
        device: String,
        #[command(flatten)]
        tree: TreeFlags,
    }

    #[test]
    fn trees_are_large_on_devices_unless_a_size_is_given() {
        let total_token = |flags: &[&str]| {
            let flags = Flags::parse_from(["program"].iter().chain(flags));
            (flags.device, flags.tree.total_token)
        };
        let (device, nodes) = total_token(&[]);
        assert_eq!((device.as_str(), nodes), ("flex", TotalToken::Auto));
        assert_eq!(total_token(&["--device", "flex"]).1, TotalToken::Auto);
        assert_eq!(
            total_token(&["--device", "cuda:1"]).1,
            TotalToken::Fixed(30)
        );
        let given = ["--device", "wgpu", "--total-token", "auto"];
        assert_eq!(total_token(&given).1, TotalToken::Auto);
    }
}
