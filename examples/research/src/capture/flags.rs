//! Command-line flags of `capture`.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{Args, ValueEnum};
use vispec_core::Sampler;
use vispec_data::capture::{
    CaptureStage, PositionRange, PromptForm, Share, SourceFile, SourceIdentity, StorageKind,
};
use vispec_data::conversations::{ConversationFiles, ConversationLayout, ConversationSource};
use vispec_data::scenes::{QuestionKind, SceneStyle};
use vispec_models::Engine;
use vispec_models::features::eagle3_states;
use vispec_processor::{ImageForm, ModelFamily};

use examples_answer::failure::Failure;
use examples_answer::flags::MAX_BATCH;

/// Layouts of conversation files.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceName {
    /// Turns of `from` and `value`, text only
    Sharegpt,
    /// Like sharegpt, with one image per row
    LlavaPretrain,
    /// `messages` of `role` and `content`, and `images`, a list of paths
    Chat,
    /// Drawn scenes and questions with short answers; no files
    ScenesShort,
    /// Drawn scenes and their descriptions; no files
    ScenesLong,
    /// Questions that the target asks itself, or with --images built-in questions about pictures;
    /// no files
    #[value(name = "self")]
    OwnQuestions,
}

/// Selection of the conversations.
#[derive(Args, Debug)]
pub struct SourceFlags {
    /// Layout of the conversations
    #[arg(long, value_enum)]
    pub source: SourceName,
    /// A file of conversations: .json (a list), .jsonl or .parquet; repeat the flag for several
    #[arg(long = "data", value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Folder that the rows' image paths are relative to, by default the current one; with --source
    /// self, folder of the pictures to ask about
    #[arg(long, value_name = "DIR")]
    pub images: Option<PathBuf>,
    /// With --source self: number of questions, by default 1000, or the number of pictures
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub questions: Option<usize>,
    /// With --source self: sampling temperature of the questions; --seed also seeds them
    #[arg(
        long,
        value_name = "T",
        default_value_t = 0.8,
        allow_negative_numbers = true
    )]
    pub question_temperature: f32,
    /// Number of drawn scenes
    #[arg(long, default_value_t = 1000, allow_negative_numbers = true)]
    pub scenes: usize,
    /// Seed of the drawn scenes
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub scene_seed: u64,
    /// Seed of the shuffle, which matches `datasets`
    #[arg(long, default_value_t = 42, allow_negative_numbers = true)]
    pub shuffle_seed: u64,
    /// First position in the shuffled order
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub start: usize,
    /// Position after the last; by default all rows
    #[arg(long, allow_negative_numbers = true)]
    pub end: Option<usize>,
    /// Maximum number of positions, counted from the first
    #[arg(long, conflicts_with = "end", allow_negative_numbers = true)]
    pub limit: Option<usize>,
    /// Share of the range that this process takes: 1/8 is the first of eight [default: all; with
    /// mpirun or srun, one share per process, each in its own folder below --out]
    #[arg(long, value_name = "I/N")]
    pub shard: Option<Share>,
    /// Number of broken rows and images to skip; one more ends the run
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub max_bad_rows: usize,
}

/// The residual stream states to store, as given by a flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StatesFlag {
    /// The states that EAGLE-3 reads.
    Eagle3,
    /// Explicit layer numbers.
    Numbers(Vec<usize>),
}

impl FromStr for StatesFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "eagle3" {
            return Ok(Self::Eagle3);
        }
        let numbers: Result<Vec<usize>, _> = text.split(',').map(str::parse).collect();
        match numbers {
            Ok(numbers) if numbers.is_sorted_by(|a, b| a < b) => Ok(Self::Numbers(numbers)),
            _ => Err("expected eagle3, or ascending numbers separated by commas".to_owned()),
        }
    }
}

impl StatesFlag {
    /// Returns the state numbers for a target with `layers` layers.
    ///
    /// # Errors
    /// Usage if the target does not have these states.
    pub fn numbers(&self, layers: usize) -> Result<Vec<usize>, Failure> {
        let numbers = match self {
            Self::Eagle3 => eagle3_states(layers).to_vec(),
            Self::Numbers(numbers) => numbers.clone(),
        };
        let fits = numbers.is_sorted_by(|a, b| a < b) && numbers.iter().all(|&n| n <= layers);
        if fits {
            return Ok(numbers);
        }
        Err(Failure::Usage(format!(
            "--states is {numbers:?}, expected ascending numbers up to {layers}, the target's layers"
        )))
    }
}

