//! The prompts of a task: one for each turn of each sample.

use std::path::Path;

use sha2::{Digest, Sha256};
use vispec_data::{DataError, ReadOptions, Sample, TaskDefinition, TaskRegistry, TaskSamples};
use vispec_processor::{
    Content, DecodedImage, ImageOptions, Media, Message, Messages, Processor, Video,
};
use vispec_report::record::Shard;

use examples_answer::failure::Failure;

/// The task of a name, or the one that a TOML file defines.
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

/// How videos are shown.
#[derive(Debug, Clone, Copy)]
enum Shows {
    Videos,
    /// Each frame is an image.
    Frames,
}

impl Prompts {
    /// Opens a task, whose files are in a folder of its name below `data`.
    ///
    /// # Errors
    /// Those of [`TaskDefinition::open`]; usage if `limit` is 0 or above the number of samples.
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
                format!("--prompts is {limit}, expected 1 to {found}, as many as {name} has");
            return Err(Failure::Usage(message));
        }
        let shows = Shows::Videos;
        Ok(Self {
            samples,
            limit,
            shows,
        })
    }

    /// Shows the frames of videos as images, if the model reads no videos.
    pub(super) fn suit(&mut self, processor: &Processor) {
        if !processor.reads_videos() {
            self.shows = Shows::Frames;
        }
    }

    /// Number of samples over all shards.
    pub(super) fn n_samples(&self) -> u64 {
        self.limit
    }

    /// Rows that were left out.
    pub(super) fn bad_rows(&self) -> &[DataError] {
        self.samples.bad_rows()
    }

    /// Indices of the samples that are `shard`'s.
    pub(super) fn of_shard(&self, shard: Shard) -> impl Iterator<Item = u64> + use<> {
        (0..self.limit).filter(move |&index| shard.holds(index))
    }

    /// One sample, its images not yet decoded.
    ///
    /// # Errors
    /// Whatever is wrong with its row.
    pub(super) fn sample(&mut self, index: u64) -> Result<Sample, DataError> {
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        let sample = self.samples.sample(index)?;
        Ok(match self.shows {
            Shows::Videos => sample,
            Shows::Frames => sample.with_frames_as_images(),
        })
    }

    /// Reads all samples once: how many prompts the shard has, and a hash of what is asked in all.
    ///
    /// # Errors
    /// Whatever is wrong with a row.
    pub(super) fn survey(&mut self, shard: Shard) -> Result<Survey, DataError> {
        let mut hasher = Sha256::new();
        let mut n_prompts = 0;
        for index in 0..self.limit {
            let sample = self.sample(index)?;
            if shard.holds(index) {
                n_prompts += 1 + sample.following_turns.len() as u64;
            }
            // Debug forms name every part and the place of every image.
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

/// What the samples of a cell amount to.
pub(super) struct Survey {
    pub(super) n_prompts: u64,
    pub(super) sha256: String,
}

/// What a sample shows, decoded.
#[derive(Debug)]
pub(super) struct Decoded {
    images: Vec<DecodedImage>,
    videos: Vec<Video>,
}

impl Decoded {
    /// The images and videos of a sample.
    ///
    /// # Errors
    /// Whatever is wrong with one.
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

/// Id of a turn of a sample, turns counted from 0.
pub(super) fn prompt_id(sample: &Sample, turn: usize) -> String {
    match turn {
        0 => sample.id.clone(),
        turn => format!("{}#turn{}", sample.id, turn + 1),
    }
}

/// Adds the answer to a turn, and the next question.
pub(super) fn continue_with(messages: &mut Messages, answer: String, question: &str) {
    let text = |role: &str, text: String| Message {
        role: role.to_owned(),
        content: Content::Text(text),
    };
    messages.push(text("assistant", answer));
    messages.push(text("user", question.to_owned()));
}
