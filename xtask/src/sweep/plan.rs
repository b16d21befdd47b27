//! The cells of a sweep.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use vispec_report::record::{CellSettings, TreeSettings};

use super::file::{ModelEntry, SweepFile, TaskEntry, TreeGrid};

/// A cell to run.
#[derive(Debug)]
pub(super) struct PlannedCell {
    pub(super) settings: CellSettings,
}

/// All cells of a sweep, in the order in which they are run.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) cells: Vec<PlannedCell>,
    data: PathBuf,
}

impl Plan {
    /// Reads and expands a file.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    fn parse(text: &str) -> Result<Self> {
        let file: SweepFile = toml::from_str(text)?;
        file.check()?;
        let mut cells = Vec::new();
        let trees = expand_trees(&file.trees);
        for model in &file.models {
            for task in &file.tasks {
                for settings in cells_of_task(&file, model, task, &trees) {
                    cells.push(PlannedCell { settings });
                }
            }
        }
        expect_distinct(&cells)?;
        Ok(Self {
            cells,
            data: file.data,
        })
    }

    /// Returns the number of prompts of all cells.
    pub(super) fn prompts(&self) -> u64 {
        self.cells.iter().map(|cell| cell.settings.prompts).sum()
    }

    /// Returns the cells in groups that one process measures: adjacent cells that differ only in
    /// their trees.
    pub(super) fn groups(&self) -> impl Iterator<Item = &[PlannedCell]> {
        self.cells
            .chunk_by(|left, right| without_tree(&left.settings) == without_tree(&right.settings))
    }

    /// Returns the arguments of `evaluate` for a cell and its directory, and for others of its
    /// group.
    pub(super) fn arguments(
        &self,
        (cell, dir): (&PlannedCell, &Path),
        others: &[(&PlannedCell, PathBuf)],
    ) -> Vec<OsString> {
        let settings = &cell.settings;
        let mut arguments: Vec<OsString> = Vec::new();
        let mut add = |flag: &str, value: OsString| arguments.extend([flag.into(), value]);
        add("--target", settings.target.clone().into());
        if let Some(draft) = &settings.draft {
            add("--draft", draft.into());
        }
        add("--method", settings.method.as_str().into());
        add("--dtype", settings.dtype.clone().into());
        add("--device", settings.device.clone().into());
        add("--task", settings.task.clone().into());
        add("--data", self.data.clone().into());
        add("--prompts", settings.prompts.to_string().into());
        add("--temperature", settings.temperature.to_string().into());
        add("--seed", settings.seed.to_string().into());
        if let Some(tree) = settings.tree {
            add("--depth", tree.depth.to_string().into());
            add("--top-k", tree.top_k.to_string().into());
            add("--total-token", tree.total_token.to_string().into());
            let draft_vocab = settings.draft_vocab.as_deref();
            add("--draft-vocab", draft_vocab.unwrap_or(ALL).into());
        }
        add(
            "--max-new-tokens",
            settings.max_new_tokens.to_string().into(),
        );
        add("--shard", "0/1".into());
        add("--calibration", calibration_file(settings, dir).into());
        add("--out", dir.into());
        for (other, dir) in others {
            if let Some(tree) = other.settings.tree {
                let mut also = OsString::from(format!("{tree}="));
                also.push(dir);
                add("--also", also);
            }
        }
        arguments
    }
}

/// Returns the file with the cost of passes, beside the directories of the cells.
///
/// The costs are measured once for each target, draft and method of a sweep. They are not shared
/// between sweeps, since the machine may have been busy during an earlier one.
fn calibration_file(settings: &CellSettings, dir: &Path) -> PathBuf {
    let models_alone = CellSettings {
        task: String::new(),
        prompts: 0,
        temperature: 0.0,
        seed: 0,
        max_new_tokens: 0,
        ..without_tree(settings)
    };
    let name = format!("{}.json", models_alone.cell_id());
    let out = dir.parent().unwrap_or(dir);
    out.join("calibration").join(name)
}

fn without_tree(settings: &CellSettings) -> CellSettings {
    CellSettings {
        tree: None,
        ..settings.clone()
    }
}

