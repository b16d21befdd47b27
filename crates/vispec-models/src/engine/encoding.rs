//! From a chat to a prompt that the target can read: image processing, chat template, tokenizer,
//! vision tower.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use vispec_processor::{
    DecodedImage, Media, Messages, PreparedPrompt, ProcessorError, Video, Wanted,
};

use super::{EncodeTimes, Engine};
use crate::conversations::ConversationStore;
use crate::error::ModelError;
use crate::image_digest::ImageDigest;
use crate::image_store::{ImageContent, ImageStore, ReadImage};
use crate::prompt::{EncodedPrompt, PromptImage};

/// What a conversation shows, read as far as it has to be.
#[derive(Debug, Default)]
pub struct ReadMedia<'a> {
    /// The images.
    pub images: Vec<ReadImage<'a>>,
    /// The videos.
    pub videos: Vec<Cow<'a, Video>>,
}

impl Engine {
    /// Everything between a chat and the prefill: image processing, chat template, tokenizer, vision
    /// tower.
    ///
    /// # Errors
    /// A chat whose image places are not as many as `images`, an empty prompt, one that is longer
    /// than the context, or an image that the model cannot take.
    pub fn encode(
        &self,
        messages: &Messages,
        images: &[DecodedImage],
    ) -> Result<(EncodedPrompt, EncodeTimes), ModelError> {
        self.encode_with(|| self.processor.prepare(messages, images))
    }

    /// The same for a chat with videos.
    ///
    /// # Errors
    /// As [`encode`](Self::encode); a video that the model cannot take.
    pub fn encode_media(
        &self,
        messages: &Messages,
        media: Media<'_>,
    ) -> Result<(EncodedPrompt, EncodeTimes), ModelError> {
        self.encode_with(|| self.processor.prepare_media(messages, media))
    }

    /// The same for a text that the model is to continue, without a chat template, for as long as
    /// `wanted` says so.
    ///
    /// # Errors
    /// An empty text, one with a placeholder of images, one that is longer than the context, or
    /// [`ProcessorError::Unwanted`].
    pub fn encode_text(
        &self,
        text: &str,
        wanted: Wanted<'_>,
    ) -> Result<(EncodedPrompt, EncodeTimes), ModelError> {
        self.encode_with(|| self.processor.prepare_text_while(text, wanted))
    }

    /// [`encode_media`](Self::encode_media) for a prompt whose beginning may be in `conversations`:
    /// images and videos that were seen do not go through the vision tower, and the prompt knows them
    /// by content.
    /// `wanted` is asked now and then while the text is looked through.
    ///
    /// # Errors
    /// As [`encode_media`](Self::encode_media), and [`ProcessorError::Unwanted`].
    pub fn encode_known(
        &self,
        messages: &Messages,
        media: Media<'_>,
        conversations: &ConversationStore,
        wanted: Wanted<'_>,
    ) -> Result<(EncodedPrompt, EncodeTimes), ModelError> {
        let started = Instant::now();
        let images = media.images.iter().map(Cow::Borrowed);
        let images = Vec::from_iter(images.map(ReadImage::from_pixels));
        let videos = media.videos.iter().map(Cow::Borrowed).collect();
        let media = ReadMedia { images, videos };
        let hashing = started.elapsed();
        let nothing = ImageStore::new(0);
        let (encoded, mut times) =
            self.encode_read(messages, media, (conversations, &nothing), wanted)?;
        times.preprocess += hashing;
        Ok((encoded, times))
    }

    /// The same for images that may come from files, which are kept in the store of images, or known
    /// from there.
    ///
    /// # Errors
    /// As [`encode_known`](Self::encode_known).
    pub fn encode_read(
        &self,
        messages: &Messages,
        ReadMedia { images, videos }: ReadMedia<'_>,
        stores: (&ConversationStore, &ImageStore),
        wanted: Wanted<'_>,
    ) -> Result<(EncodedPrompt, EncodeTimes), ModelError> {
        let started = Instant::now();
        let sizes = Vec::from_iter(images.iter().map(ReadImage::size));
        let prepared = self
            .processor
            .prepare_sizes_while(messages, (&sizes, &videos), wanted)?;
        let mut times = EncodeTimes {
            preprocess: started.elapsed(),
            vision: Duration::ZERO,
        };
        let images = images
            .into_iter()
            .map(|image| self.prompt_image(image, stores, &mut times));
        let images = images.collect::<Result<Vec<_>, _>>()?;
        let mut parts = Vec::new();
        for video in &videos {
            parts.extend(self.prompt_video(video, stores.0, &mut times)?);
        }
        let images = self.in_order(&prepared, (images, parts));
        let started = Instant::now();
        let features = images.iter().map(|image| image.features.clone());
        let encoded = self.target.merge(&prepared, features.collect())?;
        self.sync()?;
        times.vision += started.elapsed();
        Ok((encoded.with_images(images), times))
    }

