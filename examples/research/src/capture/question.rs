//! From a position to the prompt of the target.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use vispec_core::GenerationObserver;
use vispec_data::capture::{CaptureStage, LeftOut, LeftOutKind, PromptForm};
use vispec_data::conversations::{
    Conversation, ConversationSource, DropReason, Row, long_answer_prompt,
};
use vispec_data::{DataError, ImageSource, RowOrigin, VideoSource};
use vispec_processor::{DecodedImage, ImageOptions, Media, Messages, Video};

use examples_answer::failure::Failure;

/// A position and its conversation.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) position: usize,
    pub(super) conversation: Box<Conversation>,
    /// The images that the target sees, one per placeholder.
    pub(super) images: Vec<ImageSource>,
    /// The videos that the target sees, one per placeholder.
    pub(super) videos: Vec<VideoSource>,
}

/// Stored with the generation of its answer.
impl GenerationObserver for Place {}

impl Place {
    /// Returns the record of a position that gives no training sample.
    pub(super) fn dropped(&self, reason: impl std::fmt::Display) -> LeftOut {
        LeftOut {
            position: self.position,
            kind: LeftOutKind::Dropped,
            reason: format!("{}: {reason}", self.conversation.origin),
        }
    }
}

/// The input of the target.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) messages: Messages,
    pub(super) images: Vec<DecodedImage>,
    pub(super) videos: Vec<Video>,
}

impl Question {
    /// Returns the images and videos of the question.
    pub(super) fn media(&self) -> Media<'_> {
        Media {
            images: &self.images,
            videos: &self.videos,
        }
    }
}

/// Converts the conversations of a source to questions.
#[derive(Debug)]
pub(super) struct Questions {
    pub(super) source: ConversationSource,
    pub(super) stage: CaptureStage,
    /// Folder of the capture. Origins inside it are stored relative to it, so that they do not
    /// depend on its location.
    pub(super) folder: PathBuf,
    /// Time spent on rows and images.
    pub(super) reading: Duration,
}

impl Questions {
    /// Returns the question at a position, or why there is none.
    ///
    /// # Errors
    /// If files cannot be read at all.
    pub(super) fn ask(
        &mut self,
        position: usize,
    ) -> Result<Result<(Place, Question), LeftOut>, Failure> {
        let started = Instant::now();
        let asked = self.read(position);
        self.reading += started.elapsed();
        asked
    }

    fn read(&mut self, position: usize) -> Result<Result<(Place, Question), LeftOut>, Failure> {
        let conversation = match self.source.conversation(position) {
            Ok(Row::Kept(mut conversation)) => {
                self.shorten(&mut conversation.origin);
                conversation
            }
            Ok(Row::Dropped { mut origin, reason }) => {
                self.shorten(&mut origin);
                return Ok(Err(LeftOut {
                    position,
                    kind: LeftOutKind::Dropped,
                    reason: format!("{origin}: {reason}"),
                }));
            }
            Err(error) => return bad(position, error).map(Err),
        };
        let mut place = Place {
            position,
            conversation,
            images: Vec::new(),
            videos: Vec::new(),
        };
        let messages = match given(&self.stage, &place.conversation) {
            Ok((messages, images, videos)) => {
                place.images = images;
                place.videos = videos;
                messages
            }
            Err(reason) => return Ok(Err(place.dropped(reason))),
        };
        let options = ImageOptions::as_stored();
        let images = place.images.iter().map(|image| image.decode(&options));
        let videos = place.videos.iter().map(|video| video.decode(&options));
        let decoded = images.collect::<Result<Vec<_>, _>>().and_then(|images| {
            Ok(Question {
                messages,
                images,
                videos: videos.collect::<Result<_, _>>()?,
            })
        });
        match decoded {
            Ok(question) => Ok(Ok((place, question))),
            Err(error) => bad(position, error).map(Err),
        }
    }

    fn shorten(&self, origin: &mut RowOrigin) {
        if let Ok(inside) = origin.file.strip_prefix(&self.folder) {
            origin.file = inside.to_owned();
        }
    }
}

/// Returns the record of a row that is broken or has a broken image.
fn bad(position: usize, error: DataError) -> Result<LeftOut, Failure> {
    if !error.is_of_one_row() {
        return Err(error.into());
    }
    Ok(LeftOut {
        position,
        kind: LeftOutKind::Bad,
        reason: error.to_string(),
    })
}

/// Returns the messages of a conversation for the target, with their images and videos.
fn given(
    stage: &CaptureStage,
    conversation: &Conversation,
) -> Result<(Messages, Vec<ImageSource>, Vec<VideoSource>), DropReason> {
    let prompt = match stage {
        CaptureStage::TeacherForced { .. } if !conversation.is_answered() => {
            return Err(DropReason::NoAnswer);
        }
        CaptureStage::TeacherForced { .. } => {
            let Conversation {
                messages,
                images,
                videos,
                ..
            } = conversation.clone();
            return Ok((messages, images, videos));
        }
        CaptureStage::Generated { prompt, .. } => *prompt,
    };
    let (question, images, videos) = conversation.question();
    let messages = match prompt {
        PromptForm::LongAnswer => long_answer_prompt(conversation),
        PromptForm::AsIs => Messages::new(question).ok(),
    };
    let messages = messages.ok_or(DropReason::NoQuestion)?;
    Ok((messages, images.to_vec(), videos.to_vec()))
}
