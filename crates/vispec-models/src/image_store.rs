//! Images that prompts were about, kept for later ones: a file that was seen is neither decoded nor
//! prepared nor encoded again.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest as _, Sha256};
use vispec_processor::{DecodedImage, ImageOptions, ImageSize, Orientation, ProcessorError};

use crate::image_digest::ImageDigest;
use crate::prompt::PromptImage;

/// Bytes that an image counts for besides its features.
const OVERHEAD: usize = 512;

/// SHA-256 of an image file, and of how it is read.
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

/// An image for a prompt: as pixels, or as it is known from an earlier prompt.
#[derive(Debug)]
pub struct ReadImage<'a> {
    pub(crate) content: ImageContent<'a>,
    pub(crate) digest: ImageDigest,
    size: ImageSize,
    /// Where it comes from, unless from pixels.
    file: Option<FileDigest>,
}

#[derive(Debug)]
pub(crate) enum ImageContent<'a> {
    Known(Arc<PromptImage>),
    Pixels(Cow<'a, DecodedImage>),
}

impl<'a> ReadImage<'a> {
    /// Pixels that come from no file.
    #[must_use]
    pub fn from_pixels(image: Cow<'a, DecodedImage>) -> Self {
        Self {
            digest: ImageDigest::of(&image),
            size: image.size(),
            content: ImageContent::Pixels(image),
            file: None,
        }
    }

    /// Height and width in pixels.
    #[must_use]
    pub(crate) fn size(&self) -> ImageSize {
        self.size
    }
}

/// Images by the content of their files, for one target. The least recently used are dropped when
/// they exceed a limit.
#[derive(Debug)]
pub struct ImageStore {
    kept: Mutex<Kept>,
}

/// What is kept at the moment, and what it has been good for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeptImages {
    /// Number of images.
    pub count: usize,
    /// Their memory.
    pub bytes: usize,
    /// Files that were looked for.
    pub queries: u64,
    /// Those that were found.
    pub hits: u64,
}

#[derive(Debug, Default)]
struct Kept {
    limit: usize,
    usage: KeptImages,
    images: HashMap<FileDigest, KeptImage>,
    /// The least recently used first.
    order: BTreeMap<u64, FileDigest>,
    /// Counts uses.
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
    /// An empty store of at most `limit` bytes; with 0 nothing is kept.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            kept: Mutex::new(Kept {
                limit,
                ..Kept::default()
            }),
        }
    }

    /// Keeps at most so many bytes from now on.
    pub fn limit(&self, bytes: usize) {
        let mut kept = self.lock();
        kept.limit = bytes;
        kept.drop_oldest();
    }

    /// What is kept at the moment.
    #[must_use]
    pub fn usage(&self) -> KeptImages {
        self.lock().usage
    }

    /// The image in a file: as it is known, or decoded.
    ///
    /// # Errors
    /// Those of [`DecodedImage::from_bytes`].
    pub fn read(
        &self,
        file: &[u8],
        options: &ImageOptions,
    ) -> Result<ReadImage<'static>, ProcessorError> {
        let digest = FileDigest::of(file, options);
        if let Some(known) = self.lock().find(digest) {
            return Ok(known);
        }
        // Outside of the lock.
        let decoded = DecodedImage::from_bytes(file, options)?;
        Ok(ReadImage {
            file: Some(digest),
            ..ReadImage::from_pixels(Cow::Owned(decoded))
        })
    }

    /// Keeps what was computed for an image that came from a file.
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
