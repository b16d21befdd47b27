//! Lessons for a target: pictures with questions and answers, and conversations without pictures.

use std::path::Path;

use burn::tensor::{Device, Tensor};
use rand::{RngExt as _, SeedableRng as _};
use rand_pcg::Pcg64;
use vispec_data::capture::fingerprint;
use vispec_data::conversations::{ConversationFiles, ConversationLayout, Row};
use vispec_data::scenes::{Scene, Telling};
use vispec_models::{DtypeChoice, VlmTarget};
use vispec_processor::{Content, DecodedImage, ImageSize, Message, Messages, Positions, Processor};
use xxhash_rust::xxh3::xxh3_64;

use super::config::MakeTargetConfig;
use crate::error::{TrainError, lesson_error};
use crate::files;

/// Seed of held-out scenes, combined with that of the config.
const HELD_OUT: u64 = 0x6865_6c64;

/// One sequence, and the tokens to predict in it.
#[derive(Debug, Clone)]
pub struct Lesson {
    /// Id of the lesson, for messages.
    pub id: String,
    /// `[seq, hidden]`: embeddings, with image features at the positions of image tokens.
    pub embeds: Tensor<2>,
    /// Rotary positions of the `seq` tokens.
    pub positions: Positions,
    /// Rows whose next token belongs to an answer.
    pub rows: Vec<usize>,
    /// The next token of each of these rows.
    pub next: Vec<u32>,
    /// Number of image tokens.
    pub image_tokens: usize,
}

/// Makes lessons. Each is a function of the config and the lesson's number.
#[derive(Debug)]
pub struct Teacher {
    config: MakeTargetConfig,
    target: VlmTarget,
    processor: Processor,
    texts: Vec<Messages>,
}

impl Teacher {
    /// Loads the base and its processor, and reads the conversations.
    ///
    /// # Errors
    /// Any error of reading them.
    pub fn new(config: &MakeTargetConfig, device: &Device) -> Result<Self, TrainError> {
        let target = VlmTarget::load(&config.base, device, DtypeChoice::F32)?;
        let processor = Processor::from_dir(&config.base)
            .and_then(|processor| processor.with_pixels(None, Some(config.max_pixels)))
            .map_err(|error| lesson_error("processor", error))?;
        Ok(Self {
            config: config.clone(),
            target,
            processor,
            texts: texts(&config.text)?,
        })
    }

    /// Returns the target whose vision tower and embedding are used.
    #[must_use]
    pub fn target(&self) -> &VlmTarget {
        &self.target
    }

    /// Returns a hash of the base and the conversations.
    ///
    /// # Errors
    /// Any error of reading them.
    pub(crate) fn identity(&self) -> Result<String, TrainError> {
        let path = &self.config.text;
        let text = std::fs::read(path).map_err(files::at(path))?;
        let base = fingerprint(&self.config.base)?;
        Ok(format!("{base} {:016x}", xxh3_64(&text)))
    }

    /// Makes lesson `number` of a stage with pictures of these sides.
    ///
    /// # Errors
    /// [`TrainError::Lesson`] or [`TrainError::Model`] if the lesson cannot be prepared.
    pub fn lesson(&self, number: u64, sides: &[u32]) -> Result<Lesson, TrainError> {
        let every = self.config.text_every;
        if every > 0 && number % every == every - 1 && !self.texts.is_empty() {
            let place = (number / every) % self.texts.len() as u64;
            #[expect(clippy::cast_possible_truncation, reason = "below a length")]
            let messages = &self.texts[place as usize];
            return self.prepared(format!("text {place}"), messages, &[]);
        }
        let mut random = Pcg64::seed_from_u64(self.config.seed ^ number.rotate_left(32));
        let side = sides[random.random_range(0..sides.len())];
        let telling = Telling::ALL[random.random_range(0..Telling::ALL.len())];
        self.scene((self.config.seed, number), side, telling)
    }

    /// Makes held-out lesson `number` with a picture of this side.
    ///
    /// # Errors
    /// Same as [`Teacher::lesson`].
    pub fn held_out(&self, number: u64, side: u32) -> Result<Lesson, TrainError> {
        #[expect(clippy::cast_possible_truncation, reason = "below 4")]
        let telling = Telling::ALL[(number % Telling::ALL.len() as u64) as usize];
        self.scene((self.config.seed ^ HELD_OUT, number), side, telling)
    }

    fn scene(
        &self,
        (seed, number): (u64, u64),
        side: u32,
        telling: Telling,
    ) -> Result<Lesson, TrainError> {
        let id = format!("scene {number} of {side} pixels");
        let scene = Scene::generate(&self.config.style(side)?, seed, number);
        let size = ImageSize {
            height: side as usize,
            width: side as usize,
        };
        let image = DecodedImage::from_rgb8(size, scene.draw().into_raw())
            .map_err(|error| lesson_error(&id, error))?;
        let mut messages = Messages::from_prompt(None, telling.request(), 1);
        messages.push(Message {
            role: "assistant".to_owned(),
            content: Content::Text(scene.told(telling, self.config.scenes.wording)),
        });
        self.prepared(id, &messages, &[image])
    }

    fn prepared(
        &self,
        id: String,
        messages: &Messages,
        images: &[DecodedImage],
    ) -> Result<Lesson, TrainError> {
        let answered = self
            .processor
            .prepare_answered(messages, images, usize::MAX)
            .map_err(|error| lesson_error(&id, error))?;
        let encoded = self.target.encode(&answered.prompt)?;
        let ids = &answered.prompt.token_ids;
        let rows: Vec<usize> = (0..ids.len().saturating_sub(1))
            .filter(|row| answered.answers[row + 1])
            .collect();
        Ok(Lesson {
            id,
            embeds: encoded.embeds().clone(),
            next: rows.iter().map(|row| ids[row + 1]).collect(),
            rows,
            image_tokens: answered
                .prompt
                .image_runs
                .iter()
                .map(ExactSizeIterator::len)
                .sum(),
            positions: answered.prompt.positions,
        })
    }
}

fn texts(path: &Path) -> Result<Vec<Messages>, TrainError> {
    let files = ConversationFiles {
        layout: ConversationLayout::ShareGpt,
        files: vec![path.to_owned()],
        images: Path::new("").to_owned(),
        shuffle_seed: None,
    };
    let read = || {
        let mut source = files.open()?;
        let mut texts = Vec::with_capacity(source.len());
        for position in 0..source.len() {
            if let Row::Kept(conversation) = source.conversation(position)? {
                texts.push(conversation.messages);
            }
        }
        Ok(texts)
    };
    read().map_err(|error: vispec_data::DataError| lesson_error("text", error))
}
