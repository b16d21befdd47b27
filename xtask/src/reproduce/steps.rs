//! The steps of the experiment: programs, their flags, and the inputs that their output depends on.

mod data;

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::json;
use vispec_report::record::TreeSettings;

use super::experiment::{DraftPlan, Experiment, OtherTasks, Scale, TargetPlan};
use crate::steps::{KeyHasher, ProgramFlags as Flags, Step, Work};

/// Plans the steps.
struct Planner<'a> {
    experiment: &'a Experiment,
    scale: &'a Scale,
    out: &'a Path,
    /// Checkpoint of the target.
    target: PathBuf,
    target_key: String,
}

/// Returns all steps in an order in which they can be run.
pub(super) fn plan(experiment: &Experiment, scale: &Scale, out: &Path) -> Result<Vec<Step>> {
    let mut planner = Planner {
        experiment,
        scale,
        out,
        target: PathBuf::new(),
        target_key: String::new(),
    };
    let mut steps = match &scale.target {
        TargetPlan::Carried(dir) => {
            planner.target.clone_from(dir);
            planner.target_key = KeyHasher::default().dir(dir)?.key();
            Vec::new()
        }
        TargetPlan::Made(config) => {
            let step = planner.make_target(config)?;
            planner.target = step.output.join("checkpoint");
            planner.target_key.clone_from(&step.key);
            vec![step]
        }
        TargetPlan::Seeing(seeing) => {
            let steps = planner.teach_to_see(seeing)?;
            if let Some(last) = steps.last() {
                planner.target = last.output.join(&seeing.checkpoint);
                planner.target_key.clone_from(&last.key);
            }
            steps
        }
    };
    let drawn = planner.draw()?;
    let mut captures = planner.captures(&drawn)?;
    steps.extend(drawn.into_steps());
    let mut trainings: Vec<Step> = Vec::new();
    let mut sweeps = Vec::new();
    for (seed, draft) in planner.trained() {
        let first = match &draft.text_preset {
            None => None,
            Some(preset) => {
                let step =
                    planner.train_text((draft, preset), seed, captures.text(draft.states))?;
                let init = step.output.join("last");
                let key = step.key.clone();
                // Drafts with the same first stage share it.
                if !trainings.iter().any(|other| other.name == step.name) {
                    trainings.push(step);
                }
                Some((init, key))
            }
        };
        let capture = captures.pictures(draft.pictures, draft.states);
        let second = planner.train_images((draft, seed), first, capture)?;
        sweeps.extend(planner.evaluate((draft, seed), &second)?);
        trainings.push(second);
    }
    steps.append(&mut captures.steps);
    steps.extend(trainings);
    steps.extend(sweeps);
    Ok(steps)
}

impl Planner<'_> {
    /// Returns each draft with each seed.
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
        // The location of the output directory does not affect the result.
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

    fn train_text(
        &self,
        (draft, preset): (&DraftPlan, &Path),
        seed: u64,
        capture: &Step,
    ) -> Result<Step> {
        let stem = preset.file_stem().unwrap_or_default().to_string_lossy();
        let epochs = self.scale.text_epochs;
        let units = (self.scale.texts * epochs) as u64;
        // Drafts whose first stages differ in settings do not share one.
        let name = match draft.text_settings.is_empty() {
            true => format!("train-text-{stem}.{seed}"),
            false => format!("train-text-{}", draft.trained_name(seed)),
        };
        self.train(
            name,
            (preset, &draft.text_settings, (epochs, seed)),
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

    /// Plans the evaluation of the main tasks, and of those with their own data or checkpoint.
    fn evaluate(&self, draft: (&DraftPlan, u64), training: &Step) -> Result<Vec<Step>> {
        let evaluation = &self.experiment.evaluation;
        let own = OtherTasks {
            name: String::new(),
            checkpoint: None,
            data: None,
            tasks: evaluation.tasks.clone(),
        };
        let groups = std::iter::once(&own).chain(&evaluation.others);
        let groups = groups.filter(|group| !group.tasks.is_empty());
        let steps = groups.map(|group| self.evaluate_on(draft, training, group));
        steps.collect()
    }

    fn evaluate_on(
        &self,
        (draft, seed): (&DraftPlan, u64),
        training: &Step,
        group: &OtherTasks,
    ) -> Result<Step> {
        let evaluation = &self.experiment.evaluation;
        let name = draft.trained_name(seed);
        let tasks = &group.tasks;
        let target = match &group.checkpoint {
            None => self.target.clone(),
            Some(checkpoint) => self.target.with_file_name(checkpoint),
        };
        let full_name = match group.name.as_str() {
            "" => name.clone(),
            group => format!("{name}-{group}"),
        };
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
            "data": group.data.as_deref().unwrap_or(self.out),
            "device": "flex",
            "prompts": self.scale.prompts,
            "max_new_tokens": evaluation.max_new_tokens,
            "draft_vocab": evaluation.draft_vocab,
            "tasks": tasks,
            "temperatures": evaluation.temperatures,
            "seeds": [0],
            "dtypes": [evaluation.dtype],
            "model": [{
                "target": target,
                "draft": [{"method": draft.method, "dir": dir}],
            }],
            "tree": trees,
        });
        let answers = tasks.len() * evaluation.temperatures.len() * (1 + trees.len());
        let mut key = KeyHasher::default()
            .text(&self.target_key)
            .text(&training.key);
        for task in tasks {
            key = key.file(task)?;
        }
        let work = Work::Sweep {
            draft: (training.output.join("last"), dir),
            text: toml::to_string(&sweep)?,
        };
        Ok(self.step(
            format!("evaluate-{full_name}"),
            // Each prompt is answered plainly, and with each tree.
            (key, answers as u64 * self.scale.prompts),
            self.out.join("cells").join(&full_name),
            work,
        ))
    }
}
