//! Flags of `capture`.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use vispec_data::capture::{
    CaptureStage, PositionRange, PromptForm, Share, SourceFile, SourceIdentity, StorageKind,
};
use vispec_data::conversations::{ConversationFiles, ConversationLayout, ConversationSource};
use vispec_data::scenes::{QuestionKind, SceneStyle};
use vispec_models::Engine;
use vispec_processor::ModelFamily;

use crate::failure::Failure;
use crate::together::MAX_BATCH;

/// Layouts of conversation files.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceName {
    /// Turns of `from` and `value`, text only
    Sharegpt,
    /// The same with one image a row
    LlavaPretrain,
    /// `messages` of `role` and `content`, and `images`, a list of paths
    Chat,
    /// Drawn scenes, questions with short answers; no files
    ScenesShort,
    /// Drawn scenes and their descriptions; no files
    ScenesLong,
}

/// Which conversations to take.
#[derive(Args, Debug)]
pub struct SourceFlags {
    /// What the rows of the files look like
    #[arg(long, value_enum)]
    pub source: SourceName,
    /// A file of conversations: .json (a list), .jsonl or .parquet; repeat the flag for several
    #[arg(long = "data", value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Folder that the rows' image paths are relative to
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub images: PathBuf,
    /// Number of drawn scenes
    #[arg(long, default_value_t = 1000, allow_negative_numbers = true)]
    pub scenes: usize,
    /// Seed of the drawn scenes
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub scene_seed: u64,
    /// Seed of the shuffle, which is that of `datasets`
    #[arg(long, default_value_t = 42, allow_negative_numbers = true)]
    pub shuffle_seed: u64,
    /// First position of the shuffled rows
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub start: usize,
    /// Position behind the last; by default all rows
    #[arg(long, allow_negative_numbers = true)]
    pub end: Option<usize>,
    /// Take so many positions from the first on
    #[arg(long, conflicts_with = "end", allow_negative_numbers = true)]
    pub limit: Option<usize>,
    /// Which share of the range this process takes: 1/8 is the first of eight
    #[arg(long, value_name = "I/N", default_value = "1/1")]
    pub shard: Share,
    /// Broken rows and images that are left out; one more ends the run
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub max_bad_rows: usize,
}

/// Pixels of a drawn scene's side, its rows and columns, and how many shapes are in it.
const SCENE: (u32, u32, std::ops::RangeInclusive<u32>) = (84, 3, 2..=5);

impl SourceFlags {
    /// The files and their layout.
    ///
    /// # Errors
    /// Usage if files are missing, or given where none are read.
    pub fn conversations(&self) -> Result<ConversationFiles, Failure> {
        let scenes = |questions| {
            let (side, cells, shapes) = SCENE;
            let style = SceneStyle::new(side, cells, shapes);
            let style = style.ok_or_else(|| Failure::usage("the scenes have no valid style"))?;
            Ok::<_, Failure>(ConversationLayout::Scenes {
                style,
                seed: self.scene_seed,
                count: self.scenes,
                questions,
            })
        };
        let layout = match self.source {
            SourceName::Sharegpt => ConversationLayout::ShareGpt,
            SourceName::LlavaPretrain => ConversationLayout::LlavaPretrain,
            SourceName::Chat => ConversationLayout::Chat,
            SourceName::ScenesShort => scenes(QuestionKind::Short)?,
            SourceName::ScenesLong => scenes(QuestionKind::Long)?,
        };
        let is_drawn = matches!(layout, ConversationLayout::Scenes { .. });
        match (is_drawn, self.files.is_empty()) {
            (false, true) => Err(Failure::Usage(format!(
                "--source {} needs --data",
                layout.as_str()
            ))),
            (true, false) => Err(Failure::Usage(format!(
                "--source {} reads no --data",
                layout.as_str()
            ))),
            _ => Ok(ConversationFiles {
                layout,
                files: self.files.clone(),
                images: self.images.clone(),
                shuffle_seed: Some(self.shuffle_seed),
            }),
        }
    }

    /// The positions to take of `rows`, of all shares together.
    ///
    /// # Errors
    /// Usage if the range is empty or exceeds the rows.
    pub fn range(&self, rows: usize) -> Result<PositionRange, Failure> {
        let end = match (self.end, self.limit) {
            (Some(end), _) => end,
            (None, Some(limit)) => rows.min(self.start.saturating_add(limit)),
            (None, None) => rows,
        };
        if self.start >= end || end > rows {
            let start = self.start;
            return Err(Failure::Usage(format!(
                "positions {start}..{end}, expected a range within the {rows} rows"
            )));
        }
        Ok(PositionRange {
            start: self.start,
            end,
        })
    }

    /// What a capture notes of the source.
    ///
    /// # Errors
    /// A file that is not there any more.
    pub fn identity(&self, source: &ConversationSource) -> Result<SourceIdentity, Failure> {
        let files = self.files.iter().map(|path| {
            let name = path.file_name().unwrap_or(path.as_os_str());
            Ok(SourceFile {
                name: name.to_string_lossy().into_owned(),
                bytes: path.metadata()?.len(),
            })
        });
        let layout = match self.conversations()?.layout {
            layout @ ConversationLayout::Scenes { seed, .. } => {
                format!("{}, seed {seed}", layout.as_str())
            }
            layout => layout.as_str().to_owned(),
        };
        Ok(SourceIdentity {
            layout,
            files: files.collect::<Result<_, std::io::Error>>()?,
            rows: source.len(),
            shuffle_seed: Some(self.shuffle_seed),
        })
    }
}

