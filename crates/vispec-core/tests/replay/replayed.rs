//! Replay of one answer with a target that emits it and a draft that guesses as recorded.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use vispec_core::testing::{TableFeatures, TableModel};
use vispec_core::{
    Ask, AutoTree, Beam, BoxError, CostTable, DraftModel, DynamicTreeDrafter, Expansion,
    GenerationConfig, MatchPicks, TokenId, TopK, generate,
};

use crate::answers::{Answer, Guess};

/// The correct token, in every position.
const RIGHT: TokenId = 0;
const VOCAB: usize = 16;

/// Result of a replay, by the cost table.
pub struct Replayed {
    pub prefill: f64,
    pub plain: f64,
    pub spent: f64,
}

impl Replayed {
    /// Returns the speed-up over plain decoding, without prefill.
    pub fn speedup(&self) -> f64 {
        self.plain / self.spent
    }

    /// Returns the speed-up over plain decoding, prefill included.
    pub fn whole_speedup(&self) -> f64 {
        (self.prefill + self.plain) / (self.prefill + self.spent)
    }
}

pub fn replay(answer: &Answer, limits: &AutoTree) -> Replayed {
    let target = TableModel::from_fn(VOCAB, |_| {
        let logit = |token| if token == RIGHT as usize { 1.0 } else { 0.0 };
        (0..VOCAB).map(logit).collect()
    });
    let costs = Arc::clone(&limits.costs);
    let drafted = Rc::new(Cell::new(0.0));
    let draft = Recorded {
        guesses: answer.guesses.clone(),
        costs: Arc::clone(&costs),
        seconds: Rc::clone(&drafted),
        position: 0,
        unread: 0,
    };
    let drafter = DynamicTreeDrafter::new(draft, limits.clone());
    let config = GenerationConfig {
        max_new_tokens: answer.guesses.len(),
        stop_tokens: vec![],
    };
    let prompt = vec![RIGHT; answer.prompt_tokens];
    let rule = MatchPicks::greedy();
    let generation = generate(&target, drafter, rule, &prompt, config, &mut ()).unwrap();
    let stats = generation.stats;
    let nodes = stats.nodes_per_cycle().iter();
    let verified: f64 = nodes.map(|&nodes| costs.verify(nodes as usize)).sum();
    let emitted = stats
        .accepted_per_cycle()
        .iter()
        .map(|&n| f64::from(n) + 1.0);
    Replayed {
        prefill: costs.prefill(answer.prompt_tokens),
        plain: emitted.sum::<f64>() * costs.verify(1),
        spent: verified + drafted.get(),
    }
}

/// Guesses as recorded and adds up its modelled time.
struct Recorded {
    guesses: Vec<Guess>,
    costs: Arc<CostTable>,
    seconds: Rc<Cell<f64>>,
    /// Index in the answer of the token after the root.
    position: usize,
    unread: usize,
}

/// For each row, whether its path is right so far, and its depth below the root.
type Rows = Vec<(bool, usize)>;

impl Recorded {
    fn pay(&self, seconds: f64) {
        self.seconds.set(self.seconds.get() + seconds);
    }

    fn expansion(&self, rows: Rows, top_k: usize) -> Expansion<Rows> {
        let (mut tokens, mut log_probs) = (Vec::new(), Vec::new());
        for &(right, depth) in &rows {
            let nothing = Guess {
                rank: None,
                confidence: 0.1,
            };
            let guess = self.guesses.get(self.position + depth).copied();
            let guess = guess.unwrap_or(nothing);
            let mut row = Vec::from_iter((1..).take(top_k));
            if let Some(rank) = guess.rank.filter(|&rank| right && rank < top_k) {
                row[rank] = RIGHT;
            }
            tokens.extend(row);
            // The remaining probability is spread over the others in decreasing shares.
            let mut left = 1.0 - guess.confidence;
            let mut probability = guess.confidence;
            for _ in 0..top_k {
                log_probs.push(probability.max(1e-6).ln());
                probability = probability.min(left / 2.0);
                left -= probability;
            }
        }
        let top = TopK {
            k: top_k,
            tokens,
            log_probs,
        };
        Expansion { top, hidden: rows }
    }
}

impl DraftModel<TableModel> for Recorded {
    type Hidden = Rows;

    fn name(&self) -> &'static str {
        "recorded"
    }

    fn begin(
        &mut self,
        prompt: &Vec<TokenId>,
        _: TableFeatures,
        _: TokenId,
        ask: Ask,
    ) -> Result<Expansion<Rows>, BoxError> {
        self.pay(self.costs.read(prompt.len()) + self.costs.commit());
        // The first token is the target's.
        self.position = 1;
        Ok(self.expansion(vec![(true, 0)], ask.top_k))
    }

    fn postpone_prompt(
        &mut self,
        prompt: &Vec<TokenId>,
        _: TableFeatures,
        _: TokenId,
    ) -> Result<(), BoxError> {
        self.position = 1;
        self.unread = prompt.len();
        Ok(())
    }

    fn commit(
        &mut self,
        accepted: &[TokenId],
        _: TableFeatures,
        _: TokenId,
        ask: Ask,
    ) -> Result<Expansion<Rows>, BoxError> {
        self.pay(self.costs.read(self.unread) + self.costs.commit());
        self.unread = 0;
        self.position += accepted.len() + 1;
        Ok(self.expansion(vec![(true, 0)], ask.top_k))
    }

    fn postpone(
        &mut self,
        accepted: &[TokenId],
        _: TableFeatures,
        _: TokenId,
    ) -> Result<(), BoxError> {
        self.unread += accepted.len() + 1;
        self.position += accepted.len() + 1;
        Ok(())
    }

    fn expand(
        &mut self,
        beam: &Beam,
        parents: &Rows,
        ask: Ask,
    ) -> Result<Expansion<Rows>, BoxError> {
        self.pay(self.costs.expand(beam.tokens.len()));
        let rows = beam.tokens.iter().zip(&beam.parent_rows);
        let rows = rows.map(|(&token, &parent)| {
            let (right, depth) = parents[parent];
            (right && token == RIGHT, depth + 1)
        });
        let rows = rows.collect();
        Ok(self.expansion(rows, ask.top_k))
    }
}
