//! Choice of how many prompt rows a pass reads.

use std::time::Duration;

use vispec_core::PassRows;

/// Number of prompt rows per pass while no answer is decoding: enough for full speed, and few
/// enough that a request can be cancelled soon.
const ALONE: usize = 256;
/// Initial number of prompt rows in a pass with decoding answers, before their cost is known.
const FIRST: f64 = 16.0;
/// Minimum number of prompt rows in a pass with decoding answers, so that prompts make progress.
const LEAST: f64 = 8.0;
/// How many times longer than usual a pass with prompt rows may take.
const SLOWDOWN: f64 = 1.75;
/// Weight of the newest pass in the usual time, if it was faster.
const FASTER: f64 = 0.3;
/// Weight of the newest pass in the usual time, if it was slower. It is small because passes with
/// large trees, which yield several tokens, should not set the standard.
const SLOWER: f64 = 0.02;
/// Range of the factor by which one pass may change the number of rows.
const CHANGE: (f64, f64) = (0.5, 1.25);

/// The number of prompt rows that keeps passes below a multiple of their usual time. It follows
/// measured times, since long contexts and busy machines make rows slow. The tokens do not depend
/// on it.
#[derive(Debug)]
pub(super) struct ChunkSize {
    /// Usual time of passes without prompt rows, in seconds.
    usual: Option<f64>,
    rows: f64,
}

impl ChunkSize {
    pub(super) fn new() -> Self {
        Self {
            usual: None,
            rows: FIRST,
        }
    }

    /// Returns the number of prompt rows for a pass with `writing` decoding answers.
    pub(super) fn rows(&self, writing: usize) -> usize {
        match writing {
            0 => ALONE,
            _ => self.rows as usize,
        }
    }

    /// Adjusts the number of rows after a pass.
    pub(super) fn note(&mut self, rows: PassRows, time: Duration) {
        let seconds = time.as_secs_f64();
        match (rows.prompt, rows.tree, self.usual) {
            (_, 0, _) => {}
            (0, _, usual) => {
                let usual = usual.unwrap_or(seconds);
                let newest = if seconds < usual { FASTER } else { SLOWER };
                self.usual = Some(usual + newest * (seconds - usual));
            }
            (_, _, None) => {}
            (_, _, Some(usual)) => {
                let change = SLOWDOWN * usual / seconds.max(1e-9);
                let rows = self.rows * change.clamp(CHANGE.0, CHANGE.1);
                self.rows = rows.clamp(LEAST, ALONE as f64);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the number of rows that passes settle on if they take 1 ms plus `per_row` seconds
    /// per prompt row.
    fn settled(per_row: f64) -> usize {
        let mut size = ChunkSize::new();
        let pass = |prompt: usize| PassRows {
            sequences: 4,
            prompt,
            tree: 4,
            ..PassRows::default()
        };
        for _ in 0..20 {
            size.note(pass(0), Duration::from_secs_f64(1e-3));
        }
        for _ in 0..60 {
            let rows = size.rows(4);
            let time = 1e-3 + per_row * rows as f64;
            size.note(pass(rows), Duration::from_secs_f64(time));
        }
        size.rows(4)
    }

    #[test]
    fn a_part_of_a_prompt_makes_a_pass_only_so_much_longer() {
        let rows = settled(1e-3 / 20.0);
        assert!((14..=16).contains(&rows), "{rows}");
        // At least a few rows, whatever they cost, and never too many to cancel soon.
        assert_eq!(settled(1e-2), 8);
        assert_eq!(settled(1e-9), ALONE);
    }

    #[test]
    fn nobody_who_writes_is_held_up_where_nobody_does() {
        let mut size = ChunkSize::new();
        assert_eq!(size.rows(0), ALONE);
        assert_eq!(size.rows(3), 16);
        // Passes with only prompt rows tell nothing about other passes.
        let alone = PassRows {
            sequences: 1,
            prompt: 256,
            tree: 0,
            ..PassRows::default()
        };
        size.note(alone, Duration::from_secs(1));
        assert_eq!(size.rows(3), 16);
    }
}
