//! Opening conversation files, and reading rows by their shuffled position.

use std::fmt;
use std::path::{Path, PathBuf};

use vispec_processor::{Message, Messages, SAMPLE_FPS, sampled_frames};

use super::conversation::{Conversation, DropReason, Row};
use super::{chat, turns};
use crate::error::{DataError, Result};
use crate::order::numpy_permutation;
use crate::rows::{
    Columns, ImageSource, Record, SceneRows, Source, Table, VideoSource, frames_in, open_files,
    path_below,
};
use crate::scenes::{QuestionKind, SceneStyle};

/// Layout of the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConversationLayout {
    /// ShareGPT: `conversations` of turns with `from` (`human`, `gpt`) and `value`; text only.
    ShareGpt,
    /// LLaVA-Pretrain: like ShareGPT, with `<image>` in the question, and one `image`: a path, or
    /// in Parquet the image itself.
    LlavaPretrain,
    /// `messages` of `role` and `content`, `images` (a list of paths) and `videos` (a list of frame
    /// folders: `DIR@FPS`, or `DIR` for two frames per second).
    Chat,
    /// Drawn scenes without files: a question about a picture and its correct answer.
    Scenes {
        /// Size of the pictures.
        style: SceneStyle,
        /// Seed of the scenes.
        seed: u64,
        /// Number of scenes.
        count: usize,
        /// Whether questions have short or long answers.
        questions: QuestionKind,
    },
}

impl ConversationLayout {
    /// Returns the name used in messages.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::ShareGpt => "sharegpt",
            Self::LlavaPretrain => "llava-pretrain",
            Self::Chat => "chat",
            Self::Scenes {
                questions: QuestionKind::Short,
                ..
            } => "scenes-short",
            Self::Scenes {
                questions: QuestionKind::Long,
                ..
            } => "scenes-long",
        }
    }
}

/// The files to read, and their layout.
#[derive(Debug, Clone)]
pub struct ConversationFiles {
    /// Layout of the rows.
    pub layout: ConversationLayout,
    /// JSON lists (`.json`), one object per line (`.jsonl`) or Parquet (`.parquet`), in order.
    pub files: Vec<PathBuf>,
    /// Folder that image paths are relative to.
    pub images: PathBuf,
    /// Seed of the shuffle; `None` keeps the order of the files.
    pub shuffle_seed: Option<u64>,
}

/// The rows of conversation files in their shuffled order.
pub struct ConversationSource {
    layout: ConversationLayout,
    images: PathBuf,
    table: Box<dyn Table>,
    order: Vec<usize>,
}

impl ConversationFiles {
    /// Opens the files and indexes their rows.
    ///
    /// # Errors
    /// [`DataError::MissingFile`], [`DataError::Io`], [`DataError::FileSyntax`] and
    /// [`DataError::MissingColumn`] if a file cannot be read as its extension demands.
    pub fn open(&self) -> Result<ConversationSource> {
        let columns = self.columns();
        let source = Source {
            data_dir: Path::new(""),
            task: self.layout.as_str(),
            from: "its publisher",
            columns: &columns,
        };
        let table: Box<dyn Table> = match self.layout {
            ConversationLayout::Scenes {
                style,
                seed,
                count,
                questions,
            } => Box::new(SceneRows {
                task: self.layout.as_str().to_owned(),
                style,
                seed,
                count,
                questions,
            }),
            _ => open_files(&self.files, &source)?,
        };
        let n_rows = table.n_rows();
        let order = match self.shuffle_seed {
            Some(seed) => numpy_permutation(seed, n_rows),
            None => (0..n_rows).collect(),
        };
        Ok(ConversationSource {
            layout: self.layout,
            images: self.images.clone(),
            table,
            order,
        })
    }

    /// Returns the columns that tables with a header must have.
    fn columns(&self) -> Columns {
        let mut columns = Columns::default();
        match self.layout {
            ConversationLayout::ShareGpt => {
                columns.text.insert(turns::COLUMN.to_owned());
            }
            ConversationLayout::LlavaPretrain => {
                columns.text.insert(turns::COLUMN.to_owned());
                columns.images.insert(IMAGE.to_owned());
            }
            ConversationLayout::Chat => {
                columns.text.insert(chat::COLUMN.to_owned());
                columns.text.insert(chat::IMAGES.to_owned());
                columns.text.insert(chat::VIDEOS.to_owned());
            }
            ConversationLayout::Scenes { .. } => {}
        }
        columns
    }
}

/// Image column of LLaVA-Pretrain.
const IMAGE: &str = "image";