    /// What the target reads for an image, computed only if it is not known.
    fn prompt_image(
        &self,
        read: ReadImage<'_>,
        (conversations, store): (&ConversationStore, &ImageStore),
        times: &mut EncodeTimes,
    ) -> Result<PromptImage, ModelError> {
        let digest = read.digest;
        let pixels = match &read.content {
            ImageContent::Known(image) => return Ok(PromptImage::clone(image)),
            ImageContent::Pixels(pixels) => pixels,
        };
        let features = match conversations.image(&digest) {
            Some(features) => features,
            None => {
                let started = Instant::now();
                let processed = self.processor.image_processor().process(pixels)?;
                times.preprocess += started.elapsed();
                let started = Instant::now();
                let features = self.target.encode_image(&processed)?;
                times.vision += started.elapsed();
                features
            }
        };
        let image = PromptImage { digest, features };
        // On devices the memory is not that of this machine.
        if self.target.resumable_cache().is_some() {
            store.keep(&read, &image);
        }
        Ok(image)
    }

    /// What the target reads for the parts of a video, computed only if not all of it is known.
    fn prompt_video(
        &self,
        video: &Video,
        conversations: &ConversationStore,
        times: &mut EncodeTimes,
    ) -> Result<Vec<PromptImage>, ModelError> {
        let started = Instant::now();
        let n_parts = self.processor.n_video_parts(video)?;
        let digests = ImageDigest::of_parts(video, n_parts);
        let known = digests.iter().map(|digest| conversations.image(digest));
        let known = known.collect::<Option<Vec<_>>>();
        let processed = match &known {
            Some(_) => Vec::new(),
            None => self.processor.process_video(video)?,
        };
        times.preprocess += started.elapsed();
        let started = Instant::now();
        let features = match known {
            Some(features) => features,
            None => {
                let features = processed.iter().map(|part| self.target.encode_image(part));
                features.collect::<Result<Vec<_>, _>>()?
            }
        };
        times.vision += started.elapsed();
        let parts = digests.into_iter().zip(features);
        let parts = parts.map(|(digest, features)| PromptImage { digest, features });
        Ok(parts.collect())
    }

    /// Images and parts of videos as they follow each other in a prompt.
    fn in_order(
        &self,
        prepared: &PreparedPrompt,
        (images, parts): (Vec<PromptImage>, Vec<PromptImage>),
    ) -> Vec<PromptImage> {
        let image_token = self.processor.image_token_id();
        let (mut images, mut parts) = (images.into_iter(), parts.into_iter());
        let runs = prepared.image_runs.iter();
        let shown = runs.filter_map(|run| {
            if prepared.token_ids[run.start] == image_token {
                images.next()
            } else {
                parts.next()
            }
        });
        shown.collect()
    }

    fn encode_with(
        &self,
        prepare: impl FnOnce() -> Result<PreparedPrompt, ProcessorError>,
    ) -> Result<(EncodedPrompt, EncodeTimes), ModelError> {
        let started = Instant::now();
        let prepared = prepare()?;
        let preprocess = started.elapsed();
        let started = Instant::now();
        let encoded = self.target.encode(&prepared)?;
        self.sync()?;
        let vision = started.elapsed();
        Ok((encoded, EncodeTimes { preprocess, vision }))
    }

    /// Waits for the device, so that times are those of the work.
    fn sync(&self) -> Result<(), ModelError> {
        let synced = self.target.device().sync();
        synced.map_err(|error| ModelError::device_read("image features", &error))
    }
}
