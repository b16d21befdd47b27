//! Trees grown by the network itself equal trees grown level by level.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use vispec_core::testing::{TableDraft, TableFeatures, TableModel};
use vispec_core::{
    Ask, Beam, BoxError, DraftModel, Drafter, DynamicTreeDrafter, Expansion, GrownLevel, TokenId,
    TokenTree, TreeShape,
};

type Hidden = Vec<Vec<TokenId>>;

/// A draft that chooses itself which candidates to expand.
struct ByItself {
    draft: TableDraft,
    n_grown: usize,
    /// Offset added to each place that it reports as expanded.
    shift: usize,
}

impl DraftModel<TableModel> for ByItself {
    type Hidden = Hidden;

    fn name(&self) -> &str {
        "by itself"
    }

    fn begin(
        &mut self,
        prompt: &Vec<TokenId>,
        features: TableFeatures,
        next: TokenId,
        ask: Ask,
    ) -> Result<Expansion<Hidden>, BoxError> {
        self.draft.begin(prompt, features, next, ask)
    }

    fn commit(
        &mut self,
        _: &[TokenId],
        _: TableFeatures,
        _: TokenId,
        _: Ask,
    ) -> Result<Expansion<Hidden>, BoxError> {
        Err("asked level by level".into())
    }

    fn expand(
        &mut self,
        beam: &Beam,
        parents: &Hidden,
        ask: Ask,
    ) -> Result<Expansion<Hidden>, BoxError> {
        self.draft.expand(beam, parents, ask)
    }

    fn grows_by_itself(&self, _width: usize) -> bool {
        true
    }

    fn grow(
        &mut self,
        accepted: &[TokenId],
        features: TableFeatures,
        next: TokenId,
        (levels, ask): (usize, Ask),
    ) -> Result<Vec<GrownLevel>, BoxError> {
        self.n_grown += 1;
        let mut last = self.draft.commit(accepted, features, next, ask)?;
        let mut grown = vec![GrownLevel {
            expanded: Vec::new(),
            top: last.top.clone(),
        }];
        let mut sums = vec![0.0_f32];
        let (mut paths, mut n_rows) = (vec![Vec::new()], 0);
        for level in 0..levels - 1 {
            let k = last.top.k;
            let scores = |place: usize| sums[place / k] + last.top.log_probs[place].min(0.0);
            let mut places: Vec<usize> = (0..last.top.tokens.len()).collect();
            places.sort_by(|&a, &b| scores(b).total_cmp(&scores(a)).then(a.cmp(&b)));
            places.truncate(ask.top_k);
            let beam = Beam {
                level,
                tokens: places.iter().map(|&place| last.top.tokens[place]).collect(),
                parent_rows: places.iter().map(|place| place / k).collect(),
                paths: (n_rows..)
                    .zip(&places)
                    .map(|(row, place)| [paths[place / k].clone(), vec![row]].concat())
                    .collect(),
            };
            sums = places.iter().map(|&place| scores(place)).collect();
            n_rows += places.len();
            last = self
                .draft
                .expand(&beam, &last.hidden, ask.ahead(level + 1))?;
            paths = beam.paths;
            grown.push(GrownLevel {
                expanded: places.iter().map(|place| place + self.shift).collect(),
                top: last.top.clone(),
            });
        }
        Ok(grown)
    }
}

fn by_itself(shift: usize) -> ByItself {
    ByItself {
        draft: TableDraft::new(TableModel::random(11, 2, 7)),
        n_grown: 0,
        shift,
    }
}

/// Returns the trees of a few cycles that accept the first children.
fn trees<M: DraftModel<TableModel>>(
    drafter: &mut DynamicTreeDrafter<TableModel, M>,
) -> Result<Vec<TokenTree>, BoxError> {
    let features = |rows: usize| TableFeatures(vec![(0, 0); rows]);
    let prompt = vec![3, 1, 4];
    let mut proposal = drafter.begin(&prompt, features(3), 5)?;
    let mut trees = Vec::new();
    for next in [2, 9, 6] {
        let tree = proposal.finish(drafter)?;
        let accepted: Vec<TokenId> = tree.tokens().iter().skip(1).take(1).copied().collect();
        trees.push(tree);
        proposal = drafter.advance(&accepted, features(accepted.len() + 1), next)?;
    }
    trees.push(proposal.finish(drafter)?);
    Ok(trees)
}

#[test]
fn trees_are_those_grown_level_by_level() {
    for (depth, width, nodes) in [(3, 8, 30), (1, 2, 4), (4, 3, 9), (0, 4, 5), (2, 1, 2)] {
        let shape = TreeShape::from_upstream(depth, width, nodes).unwrap();
        let level_by_level = TableDraft::new(TableModel::random(11, 2, 7));
        let expected = trees(&mut DynamicTreeDrafter::new(level_by_level, shape)).unwrap();
        let mut drafter = DynamicTreeDrafter::new(by_itself(0), shape);
        assert_eq!(trees(&mut drafter).unwrap(), expected);
        // The first tree follows the prompt.
        assert_eq!(drafter.model().n_grown, expected.len() - 1);
    }
}

#[test]
fn a_candidate_that_there_is_not_is_an_error() {
    let shape = TreeShape::from_upstream(2, 4, 9).unwrap();
    let mut drafter = DynamicTreeDrafter::new(by_itself(100), shape);
    let error = trees(&mut drafter).unwrap_err().to_string();
    assert!(error.contains("expanded candidate 10"), "{error}");
}
