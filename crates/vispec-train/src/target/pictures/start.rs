//! Initial parameters of each stage.

use rand::SeedableRng as _;
use rand_distr::{Distribution as _, Normal};
use rand_pcg::Pcg64;
use vispec_data::icons::{Look, PictureOf};

use super::PictureCourse;
use super::judge::Seen;
use crate::error::TrainError;
use crate::network::{HostTensor, Parameters, Trainable as _};

/// Standard deviation of the initial position embeddings and class embedding.
const EMBEDDED: f32 = 0.02;
/// Length of the word vectors, whose products with pooled features are the scores.
const WORD_LENGTH: f32 = 0.5;
/// Number of pictures for measuring the length of features.
const MEASURED: u64 = 16;

impl PictureCourse {
    /// Returns the parameters of a stage without a stage before it.
    #[expect(clippy::cast_precision_loss, reason = "sizes are small")]
    pub(super) fn fresh(&self, stage: usize) -> Result<Parameters, TrainError> {
        let shape = self.shape(stage);
        let mut random = Pcg64::seed_from_u64(self.run.config.seed);
        let branches = (2.0 * shape.vision.layers as f32).sqrt();
        let mut parameters = Parameters::new();
        for (name, dims) in shape.parameters() {
            let n_elements = dims.iter().product();
            let mut normal = |deviation: f32| -> Vec<f32> {
                let law = Normal::new(0.0, deviation);
                let law = law.expect("deviations are finite and above 0");
                (0..n_elements).map(|_| law.sample(&mut random)).collect()
            };
            let is_norm = name.contains("norm");
            let values = match (dims.len(), name.rsplit('.').next()) {
                _ if name == "words.weight" => self.word_vectors()?,
                (_, Some("position_embedding" | "class_embedding")) => normal(EMBEDDED),
                (1, Some("weight")) if is_norm => vec![1.0; n_elements],
                (1, _) => vec![0.0; n_elements],
                _ => {
                    let fan_in = (dims[1] as f32).sqrt().recip();
                    let ends_branch = name.contains("out_proj") || name.contains("fc2");
                    normal(if ends_branch {
                        fan_in / branches
                    } else {
                        fan_in
                    })
                }
            };
            let shape = dims;
            parameters.insert(name, HostTensor { shape, values });
        }
        Ok(parameters)
    }

    /// Returns the vector of each word: the mean of its tokens' embeddings in the language model,
    /// minus the mean over all words, scaled to length [`WORD_LENGTH`].
    #[expect(clippy::cast_precision_loss, reason = "few tokens and words")]
    fn word_vectors(&self) -> Result<Vec<f32>, TrainError> {
        let hidden = self.speaker.hidden();
        let table = self.speaker.table()?.values;
        let mut vectors = Vec::with_capacity(self.words.words.len() * hidden);
        for word in &self.words.words {
            let tokens = self.studio.encode(&format!(" {word}"))?;
            let start = vectors.len();
            vectors.resize(start + hidden, 0.0);
            for &token in &tokens {
                let row = &table[token as usize * hidden..][..hidden];
                for (sum, value) in vectors[start..].iter_mut().zip(row) {
                    *sum += value / tokens.len() as f32;
                }
            }
        }
        let mut mean = vec![0.0; hidden];
        for vector in vectors.chunks_exact(hidden) {
            for (sum, value) in mean.iter_mut().zip(vector) {
                *sum += value / self.words.words.len() as f32;
            }
        }
        for vector in vectors.chunks_exact_mut(hidden) {
            for (value, mean) in vector.iter_mut().zip(&mean) {
                *value -= mean;
            }
            let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
            for value in vector {
                *value *= WORD_LENGTH / length.max(1e-6);
            }
        }
        Ok(vectors)
    }