/// Value of `--draft-vocab` for the whole vocabulary; settings omit it.
const ALL: &str = "all";

fn expand_trees(grids: &[TreeGrid]) -> Vec<TreeSettings> {
    let mut trees = Vec::new();
    for grid in grids {
        for &depth in &grid.depth {
            for &top_k in &grid.top_k {
                trees.extend(grid.total_token.iter().map(|&total_token| TreeSettings {
                    depth,
                    top_k,
                    total_token,
                }));
            }
        }
    }
    trees
}

/// Returns all cells of one target and task. Methods and trees are adjacent, so that cells to be
/// compared are measured soon after one another.
fn cells_of_task(
    file: &SweepFile,
    model: &ModelEntry,
    task: &TaskEntry,
    trees: &[TreeSettings],
) -> Vec<CellSettings> {
    let (task, prompts) = task.name_and_prompts(file.prompts);
    let plain = model.methods.iter().map(|&method| (method, None, None));
    let checkpoints = model
        .drafts
        .iter()
        .flat_map(|draft| draft.dirs().into_iter().map(|dir| (draft.method, dir)));
    let drafted = checkpoints.flat_map(|(method, dir)| {
        trees
            .iter()
            .map(move |&tree| (method, Some(dir.clone()), Some(tree)))
    });
    let methods: Vec<_> = plain.chain(drafted).collect();
    let draft_vocab = file.draft_vocab.clone().filter(|vocab| vocab != ALL);
    let mut cells = Vec::new();
    for dtype in &file.dtypes {
        for &temperature in &file.temperatures {
            for &seed in &file.seeds {
                cells.extend(methods.iter().map(|(method, draft, tree)| CellSettings {
                    target: model.target.clone(),
                    draft: draft.clone(),
                    method: *method,
                    dtype: dtype.clone(),
                    device: file.device.clone(),
                    task: task.to_owned(),
                    prompts,
                    temperature,
                    seed,
                    tree: *tree,
                    draft_vocab: tree.and(draft_vocab.clone()),
                    max_new_tokens: file.max_new_tokens,
                }));
            }
        }
    }
    cells
}

