//! From a chat to a prompt that the target can read: image processing, chat template, tokenizer,
//! vision tower.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use vispec_processor::{DecodedImage, Media, Messages, PreparedPrompt, ProcessorError, Wanted};

use super::{EncodeTimes, Engine};
use crate::conversations::ConversationStore;
use crate::error::ModelError;
use crate::image_store::{ImageContent, ImageStore, ReadImage};
use crate::prompt::{EncodedPrompt, PromptImage};

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

    /// [`encode`](Self::encode) for a prompt whose beginning may be in `conversations`: images that
    /// were seen do not go through the vision tower, and the prompt knows its images by content.
    /// `wanted` is asked now and then while the text is looked through.
    ///
    /// # Errors
    /// As [`encode`](Self::encode), and [`ProcessorError::Unwanted`].
    pub fn encode_known(
        &self,
        messages: &Messages,
        images: &[DecodedImage],
        conversations: &ConversationStore,
        wanted: Wanted<'_>,
    ) -> Result<(EncodedPrompt, EncodeTimes), ModelError> {
        let started = Instant::now();
        let images = images.iter().map(Cow::Borrowed);
        let images = Vec::from_iter(images.map(ReadImage::from_pixels));
        let hashing = started.elapsed();
        let nothing = ImageStore::new(0);
        let (encoded, mut times) =
            self.encode_read(messages, images, (conversations, &nothing), wanted)?;
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
        images: Vec<ReadImage<'_>>,
        stores: (&ConversationStore, &ImageStore),
        wanted: Wanted<'_>,
    ) -> Result<(EncodedPrompt, EncodeTimes), ModelError> {
        let started = Instant::now();
        let sizes = Vec::from_iter(images.iter().map(ReadImage::size));
        let prepared = self
            .processor
            .prepare_sizes_while(messages, &sizes, wanted)?;
        let mut times = EncodeTimes {
            preprocess: started.elapsed(),
            vision: Duration::ZERO,
        };
        let images = images
            .into_iter()
            .map(|image| self.prompt_image(image, stores, &mut times));
        let images = images.collect::<Result<Vec<_>, _>>()?;
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
        synced.map_err(|error| ModelError::DeviceRead {
            what: "image features",
            reason: error.to_string(),
        })
    }
}
