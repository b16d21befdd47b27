//! Rows from which the draft continues on its own outputs in training-time test.

use vispec_kernels::CausalSample;

use super::rows::DraftRows;

/// The supervision of one sample.
#[derive(Debug, Clone, Copy)]
pub struct Supervision<'a> {
    /// Positions whose target is in the loss, ascending.
    pub supervised: &'a [usize],
    /// For each position, whether its target belongs to an answer.
    pub answered: &'a [bool],
}

/// The queries of all passes after the first: the rows of answers. In pass `k`, the query of row
/// `i` stands for the `k`-th token drafted after row `i`. It sees the rows up to `i`, and the keys
/// and values of the same query in passes 1 to `k`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DraftedRows {
    /// Row of each query.
    pub rows: Vec<usize>,
    /// Queries and rows of each sample.
    pub samples: Vec<CausalSample>,
    /// For each query, 0 or one more than the index of the last image before it.
    pub images: Vec<usize>,
    /// Position of each query in its uncompressed sample.
    pub positions: Vec<usize>,
    /// The passes, including the first.
    pub passes: Vec<DraftedPass>,
}

/// One pass.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DraftedPass {
    /// For each query, the row whose embedding it reads.
    pub embeds: Vec<usize>,
    /// Supervised queries; in the first pass, supervised rows.
    pub supervised: Vec<usize>,
    /// For each supervised query or row, the token whose target it learns.
    pub targets: Vec<usize>,
}

impl DraftedRows {
    /// Returns the queries of `n_passes` passes, including the first, over rows that were laid out
    /// for the same samples. A single pass has no queries.
    #[must_use]
    pub fn new(rows: &DraftRows, samples: &[Supervision<'_>], n_passes: usize) -> Self {
        let mut drafted = Self {
            passes: vec![DraftedPass::default(); n_passes],
            ..Self::default()
        };
        let mut first_token = 0;
        for (range, sample) in rows.samples.iter().zip(samples) {
            let row_of = &rows.row_of[first_token..first_token + sample.answered.len()];
            let mut token_of = vec![None; range.len()];
            for (token, row) in row_of.iter().enumerate() {
                if let Some(row) = row
                    && rows.order[*row] < rows.text.len()
                {
                    token_of[row - range.start] = Some(token);
                }
            }
            let learnt: Vec<(usize, usize)> = sample
                .supervised
                .iter()
                .filter_map(|&token| Some((row_of[token]?, token)))
                .collect();
            if let Some(first) = drafted.passes.first_mut() {
                first.supervised.extend(learnt.iter().map(|&(row, _)| row));
                let targets = learnt.iter().map(|&(_, token)| first_token + token);
                first.targets.extend(targets);
            }
            if n_passes > 1
                && let (Some(&(first, _)), Some(&(last, _))) = (learnt.first(), learnt.last())
            {
                drafted.add_sample(rows, range, first..last + 1);
                let token_of = |row: usize| token_of.get(row - range.start).copied().flatten();
                drafted.supervise(sample, first_token, token_of, range.end);
            }
            first_token += sample.answered.len();
        }
        drafted
    }

    fn add_sample(
        &mut self,
        rows: &DraftRows,
        sample: &std::ops::Range<usize>,
        queries: std::ops::Range<usize>,
    ) {
        let first_query = self.rows.len();
        self.samples.push(CausalSample {
            queries: first_query..first_query + queries.len(),
            rows: sample.clone(),
            first: queries.start - sample.start + 1,
        });
        for row in queries {
            self.rows.push(row);
            self.positions.push(rows.positions[row]);
            let image = rows.text_image.get(rows.order[row]);
            self.images.push(image.copied().unwrap_or(0));
        }
    }

    /// Fills the passes after the first for the queries of the most recently added sample.
    fn supervise(
        &mut self,
        sample: &Supervision<'_>,
        first_token: usize,
        token_of: impl Fn(usize) -> Option<usize>,
        end: usize,
    ) {
        let Some(queries) = self.samples.last().map(|sample| sample.queries.clone()) else {
            return;
        };
        for (ahead, pass) in self.passes.iter_mut().enumerate().skip(1) {
            for query in queries.clone() {
                let row = self.rows[query];
                pass.embeds.push((row + ahead).min(end - 1));
                // A chain consists of consecutive tokens of one answer.
                let Some(token) = token_of(row) else { continue };
                let is_chain = (0..=ahead).all(|step| {
                    token_of(row + step) == Some(token + step)
                        && sample.answered.get(token + step) == Some(&true)
                });
                if is_chain && sample.supervised.binary_search(&(token + ahead)).is_ok() {
                    pass.supervised.push(query);
                    pass.targets.push(first_token + token + ahead);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(text: &str, flag: u8) -> Vec<bool> {
        text.bytes().map(|byte| byte == flag).collect()
    }

    #[test]
    fn chains_stay_within_answers() {
        // A question of two tokens, an answer of three, a question with an image, an answer of two.
        let images = flags("......###...", b'#');
        let answered = flags("..aaa.....aa", b'a');
        let supervised: Vec<usize> = (0..12).filter(|&i| answered[i] && i != 3).collect();
        let rows = DraftRows::new(&[images], 2);
        let sample = Supervision {
            supervised: &supervised,
            answered: &answered,
        };
        let drafted = DraftedRows::new(&rows, &[sample], 3);
        // Two of the image's three tokens leave no row.
        assert_eq!(drafted.rows, [2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(drafted.positions, [2, 3, 4, 5, 8, 9, 10, 11]);
        assert_eq!(drafted.images, [0, 0, 0, 0, 0, 1, 1, 1]);
        let sample = CausalSample {
            queries: 0..8,
            rows: 0..10,
            first: 3,
        };
        assert_eq!(drafted.samples, [sample]);
        assert_eq!(drafted.passes[0].supervised, [2, 4, 8, 9]);
        assert_eq!(drafted.passes[0].targets, [2, 4, 10, 11]);
        // Token 3 is not in the loss, but it can still be a step of a chain.
        assert_eq!(drafted.passes[1].embeds, [3, 4, 5, 6, 7, 8, 9, 9]);
        assert_eq!(drafted.passes[1].supervised, [1, 6]);
        assert_eq!(drafted.passes[1].targets, [4, 11]);
        assert_eq!(drafted.passes[2].supervised, [0]);
        assert_eq!(drafted.passes[2].targets, [4]);
    }

    #[test]
    fn tokens_are_counted_over_all_samples() {
        let rows = DraftRows::new(&[vec![false; 3], vec![false; 4]], 0);
        let samples = [
            Supervision {
                supervised: &[1, 2],
                answered: &[false, true, true],
            },
            Supervision {
                supervised: &[2, 3],
                answered: &[false, false, true, true],
            },
        ];
        let drafted = DraftedRows::new(&rows, &samples, 2);
        assert_eq!(drafted.rows, [1, 2, 5, 6]);
        assert_eq!(drafted.samples[1].queries, 2..4);
        assert_eq!(drafted.samples[1].rows, 3..7);
        assert_eq!(drafted.samples[1].first, 3);
        assert_eq!(drafted.passes[1].supervised, [0, 2]);
        assert_eq!(drafted.passes[1].targets, [2, 6]);
        let alone = DraftedRows::new(&rows, &samples, 1);
        assert!(alone.rows.is_empty());
        assert_eq!(alone.passes[0].targets, [1, 2, 5, 6]);
    }
}
