//! Laws of token trees, for arbitrary trees.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use proptest::prelude::*;
use vispec_core::testing::{RetrieveIndices, TableModel};
use vispec_core::{KvCache, NodeId, ShapeError, TargetModel, TokenTree, TreeError, TreeShape};

/// Trees of up to 40 nodes over 6 tokens, with the number of rejected pushes.
fn trees() -> impl Strategy<Value = (TokenTree, usize)> {
    prop::collection::vec((any::<prop::sample::Index>(), 0..6_u32), 0..40).prop_map(|pushes| {
        let mut tree = TokenTree::new(3);
        let mut n_refused = 0;
        for (parent, token) in pushes {
            let parent = NodeId::from_index(parent.index(tree.n_nodes()));
            if tree.push(parent, token).is_err() {
                n_refused += 1;
            }
        }
        (tree, n_refused)
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn parents_come_first_and_siblings_differ((tree, _) in trees()) {
        prop_assert_eq!(tree.parent(NodeId::ROOT), None);
        for node in tree.nodes().skip(1) {
            let parent = tree.parent(node).unwrap();
            prop_assert!(parent < node);
            prop_assert_eq!(tree.depths()[node.index()], tree.depths()[parent.index()] + 1);
            prop_assert_eq!(tree.child_with(parent, tree.token(node)), Some(node));
            prop_assert!(tree.children(parent).any(|child| child == node));
        }
        let n_children: usize = tree.nodes().map(|node| tree.children(node).count()).sum();
        prop_assert_eq!(n_children, tree.n_nodes() - 1);
    }

    #[test]
    fn a_mask_row_is_the_path((tree, _) in trees()) {
        let mask = tree.mask();
        prop_assert_eq!(mask.n_nodes(), tree.n_nodes());
        for node in tree.nodes() {
            let path = tree.path(node);
            prop_assert_eq!(path.len(), tree.depths()[node.index()] as usize + 1);
            for other in tree.nodes() {
                prop_assert_eq!(mask.allows(node, other), path.contains(&other));
            }
        }
    }

    #[test]
    fn retrieve_rows_are_the_paths_to_the_leaves((tree, _) in trees()) {
        let leaves = tree.nodes().filter(|&node| tree.children(node).next().is_none());
        let leaves: Vec<NodeId> = leaves.collect();
        let retrieve = RetrieveIndices::of(&tree);
        prop_assert_eq!(retrieve.n_leaves(), leaves.len());
        prop_assert_eq!(retrieve.width(), tree.max_depth() + 1);
        for (row, &leaf) in leaves.iter().enumerate() {
            prop_assert_eq!(retrieve.path(row).collect::<Vec<_>>(), tree.path(leaf));
        }
        let sorted = retrieve.sorted();
        let mut rows: Vec<_> = retrieve.rows().map(<[i64]>::to_vec).collect();
        rows.sort_by_key(|row| {
            row.iter().map(|&index| if index < 0 { i64::MAX } else { index }).collect::<Vec<_>>()
        });
        prop_assert_eq!(sorted.as_slice(), rows.concat());
    }

    #[test]
    fn truncating_equals_never_pushing((tree, _) in trees(), max_depth in 0..8_usize) {
        let mut expected = TokenTree::new(tree.tokens()[0]);
        let mut moved = vec![NodeId::ROOT; tree.n_nodes()];
        for node in tree.nodes().skip(1) {
            if tree.depths()[node.index()] as usize <= max_depth {
                let parent = moved[tree.parent(node).unwrap().index()];
                moved[node.index()] = expected.push(parent, tree.token(node)).unwrap();
            }
        }
        let mut truncated = tree;
        truncated.truncate_depth(max_depth);
        prop_assert_eq!(truncated, expected);
    }

    /// The other tests rely on this: a toy cache that keeps a path equals one that was filled with
    /// that path.
    #[test]
    fn keeping_a_path_equals_decoding_it((tree, _) in trees(), leaf in any::<prop::sample::Index>()) {
        let model = TableModel::random(6, 2, 1);
        let path = tree.path(NodeId::from_index(leaf.index(tree.n_nodes())));
        let mut kept = model.new_cache().unwrap();
        model.prefill(&vec![1, 2], &mut kept).unwrap();
        let mut decoded = kept.clone();
        model.verify(&tree, &mut kept).unwrap();
        kept.keep_path(2, &path);
        for &node in &path {
            model.verify(&TokenTree::new(tree.token(node)), &mut decoded).unwrap();
        }
        prop_assert_eq!(kept, decoded);
    }
}

#[test]
fn wrong_pushes_are_refused() {
    let mut tree = TokenTree::new(1);
    let child = tree.push(NodeId::ROOT, 2).unwrap();
    assert_eq!(
        tree.push(NodeId::ROOT, 2),
        Err(TreeError::DuplicateSibling {
            parent: 0,
            token: 2
        })
    );
    assert_eq!(
        tree.push(NodeId::from_index(5), 2),
        Err(TreeError::UnknownParent {
            parent: 5,
            n_nodes: 2
        })
    );
    assert!(
        tree.push(child, 2).is_ok(),
        "a child may hold its parent's token"
    );
    assert_eq!(tree.n_nodes(), 3);
}

#[test]
fn shapes_are_checked() {
    let shape = TreeShape::from_upstream(3, 8, 30).unwrap();
    assert_eq!(shape, TreeShape::default());
    assert_eq!(
        (shape.levels(), shape.beam_width(), shape.max_nodes()),
        (4, 8, 30)
    );
    assert!(TreeShape::from_upstream(3, 8, 201).is_ok());
    assert_eq!(
        TreeShape::from_upstream(3, 8, 202),
        Err(ShapeError::TooFewCandidates {
            draft_tokens: 201,
            candidates: 200
        })
    );
    assert!(TreeShape::from_upstream(0, 8, 9).is_ok());
    assert!(TreeShape::from_upstream(0, 8, 10).is_err());
    assert!(TreeShape::from_upstream(0, 1, 1).is_ok());
    assert_eq!(TreeShape::from_upstream(3, 8, 0), Err(ShapeError::NoRoot));
    assert_eq!(TreeShape::from_upstream(3, 0, 1), Err(ShapeError::ZeroTopK));
    assert_eq!(TreeShape::new(0, 8, 1), Err(ShapeError::NoLevel));
    assert!(TreeShape::from_upstream(usize::MAX, usize::MAX, 30).is_ok());
}
