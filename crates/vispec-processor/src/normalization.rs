//! Normalisation of 8-bit samples to the range that a vision tower was trained on.

use crate::config_file::ConfigFile;
use crate::error::Result;
use crate::resize::RgbImage;

const CHANNELS: usize = 3;

/// The normalised value of every 8-bit sample, per channel.
///
/// Computed as in transformers: the sample is multiplied by the rescale factor in f64 and rounded
/// to f32; mean and standard deviation are applied in f32.
#[derive(Debug, Clone)]
pub(crate) struct Normalization {
    tables: [[f32; 256]; CHANNELS],
}

impl Normalization {
    pub(crate) fn new(rescale_factor: f64, mean: [f64; CHANNELS], std: [f64; CHANNELS]) -> Self {
        let tables = std::array::from_fn(|channel| {
            let (mean, std) = (mean[channel] as f32, std[channel] as f32);
            std::array::from_fn(|sample| ((sample as f64 * rescale_factor) as f32 - mean) / std)
        });
        Self { tables }
    }

    /// Reads `image_mean`, `image_std` and `rescale_factor`, which defaults to 1/255 as in
    /// transformers.
    pub(crate) fn from_config(config: &ConfigFile) -> Result<Self> {
        for switch in ["do_resize", "do_rescale", "do_normalize"] {
            config.require_true(switch)?;
        }
        const TRIPLE: &str = "three numbers";
        const STD: &str = "three positive numbers";
        let mean = config.required("image_mean", TRIPLE)?;
        let std: [f64; CHANNELS] = config.required("image_std", STD)?;
        if std.iter().any(|&std| std <= 0.0) {
            return Err(config.invalid("image_std", STD));
        }
        let factor = config
            .optional("rescale_factor", "a number")?
            .unwrap_or(1.0 / 255.0);
        Ok(Self::new(factor, mean, std))
    }

    pub(crate) fn table(&self, channel: usize) -> &[f32; 256] {
        &self.tables[channel]
    }

    /// Appends an image as `[3, height, width]`.
    pub(crate) fn append_planes(&self, image: &RgbImage, out: &mut Vec<f32>) {
        for (channel, table) in self.tables.iter().enumerate() {
            let samples = image.data.iter().skip(channel).step_by(CHANNELS);
            out.extend(samples.map(|&sample| table[usize::from(sample)]));
        }
    }
}

/// Fails unless `resample` is absent or bicubic, the only filter that published checkpoints use.
pub(crate) fn require_bicubic(config: &ConfigFile) -> Result<()> {
    const EXPECTED: &str = "3 (bicubic)";
    match config.optional::<i64>("resample", EXPECTED)? {
        None | Some(3) => Ok(()),
        Some(_) => Err(config.invalid("resample", EXPECTED)),
    }
}
