//! The file that describes the experiment at every scale.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use vispec_report::record::{Method, TreeSettings};

/// Drafts, data and comparisons of the experiment. Paths are relative to the repository.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Experiment {
    pub(super) text: TextPlan,
    /// Drawn scenes to train on; exclusive with `icons`.
    pub(super) scenes: Option<Scenes>,
    /// Pictures of icon sets to train on; exclusive with `scenes`.
    pub(super) icons: Option<Icons>,
    pub(super) capture: Capture,
    pub(super) training: Training,
    pub(super) evaluation: Evaluation,
    /// The drafts, in the order of the tables.
    #[serde(rename = "draft")]
    pub(super) drafts: Vec<DraftPlan>,
    /// Pairs of drafts that the report compares.
    #[serde(rename = "comparison", default)]
    pub(super) comparisons: Vec<Comparison>,
    /// Sizes of the experiment, by name.
    #[serde(rename = "scale")]
    pub(super) scales: BTreeMap<String, Scale>,
}

/// Source of conversations without images.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged, expecting = "a file, or { own_tokens = N }")]
pub(super) enum TextPlan {
    /// Conversations in ShareGPT's layout, which the target reads.
    File(PathBuf),
    /// The target asks itself questions and answers them.
    Own {
        /// Maximum number of tokens of an answer.
        own_tokens: usize,
    },
}

/// Pictures of icon sets.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Icons {
    pub(super) seed: u64,
    /// Side in pixels of pictures to train on.
    pub(super) side: u32,
    /// Questions about the pictures, used in turn.
    pub(super) questions: Vec<String>,
    /// Number of pictures of each task, in a style that was never taught.
    pub(super) held_out: u64,
    /// Tasks that use them.
    #[serde(rename = "task")]
    pub(super) tasks: Vec<IconTask>,
}

/// A task that asks about pictures in a style that was never taught.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IconTask {
    /// Name of the task and of its directory.
    pub(super) name: String,
    /// Side of the pictures in pixels.
    pub(super) side: u32,
}

/// Drawn scenes to train on.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Scenes {
    pub(super) seed: u64,
    pub(super) cells: u32,
    pub(super) min_shapes: u32,
    pub(super) max_shapes: u32,
    /// Value of `--palette` of `draw_scenes`.
    pub(super) palette: String,
    /// Sides of the pictures in pixels, used in turn.
    pub(super) sides: Vec<u32>,
    /// Questions about the pictures, used in turn.
    pub(super) questions: Vec<String>,
    /// Question about pictures with captions.
    pub(super) caption_question: String,
}

/// The text about pictures that a second stage learns from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum PictureText {
    /// Answers that the target writes.
    #[default]
    Answers,
    /// Short captions that come with the pictures, as for the paper's EAGLE-2.
    Captions,
}

/// How the target answers questions about pictures.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Capture {
    /// Minimum and maximum area of pictures, if the target resizes them to an area.
    pub(super) pixels: Option<[usize; 2]>,
    pub(super) max_new_tokens: usize,
}

/// Training settings that all drafts share.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Training {
    /// Values that replace those of the presets.
    pub(super) settings: Vec<String>,
    /// Number of samples per step, which is also the number of training processes.
    #[serde(skip, default = "one")]
    pub(super) batches: u64,
}

fn one() -> u64 {
    1
}

/// The measurements.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Evaluation {
    /// Files that define tasks.
    pub(super) tasks: Vec<PathBuf>,
    /// Tasks with other data, or for another checkpoint of the target.
    #[serde(rename = "other", default)]
    pub(super) others: Vec<OtherTasks>,
    /// Element type of the weights.
    #[serde(default = "f32")]
    pub(super) dtype: String,
    /// Tokens that drafts may propose, in the format of `--draft-vocab` of `evaluate`.
    #[serde(default = "all")]
    pub(super) draft_vocab: String,
    pub(super) temperatures: Vec<f32>,
    pub(super) max_new_tokens: u32,
    /// Tree settings; each is combined with each task and temperature.
    pub(super) trees: Vec<TreeSettings>,
}

