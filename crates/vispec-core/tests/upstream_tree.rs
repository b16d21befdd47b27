//! Tree growth against the reference implementation's `topK_genrate` and a worked example.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod fixture;

use fixture::Fixture;
use vispec_core::testing::{RetrieveIndices, TableFeatures, TableModel};
use vispec_core::{
    Ask, Beam, BoxError, DraftModel, Drafter, DynamicTreeDrafter, Expansion, TokenId, TokenTree,
    TopK, TreeShape,
};

/// A draft with given candidates for each level; it checks the beams that it must expand.
struct Scripted {
    levels: Vec<TopK>,
    beams: Vec<Beam>,
}

impl Scripted {
    fn new(levels: Vec<TopK>) -> Self {
        Self {
            levels,
            beams: Vec::new(),
        }
    }

    fn expansion(&self) -> Expansion<usize> {
        let level = self.beams.len();
        Expansion {
            top: self.levels[level].clone(),
            hidden: level,
        }
    }
}

impl DraftModel<TableModel> for Scripted {
    /// Index of the expansion.
    type Hidden = usize;

    fn name(&self) -> &str {
        "scripted"
    }

    fn begin(
        &mut self,
        _prompt: &Vec<TokenId>,
        _features: TableFeatures,
        _next: TokenId,
        _ask: Ask,
    ) -> Result<Expansion<usize>, BoxError> {
        self.beams.clear();
        Ok(self.expansion())
    }

    fn commit(
        &mut self,
        _accepted: &[TokenId],
        _features: TableFeatures,
        _next: TokenId,
        _ask: Ask,
    ) -> Result<Expansion<usize>, BoxError> {
        self.beams.clear();
        Ok(self.expansion())
    }

    fn expand(
        &mut self,
        beam: &Beam,
        parents: &usize,
        _ask: Ask,
    ) -> Result<Expansion<usize>, BoxError> {
        assert_eq!(
            *parents,
            self.beams.len(),
            "hidden rows of the expansion before"
        );
        assert_eq!(beam.level, self.beams.len());
        self.beams.push(beam.clone());
        Ok(self.expansion())
    }
}

fn grow(levels: Vec<TopK>, shape: TreeShape, root: TokenId) -> (TokenTree, Vec<Beam>) {
    let mut drafter = DynamicTreeDrafter::new(Scripted::new(levels), shape);
    let first = drafter.begin(&vec![0], TableFeatures::default(), root);
    let tree = first.unwrap().finish(&mut drafter).unwrap();
    // A second cycle with the same candidates: no state of the first one may remain.
    let second = drafter.advance(&[], TableFeatures::default(), root);
    assert_eq!(tree, second.unwrap().finish(&mut drafter).unwrap());
    (tree, drafter.model().beams.clone())
}

#[test]
fn trees_equal_the_reference() {
    let fixture = Fixture::open("tree");
    for case in fixture.cases() {
        let name = case["case"].as_str().unwrap();
        let size = |field: &str| usize::try_from(case[field].as_u64().unwrap()).unwrap();
        let (depth, top_k, vocab) = (size("depth"), size("top_k"), size("vocab"));
        let shape = TreeShape::from_upstream(depth, top_k, size("total_token")).unwrap();
        let levels = (0..=depth)
            .map(|step| {
                let logits = fixture.floats(&format!("{name}.head_logits_step{step}"));
                TopK::from_logits(&logits, vocab, top_k).unwrap()
            })
            .collect();
        let prompt = fixture.integers(&format!("{name}.input_ids"));
        let root = TokenId::try_from(*prompt.last().unwrap()).unwrap();
        let (tree, beams) = grow(levels, shape, root);

        let tokens: Vec<i64> = tree.tokens().iter().map(|&token| token.into()).collect();
        assert_eq!(
            tokens,
            fixture.integers(&format!("{name}.draft_tokens")),
            "{name} tokens"
        );
        let depths: Vec<i64> = tree.depths().iter().map(|&depth| depth.into()).collect();
        assert_eq!(
            depths,
            fixture.integers(&format!("{name}.tree_position_ids")),
            "{name}"
        );
        let mask: Vec<u8> = tree
            .mask()
            .as_slice()
            .iter()
            .map(|&allowed| allowed.into())
            .collect();
        assert_eq!(
            mask,
            fixture.bytes(&format!("{name}.tree_mask")),
            "{name} mask"
        );
        let mut retrieve = RetrieveIndices::of(&tree);
        if case["sampling_sort"].as_bool().unwrap() {
            retrieve = retrieve.sorted();
        }
        let expected = fixture.integers(&format!("{name}.retrieve_indices"));
        assert_eq!(retrieve.as_slice(), expected, "{name} retrieve indices");
        assert_eq!(case["retrieve_shape"][0], retrieve.n_leaves());
        assert_eq!(case["retrieve_shape"][1], retrieve.width());

        assert_eq!(beams.len(), depth, "{name} expansions");
        for (beam, step) in beams.iter().zip(1..) {
            let fed: Vec<i64> = beam.tokens.iter().map(|&token| token.into()).collect();
            assert_eq!(
                fed,
                fixture.integers(&format!("{name}.step{step}_input_ids")),
                "{name}"
            );
            let positions = fixture.integers(&format!("{name}.step{step}_position_ids"));
            let position = i64::try_from(prompt.len() - 1 + beam.level).unwrap();
            assert!(
                positions.iter().all(|&other| other == position),
                "{name} positions"
            );
            let width = step * top_k;
            let mut mask = vec![0; top_k * width];
            for (row, path) in beam.paths.iter().enumerate() {
                path.iter()
                    .for_each(|&cache_row| mask[row * width + cache_row] = 1);
            }
            let expected = fixture.bytes(&format!("{name}.step{step}_draft_tree_mask"));
            assert_eq!(mask, expected, "{name} mask of step {step}");
        }
    }
}

