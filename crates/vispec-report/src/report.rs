//! The report of a directory of cells.

use std::fs;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::collection::Collection;
use crate::error::{ReportError, Result};
use crate::page;
use crate::plots::{self, Figure, Theme, to_png};
use crate::tables::{self, Table};

/// Whether a report predicts trees that were not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Predictions {
    /// Measured figures only.
    None,
    /// Also a table of smaller trees, for cells with measured costs.
    SmallerTrees,
}

/// A report in memory.
#[derive(Debug, Clone)]
pub struct Report {
    /// The cells.
    pub collection: Collection,
    /// Tables, starting with the main one.
    pub tables: Vec<Table>,
    /// All figures as plain numbers.
    pub numbers: Table,
    /// Plots.
    pub figures: Vec<Figure>,
}

impl Report {
    /// Reads all cells below `dir` and computes the report.
    ///
    /// # Errors
    /// Same as [`Collection::read`].
    pub fn of(dir: &Path, predict: Predictions) -> Result<Self> {
        let collection = Collection::read(dir)?;
        let series = collection.series();
        let mut tables = tables::all(&series);
        if predict == Predictions::SmallerTrees {
            tables.push(tables::predictions(&series));
        }
        tables.push(tables::paper_reference());
        Ok(Self {
            figures: plots::all(&series),
            numbers: tables::figures(&series),
            tables,
            collection,
        })
    }

    /// Returns a line for each cell that is incomplete, failed, could not be read, or lacks shards.
    #[must_use]
    pub fn incomplete(&self) -> Vec<String> {
        page::incomplete(&self.collection)
    }

    /// Writes `report.html` and `report.md`, and each table and plot as separate files:
    /// `tables/*.{csv,tex}`, `tables/figures.csv` and `plots/*.{svg,png}`. Replaces the files of an
    /// earlier report.
    ///
    /// # Errors
    /// Returns any error of the file system.
    pub fn write(&self, out: &Path) -> Result<()> {
        let (plots, tables) = (out.join("plots"), out.join("tables"));
        for dir in [&plots, &tables] {
            fs::create_dir_all(dir).map_err(ReportError::io(dir, "could not be created"))?;
        }
        for table in &self.tables {
            write(tables.join(format!("{}.csv", table.name)), table.to_csv())?;
            write(tables.join(format!("{}.tex", table.name)), table.to_latex())?;
        }
        write(tables.join("figures.csv"), self.numbers.to_csv())?;
        self.figures.par_iter().try_for_each(|figure| {
            let svg = figure.to_svg(Theme::File);
            let png = to_png(&figure.name, &svg)?;
            write(plots.join(format!("{}.svg", figure.name)), svg)?;
            write(plots.join(format!("{}.png", figure.name)), png)
        })?;
        write(out.join("report.md"), self.to_markdown())?;
        let page = page::page(&self.collection, &self.tables, &self.figures);
        write(out.join("report.html"), page)
    }

    fn to_markdown(&self) -> String {
        let mut text = "# Measurements\n\n".to_owned();
        for line in page::origins(&self.collection) {
            text += &format!("* {line}\n");
        }
        let incomplete = self.incomplete();
        if !incomplete.is_empty() {
            text += "\n**Not complete:**\n\n";
            for line in incomplete {
                text += &format!("* {line}\n");
            }
        }
        for table in &self.tables {
            text.push('\n');
            text += &table.to_markdown();
        }
        for figure in &self.figures {
            text += &format!("\n![{0}](plots/{0}.svg)\n", figure.name);
        }
        text
    }
}

fn write(path: PathBuf, contents: impl AsRef<[u8]>) -> Result<()> {
    fs::write(&path, contents).map_err(ReportError::io(&path, "could not be written"))
}
