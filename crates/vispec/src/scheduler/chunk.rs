//! How much of prompts a pass reads.

use vispec_core::CostTable;

/// Rows of prompts in a pass while nobody writes: enough for full speed, and few enough that a
/// request can be cancelled soon.
const ALONE: usize = 256;
/// Rows beside those who write, if no costs were measured.
const UNMEASURED: usize = 32;
/// Rows beside those who write at least, so that prompts are read at all.
const LEAST: usize = 8;
/// How many times as long a pass may take for prompts.
const SLOWDOWN: f64 = 2.0;

/// Rows of prompts for a pass that carries `others` besides.
pub(super) fn prompt_rows(costs: Option<&CostTable>, others: usize) -> usize {
    let Some(costs) = costs else {
        return if others == 0 { ALONE } else { UNMEASURED };
    };
    if others == 0 {
        return ALONE;
    }
    let most = SLOWDOWN * costs.verify(others);
    // A pass over more rows never takes less, in a table.
    let fits = |&rows: &usize| costs.verify(others + rows) <= most;
    (LEAST..=ALONE).take_while(fits).last().unwrap_or(LEAST)
}

#[cfg(test)]
mod tests {
    use vispec_core::{Cost, TargetCosts};

    use super::*;

    fn costs(verify: &[(usize, f64)]) -> CostTable {
        let verify = verify.iter().map(|&(rows, seconds)| Cost { rows, seconds });
        let costs = TargetCosts {
            prefill: 0.001,
            verify: verify.collect(),
        };
        CostTable::new(costs, None).unwrap()
    }

    #[test]
    fn a_pass_takes_at_most_twice_as_long_with_a_part_of_a_prompt() {
        // Free up to 4 rows, then 1 more for each 4 rows.
        let costs = costs(&[(1, 1.0), (4, 1.0), (64, 16.0)]);
        assert_eq!(prompt_rows(Some(&costs), 16), 16);
        assert_eq!(prompt_rows(Some(&costs), 32), 32);
        // At least a few, whatever they cost.
        assert_eq!(prompt_rows(Some(&costs), 1), LEAST);
    }

    #[test]
    fn nobody_who_writes_is_held_up_where_nobody_does() {
        let costs = costs(&[(1, 1.0), (64, 64.0)]);
        assert_eq!(prompt_rows(Some(&costs), 0), ALONE);
        assert_eq!(prompt_rows(None, 0), ALONE);
        assert_eq!(prompt_rows(None, 3), UNMEASURED);
    }
}