/// Side of a drawn scene in pixels, its rows and columns, and the range of the number of shapes.
const SCENE: (u32, u32, std::ops::RangeInclusive<u32>) = (84, 3, 2..=5);

impl SourceFlags {
    /// Validates all values without reading anything.
    ///
    /// # Errors
    /// Usage if flags cannot be combined.
    pub fn check(&self, stage: u8) -> Result<(), Failure> {
        let name = self.source.to_possible_value();
        let name = name.as_ref().map_or("", |name| name.get_name());
        let refuse = |what: &str| Err(Failure::Usage(format!("--source {name} {what}")));
        let has_files = !self.files.is_empty();
        match self.source {
            SourceName::Sharegpt | SourceName::LlavaPretrain | SourceName::Chat if !has_files => {
                return refuse("needs --data");
            }
            SourceName::ScenesShort | SourceName::ScenesLong | SourceName::OwnQuestions
                if has_files =>
            {
                return refuse("reads no --data");
            }
            _ => {}
        }
        if self.source != SourceName::OwnQuestions {
            return match self.questions {
                Some(_) => refuse("takes no --questions"),
                None => Ok(()),
            };
        }
        if self.questions == Some(0) {
            return Err(Failure::usage("--questions is 0, expected at least 1"));
        }
        Sampler::new(self.question_temperature, None, None).map_err(Failure::usage)?;
        if stage != 2 {
            return refuse("has no answers to read; it needs --stage 2");
        }
        if self.share() != Share::WHOLE {
            return refuse(
                "generates its questions in one process; pass questions.jsonl of its folder to the \
                 shares, with --source chat --as-is",
            );
        }
        Ok(())
    }

    /// Returns the share of the range that this process takes.
    #[must_use]
    pub fn share(&self) -> Share {
        self.shard.unwrap_or(Share::WHOLE)
    }

    /// Returns the files and their layout.
    ///
    /// # Errors
    /// Usage if the style of the scenes is invalid.
    pub fn conversations(&self, stage: &StageFlags) -> Result<ConversationFiles, Failure> {
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
            SourceName::Chat | SourceName::OwnQuestions => ConversationLayout::Chat,
            SourceName::ScenesShort => scenes(QuestionKind::Short)?,
            SourceName::ScenesLong => scenes(QuestionKind::Long)?,
        };
        let is_own = self.source == SourceName::OwnQuestions;
        Ok(ConversationFiles {
            layout,
            files: if is_own {
                vec![stage.questions()]
            } else {
                self.files.clone()
            },
            images: self.images.clone().unwrap_or_else(|| PathBuf::from(".")),
            // Generated questions are already in the intended order.
            shuffle_seed: (!is_own).then_some(self.shuffle_seed),
        })
    }

    /// Returns the selected positions among `rows` rows, over all shares.
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

    /// Returns the description of the source for the capture's header.
    ///
    /// # Errors
    /// If a file no longer exists.
    pub fn identity(
        &self,
        files: &ConversationFiles,
        source: &ConversationSource,
    ) -> Result<SourceIdentity, Failure> {
        let named = files.files.iter().map(|path| {
            let name = path.file_name().unwrap_or(path.as_os_str());
            Ok(SourceFile {
                name: name.to_string_lossy().into_owned(),
                bytes: path.metadata()?.len(),
            })
        });
        let layout = match (self.source, files.layout) {
            (SourceName::OwnQuestions, _) if self.images.is_some() => "self, pictures".to_owned(),
            (SourceName::OwnQuestions, _) => "self".to_owned(),
            (_, layout @ ConversationLayout::Scenes { seed, .. }) => {
                format!("{}, seed {seed}", layout.as_str())
            }
            (_, layout) => layout.as_str().to_owned(),
        };
        Ok(SourceIdentity {
            layout,
            files: named.collect::<Result<_, std::io::Error>>()?,
            rows: source.len(),
            shuffle_seed: files.shuffle_seed,
        })
    }
}

