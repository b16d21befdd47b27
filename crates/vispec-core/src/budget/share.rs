//! Selection of nodes from one list of candidates for all sequences of a pass.

use super::Budget;

/// A sequence with candidates.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bidder<'a> {
    pub(crate) budget: &'a Budget,
    /// Chance of acceptance of each candidate, best first.
    pub(crate) chances: &'a [f64],
}

/// The share of a sequence.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub(crate) struct Share {
    /// Number of its best candidates to verify.
    pub(crate) nodes: usize,
    /// Seconds that they add to the pass.
    pub(crate) extra: f64,
}

/// Returns how many of the best candidates of each sequence to verify.
///
/// Candidates are taken in the order of their chances, across all sequences, and the count with the
/// greatest profit wins: the expected tokens minus the tokens that the run would emit in the added
/// time. No sequence is charged more than it has to spare.
///
/// All bidders share one pass: the same costs, and the same number of roots and other rows.
pub(crate) fn share_nodes(bidders: &[Bidder<'_>]) -> Vec<Share> {
    let mut best = vec![Share::default(); bidders.len()];
    let Some(first) = bidders.first() else {
        return best;
    };
    let (costs, roots) = (first.budget.costs(), first.budget.load().rows + 1);
    let price: f64 = bidders.iter().map(|bidder| bidder.budget.price()).sum();
    let price = price / bidders.len() as f64;
    let mut taken = vec![0; bidders.len()];
    let mut open = vec![true; bidders.len()];
    let (mut total, mut sum, mut best_profit) = (0, 0.0, 0.0);
    let next = |taken: &[usize], open: &[bool]| {
        let offers = bidders.iter().zip(taken).zip(open).enumerate();
        let offers = offers.filter_map(|(index, ((bidder, &taken), open))| {
            let chance = bidder.chances.get(taken).filter(|_| *open)?;
            Some((index, *chance))
        });
        // Takes the first among equals, so that the choice is deterministic.
        offers.reduce(|best, offer| if offer.1 > best.1 { offer } else { best })
    };
    while let Some((index, chance)) = next(&taken, &open) {
        let time = costs.verify(roots + total + 1) - costs.verify(roots);
        let per_node = time / (total + 1) as f64;
        if per_node * (taken[index] + 1) as f64 > bidders[index].budget.spare() {
            open[index] = false;
            continue;
        }
        taken[index] += 1;
        total += 1;
        sum += chance;
        let profit = sum - time * price;
        if profit > best_profit {
            best_profit = profit;
            for (share, &nodes) in best.iter_mut().zip(&taken) {
                *share = Share {
                    nodes,
                    extra: per_node * nodes as f64,
                };
            }
        }
    }
    best
}
