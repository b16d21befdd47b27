//! Drawn scenes as rows of a table.

use std::path::PathBuf;

use serde_json::{Map, Value};

use super::{ImageSource, Record, Table};
use crate::error::{DataError, Result, RowOrigin};
use crate::scenes::{QuestionKind, Scene, SceneStyle};

/// Scenes `0..count` of a seed, each with one question.
#[derive(Debug)]
pub(crate) struct SceneRows {
    pub(crate) task: String,
    pub(crate) style: SceneStyle,
    pub(crate) seed: u64,
    pub(crate) count: usize,
    pub(crate) questions: QuestionKind,
}

impl SceneRows {
    /// Names of the text columns.
    pub(crate) const TEXT_COLUMNS: [&str; 3] = ["id", "question", "answer"];
    /// Name of the image column.
    pub(crate) const IMAGE_COLUMN: &str = "image";

    fn scene(&self, row: usize) -> Scene {
        Scene::generate(&self.style, self.seed, row as u64)
    }
}

impl Table for SceneRows {
    fn n_rows(&self) -> usize {
        self.count
    }

    fn origin(&self, row: usize) -> RowOrigin {
        RowOrigin {
            file: PathBuf::from(&self.task),
            row: row + 1,
        }
    }

    fn record(&mut self, row: usize) -> Result<Record> {
        let question = self.scene(row).question(self.questions);
        let values = [format!("{row:05}"), question.text, question.answer];
        let names = Self::TEXT_COLUMNS.map(str::to_owned);
        let fields: Map<String, Value> = names.into_iter().zip(values.map(Value::String)).collect();
        let origin = self.origin(row);
        Ok(Record { origin, fields })
    }

    fn image(&self, row: usize, column: &str) -> Result<ImageSource> {
        let origin = self.origin(row);
        if column == Self::IMAGE_COLUMN {
            Ok(ImageSource::scene(origin, self.scene(row)))
        } else {
            let image = format!("column {column}");
            Err(DataError::MissingImage { origin, image })
        }
    }
}
