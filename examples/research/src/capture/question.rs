//! From a position to what the target is asked there.

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

/// A position and the conversation there.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) position: usize,
    pub(super) conversation: Box<Conversation>,
    /// The images that the target sees, one for each of their places.
    pub(super) images: Vec<ImageSource>,
    /// The videos, likewise.
    pub(super) videos: Vec<VideoSource>,
}

/// Lies beside the answer to the question there.
impl GenerationObserver for Place {}

impl Place {
    /// Notes that nothing can be learned from the position.
    pub(super) fn dropped(&self, reason: impl std::fmt::Display) -> LeftOut {
        LeftOut {
            position: self.position,
            kind: LeftOutKind::Dropped,
            reason: format!("{}: {reason}", self.conversation.origin),
        }
    }
}

/// What the target is given.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) messages: Messages,
    pub(super) images: Vec<DecodedImage>,
    pub(super) videos: Vec<Video>,
}

impl Question {
    /// What is shown.
    pub(super) fn media(&self) -> Media<'_> {
        Media {
            images: &self.images,
            videos: &self.videos,
        }
    }
}

/// Asks the conversations of a source.
#[derive(Debug)]
pub(super) struct Questions {
    pub(super) source: ConversationSource,
    pub(super) stage: CaptureStage,
    /// The capture's folder. Questions that lie in it are called the same wherever it is.
    pub(super) folder: PathBuf,
    /// Time spent on rows and images.
    pub(super) reading: Duration,
}

impl Questions {
    /// What is asked at a position; or why nothing is.
    ///
    /// # Errors
    /// Files that cannot be read at all.
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

/// Notes a row that is broken, or whose image is.
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

/// The messages that the target is given of a conversation, and what they show.
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