fn expect_distinct(cells: &[PlannedCell]) -> Result<()> {
    let mut seen = BTreeMap::new();
    for cell in cells {
        let name = cell.settings.directory_name();
        if seen.insert(cell.settings.cell_id(), ()).is_some() {
            bail!("the cell {name} occurs more than once: a list or two trees repeat an entry");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const FILE: &str = r#"
data = "data"
device = "flex"
prompts = 4
max_new_tokens = 16
tasks = ["a", "b"]
temperatures = [0.0, 1.0]
seeds = [0]
dtypes = ["f32"]

[[model]]
target = "models/x"
methods = ["none"]
[[model.draft]]
method = "vispec"
dir = "drafts/x"

[[tree]]
depth = [3]
top_k = [8]
total_token = [30, "auto"]
"#;

    #[test]
    fn a_file_makes_the_cells_of_its_grid() {
        let plan = Plan::parse(FILE).unwrap();
        // Two tasks and two temperatures; plain decoding has no tree, ViSpec has two.
        assert_eq!(plan.cells.len(), 2 * 2 * (1 + 2));
        let last = plan.cells.last().unwrap();
        let before = &plan.cells[plan.cells.len() - 2];
        let others = [(before, PathBuf::from("out/other"))];
        let arguments = plan.arguments((last, Path::new("out/cell")), &others);
        let text: Vec<_> = arguments.iter().filter_map(|arg| arg.to_str()).collect();
        let (calibration, text): (Vec<&str>, Vec<&str>) =
            text.into_iter().partition(|arg| arg.ends_with(".json"));
        assert!(
            calibration[0].starts_with("out/calibration/"),
            "{calibration:?}"
        );
        assert_eq!(
            text.join(" "),
            "--target models/x --draft drafts/x --method vispec --dtype f32 --device flex --task b \
             --data data --prompts 4 --temperature 1 --seed 0 --depth 3 --top-k 8 --total-token \
             auto --draft-vocab all --max-new-tokens 16 --shard 0/1 --calibration --out out/cell \
             --also 3/8/30=out/other"
        );
        assert_eq!(plan.prompts(), 48);
    }

    #[test]
    fn cells_that_differ_only_in_their_trees_are_a_group() {
        let plan = Plan::parse(FILE).unwrap();
        let sizes: Vec<usize> = plan.groups().map(<[_]>::len).collect();
        assert_eq!(sizes, [1, 2].repeat(2 * 2));
    }

    #[test]
    fn costs_are_measured_once_for_each_target_and_draft() {
        let plan = Plan::parse(FILE).unwrap();
        let files: BTreeSet<PathBuf> = plan
            .cells
            .iter()
            .map(|cell| calibration_file(&cell.settings, Path::new("out/cell")))
            .collect();
        assert_eq!(files.len(), 2);
    }

    #[test]
    fn a_task_can_have_a_number_of_prompts_of_its_own() {
        let plan = Plan::parse(&FILE.replace("\"b\"", "{ name = \"b\", prompts = 9 }")).unwrap();
        assert_eq!(plan.prompts(), 2 * (1 + 2) * (4 + 9));
    }

    #[test]
    fn numbers_of_queries_name_checkpoints() {
        let text = FILE.replace(
            "dir = \"drafts/x\"",
            "dir = \"drafts/x-q{num_q}\"\nnum_q = [2, 4]",
        );
        let plan = Plan::parse(&text).unwrap();
        assert_eq!(plan.cells.len(), 2 * 2 * (1 + 2 * 2));
        let last = plan.cells.last().unwrap();
        assert_eq!(last.settings.draft.as_deref(), Some("drafts/x-q4"));
    }

    #[test]
    fn mistakes_are_named_with_their_key() {
        for (from, to, message) in [
            ("prompts = 4", "prompts = 0", "prompts: 0"),
            ("prompts = 4", "prompt = 4", "unknown field `prompt`"),
            ("tasks = [\"a\", \"b\"]", "tasks = []", "tasks: empty"),
            (
                "\"b\"]",
                "{ name = \"b\", prompts = 0 }]",
                "prompts of b: 0",
            ),
            ("\"b\"]", "{ name = \"b\" }]", "the name of a task, or {"),
            ("seeds = [0]", "", "missing field `seeds`"),
            ("[0.0, 1.0]", "[-1.0]", "temperatures: -1"),
            ("[30, \"auto\"]", "[0]", "at least 1, or auto"),
            ("top_k = [8]", "top_k = [0]", "tree[0].top_k: 0"),
            ("top_k = [8]", "top_k = []", "tree[0].top_k: empty"),
            ("[\"none\"]", "[\"medusa\"]", "model[0].methods: medusa"),
            ("[\"none\"]", "[\"magic\"]", "unknown variant `magic`"),
            ("\"vispec\"", "\"none\"", "model[0].draft: none"),
            (
                "drafts/x\"",
                "drafts/x{num_q}\"",
                "model[0].draft.num_q: missing",
            ),
            (
                "drafts/x\"",
                "drafts/x\"\nnum_q = [2]",
                "model[0].draft.dir: drafts/x, expected {num_q}",
            ),
            ("\"b\"]", "\"a\"]", "occurs more than once"),
            ("[30, \"auto\"]", "[30, 30]", "occurs more than once"),
        ] {
            let error = Plan::parse(&FILE.replacen(from, to, 1)).unwrap_err();
            let text = format!("{error:#}");
            assert!(text.contains(message), "{message} not in {text}");
        }
    }

    #[test]
    fn every_carried_sweep_can_be_read() {
        let dir = crate::root().join("examples/configs/bench");
        let mut n_files = 0;
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let plan = Plan::read(&path).unwrap();
            for cell in &plan.cells {
                let checkpoints = [Some(&cell.settings.target), cell.settings.draft.as_ref()];
                let carried = checkpoints
                    .into_iter()
                    .flatten()
                    .filter(|dir| dir.starts_with("fixtures"));
                for dir in carried {
                    assert!(crate::root().join(dir).is_dir(), "{path:?}: {dir}");
                }
            }
            n_files += 1;
        }
        assert!(n_files > 0);
    }
}
