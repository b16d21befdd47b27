//! Images and videos of a conversation.

use crate::decoded_image::DecodedImage;
use crate::video::Video;

/// Images and videos of a conversation. They fill the image and video places in its messages, each
/// kind in order.
#[derive(Debug, Clone, Copy, Default)]
pub struct Media<'a> {
    /// The images.
    pub images: &'a [DecodedImage],
    /// The videos.
    pub videos: &'a [Video],
}

impl<'a> From<&'a [DecodedImage]> for Media<'a> {
    fn from(images: &'a [DecodedImage]) -> Self {
        Self {
            images,
            videos: &[],
        }
    }
}
