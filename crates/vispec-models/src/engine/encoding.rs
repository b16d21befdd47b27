//! Encodes a chat into a prompt that the target can read: image processing, chat template,
//! tokenizer, vision tower.

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

/// Images and videos of a conversation, decoded unless they are already known.
#[derive(Debug, Default)]
pub struct ReadMedia<'a> {
    /// The images.
    pub images: Vec<ReadImage<'a>>,
    /// The videos.
    pub videos: Vec<Cow<'a, Video>>,
}

impl Engine {
    /// Encodes a chat for the prefill: image processing, chat template, tokenizer, vision tower.
    ///
    /// # Errors
    /// Fails if the number of image placeholders in the chat differs from `images`, if the prompt
    /// is empty or longer than the context, or if the model cannot read an image.
    pub fn encode(
        &self,
        messages: &Messages,
        images: &[DecodedImage],
    ) -> Result<(EncodedPrompt, EncodeTimes), ModelError> {
        self.encode_with(|| self.processor.prepare(messages, images))
    }

    /// Like [`encode`](Self::encode), but for a chat that may also contain videos.
    ///
    /// # Errors
    /// Same as [`encode`](Self::encode); also fails if the model cannot read a video.
    pub fn encode_media(
        &self,
        messages: &Messages,
        media: Media<'_>,
    ) -> Result<(EncodedPrompt, EncodeTimes), ModelError> {
        self.encode_with(|| self.processor.prepare_media(messages, media))
    }

    /// Encodes a text that the model should continue, without a chat template. Encoding stops once
    /// `wanted` returns `false`.
    ///
    /// # Errors
    /// Fails if the text is empty, contains an image placeholder or is longer than the context.
    /// Returns [`ProcessorError::Unwanted`] if `wanted` returned `false`.
    pub fn encode_text(
        &self,
        text: &str,
        wanted: Wanted<'_>,
    ) -> Result<(EncodedPrompt, EncodeTimes), ModelError> {
        self.encode_with(|| self.processor.prepare_text_while(text, wanted))
    }

    /// Like [`encode_media`](Self::encode_media), but for a prompt whose beginning may be in
    /// `conversations`. Known images and videos do not go through the vision tower again, and the
    /// prompt identifies them by content. `wanted` is called from time to time while the text is
    /// processed.
    ///
    /// # Errors
    /// Same as [`encode_media`](Self::encode_media); also [`ProcessorError::Unwanted`] if `wanted`
    /// returned `false`.
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

    /// Like [`encode_known`](Self::encode_known), but images may come from files, whose encodings
    /// are looked up and kept in the image store.
    ///
    /// # Errors
    /// Same as [`encode_known`](Self::encode_known).
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

    /// Returns the encoding of an image, computing it only if it is not known.
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
        // Memory of other devices does not count towards the store's budget.
        if self.target.resumable_cache().is_some() {
            store.keep(&read, &image);
        }
        Ok(image)
    }

    /// Returns the encodings of the parts of a video, computing them only if not all are known.
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

    /// Returns images and video parts in the order of the prompt.
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

    /// Waits for the device, so that measured times include the work.
    fn sync(&self) -> Result<(), ModelError> {
        let synced = self.target.device().sync();
        synced.map_err(|error| ModelError::device_read("image features", &error))
    }
}
