//! Frames of animated WebP files.

use std::io::Cursor;
use std::time::Duration;

use image_webp::WebPDecoder;

use super::{Frames, SHORTEST, damaged};
use crate::error::Result;

/// An animated WebP.
pub(super) struct WebPFrames<'a> {
    decoder: WebPDecoder<Cursor<&'a [u8]>>,
    channels: usize,
    /// The canvas in the decoder's channels; empty before the first frame.
    canvas: Vec<u8>,
}

impl<'a> WebPFrames<'a> {
    pub(super) fn open(bytes: &'a [u8]) -> Result<Self> {
        // Otherwise a truncated file would be read as one with fewer frames.
        let said = bytes.get(4..8).and_then(|size| size.try_into().ok());
        let said = said.map_or(0, |size| 8 + u64::from(u32::from_le_bytes(size)));
        if said > bytes.len() as u64 {
            return Err(damaged("the file is shorter than its header says"));
        }
        let decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(damaged)?;
        if !decoder.is_animated() {
            return Err(damaged("the file has one picture, so it is no animation"));
        }
        Ok(Self {
            channels: if decoder.has_alpha() { 4 } else { 3 },
            decoder,
            canvas: Vec::new(),
        })
    }
}

impl Frames for WebPFrames<'_> {
    fn dimensions(&self) -> (u32, u32) {
        self.decoder.dimensions()
    }

    fn count(&self) -> usize {
        self.decoder.num_frames() as usize
    }

    fn duration(&self) -> Duration {
        match self.decoder.loop_duration() {
            0 => SHORTEST * self.decoder.num_frames().max(1),
            milliseconds => Duration::from_millis(milliseconds),
        }
    }

    fn draw(&mut self) -> Result<()> {
        let (width, height) = self.decoder.dimensions();
        let len = width as usize * height as usize * self.channels;
        self.canvas.resize(len, 0);
        let shown = self.decoder.read_frame(&mut self.canvas);
        shown.map(drop).map_err(damaged)
    }

    fn rgb(&self) -> Vec<u8> {
        let pixels = self.canvas.chunks_exact(self.channels);
        pixels.flat_map(|pixel| &pixel[..3]).copied().collect()
    }
}
