//! The file that describes a sweep, and the cells it makes.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use vispec_report::record::{CellSettings, Method, TotalToken, TreeSettings};

/// A sweep as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SweepFile {
    /// Directory of the tasks' data.
    data: PathBuf,
    device: String,
    prompts: u64,
    max_new_tokens: u32,
    tasks: Vec<String>,
    temperatures: Vec<f32>,
    seeds: Vec<u64>,
    dtypes: Vec<String>,
    /// Targets with their drafts.
    #[serde(rename = "model")]
    models: Vec<ModelEntry>,
    /// Grids of trees; all of them together.
    #[serde(rename = "tree", default)]
    trees: Vec<TreeGrid>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelEntry {
    target: String,
    /// Methods that need no draft.
    #[serde(default)]
    methods: Vec<Method>,
    /// Methods that need one.
    #[serde(rename = "draft", default)]
    drafts: Vec<DraftEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DraftEntry {
    method: Method,
    dir: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TreeGrid {
    depth: Vec<u32>,
    top_k: Vec<u32>,
    total_token: Vec<TotalToken>,
}

/// A cell that a sweep runs.
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
        check(&file)?;
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

    /// Prompts of all cells.
    pub(super) fn prompts(&self) -> u64 {
        self.cells.iter().map(|cell| cell.settings.prompts).sum()
    }

    /// What `evaluate` is told.
    pub(super) fn arguments(&self, cell: &PlannedCell, dir: &Path) -> Vec<OsString> {
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
        }
        add(
            "--max-new-tokens",
            settings.max_new_tokens.to_string().into(),
        );
        add("--shard", "0/1".into());
        add("--out", dir.into());
        arguments
    }
}

/// Checks what types do not. Messages start with the key at fault.
fn check(file: &SweepFile) -> Result<()> {
    for (key, len) in [
        ("tasks", file.tasks.len()),
        ("temperatures", file.temperatures.len()),
        ("seeds", file.seeds.len()),
        ("dtypes", file.dtypes.len()),
        ("model", file.models.len()),
    ] {
        if len == 0 {
            bail!("{key}: empty, expected at least one entry");
        }
    }
    if file.prompts == 0 {
        bail!("prompts: 0, expected at least 1");
    }
    if file.max_new_tokens == 0 {
        bail!("max_new_tokens: 0, expected at least 1");
    }
    for &temperature in &file.temperatures {
        if !temperature.is_finite() || temperature < 0.0 {
            bail!("temperatures: {temperature}, expected finite numbers of at least 0");
        }
    }
    for (idx, grid) in file.trees.iter().enumerate() {
        let lens = [grid.depth.len(), grid.top_k.len(), grid.total_token.len()];
        for (key, len) in ["depth", "top_k", "total_token"].into_iter().zip(lens) {
            if len == 0 {
                bail!("tree[{idx}].{key}: empty, expected at least one entry");
            }
        }
        if grid.top_k.contains(&0) {
            bail!("tree[{idx}].top_k: 0, expected at least 1");
        }
    }
    check_models(file)
}

fn check_models(file: &SweepFile) -> Result<()> {
    for (idx, model) in file.models.iter().enumerate() {
        if model.methods.is_empty() && model.drafts.is_empty() {
            bail!("model[{idx}]: neither methods nor draft, expected at least one");
        }
        if let Some(method) = model.methods.iter().find(|method| method.has_network()) {
            bail!("model[{idx}].methods: {method} needs a draft, expected it in model.draft");
        }
        for draft in &model.drafts {
            if !draft.method.has_network() {
                let method = draft.method;
                bail!("model[{idx}].draft: {method} takes no draft, expected it in methods");
            }
        }
        if !model.drafts.is_empty() && file.trees.is_empty() {
            bail!("tree: missing, expected at least one because model[{idx}] has drafts");
        }
    }
    Ok(())
}

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

/// All cells of one target and task: methods and trees side by side, so that what is compared is
/// measured soon after one another.
fn cells_of_task(
    file: &SweepFile,
    model: &ModelEntry,
    task: &str,
    trees: &[TreeSettings],
) -> Vec<CellSettings> {
    let plain = model.methods.iter().map(|&method| (method, None, None));
    let drafted = model.drafts.iter().flat_map(|draft| {
        let dir = Some(draft.dir.clone());
        trees
            .iter()
            .map(move |&tree| (draft.method, dir.clone(), Some(tree)))
    });
    let methods: Vec<_> = plain.chain(drafted).collect();
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
                    prompts: file.prompts,
                    temperature,
                    seed,
                    tree: *tree,
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
        let arguments = plan.arguments(last, Path::new("out"));
        let text: Vec<_> = arguments.iter().filter_map(|arg| arg.to_str()).collect();
        assert_eq!(
            text.join(" "),
            "--target models/x --draft drafts/x --method vispec --dtype f32 --device flex --task b \
             --data data --prompts 4 --temperature 1 --seed 0 --depth 3 --top-k 8 --total-token \
             auto --max-new-tokens 16 --shard 0/1 --out out"
        );
        assert_eq!(plan.prompts(), 48);
    }

    #[test]
    fn mistakes_are_named_with_their_key() {
        for (from, to, message) in [
            ("prompts = 4", "prompts = 0", "prompts: 0"),
            ("prompts = 4", "prompt = 4", "unknown field `prompt`"),
            ("tasks = [\"a\", \"b\"]", "tasks = []", "tasks: empty"),
            ("seeds = [0]", "", "missing field `seeds`"),
            ("[0.0, 1.0]", "[-1.0]", "temperatures: -1"),
            ("[30, \"auto\"]", "[0]", "at least 1, or auto"),
            ("top_k = [8]", "top_k = [0]", "tree[0].top_k: 0"),
            ("top_k = [8]", "top_k = []", "tree[0].top_k: empty"),
            ("[\"none\"]", "[\"medusa\"]", "model[0].methods: medusa"),
            ("[\"none\"]", "[\"magic\"]", "unknown variant `magic`"),
            ("\"vispec\"", "\"none\"", "model[0].draft: none"),
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
                for dir in [Some(&cell.settings.target), cell.settings.draft.as_ref()] {
                    let dir = dir.map(|dir| crate::root().join(dir));
                    assert!(dir.is_none_or(|dir| dir.is_dir()), "{path:?}: {cell:?}");
                }
            }
            n_files += 1;
        }
        assert!(n_files > 0);
    }
}