fn f32() -> String {
    "f32".to_owned()
}

fn all() -> String {
    "all".to_owned()
}

/// Tasks with their own data or checkpoint.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OtherTasks {
    /// Suffix of the results' directory after the name of the draft.
    pub(super) name: String,
    /// Name of the checkpoint that answers them. It lies beside the one that drafts are trained for
    /// and differs from it only in its vision.
    pub(super) checkpoint: Option<String>,
    /// Directory of the tasks' data.
    pub(super) data: Option<PathBuf>,
    /// Files that define tasks.
    pub(super) tasks: Vec<PathBuf>,
}

impl Evaluation {
    /// Returns all tasks.
    pub(super) fn all_tasks(&self) -> impl Iterator<Item = &PathBuf> {
        let others = self.others.iter().flat_map(|other| &other.tasks);
        self.tasks.iter().chain(others)
    }
}

/// Hidden states of the target that a draft reads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum States {
    /// The last one.
    #[default]
    Last,
    /// Three states of the residual stream.
    Eagle3,
}

/// A draft and how it is trained.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DraftPlan {
    /// Name in tables.
    pub(super) name: String,
    /// Drafting method.
    pub(super) method: Method,
    /// Preset of the first stage, if there is one.
    pub(super) text_preset: Option<PathBuf>,
    /// Preset of the second stage.
    pub(super) image_preset: PathBuf,
    /// Values that replace those of the second stage's preset.
    #[serde(default)]
    pub(super) image_settings: Vec<String>,
    /// Values that replace those of the first stage's preset.
    #[serde(default)]
    pub(super) text_settings: Vec<String>,
    /// The text that the second stage learns from.
    #[serde(default)]
    pub(super) pictures: PictureText,
    /// Hidden states that the draft reads.
    #[serde(default)]
    pub(super) states: States,
}

/// A comparison of two drafts on the same prompts.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Comparison {
    pub(super) draft: String,
    pub(super) against: String,
    /// The question that the difference answers.
    pub(super) question: String,
}

/// The target of all drafts.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum TargetPlan {
    /// A carried checkpoint.
    Carried(PathBuf),
    /// A checkpoint that `make_target` makes with a config.
    Made(PathBuf),
    /// A language model that `make_target` trains to see.
    Seeing(Seeing),
}

/// A language model that learns to see.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Seeing {
    /// Config of `make_target`.
    pub(super) config: PathBuf,
    /// Name of the checkpoint that drafts are trained for.
    pub(super) checkpoint: String,
    /// Checkpoint of the language model, unless `reproduce` is given one.
    pub(super) language_model: Option<PathBuf>,
    /// Directory of icon sets, unless `reproduce` is given one.
    pub(super) pictures: Option<PathBuf>,
}

/// A size of the experiment.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Scale {
    pub(super) target: TargetPlan,
    /// Number of conversations without images.
    pub(super) texts: usize,
    /// Number of pictures to train on.
    pub(super) scenes: usize,
    /// Epochs of the first stage.
    pub(super) text_epochs: usize,
    /// Epochs of the second stage.
    pub(super) image_epochs: usize,
    /// Epochs of the second stage of drafts without a first stage; chosen for the same total number
    /// of steps.
    pub(super) image_only_epochs: usize,
    /// Number of held-out prompts of each task.
    pub(super) prompts: u64,
    /// Number of trainings of each draft, each with other initial weights and another order.
    pub(super) seeds: u64,
}

impl DraftPlan {
    /// Returns the name of the draft's directory when it is trained with a seed.
    pub(super) fn trained_name(&self, seed: u64) -> String {
        format!("{}.{seed}", self.name)
    }
}

