//! The first frame of GIF files, with the same layout as in Pillow.

use gif::{ColorOutput, DecodeOptions, Decoder};

/// A GIF file read up to the pixels of its first frame.
pub(crate) struct GifImage<'a> {
    decoder: Decoder<&'a [u8]>,
    /// Left and top offset of the frame, its width and its height.
    frame: [usize; 4],
    width: usize,
    height: usize,
    colors: Vec<[u8; 3]>,
    /// Palette index that fills the canvas around the frame.
    background: u8,
}

impl<'a> GifImage<'a> {
    /// Reads up to the first frame, or returns what is wrong with the file.
    pub(crate) fn open(bytes: &'a [u8]) -> Result<Self, String> {
        let mut options = DecodeOptions::new();
        options.set_color_output(ColorOutput::Indexed);
        // Sizes are checked before pixels are read.
        options.set_memory_limit(gif::MemoryLimit::Unlimited);
        let mut decoder = options
            .read_info(bytes)
            .map_err(|error| error.to_string())?;
        let canvas = [decoder.width(), decoder.height()].map(usize::from);
        let frame = decoder
            .next_frame_info()
            .map_err(|error| error.to_string())?
            .ok_or("there is no frame")?;
        let area = [frame.left, frame.top, frame.width, frame.height].map(usize::from);
        let background = frame.transparent.unwrap_or(0);
        let local = frame.palette.clone();
        let colors = colors(local.as_deref().or(decoder.global_palette()));
        Ok(Self {
            decoder,
            frame: area,
            // A frame that does not fit enlarges the canvas.
            width: canvas[0].max(area[0] + area[2]),
            height: canvas[1].max(area[1] + area[3]),
            colors,
            background,
        })
    }

    /// Returns the width and height in pixels.
    pub(crate) fn dimensions(&self) -> (u32, u32) {
        let [width, height] =
            [self.width, self.height].map(|side| u32::try_from(side).unwrap_or(u32::MAX));
        (width, height)
    }

    /// Decodes the pixels, `[height, width, 3]`. Transparent pixels keep the colour of their index.
    pub(crate) fn into_rgb8(mut self) -> Result<Vec<u8>, String> {
        let [left, top, width, height] = self.frame;
        let mut indices = vec![0; width * height];
        if !indices.is_empty() {
            let read = self.decoder.read_into_buffer(&mut indices);
            read.map_err(|error| error.to_string())?;
        }
        let background = self.colors[usize::from(self.background)];
        let mut rgb = background.repeat(self.width * self.height);
        let pixels = rgb.as_chunks_mut::<3>().0;
        if width > 0 {
            let rows = pixels.chunks_exact_mut(self.width).skip(top);
            for (row, indices) in rows.zip(indices.chunks_exact(width)) {
                for (pixel, &index) in row[left..].iter_mut().zip(indices) {
                    *pixel = self.colors[usize::from(index)];
                }
            }
        }
        Ok(rgb)
    }
}

/// Returns the colour of every index. Without a palette, an index is a grey level. A palette of
/// exactly these levels counts as no palette; indices beyond the end of any other palette are
/// black.
fn colors(palette: Option<&[u8]>) -> Vec<[u8; 3]> {
    let grey = (0..=u8::MAX).map(|level| [level; 3]);
    let palette = palette.unwrap_or_default().as_chunks::<3>().0;
    if grey
        .clone()
        .zip(palette)
        .all(|(grey, color)| grey == *color)
    {
        return grey.collect();
    }
    let mut colors = palette.to_vec();
    colors.resize(256, [0; 3]);
    colors
}