/// The stage of a capture, and what it stores.
#[derive(Args, Debug)]
pub struct StageFlags {
    /// 1: read the answers of the data; 2: let the target generate answers
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=2))]
    pub stage: u8,
    /// Directory of the capture; an interrupted capture is resumed
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Storage: full (as upstream), compact, packed (8 bits, images by reference) or online
    #[arg(long, default_value = "compact")]
    pub storage: StorageKind,
    /// Residual stream states of the target to store besides the last hidden state: eagle3 (the
    /// states that EAGLE-3 drafts read), or the ascending numbers of the layers that they enter,
    /// such as 2,15,27
    #[arg(long, value_name = "eagle3|N,N,N")]
    pub states: Option<StatesFlag>,
    /// Positions per shard
    #[arg(long, default_value_t = 64, allow_negative_numbers = true)]
    pub shard_positions: usize,
    /// Stage 1: maximum number of tokens per sample, the rest is cut off; by default 2048 for Qwen
    /// and the context length for LLaVA
    #[arg(long, allow_negative_numbers = true)]
    pub max_tokens: Option<usize>,
    /// Stage 2: maximum number of tokens per answer
    #[arg(long, default_value_t = 1024, allow_negative_numbers = true)]
    pub max_new_tokens: usize,
    /// Stage 2: sampling temperature; 0 is greedy decoding
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    pub temperature: f32,
    /// Stage 2: seed of the sampling
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub seed: u64,
    /// Stage 2: number of answers generated together in shared passes; it does not affect the
    /// samples
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=MAX_BATCH), allow_negative_numbers = true)]
    pub batch: u16,
    /// Stage 2: ask the first question unchanged, without requesting a long answer
    #[arg(long)]
    pub as_is: bool,
    /// Minimum pixels of an image (Qwen); by default upstream's 200704 in stage 2
    #[arg(long, allow_negative_numbers = true)]
    pub min_pixels: Option<usize>,
    /// Maximum pixels of an image (Qwen); by default upstream's 1003520 in stage 2
    #[arg(long, allow_negative_numbers = true)]
    pub max_pixels: Option<usize>,
}

/// Upstream's limits for Qwen's images in stage 2.
const PIXELS: (usize, usize) = (256 * 28 * 28, 1280 * 28 * 28);
/// Upstream's limit for Qwen's sequences in stage 1.
const QWEN_MAX_TOKENS: usize = 2048;

impl StageFlags {
    /// Returns the residual stream states to store; empty if no vectors are stored.
    ///
    /// # Errors
    /// Usage if the target does not have the requested states.
    pub fn residual_states(&self, engine: &Engine) -> Result<Vec<usize>, Failure> {
        match &self.states {
            Some(states) if self.storage.keeps_hidden_states() => {
                states.numbers(engine.target().n_layers())
            }
            Some(_) => Err(Failure::Usage(format!(
                "--states cannot be combined with --storage {}, which stores no states: training \
                 computes them",
                self.storage
            ))),
            None => Ok(Vec::new()),
        }
    }

    /// Validates all values without loading anything.
    ///
    /// # Errors
    /// Usage if a value is out of range.
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
            return Err(Failure::usage(
                "--min-pixels and --max-pixels must be given together",
            ));
        }
        Sampler::new(self.temperature, None, None).map_err(Failure::usage)?;
        Ok(())
    }

    /// Returns the path of the questions that a run with `--source self` generates.
    #[must_use]
    pub fn questions(&self) -> PathBuf {
        self.out.join("questions.jsonl")
    }

    /// Returns the number of answers generated together.
    #[must_use]
    pub fn batch(&self) -> usize {
        usize::from(self.batch)
    }

    /// Returns the limits of the image size, if they differ from the checkpoint's.
    #[must_use]
    pub fn pixels(&self, family: ModelFamily) -> Option<(usize, usize)> {
        let chosen = self.min_pixels.zip(self.max_pixels);
        let default = (self.stage == 2).then_some(PIXELS);
        match family.images() {
            ImageForm::Patches => chosen.or(default),
            ImageForm::Crop | ImageForm::Tiles => None,
        }
    }

    /// Returns the description of the stage for the capture's header.
    #[must_use]
    pub fn stage(&self, engine: &Engine, source: SourceName) -> CaptureStage {
        let processor = engine.processor();
        let family = processor.family();
        let pixels = self.pixels(family);
        if self.stage == 1 {
            let default = match family.images() {
                ImageForm::Patches => QWEN_MAX_TOKENS,
                ImageForm::Crop | ImageForm::Tiles => processor.context_limit(),
            };
            let max_tokens = self.max_tokens.unwrap_or(default);
            return CaptureStage::TeacherForced {
                max_tokens: max_tokens.min(processor.context_limit()),
                pixels,
            };
        }
        let as_is = match source {
            SourceName::Sharegpt | SourceName::LlavaPretrain | SourceName::Chat => self.as_is,
            SourceName::ScenesShort | SourceName::ScenesLong | SourceName::OwnQuestions => true,
        };
        CaptureStage::Generated {
            prompt: if as_is {
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

/// Returns the name of a target's directory, for display.
#[must_use]
pub fn target_name(dir: &Path) -> String {
    let name = dir.file_name().unwrap_or(dir.as_os_str());
    name.to_string_lossy().into_owned()
}