impl Experiment {
    /// Reads and checks the file.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let experiment: Self = toml::from_str(&text).with_context(|| path.display().to_string())?;
        experiment
            .check()
            .with_context(|| path.display().to_string())?;
        Ok(experiment)
    }

    /// Sets the number of training processes, each of which has one batch per step.
    pub(super) fn on(mut self, ranks: u16) -> Self {
        if ranks > 1 {
            let batches = format!("data.accumulate={ranks}");
            self.training.settings.push(batches);
            self.training.batches = u64::from(ranks);
        }
        self
    }

    /// Sets the language model and the icon sets, if given.
    pub(super) fn seeing(mut self, language_model: Option<&Path>, pictures: Option<&Path>) -> Self {
        for scale in self.scales.values_mut() {
            if let TargetPlan::Seeing(seeing) = &mut scale.target {
                let given = |dir: Option<&Path>| dir.map(Path::to_owned);
                seeing.language_model = given(language_model).or(seeing.language_model.take());
                seeing.pictures = given(pictures).or(seeing.pictures.take());
            }
        }
        self
    }

    /// Returns the sides in pixels of the pictures that drafts learn from.
    pub(super) fn sides(&self) -> Vec<u32> {
        let scenes = self.scenes.iter().flat_map(|scenes| scenes.sides.clone());
        scenes
            .chain(self.icons.iter().map(|icons| icons.side))
            .collect()
    }

    /// Returns the sizes of a scale.
    pub(super) fn scale(&self, name: &str) -> Result<&Scale> {
        let scale = self.scales.get(name);
        scale.with_context(|| {
            let known: Vec<&str> = self.scales.keys().map(String::as_str).collect();
            format!(
                "scale.{name}: missing, expected one of {}",
                known.join(", ")
            )
        })
    }

    /// Checks the values. Errors start with the key at fault.
    fn check(&self) -> Result<()> {
        let mut names: Vec<&str> = self
            .drafts
            .iter()
            .map(|draft| draft.name.as_str())
            .collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            bail!("draft.name: {:?} occurs more than once", twice[0]);
        }
        for draft in &self.drafts {
            if !draft.method.has_network() {
                bail!("draft.method: {} has nothing to train", draft.method);
            }
        }
        for comparison in &self.comparisons {
            for name in [&comparison.draft, &comparison.against] {
                if !names.contains(&name.as_str()) {
                    bail!("comparison: there is no draft {name:?}");
                }
            }
        }
        match (&self.scenes, &self.icons) {
            (Some(_), None) => {}
            (None, Some(icons)) if icons.questions.is_empty() => {
                bail!("icons.questions: empty, expected at least one");
            }
            (None, Some(_)) => {
                let captions = self
                    .drafts
                    .iter()
                    .find(|draft| draft.pictures == PictureText::Captions);
                if let Some(draft) = captions {
                    bail!("draft {:?}: pictures of icons have no captions", draft.name);
                }
            }
            _ => bail!("expected either scenes or icons"),
        }
        if self.evaluation.trees.is_empty() {
            bail!("evaluation.trees: empty, expected at least one");
        }
        for (name, scale) in &self.scales {
            let counts = [
                ("texts", scale.texts as u64),
                ("scenes", scale.scenes as u64),
                ("text_epochs", scale.text_epochs as u64),
                ("image_epochs", scale.image_epochs as u64),
                ("image_only_epochs", scale.image_only_epochs as u64),
                ("prompts", scale.prompts),
                ("seeds", scale.seeds),
            ];
            if let Some((key, _)) = counts.iter().find(|(_, count)| *count == 0) {
                bail!("scale.{name}.{key}: 0, expected at least 1");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carried_experiments_are_sound() {
        let dir = crate::root().join("examples/configs/reproduce");
        for (name, scales) in [
            ("experiment.toml", &["mini", "smoke"][..]),
            ("demo.toml", &["mini"]),
            ("pictures.toml", &["pictures"]),
            ("pictures-smoke.toml", &["pictures-smoke"]),
        ] {
            let experiment = Experiment::read(&dir.join(name)).unwrap();
            for scale in scales {
                experiment.scale(scale).unwrap();
            }
        }
    }
}