    /// Returns the parameters of a stage, made from the final ones of the stage before it.
    pub(super) fn carried(
        &self,
        stage: usize,
        mut before: Parameters,
    ) -> Result<Parameters, TrainError> {
        let (was, is) = (self.shape(stage - 1), self.shape(stage));
        if was.words > 0 && is.words == 0 {
            self.fit_length(stage - 1, &mut before)?;
            before.remove("words.weight");
        }
        let (from, to) = (was.vision.grid_side(), is.vision.grid_side());
        if from != to {
            let name = "tower.position_embedding";
            let places = before[name].values.clone();
            let values = resized(&places, from, to, is.vision.hidden);
            let shape = vec![1, to * to + 1, is.vision.hidden];
            before.insert(name.to_owned(), HostTensor { shape, values });
        }
        Ok(before)
    }

    /// Scales the output of the projector so that features are as long as token embeddings.
    fn fit_length(&self, stage: usize, parameters: &mut Parameters) -> Result<(), TrainError> {
        let network = self.shape(stage).build(parameters, &self.device_of_graph());
        let network = network.frozen();
        let shown: Vec<(PictureOf, Look)> = (0..MEASURED)
            .map(|number| {
                let (picture, look) = self.judged(Seen::Taught, number);
                (picture.clone(), look)
            })
            .collect();
        let all: Vec<usize> = (0..self.shape(stage).patches()).collect();
        let pictures = self.pictures_of(stage, &shown, vec![all; shown.len()])?;
        let features = network.features(&pictures).inner();
        let scale = mean_square(&self.speaker.table()?.values)
            / mean_square(&HostTensor::from_device::<2>(features)?.values);
        let scale = scale.sqrt();
        for part in ["weight", "bias"] {
            if let Some(tensor) = parameters.get_mut(&format!("projector.linear_2.{part}")) {
                for value in &mut tensor.values {
                    *value *= scale;
                }
            }
        }
        Ok(())
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "a mean of f32 values"
)]
fn mean_square(values: &[f32]) -> f32 {
    let sum: f64 = values.iter().map(|&value| f64::from(value).powi(2)).sum();
    (sum / values.len().max(1) as f64) as f32
}

/// Resizes position embeddings to a grid of another side by linear interpolation. The embedding of
/// the class token, which is first, is unchanged.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "grids are small"
)]
fn resized(places: &[f32], from: usize, to: usize, width: usize) -> Vec<f32> {
    let mut out = places[..width].to_vec();
    let at = |row: usize, column: usize| &places[(1 + row * from + column) * width..][..width];
    let between = |index: usize| {
        let place = (index as f32 + 0.5) * from as f32 / to as f32 - 0.5;
        let place = place.clamp(0.0, (from - 1) as f32);
        let low = place.floor() as usize;
        (low, (low + 1).min(from - 1), place - place.floor())
    };
    for row in 0..to {
        let (top, bottom, down) = between(row);
        for column in 0..to {
            let (left, right, across) = between(column);
            let corners = [
                (at(top, left), (1.0 - down) * (1.0 - across)),
                (at(top, right), (1.0 - down) * across),
                (at(bottom, left), down * (1.0 - across)),
                (at(bottom, right), down * across),
            ];
            out.extend((0..width).map(|index| {
                let parts = corners.iter().map(|(corner, share)| corner[index] * share);
                parts.sum::<f32>()
            }));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_keep_their_direction_on_a_finer_grid() {
        // Each place holds its row and its column.
        let grid = |side: usize| -> Vec<f32> {
            let places = (0..side * side).flat_map(|place| [place / side, place % side]);
            let step = 12.0 / side as f32;
            let places = places.map(|index| (index as f32 + 0.5) * step);
            [7.0, 8.0].into_iter().chain(places).collect()
        };
        let finer = resized(&grid(3), 3, 6, 2);
        let expected = grid(6);
        assert_eq!(finer.len(), expected.len());
        for (place, (found, expected)) in finer.iter().zip(&expected).enumerate() {
            let cell = place.saturating_sub(2) / 2;
            let on_edge = [cell / 6, cell % 6]
                .iter()
                .any(|index| matches!(index, 0 | 5));
            // Beyond the centres of the outermost places there is nothing to interpolate.
            assert!(
                on_edge || (found - expected).abs() < 1e-5,
                "{found} {expected}"
            );
        }
        assert_eq!(resized(&grid(4), 4, 4, 2), grid(4));
    }
}