impl ConversationSource {
    /// Returns the number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Returns `true` if there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Reads the row at a position of the shuffled order, without decoding its images.
    ///
    /// # Errors
    /// [`DataError::NoSuchSample`], and the errors of broken rows.
    pub fn conversation(&mut self, position: usize) -> Result<Row> {
        let Some(&row) = self.order.get(position) else {
            return Err(DataError::NoSuchSample {
                task: self.layout.as_str().to_owned(),
                index: position,
                found: self.order.len(),
            });
        };
        let record = self.table.record(row)?;
        let mut videos = Vec::new();
        let (messages, images) = match self.layout {
            ConversationLayout::ShareGpt => (turns::messages(turns::turns(&record)?), Vec::new()),
            ConversationLayout::LlavaPretrain => {
                let messages = turns::messages(turns::turns(&record)?);
                let image = self.llava_image(row, &record)?;
                (messages.map(turns::with_image_places), vec![image])
            }
            ConversationLayout::Chat => {
                for folder in chat::paths(&record, chat::VIDEOS)? {
                    videos.push(self.video(&record, &folder)?);
                }
                let paths = chat::paths(&record, chat::IMAGES)?.into_iter();
                let images = paths.map(|path| self.image_file(&record, path));
                (chat::messages(&record)?, images.collect::<Result<_>>()?)
            }
            ConversationLayout::Scenes { .. } => {
                let image = self.table.image(row, SceneRows::IMAGE_COLUMN)?;
                (Ok(scene_messages(&record)?), vec![image])
            }
        };
        let messages = match messages {
            Ok(messages) => messages,
            Err(reason) => {
                let origin = record.origin;
                return Ok(Row::Dropped { origin, reason });
            }
        };
        finished(record, messages, (images, videos))
    }

    /// Returns the image of a LLaVA-Pretrain row: a path, or in Parquet a cell.
    fn llava_image(&self, row: usize, record: &Record) -> Result<ImageSource> {
        if record.has(IMAGE) {
            self.image_file(record, record.text(IMAGE)?)
        } else {
            self.table.image(row, IMAGE)
        }
    }

    /// Returns the video of a frame folder; an optional suffix `@FPS` gives its frames per second.
    fn video(&self, record: &Record, named: &str) -> Result<VideoSource> {
        let origin = || record.origin.clone();
        let split = named.rsplit_once('@');
        let split = split.and_then(|(folder, fps)| Some((folder, fps.parse().ok()?)));
        let (folder, fps) = split.unwrap_or((named, SAMPLE_FPS));
        let path = path_below(&self.images, folder).ok_or_else(|| DataError::PathOutside {
            origin: origin(),
            path: folder.to_owned(),
        })?;
        let files = frames_in(&path)?;
        if files.is_empty() {
            return Err(DataError::NoFrames {
                origin: origin(),
                video: path.with_extension("mp4"),
                folder: path,
            });
        }
        let places = sampled_frames(files.len(), fps, SAMPLE_FPS);
        let places = places.map_err(|source| DataError::BadImage {
            origin: origin(),
            source: Box::new(source),
        })?;
        Ok(VideoSource::new(origin(), path, (files, fps), places))
    }

    fn image_file(&self, record: &Record, path: String) -> Result<ImageSource> {
        let origin = record.origin.clone();
        match path_below(&self.images, &path) {
            Some(path) => Ok(ImageSource::file(origin, path)),
            None => Err(DataError::PathOutside { origin, path }),
        }
    }
}

impl fmt::Debug for ConversationSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConversationSource")
            .field("layout", &self.layout)
            .field("rows", &self.order.len())
            .finish_non_exhaustive()
    }
}

fn scene_messages(record: &Record) -> Result<Vec<Message>> {
    let question = Messages::from_prompt(None, &record.text("question")?, 1);
    let mut messages = question.as_slice().to_vec();
    messages.push(Message {
        role: super::conversation::ASSISTANT.to_owned(),
        content: vispec_processor::Content::Text(record.text("answer")?),
    });
    Ok(messages)
}

fn finished(
    record: Record,
    messages: Vec<Message>,
    (images, videos): (Vec<ImageSource>, Vec<VideoSource>),
) -> Result<Row> {
    let id = if record.has("id") {
        record.text("id")?
    } else {
        format!("row {}", record.origin.row)
    };
    let messages = Messages::new(messages).map_err(|error| DataError::RowSyntax {
        origin: record.origin.clone(),
        expected: "a valid conversation",
        reason: error.to_string(),
    })?;
    let expected = messages.n_images();
    if images.len() != expected {
        let found = images.len();
        return Ok(Row::Dropped {
            origin: record.origin,
            reason: DropReason::ImageCount { found, expected },
        });
    }
    let expected = messages.n_videos();
    if videos.len() != expected {
        let found = videos.len();
        return Ok(Row::Dropped {
            origin: record.origin,
            reason: DropReason::VideoCount { found, expected },
        });
    }
    Ok(Row::Kept(Box::new(Conversation {
        id,
        messages,
        images,
        videos,
        origin: record.origin,
    })))
}
