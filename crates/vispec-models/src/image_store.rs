//! A store of encoded images of earlier prompts. A known file is not decoded, preprocessed or
//! encoded again.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest as _, Sha256};
use vispec_processor::{DecodedImage, ImageOptions, ImageSize, Orientation, ProcessorError};

use crate::image_digest::ImageDigest;
use crate::prompt::PromptImage;

/// Number of bytes that an image counts for in addition to its features.
const OVERHEAD: usize = 512;

/// SHA-256 of an image file and of the options for decoding it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct FileDigest([u8; 32]);

impl FileDigest {
    fn of(file: &[u8], options: &ImageOptions) -> Self {
        let ImageOptions {
            max_pixels,
            max_photo_pixels,
            max_side,
            orientation,
        } = *options;
        let upright = u64::from(orientation == Orientation::Upright);
        let mut hasher = Sha256::new();
        for number in [max_pixels, max_photo_pixels, max_side.into(), upright] {
            hasher.update(number.to_le_bytes());
        }
        hasher.update(file);
        Self(hasher.finalize().into())
    }
}

/// An image for a prompt: either pixels, or an encoding known from an earlier prompt.
#[derive(Debug)]
pub struct ReadImage<'a> {
    pub(crate) content: ImageContent<'a>,
    pub(crate) digest: ImageDigest,
    size: ImageSize,
    /// File that the image was decoded from, if any.
    file: Option<FileDigest>,
}

#[derive(Debug)]
pub(crate) enum ImageContent<'a> {
    Known(Arc<PromptImage>),
    Pixels(Cow<'a, DecodedImage>),
}

impl<'a> ReadImage<'a> {
    /// Wraps pixels that do not come from a file.
    #[must_use]
    pub fn from_pixels(image: Cow<'a, DecodedImage>) -> Self {
        Self {
            digest: ImageDigest::of(&image),
            size: image.size(),
            content: ImageContent::Pixels(image),
            file: None,
        }
    }

    /// Returns height and width in pixels.
    pub(crate) fn size(&self) -> ImageSize {
        self.size
    }
}

/// Encoded images of one target by the content of their files. The least recently used ones are
/// dropped when they exceed a limit.
#[derive(Debug)]
pub struct ImageStore {
    kept: Mutex<Kept>,
}

/// Current usage of an [`ImageStore`] and its hit counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeptImages {
    /// Number of images.
    pub count: usize,
    /// Memory of all images in bytes.
    pub bytes: usize,
    /// Number of files that were looked up.
    pub queries: u64,
    /// Number of files that were found.
    pub hits: u64,
}

#[derive(Debug, Default)]
struct Kept {
    limit: usize,
    usage: KeptImages,
    images: HashMap<FileDigest, KeptImage>,
    /// Files by time of last use, the least recently used first.
    order: BTreeMap<u64, FileDigest>,
    /// Number of uses so far.
    clock: u64,
}

#[derive(Debug)]
struct KeptImage {
    image: Arc<PromptImage>,
    size: ImageSize,
    bytes: usize,
    last_used: u64,
}

impl ImageStore {
    /// Creates an empty store of at most `limit` bytes; 0 keeps nothing.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            kept: Mutex::new(Kept {
                limit,
                ..Kept::default()
            }),
        }
    }

    /// Limits the store to `bytes` from now on.
    pub fn limit(&self, bytes: usize) {
        let mut kept = self.lock();
        kept.limit = bytes;
        kept.drop_oldest();
    }

    /// Returns the current usage.
    #[must_use]
    pub fn usage(&self) -> KeptImages {
        self.lock().usage
    }

    /// Returns the image in a file: its known encoding, or its decoded pixels.
    ///
    /// # Errors
    /// Same as [`DecodedImage::from_bytes`].
    pub fn read(
        &self,
        file: &[u8],
        options: &ImageOptions,
    ) -> Result<ReadImage<'static>, ProcessorError> {
        let digest = FileDigest::of(file, options);
        if let Some(known) = self.lock().find(digest) {
            return Ok(known);
        }
        // Decode outside the lock.
        let decoded = DecodedImage::from_bytes(file, options)?;
        Ok(ReadImage {
            file: Some(digest),
            ..ReadImage::from_pixels(Cow::Owned(decoded))
        })
    }

    /// Keeps the encoding of an image that came from a file.
    pub(crate) fn keep(&self, read: &ReadImage<'_>, image: &PromptImage) {
        if let Some(file) = read.file {
            self.lock().insert(file, image, read.size);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Every state is valid.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn find(&mut self, file: FileDigest) -> Option<ReadImage<'static>> {
        self.usage.queries += 1;
        let kept = self.images.get_mut(&file)?;
        self.usage.hits += 1;
        self.clock += 1;
        self.order.remove(&kept.last_used);
        self.order.insert(self.clock, file);
        kept.last_used = self.clock;
        Some(ReadImage {
            content: ImageContent::Known(Arc::clone(&kept.image)),
            digest: kept.image.digest,
            size: kept.size,
            file: None,
        })
    }

    fn insert(&mut self, file: FileDigest, image: &PromptImage, size: ImageSize) {
        let bytes = image.features.n_bytes() + OVERHEAD;
        if bytes > self.limit || self.images.contains_key(&file) {
            return;
        }
        self.clock += 1;
        self.order.insert(self.clock, file);
        let kept = KeptImage {
            image: Arc::new(image.clone()),
            size,
            bytes,
            last_used: self.clock,
        };
        self.images.insert(file, kept);
        self.usage.bytes += bytes;
        self.usage.count += 1;
        self.drop_oldest();
    }

    fn drop_oldest(&mut self) {
        while self.usage.bytes > self.limit
            && let Some((_, file)) = self.order.pop_first()
            && let Some(dropped) = self.images.remove(&file)
        {
            self.usage.bytes -= dropped.bytes;
            self.usage.count -= 1;
        }
    }
}
