//! The steps of the experiment: programs with their flags, and what their outcome depends on.

mod data;

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::json;
use vispec_report::record::TreeSettings;

use super::experiment::{DraftPlan, Experiment, PictureText, Scale, TargetPlan};
use crate::steps::{KeyHasher, ProgramFlags as Flags, Step, Work};

/// Makes steps.
struct Planner<'a> {
    experiment: &'a Experiment,
    scale: &'a Scale,
    out: &'a Path,
    /// Checkpoint of the target.
    target: PathBuf,
    target_key: String,
}

/// All steps in an order in which they can be done.
pub(super) fn plan(experiment: &Experiment, scale: &Scale, out: &Path) -> Result<Vec<Step>> {
    let mut planner = Planner {
        experiment,
        scale,
        out,
        target: PathBuf::new(),
        target_key: String::new(),
    };
    let make_target = match &scale.target {
        TargetPlan::Carried(dir) => {
            planner.target.clone_from(dir);
            planner.target_key = KeyHasher::default().dir(dir)?.key();
            None
        }
        TargetPlan::Made(config) => {
            let step = planner.make_target(config)?;
            planner.target = step.output.join("checkpoint");
            planner.target_key.clone_from(&step.key);
            Some(step)
        }
    };
    let draw = planner.draw();
    let text = planner.capture_text()?;
    let images = planner.capture_images(&draw);
    let captioned = planner.draw_captioned();
    let captions = planner.capture_captions(&captioned);
    let mut trainings: Vec<Step> = Vec::new();
    let mut sweeps = Vec::new();
    for (seed, draft) in planner.trained() {
        let first = match &draft.text_preset {
            None => None,
            Some(preset) => {
                let step = planner.train_text(preset, seed, &text)?;
                let init = step.output.join("last");
                let key = step.key.clone();
                // Drafts that start in the same way share their first stage.
                if !trainings.iter().any(|other| other.name == step.name) {
                    trainings.push(step);
                }
                Some((init, key))
            }
        };
        let capture = match draft.pictures {
            PictureText::Answers => &images,
            PictureText::Captions => &captions,
        };
        let second = planner.train_images((draft, seed), first, capture)?;
        sweeps.push(planner.evaluate((draft, seed), &second)?);
        trainings.push(second);
    }
    let mut steps: Vec<Step> = make_target.into_iter().collect();
    steps.extend([draw, text, images]);
    let drafts = &experiment.drafts;
    if drafts
        .iter()
        .any(|draft| draft.pictures == PictureText::Captions)
    {
        steps.extend([captioned, captions]);
    }
    steps.extend(trainings);
    steps.extend(sweeps);
    Ok(steps)
}

impl Planner<'_> {
    /// Each draft with each seed.
    fn trained(&self) -> impl Iterator<Item = (u64, &DraftPlan)> {
        let drafts = &self.experiment.drafts;
        (0..self.scale.seeds).flat_map(move |seed| drafts.iter().map(move |draft| (seed, draft)))
    }

    fn step(
        &self,
        name: String,
        (key, units): (KeyHasher, u64),
        output: PathBuf,
        work: Work,
    ) -> Step {
        // Where everything lies does not change what comes out.
        let out = self.out.display().to_string();
        let said = format!("{work:?}").replace(&out, "OUT");
        Step {
            key: key.text(&name).text(&said).key(),
            name,
            units,
            output,
            work,
        }
    }

    fn train_text(&self, preset: &Path, seed: u64, capture: &Step) -> Result<Step> {
        let stem = preset.file_stem().unwrap_or_default().to_string_lossy();
        let epochs = self.scale.text_epochs;
        let units = (self.scale.texts * epochs) as u64;
        self.train(
            format!("train-text-{stem}.{seed}"),
            (preset, &[], (epochs, seed)),
            (None, capture),
            units,
        )
    }

    fn train_images(
        &self,
        (draft, seed): (&DraftPlan, u64),
        first: Option<(PathBuf, String)>,
        capture: &Step,
    ) -> Result<Step> {
        let epochs = match first {
            Some(_) => self.scale.image_epochs,
            None => self.scale.image_only_epochs,
        };
        let units = (self.scale.scenes * epochs) as u64;
        self.train(
            format!("train-{}", draft.trained_name(seed)),
            (&draft.image_preset, &draft.image_settings, (epochs, seed)),
            (first, capture),
            units,
        )
    }

    fn train(
        &self,
        name: String,
        (preset, settings, (epochs, seed)): (&Path, &[String], (usize, u64)),
        (init, capture): (Option<(PathBuf, String)>, &Step),
        units: u64,
    ) -> Result<Step> {
        let output = self.out.join("runs").join(&name);
        let mut flags = Flags::new(&[
            ("--config", &preset),
            ("--data", &capture.output),
            ("--target", &self.target),
            ("--out", &output),
        ]);
        let mut key = KeyHasher::default()
            .text(&self.target_key)
            .text(&capture.key)
            .file(preset)?;
        if let Some((dir, draft_key)) = &init {
            flags.0.extend(["--init".into(), dir.into()]);
            key = key.text(draft_key);
        }
        let own = [format!("optimizer.epochs={epochs}"), format!("seed={seed}")];
        let common = &self.experiment.training.settings;
        let flags = flags.with("--set", common.iter().chain(settings).chain(&own));
        let work = Work::Program {
            program: "train",
            arguments: flags.0,
            lines: Some((
                output.join("metrics.jsonl"),
                units / self.experiment.training.batches,
            )),
        };
        Ok(self.step(name, (key, units), output, work))
    }

    fn evaluate(&self, (draft, seed): (&DraftPlan, u64), training: &Step) -> Result<Step> {
        let evaluation = &self.experiment.evaluation;
        let name = draft.trained_name(seed);
        let dir = self.out.join("drafts").join(&name);
        let tree = |tree: &TreeSettings| {
            json!({
                "depth": [tree.depth],
                "top_k": [tree.top_k],
                "total_token": [tree.total_token],
            })
        };
        let trees: Vec<_> = evaluation.trees.iter().map(tree).collect();
        let sweep = json!({
            "data": self.out,
            "device": "flex",
            "prompts": self.scale.prompts,
            "max_new_tokens": evaluation.max_new_tokens,
            "tasks": evaluation.tasks,
            "temperatures": evaluation.temperatures,
            "seeds": [0],
            "dtypes": ["f32"],
            "model": [{
                "target": self.target,
                "draft": [{"method": draft.method, "dir": dir}],
            }],
            "tree": trees,
        });
        let cells = (evaluation.tasks.len() * evaluation.temperatures.len() * trees.len()) as u64;
        let mut key = KeyHasher::default()
            .text(&self.target_key)
            .text(&training.key);
        for task in &evaluation.tasks {
            key = key.file(task)?;
        }
        let work = Work::Sweep {
            draft: (training.output.join("last"), dir),
            text: toml::to_string(&sweep)?,
        };
        Ok(self.step(
            format!("evaluate-{name}"),
            // Each prompt is answered twice.
            (key, 2 * cells * self.scale.prompts),
            self.out.join("cells").join(&name),
            work,
        ))
    }
}
