//! Writes the results of the experiment as a page with tables and plots.

mod charts;
mod results;
mod seen;
mod tables;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use vispec_report::collection::Collection;
use vispec_report::plots::{Theme, to_png};
use vispec_report::tables::Table;

use super::experiment::{Experiment, Scale, TargetPlan};
use crate::steps::Done;
use results::Results;
use seen::Sight;

/// The content of the page.
pub(super) struct Report<'a> {
    pub(super) scale_name: &'a str,
    pub(super) experiment: &'a Experiment,
    pub(super) scale: &'a Scale,
    pub(super) out: &'a Path,
    pub(super) steps: &'a [Done],
}

impl Report<'_> {
    /// Writes the page, named after the scale, and its tables and plots into `dir`.
    #[expect(clippy::print_stdout, reason = "output of the program")]
    pub(super) fn write(&self, dir: &Path) -> Result<()> {
        let cells = self.out.join("cells");
        let collection = Collection::read(&cells)?;
        let results = Results::of(self.experiment, self.scale.seeds, &collection)?;
        let sight = match self.scale.target {
            TargetPlan::Seeing(_) => Some(Sight::read(&self.out.join("target"))?),
            _ => None,
        };
        let seen = sight.iter().map(Sight::table);
        let tables = [
            tables::acceptance(&results),
            tables::depths(&results),
            tables::differences(&results, self.experiment)?,
            tables::speeds(&results, &self.scale.target),
            tables::drafts(self),
            tables::steps(self.steps),
        ];
        let tables: Vec<Table> = seen.chain(tables).collect();
        let figures = [
            (tables::ACCEPTANCE, charts::bars_of_all(&results)),
            (tables::DEPTHS, charts::depths(&results)),
        ];

        let plots_dir = dir.join(format!("{}-plots", self.scale_name));
        let tables_dir = dir.join(format!("{}-tables", self.scale_name));
        for dir in [&plots_dir, &tables_dir] {
            fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        }
        for table in &tables {
            let path = tables_dir.join(format!("{}.csv", table.name));
            fs::write(&path, table.to_csv()).with_context(|| path.display().to_string())?;
        }
        for figure in figures.iter().flat_map(|(_, figures)| figures) {
            let svg = figure.to_svg(Theme::File);
            let png = to_png(&figure.name, &svg)?;
            let path = plots_dir.join(&figure.name);
            fs::write(path.with_extension("svg"), svg)
                .and_then(|()| fs::write(path.with_extension("png"), png))
                .with_context(|| path.display().to_string())?;
        }
        let mut text = self.heading(&results);
        for table in tables.iter().filter(|table| !table.rows.is_empty()) {
            text += &format!("\n{}", table.to_markdown());
            let below = figures.iter().filter(|(name, _)| *name == table.name);
            for figure in below.flat_map(|(_, figures)| figures) {
                let (scale, name) = (self.scale_name, &figure.name);
                text += &format!("\n![{name}]({scale}-plots/{name}.svg)\n");
            }
        }
        if let Some(sight) = &sight {
            text += &sight.examples(dir, &format!("{}-pictures", self.scale_name))?;
        }
        let path = dir.join(format!("{}.md", self.scale_name));
        fs::write(&path, text).with_context(|| path.display().to_string())?;
        println!("{}", path.display());
        Ok(())
    }

    /// Returns the heading: command, machine, day, and the amounts of data and training.
    fn heading(&self, results: &Results<'_>) -> String {
        let scale = self.scale;
        let machine = results.machine;
        let minutes = self.steps.iter().map(|step| step.seconds).sum::<f64>() / 60.0;
        let evaluation = &self.experiment.evaluation;
        let target = match &scale.target {
            TargetPlan::Carried(dir) => format!("`{}`", dir.display()),
            TargetPlan::Made(config) => {
                format!("made by `make_target --config {}`", config.display())
            }
            TargetPlan::Seeing(seeing) => format!(
                "`{}` of `make_target --language-model {} --config {}`",
                seeing.checkpoint,
                seeing
                    .language_model
                    .as_deref()
                    .unwrap_or(Path::new("DIR"))
                    .display(),
                seeing.config.display()
            ),
        };
        let settings: Vec<String> = self.experiment.training.settings.iter().map(code).collect();
        format!(
            "# Reproduction, scale {name}\n\n\
             Written by `cargo xtask reproduce --scale {name}`; do not edit.\n\n\
             * Machine: {cores} x {cpu}, {isa}, {memory:.0} GiB, {os}\n\
             * Measurements started: {from}\n\
             * Time of all steps: {minutes:.0} minutes\n\
             * Target: {target}\n\
             * First stage: {texts} conversations without images; epochs: {text_epochs}\n\
             * Second stage: {scenes} pictures with sides of {sides} pixels, described by \
             the target; epochs: {image_epochs}, or {image_only_epochs} without a first stage\n\
             * Replaced values of the presets: {settings}\n\
             * Trainings of each draft, with different initial weights and order of samples: \
             {seeds}\n\
             * Held-out prompts per task: {prompts}, with at most {max_new_tokens} new tokens each\n\
             * Trees: {trees} (depth/top-k/total-token)\n",
            name = self.scale_name,
            cores = machine.cores,
            cpu = machine.cpu_model,
            isa = machine.isa,
            memory = machine.memory_bytes as f64 / f64::from(1 << 30),
            os = machine.os,
            from = results.started.strftime("%Y-%m-%d %H:%M UTC"),
            texts = scale.texts,
            text_epochs = scale.text_epochs,
            scenes = scale.scenes,
            sides = listed(&self.experiment.sides()),
            image_epochs = scale.image_epochs,
            image_only_epochs = scale.image_only_epochs,
            settings = settings.join(", "),
            seeds = scale.seeds,
            prompts = scale.prompts,
            max_new_tokens = evaluation.max_new_tokens,
            trees = listed(&evaluation.trees),
        )
    }
}

fn code(text: &String) -> String {
    format!("`{text}`")
}

/// Formats a list as `1, 2 and 3`.
fn listed(numbers: &[impl ToString]) -> String {
    let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    match &numbers[..] {
        [first @ .., last] if !first.is_empty() => format!("{} and {last}", first.join(", ")),
        numbers => numbers.concat(),
    }
}

/// Creates a table whose first `text_columns` columns are text.
fn table((name, title, note): (&str, &str, &str), columns: &[&str], text_columns: usize) -> Table {
    Table {
        text_columns,
        ..Table::new(name, title, note, columns)
    }
}
