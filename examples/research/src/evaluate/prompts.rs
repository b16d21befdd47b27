//! The prompts of a task: one per turn of each sample.

use std::path::Path;

use sha2::{Digest, Sha256};
use vispec_data::{DataError, ReadOptions, Sample, TaskDefinition, TaskRegistry, TaskSamples};
use vispec_processor::{
    Content, DecodedImage, ImageOptions, Media, Message, Messages, Processor, Video,
};
use vispec_report::record::Shard;

use examples_answer::failure::Failure;

/// Returns the task with a name, or the task that a TOML file defines.
pub(super) fn find_task(name: &str) -> Result<TaskDefinition, Failure> {
    if Path::new(name).extension().is_some_and(|end| end == "toml") {
        return Ok(TaskDefinition::read(Path::new(name))?);
    }
    let registry = TaskRegistry::builtin();
    Ok(registry.get(name).map_err(Failure::usage)?.clone())
}

/// The samples of a cell.
pub(super) struct Prompts {
    samples: TaskSamples,
    limit: u64,
    shows: Shows,
}

/// How videos are passed to the model.
#[derive(Debug, Clone, Copy)]
enum Shows {
    Videos,
    /// Each frame is an image.
    Frames,
}

impl Prompts {
    /// Opens a task; its files are in the folder of its name below `data`.
    ///
    /// # Errors
    /// The errors of [`TaskDefinition::open`]; usage if `limit` is 0 or above the number of
    /// samples.
    pub(super) fn open(
        task: &TaskDefinition,
        data: &Path,
        options: &ReadOptions,
        limit: Option<u64>,
    ) -> Result<Self, Failure> {
        let samples = task.open(&data.join(task.name()), options)?;
        let found = samples.n_samples() as u64;
        let limit = limit.unwrap_or(found);
        if !(1..=found).contains(&limit) {
            let name = task.name();
            let message =
                format!("--prompts is {limit}, expected 1 to {found}, the samples of {name}");
            return Err(Failure::Usage(message));
        }
        let shows = Shows::Videos;
        Ok(Self {
            samples,
            limit,
            shows,
        })
    }

    /// Passes the frames of videos as images if the model does not support videos.
    pub(super) fn suit(&mut self, processor: &Processor) {
        if !processor.reads_videos() {
            self.shows = Shows::Frames;
        }
    }

    /// Returns the number of samples over all shards.
    pub(super) fn n_samples(&self) -> u64 {
        self.limit
    }

    /// Returns the rows that were skipped.
    pub(super) fn bad_rows(&self) -> &[DataError] {
        self.samples.bad_rows()
    }

    /// Returns the indices of the samples of `shard`.
    pub(super) fn of_shard(&self, shard: Shard) -> impl Iterator<Item = u64> + use<> {
        (0..self.limit).filter(move |&index| shard.holds(index))
    }

    /// Reads one sample without decoding its images.
    ///
    /// # Errors
    /// The error of the sample's row.
    pub(super) fn sample(&mut self, index: u64) -> Result<Sample, DataError> {
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        let sample = self.samples.sample(index)?;
        Ok(match self.shows {
            Shows::Videos => sample,
            Shows::Frames => sample.with_frames_as_images(),
        })
    }

    /// Reads all samples once; returns the number of prompts in the shard, and a hash of all
    /// prompts.
    ///
    /// # Errors
    /// The error of a bad row.
    pub(super) fn survey(&mut self, shard: Shard) -> Result<Survey, DataError> {
        let mut hasher = Sha256::new();
        let mut n_prompts = 0;
        for index in 0..self.limit {
            let sample = self.sample(index)?;
            if shard.holds(index) {
                n_prompts += 1 + sample.following_turns.len() as u64;
            }
            // The debug output includes every part and the position of every image.
            let asked = (&sample.id, &sample.messages, &sample.following_turns);
            hasher.update(format!("{asked:?}\n"));
        }
        let hash = hasher.finalize();
        Ok(Survey {
            n_prompts,
            sha256: hash.iter().map(|byte| format!("{byte:02x}")).collect(),
        })
    }
}

/// Summary of the samples of a cell.
pub(super) struct Survey {
    pub(super) n_prompts: u64,
    pub(super) sha256: String,
}

/// Decoded images and videos of a sample.
#[derive(Debug)]
pub(super) struct Decoded {
    images: Vec<DecodedImage>,
    videos: Vec<Video>,
}

impl Decoded {
    /// Decodes the images and videos of a sample.
    ///
    /// # Errors
    /// The error of a damaged image or video.
    pub(super) fn of(sample: &Sample) -> Result<Self, DataError> {
        let options = ImageOptions::as_stored();
        let images = sample.images.iter().map(|image| image.decode(&options));
        let videos = sample.videos.iter().map(|video| video.decode(&options));
        Ok(Self {
            images: images.collect::<Result<_, _>>()?,
            videos: videos.collect::<Result<_, _>>()?,
        })
    }

    pub(super) fn media(&self) -> Media<'_> {
        Media {
            images: &self.images,
            videos: &self.videos,
        }
    }
}

/// Returns the id of a turn of a sample; turns are counted from 0.
pub(super) fn prompt_id(sample: &Sample, turn: usize) -> String {
    match turn {
        0 => sample.id.clone(),
        turn => format!("{}#turn{}", sample.id, turn + 1),
    }
}

/// Appends the answer to a turn, and the next question.
pub(super) fn continue_with(messages: &mut Messages, answer: String, question: &str) {
    let text = |role: &str, text: String| Message {
        role: role.to_owned(),
        content: Content::Text(text),
    };
    messages.push(text("assistant", answer));
    messages.push(text("user", question.to_owned()));
}
