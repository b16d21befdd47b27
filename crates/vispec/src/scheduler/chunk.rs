//! How much of prompts a pass reads.

use std::time::Duration;

use vispec_core::PassRows;

/// Rows of prompts in a pass while nobody writes: enough for full speed, and few enough that a
/// request can be cancelled soon.
const ALONE: usize = 256;
/// Rows beside those who write at first, before it is known how long they take.
const FIRST: f64 = 16.0;
/// Rows beside those who write at least, so that prompts are read at all.
const LEAST: f64 = 8.0;
/// How many times as long as usual a pass may take for prompts.
const SLOWDOWN: f64 = 1.75;
/// Share of the newest pass in what is usual, if it was faster …
const FASTER: f64 = 0.3;
/// … or slower: passes with large trees, which bring several tokens, are not what others are
/// measured by.
const SLOWER: f64 = 0.02;
/// How much a pass may change the number of rows.
const CHANGE: (f64, f64) = (0.5, 1.25);

/// The number of rows that keeps passes below a multiple of what they usually take. It follows
/// what the clock says, since long contexts and busy machines make rows slow; which tokens come
/// does not depend on it.
#[derive(Debug)]
pub(super) struct ChunkSize {
    /// Seconds of passes that read no prompt.
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

    /// Rows of prompts for a pass beside so many who write.
    pub(super) fn rows(&self, writing: usize) -> usize {
        match writing {
            0 => ALONE,
            _ => self.rows as usize,
        }
    }

    /// Learns from a pass.
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

    /// Rows that a pass settles on if it takes 1 ms, and `per_row` for each row of a prompt.
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
        // At least a few, whatever they cost, and never too many to be stopped.
        assert_eq!(settled(1e-2), 8);
        assert_eq!(settled(1e-9), ALONE);
    }

    #[test]
    fn nobody_who_writes_is_held_up_where_nobody_does() {
        let mut size = ChunkSize::new();
        assert_eq!(size.rows(0), ALONE);
        assert_eq!(size.rows(3), 16);
        // Passes over prompts alone say nothing about others.
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
