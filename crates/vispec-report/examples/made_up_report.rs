//! Writes cells with synthetic records and a report of them, to `cells/` and `report/` below the
//! given directory. Needs the feature `synthetic`.
#![allow(clippy::unwrap_used, reason = "an example may panic")]

use std::path::PathBuf;

use vispec_report::record::{
    CellHeader, CostPoint, CostTable, Method, RecordWriter, TotalToken, TreeSettings,
};
use vispec_report::report::{Predictions, Report};
use vispec_report::synthetic;

const PROMPTS: u64 = 40;

fn trees(method: Method) -> Vec<Option<TreeSettings>> {
    if !method.has_network() {
        return vec![None];
    }
    let tree = |(depth, top_k, total_token)| {
        Some(TreeSettings {
            depth,
            top_k,
            total_token,
        })
    };
    [
        (3, 8, TotalToken::Nodes(30)),
        (3, 8, TotalToken::Nodes(60)),
        (2, 4, TotalToken::Nodes(8)),
        (3, 8, TotalToken::Auto),
    ]
    .map(tree)
    .to_vec()
}

fn costs() -> CostTable {
    let point = |rows: u32, ms| CostPoint { rows, ms };
    CostTable {
        context_tokens: 256,
        draft_step: [1, 2, 4, 8].map(|rows| point(rows, 1.2)).to_vec(),
        verify: [1, 2, 4, 8, 16, 32, 64]
            .map(|rows| point(rows, 20.0 + 0.15 * f64::from(rows)))
            .to_vec(),
    }
}

fn main() {
    let root = PathBuf::from(std::env::args_os().nth(1).expect("a directory is required"));
    for method in Method::ALL {
        for tree in trees(method) {
            for task in ["scenes_short", "scenes_long", "textvqa", "coco_caption"] {
                for temperature in [0.0, 1.0] {
                    let mut settings = synthetic::settings(method, task, PROMPTS);
                    settings.tree = tree;
                    settings.temperature = temperature;
                    let dir = root.join("cells").join(settings.directory_name());
                    let mut header = CellHeader::new(settings, "0.1.0");
                    header.costs = Some(costs());
                    let mut opened = RecordWriter::open(&dir, &header).unwrap();
                    for index in opened.progress.done().len() as u64..PROMPTS {
                        let record = synthetic::record(&header.settings, index);
                        opened.writer.append(&record).unwrap();
                    }
                }
            }
        }
    }
    let report = Report::of(&root.join("cells"), Predictions::SmallerTrees).unwrap();
    report.write(&root.join("report")).unwrap();
}
