//! Frames of animated GIF files.

use std::time::Duration;

use gif::{ColorOutput, DecodeOptions, Decoder, DisposalMethod, MemoryLimit};

use super::{Frames, MAX_FRAMES, SHORTEST, damaged};
use crate::error::Result;

/// An animated GIF.
pub(super) struct GifFrames<'a> {
    decoder: Decoder<&'a [u8]>,
    count: usize,
    duration: Duration,
    width: usize,
    height: usize,
    /// The canvas, `[height, width, 3]`; empty before the first frame.
    canvas: Vec<u8>,
    /// How the last frame is disposed of before the next is drawn.
    disposal: Disposal,
}

/// How a frame is disposed of.
enum Disposal {
    Keep,
    /// The area is cleared.
    Clear(Area),
    /// The previous canvas is restored.
    Restore(Vec<u8>),
}

/// An area that lies within the canvas.
#[derive(Debug, Clone, Copy)]
struct Area {
    left: usize,
    top: usize,
    width: usize,
    height: usize,
}

impl<'a> GifFrames<'a> {
    /// Counts the frames, which must lie within the canvas.
    pub(super) fn open(bytes: &'a [u8]) -> Result<Self> {
        let mut options = DecodeOptions::new();
        options.set_color_output(ColorOutput::RGBA);
        options.check_frame_consistency(true);
        // Sizes are checked before pixels are read.
        options.set_memory_limit(MemoryLimit::Unlimited);
        let mut counting = options.clone();
        counting.skip_frame_decoding(true);
        let mut counted = counting.read_info(bytes).map_err(damaged)?;
        let (mut count, mut duration) = (0, Duration::ZERO);
        while count <= MAX_FRAMES
            && let Some(frame) = counted.next_frame_info().map_err(damaged)?
        {
            count += 1;
            duration += match frame.delay {
                0 | 1 => SHORTEST,
                hundredths => Duration::from_millis(10 * u64::from(hundredths)),
            };
        }
        let decoder = options.read_info(bytes).map_err(damaged)?;
        Ok(Self {
            width: decoder.width().into(),
            height: decoder.height().into(),
            decoder,
            count,
            duration,
            canvas: Vec::new(),
            disposal: Disposal::Keep,
        })
    }

    /// Returns the rows of an area of the canvas, three bytes per pixel.
    fn rows(&mut self, area: Area) -> impl Iterator<Item = &mut [u8]> {
        let bytes = 3 * area.left..3 * (area.left + area.width);
        let rows = self.canvas.chunks_exact_mut(3 * self.width.max(1));
        let rows = rows.skip(area.top).take(area.height);
        rows.map(move |row| &mut row[bytes.clone()])
    }

    fn dispose(&mut self) {
        match std::mem::replace(&mut self.disposal, Disposal::Keep) {
            Disposal::Keep => {}
            Disposal::Clear(area) => self.rows(area).for_each(|row| row.fill(0)),
            Disposal::Restore(before) => self.canvas = before,
        }
    }
}

impl Frames for GifFrames<'_> {
    fn dimensions(&self) -> (u32, u32) {
        (self.decoder.width().into(), self.decoder.height().into())
    }

    fn count(&self) -> usize {
        self.count
    }

    fn duration(&self) -> Duration {
        self.duration
    }

    fn draw(&mut self) -> Result<()> {
        self.canvas.resize(3 * self.width * self.height, 0);
        self.dispose();
        let frame = self.decoder.next_frame_info().map_err(damaged)?;
        let frame = frame.ok_or_else(|| damaged("a frame is missing"))?;
        let area = Area {
            left: frame.left.into(),
            top: frame.top.into(),
            width: frame.width.into(),
            height: frame.height.into(),
        };
        self.disposal = match frame.dispose {
            DisposalMethod::Any | DisposalMethod::Keep => Disposal::Keep,
            DisposalMethod::Background => Disposal::Clear(area),
            DisposalMethod::Previous => Disposal::Restore(self.canvas.clone()),
        };
        if area.width == 0 || area.height == 0 {
            return Ok(());
        }
        let mut pixels = vec![0; 4 * area.width * area.height];
        self.decoder
            .read_into_buffer(&mut pixels)
            .map_err(damaged)?;
        let lines = pixels.chunks_exact(4 * area.width);
        for (row, line) in self.rows(area).zip(lines) {
            for (pixel, drawn) in row.chunks_exact_mut(3).zip(line.chunks_exact(4)) {
                // Pixels are either opaque or transparent.
                if drawn[3] != 0 {
                    pixel.copy_from_slice(&drawn[..3]);
                }
            }
        }
        Ok(())
    }

    fn rgb(&self) -> Vec<u8> {
        self.canvas.clone()
    }
}