fn top_k(k: usize, entries: &[(TokenId, f32)]) -> TopK {
    let (tokens, log_probs) = entries.iter().copied().unzip();
    TopK {
        k,
        tokens,
        log_probs,
    }
}

/// The worked example of the specification, section B.5.
#[test]
fn worked_example() {
    let levels = vec![
        top_k(2, &[(11, -0.4), (12, -1.2)]),
        top_k(2, &[(21, -0.3), (22, -1.6), (23, -0.2), (24, -2.0)]),
        top_k(2, &[(31, -0.5), (32, -0.9), (33, -0.1), (34, -3.0)]),
    ];
    let (tree, beams) = grow(levels, TreeShape::from_upstream(2, 2, 7).unwrap(), 5);
    assert_eq!(tree.tokens(), [5, 11, 12, 21, 23, 31, 33]);
    let parents: Vec<_> = tree
        .nodes()
        .skip(1)
        .map(|node| tree.parent(node).unwrap().index())
        .collect();
    assert_eq!(parents, [0, 0, 1, 2, 3, 4]);
    assert_eq!(tree.depths(), [0, 1, 1, 2, 2, 3, 3]);
    assert_eq!(
        RetrieveIndices::of(&tree).as_slice(),
        [0, 1, 3, 5, 0, 2, 4, 6]
    );
    assert_eq!(tree.log_prob(tree.nodes().nth(3).unwrap()), Some(-0.3));

    assert_eq!(beams[0].parent_rows, [0, 0]);
    assert_eq!(beams[0].paths, [[0], [1]]);
    assert_eq!(beams[1].tokens, [21, 23]);
    assert_eq!(beams[1].parent_rows, [0, 1]);
    assert_eq!(beams[1].paths, [[0, 2], [1, 3]]);
}

/// Upstream can keep a child of equal score without its parent and then attaches it elsewhere. The
/// order here (score, then index in the pool) prevents this.
#[test]
fn equal_scores_keep_the_parent() {
    let certain = top_k(2, &[(1, 0.0), (2, 0.0)]);
    let certain_rows = |base| {
        top_k(
            2,
            &[
                (base, -0.0),
                (base + 1, 0.0),
                (base + 2, 0.0),
                (base + 3, -0.0),
            ],
        )
    };
    for total_token in 2..=11 {
        let levels = vec![certain.clone(), certain_rows(10), certain_rows(20)];
        let shape = TreeShape::from_upstream(2, 2, total_token).unwrap();
        let (tree, _) = grow(levels, shape, 0);
        let in_pool_order = [0, 1, 2, 10, 11, 12, 13, 20, 21, 22, 23];
        assert_eq!(tree.tokens(), &in_pool_order[..total_token]);
        for node in tree.nodes().skip(1) {
            let parent = tree.parent(node).unwrap();
            let expected = match tree.token(node) {
                1 | 2 => 0,
                10 | 11 => 1,
                12 | 13 => 2,
                20 | 21 => 10,
                _ => 11,
            };
            assert_eq!(tree.token(parent), expected);
        }
    }
}

#[test]
fn impossible_candidates_are_errors() {
    let shape = TreeShape::from_upstream(1, 2, 3).unwrap();
    let good = top_k(2, &[(1, -0.5), (2, -1.0)]);
    let draft = |levels: Vec<TopK>| {
        let mut drafter = DynamicTreeDrafter::new(Scripted::new(levels), shape);
        let first = drafter.begin(&vec![0], TableFeatures::default(), 0);
        first.and_then(|proposal| proposal.finish(&mut drafter))
    };
    let nan = top_k(2, &[(1, f32::NAN), (2, -1.0)]);
    assert!(draft(vec![nan, good.clone()]).is_err());
    assert!(
        draft(vec![good.clone(), good.clone()]).is_err(),
        "one row for a beam of two"
    );
    let ragged = TopK {
        k: 2,
        tokens: vec![1, 2],
        log_probs: vec![-1.0],
    };
    assert!(draft(vec![ragged, good.clone()]).is_err());
    let twins = top_k(2, &[(1, -0.5), (1, -0.5)]);
    let rows = top_k(2, &[(3, -9.0), (4, -9.0), (3, -9.0), (4, -9.0)]);
    assert!(draft(vec![twins, rows]).is_err(), "siblings with one token");
}
