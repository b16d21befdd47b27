//! Estimated gain of speculation, from measured times.

use std::fmt;
use std::time::Duration;

use crate::{CostTable, GenerationStats, Idle, SpeculationReason};

/// Number of passes over only the root that is enough to know the time of such a pass.
const ENOUGH_PASSES: u64 = 16;

/// Estimates the time of plain decoding for the cycles of a generation that had its passes to
/// itself.
///
/// Returns `None` without a cycle, and if there is neither a cost table nor a sufficient number of
/// passes over only the root.
///
/// The time of a pass over only the root is the mean of those in the generation. If there were too
/// few, it is the root's share of the measured passes according to the table, so the current speed
/// and load of the machine do not affect the ratio.
#[must_use]
pub fn plain_time(stats: &GenerationStats, costs: Option<&CostTable>) -> Option<Duration> {
    let cycles = stats.n_cycles();
    if cycles == 0 {
        return None;
    }
    let alone = stats.nodes_per_cycle.iter().filter(|&&n| n == 1).count() as u64;
    let pass = if alone >= ENOUGH_PASSES {
        stats.root_time.as_secs_f64() / alone as f64
    } else {
        let costs = costs?;
        let nodes = stats.nodes_per_cycle.iter();
        let table: f64 = nodes.map(|&nodes| costs.verify(nodes as usize)).sum();
        stats.verify_time.as_secs_f64() * costs.verify(1) / table
    };
    let accepted = stats.accepted_per_cycle.iter();
    let tokens: u64 = accepted.map(|&accepted| u64::from(accepted) + 1).sum();
    // Time outside of passes and drafts occurs once per pass.
    let other = stats.other_time().as_secs_f64() / cycles as f64;
    Duration::try_from_secs_f64(tokens as f64 * (pass + other)).ok()
}

/// Summary of speculation in a generation; its [`Display`](fmt::Display) is one line.
#[derive(Clone, Copy, PartialEq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct SpeculationSummary {
    /// Speed-up over plain decoding without prefill, estimated with [`plain_time`].
    pub gain: Option<f64>,
    /// Mean accepted draft tokens per cycle.
    pub tau: f64,
    /// Smallest and largest number of nodes of the middle nine in ten of the trees with more than a
    /// root.
    pub nodes: Option<(u32, u32)>,
    /// The reason if most cycles had no draft.
    pub off: Option<Idle>,
}

impl SpeculationSummary {
    /// Summarises a generation that had its passes to itself; `None` without a cycle.
    #[must_use]
    pub fn new(stats: &GenerationStats, costs: Option<&CostTable>) -> Option<Self> {
        if stats.n_cycles() == 0 {
            return None;
        }
        let gain = plain_time(stats, costs).filter(|_| !stats.decode_time.is_zero());
        let gain = gain.map(|plain| plain.as_secs_f64() / stats.decode_time.as_secs_f64());
        let mut nodes = Vec::from_iter(stats.nodes_per_cycle.iter().filter(|&&n| n > 1).copied());
        nodes.sort_unstable();
        let last = nodes.len().saturating_sub(1);
        let (low, high) = (nodes.get(last / 20), nodes.get(last - last / 20));
        Some(Self {
            gain,
            tau: stats.tau(),
            nodes: low.copied().zip(high.copied()),
            off: stats.mostly_idle(),
        })
    }
}

impl fmt::Display for SpeculationSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { gain, tau, .. } = self;
        match self.off {
            None => write!(f, "speculation: ")?,
            Some(idle) => write!(f, "{}; ", SpeculationReason::Idle(idle))?,
        }
        if let Some(gain) = gain {
            write!(f, "about {gain:.2}x plain decoding, ")?;
        }
        write!(f, "tau {tau:.2}")?;
        match self.nodes {
            Some((low, high)) if low == high => write!(f, ", trees of {low} nodes"),
            Some((low, high)) => write!(f, ", trees of {low} to {high} nodes"),
            None => Ok(()),
        }
    }
}