/// What to compute and what to keep.
#[derive(Args, Debug)]
pub struct StageFlags {
    /// 1 reads the answers of the data, 2 lets the target write its own
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=2))]
    pub stage: u8,
    /// Directory of the capture; one that was interrupted is gone on with
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// full (as upstream), compact, packed (8 bits, images by reference) or online
    #[arg(long, default_value = "compact")]
    pub storage: StorageKind,
    /// Positions of a shard
    #[arg(long, default_value_t = 64, allow_negative_numbers = true)]
    pub shard_positions: usize,
    /// Stage 1: tokens of a sample, the rest is cut off; by default 2048 for Qwen2.5-VL and the
    /// context for LLaVA
    #[arg(long, allow_negative_numbers = true)]
    pub max_tokens: Option<usize>,
    /// Stage 2: tokens of an answer
    #[arg(long, default_value_t = 1024, allow_negative_numbers = true)]
    pub max_new_tokens: usize,
    /// Stage 2: 0 chooses the most likely token, more samples
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    pub temperature: f32,
    /// Stage 2: seed of the sampling
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub seed: u64,
    /// Stage 2: answers that are written at once, in shared passes; the samples do not depend on it
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=MAX_BATCH), allow_negative_numbers = true)]
    pub batch: u16,
    /// Stage 2: ask the first question as it is, not for a long answer
    #[arg(long)]
    pub as_is: bool,
    /// Least pixels of an image (Qwen2.5-VL); by default upstream's 200704 in stage 2
    #[arg(long, allow_negative_numbers = true)]
    pub min_pixels: Option<usize>,
    /// Most pixels of an image (Qwen2.5-VL); by default upstream's 1003520 in stage 2
    #[arg(long, allow_negative_numbers = true)]
    pub max_pixels: Option<usize>,
}

/// Upstream's limits of Qwen's images in stage 2.
const PIXELS: (usize, usize) = (256 * 28 * 28, 1280 * 28 * 28);
/// Upstream's limit of Qwen's sequences in stage 1.
const QWEN_MAX_TOKENS: usize = 2048;

impl StageFlags {
    /// Looks at every value without loading anything.
    ///
    /// # Errors
    /// Usage if one is out of range.
    pub fn check(&self) -> Result<(), Failure> {
        let counts = [
            ("--shard-positions", Some(self.shard_positions)),
            ("--max-tokens", self.max_tokens),
            ("--max-new-tokens", Some(self.max_new_tokens)),
        ];
        if let Some((flag, _)) = counts.iter().find(|(_, count)| *count == Some(0)) {
            return Err(Failure::Usage(format!("{flag} is 0, expected at least 1")));
        }
        if self.min_pixels.is_some() != self.max_pixels.is_some() {
            return Err(Failure::usage("--min-pixels and --max-pixels go together"));
        }
        vispec_core::Sampler::new(self.temperature, None, None).map_err(Failure::usage)?;
        Ok(())
    }

    /// Answers that are written at once.
    #[must_use]
    pub fn batch(&self) -> usize {
        usize::from(self.batch)
    }

    /// Limits of the size of images, if not the checkpoint's.
    #[must_use]
    pub fn pixels(&self, family: ModelFamily) -> Option<(usize, usize)> {
        let chosen = self.min_pixels.zip(self.max_pixels);
        let default = (self.stage == 2).then_some(PIXELS);
        match family {
            ModelFamily::Qwen2_5Vl => chosen.or(default),
            ModelFamily::Llava | ModelFamily::LlavaNext => None,
        }
    }

    /// What the capture notes of the stage.
    #[must_use]
    pub fn stage(&self, engine: &Engine, source: SourceName) -> CaptureStage {
        let processor = engine.processor();
        let family = processor.family();
        let pixels = self.pixels(family);
        if self.stage == 1 {
            let default = match family {
                ModelFamily::Qwen2_5Vl => QWEN_MAX_TOKENS,
                ModelFamily::Llava | ModelFamily::LlavaNext => processor.context_limit(),
            };
            let max_tokens = self.max_tokens.unwrap_or(default);
            return CaptureStage::TeacherForced {
                max_tokens: max_tokens.min(processor.context_limit()),
                pixels,
            };
        }
        let drawn = matches!(source, SourceName::ScenesShort | SourceName::ScenesLong);
        CaptureStage::Generated {
            prompt: if self.as_is || drawn {
                PromptForm::AsIs
            } else {
                PromptForm::LongAnswer
            },
            max_new_tokens: self.max_new_tokens,
            temperature: self.temperature,
            seed: self.seed,
            pixels,
        }
    }
}

/// The directory that a target's flag names, for people.
#[must_use]
pub fn target_name(dir: &Path) -> String {
    let name = dir.file_name().unwrap_or(dir.as_os_str());
    name.to_string_lossy().into_owned()
}
