//! The table of predicted trees.

use super::{Table, row_start, two};
use crate::predict::{Bounds, Recorded};
use crate::record::{TotalToken, TreeSettings};
use crate::series::{Series, SeriesKey};
use crate::statistics::Estimates;

/// Builds a table of predicted trees, beside the measured figures of the trees that were run. Of
/// series that differ only in the number of nodes, the largest is the source of predictions. Series
/// with too little data are left out.
pub(crate) fn predictions(series: &[Series]) -> Table {
    let mut table = Table::new(
        "predictions",
        "Predicted trees",
        "Bounds of tau and of the cycles' speed-up for smaller trees, from acceptance by depth and \
         the cost of passes, next to measured figures of the trees that were run. The assumptions \
         are in docs/measuring.md.",
        &[
            "target",
            "T",
            "method",
            "levels",
            "nodes",
            "tau",
            "tokens per cycle",
            "ms per cycle",
            "speed-up",
            "measured tau",
            "measured speed-up",
        ],
    );
    let bounds = |bounds: Bounds| {
        let (low, high) = (two(bounds.low), two(bounds.high));
        if low == high {
            low
        } else {
            format!("{low} to {high}")
        }
    };
    for from in series {
        let Some(recorded) = Recorded::of(from) else {
            continue;
        };
        if series.iter().any(|other| is_larger(&other.key, &from.key)) {
            continue;
        }
        for prediction in recorded.grid() {
            let tau = prediction.tau;
            let mut row = row_start(from);
            row.extend([
                prediction.tree.levels.to_string(),
                prediction.tree.nodes.to_string(),
                bounds(tau),
                bounds(Bounds {
                    low: tau.low + 1.0,
                    high: tau.high + 1.0,
                }),
                format!("{:.3}", prediction.cycle_ms),
                bounds(prediction.speed_up),
            ]);
            let key = SeriesKey {
                tree: Some(prediction.tree.settings()),
                ..from.key.clone()
            };
            row.extend(match series.iter().find(|measured| measured.key == key) {
                Some(measured) => {
                    let figures = Estimates::of(&measured.pooled.blocks);
                    [two(figures.tau.value), two(figures.decode.pooled.value)]
                }
                None => ["-".to_owned(), "-".to_owned()],
            });
            table.rows.push(row);
        }
    }
    table
}

/// Returns whether `other` is the same series with larger trees, which allows more predictions.
fn is_larger(other: &SeriesKey, key: &SeriesKey) -> bool {
    let (Some(tree), Some(own)) = (other.tree, key.tree) else {
        return false;
    };
    let (TotalToken::Nodes(nodes), TotalToken::Nodes(own_nodes)) =
        (tree.total_token, own.total_token)
    else {
        return false;
    };
    let same_nodes = SeriesKey {
        tree: Some(TreeSettings {
            total_token: own.total_token,
            ..tree
        }),
        ..other.clone()
    };
    nodes > own_nodes && same_nodes == *key
}
