//! Compares pixels with those of the published image processors.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

mod common;

use common::{fixture, image, integers, json, processor, sizes};
use serde_json::Value;
use vispec_processor::{DecodedImage, PixelValues, ProcessedImage};

const MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
const STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

/// Returns the golden as normalised values. It is stored as samples; `channel` returns the channel
/// of an element.
fn golden(index: &Value, samples: &[u8], channel: impl Fn(usize) -> usize) -> Vec<f32> {
    let [start, end] = ["start", "end"].map(|key| index[key].as_u64().unwrap() as usize);
    let value = |(i, &sample): (usize, &u8)| {
        let scaled = (f64::from(sample) * 0.00392156862745098) as f32;
        (scaled - MEAN[channel(i)]) / STD[channel(i)]
    };
    samples[start..end].iter().enumerate().map(value).collect()
}

fn assert_same(name: &str, pixels: &PixelValues, expected: &[f32]) {
    let n_different = pixels
        .data
        .iter()
        .zip(expected)
        .filter(|(a, b)| a.to_bits() != b.to_bits())
        .count();
    assert_eq!(pixels.data.len(), expected.len(), "{name}");
    assert_eq!(
        pixels.data.len(),
        pixels.shape.iter().product::<usize>(),
        "{name}"
    );
    assert_eq!(n_different, 0, "{name}: values that differ");
}

fn process(model: &str, image: &DecodedImage) -> ProcessedImage {
    processor(model).image_processor().process(image).unwrap()
}

#[test]
fn pixels_are_bit_equal() {
    let index = json("pixels.json");
    let samples = std::fs::read(fixture("pixels.bin")).unwrap();
    for i in 0..6 {
        let image = image(&format!("image_{i}.png"));

        let name = format!("image_{i}.qwen.pixel_values");
        let ProcessedImage::Qwen { pixels, grid_thw } = process("qwen-untied", &image) else {
            panic!("{name}");
        };
        assert_eq!(pixels.shape, sizes(&index[&name]["shape"]), "{name}");
        let grid = sizes(&index[format!("image_{i}.qwen.image_grid_thw")]["values"]);
        assert_eq!(grid_thw.to_vec(), grid, "{name}");
        assert_same(
            &name,
            &pixels,
            &golden(&index[&name], &samples, |i| i % 1176 / 392),
        );

        let name = format!("image_{i}.clip.pixel_values");
        let ProcessedImage::Clip { pixels } = process("llava-15", &image) else {
            panic!("{name}");
        };
        assert_eq!(pixels.shape, sizes(&index[&name]["shape"])[1..], "{name}");
        assert_same(
            &name,
            &pixels,
            &golden(&index[&name], &samples, |i| i / (84 * 84)),
        );

        let name = format!("image_{i}.llava_next.pixel_values");
        let ProcessedImage::Anyres {
            pixels,
            original_size,
        } = process("llava-next", &image)
        else {
            panic!("{name}");
        };
        assert_eq!(pixels.shape, sizes(&index[&name]["shape"])[1..], "{name}");
        let size = integers(&index[format!("image_{i}.llava_next.image_sizes")]["values"]);
        assert_eq!(
            vec![original_size.height as i64, original_size.width as i64],
            size,
            "{name}"
        );
        assert_same(
            &name,
            &pixels,
            &golden(&index[&name], &samples, |i| i / (56 * 56) % 3),
        );
    }
}
