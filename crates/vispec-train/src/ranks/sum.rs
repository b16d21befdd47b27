//! The sum of the gradients of a step, in the order of its batches.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::{Device, Tensor};
use half::bf16;
use serde::{Deserialize, Serialize};

use super::agree::Ranks;
use crate::error::TrainError;
use crate::gradients::Gradients;
use crate::network::HostTensor;

/// Element type of the running sum of gradients, which is also the type sent between ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GradientType {
    /// f32, in which gradients are computed.
    #[default]
    F32,
    /// bf16, with the sum rounded after each batch. Halves the amount of data to send.
    Bf16,
}

/// An element type that can be sent.
trait Wire: bytemuck::Pod {
    fn read(self) -> f32;
    fn round(value: f32) -> Self;
}

impl Wire for f32 {
    fn read(self) -> f32 {
        self
    }

    fn round(value: f32) -> Self {
        value
    }
}

impl Wire for bf16 {
    fn read(self) -> f32 {
        self.to_f32()
    }

    fn round(value: f32) -> Self {
        Self::from_f32(value)
    }
}

/// The gradients of this rank's batches, which become part of the sum over all batches of a step.
///
/// The sum is exactly that of one rank that adds all batches in order: the first rank adds its
/// batches, the second adds its own, one by one, to that sum, and so on. Every rank but the first
/// therefore has to keep the gradients of each of its batches until the end of the step.
#[derive(Debug)]
pub(crate) struct GradientSum {
    ranks: Ranks,
    element: GradientType,
    parts: Vec<Gradients>,
}

/// The range of a parameter in the values that are sent.
struct Segment {
    name: String,
    start: usize,
    len: usize,
    /// Whether an earlier rank has a gradient of the parameter.
    is_begun: bool,
}

/// Gradients of one batch, in host memory.
type HostGradients = BTreeMap<String, Vec<f32>>;

impl GradientSum {
    /// Creates an empty sum.
    pub(crate) fn new(ranks: &Ranks, element: GradientType) -> Self {
        Self {
            ranks: ranks.clone(),
            element,
            parts: Vec::new(),
        }
    }

    /// Adds the gradients of this rank's next batch.
    ///
    /// # Errors
    /// [`TrainError::Device`] if gradients cannot be read back.
    pub(crate) fn add(&mut self, gradients: Gradients) -> Result<(), TrainError> {
        // Only the first rank can add right away: nothing comes before its batches.
        match self.parts.last_mut().filter(|_| self.ranks.is_first()) {
            None => self.parts.push(gradients),
            Some(sum) => sum.add(gradients),
        }
        match (self.element, self.parts.last_mut()) {
            (GradientType::Bf16, Some(sum)) if self.ranks.is_first() => {
                *sum = std::mem::take(sum).rounded()?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Returns the sum over the batches of all ranks, on all ranks. All ranks must call this.
    ///
    /// # Errors
    /// [`TrainError::Ranks`] if a rank cannot read its gradients back from the device.
    pub(crate) fn finish(mut self, device: &Device) -> Result<Gradients, TrainError> {
        if self.ranks.count() == 1 {
            return Ok(self.parts.pop().unwrap_or_default());
        }
        let parts: Result<Vec<HostGradients>, TrainError> =
            self.parts.drain(..).map(Gradients::into_host).collect();
        let parts = self.ranks.all_succeed(parts)?;
        let segments = self.segments(&parts)?;
        let values = match self.element {
            GradientType::F32 => self.chain::<f32>(&segments, &parts),
            GradientType::Bf16 => self.chain::<bf16>(&segments, &parts),
        };
        let gradient = |segment: Segment| {
            let values = values[segment.start..segment.start + segment.len].to_vec();
            let tensor = HostTensor {
                shape: vec![segment.len],
                values,
            };
            (segment.name, tensor.to_device::<1>(device))
        };
        Ok(segments.into_iter().map(gradient).collect())
    }

    /// Returns a segment for each parameter that has a gradient on any rank, by name.
    fn segments(&self, parts: &[HostGradients]) -> Result<Vec<Segment>, TrainError> {
        let own: BTreeMap<String, usize> = parts
            .iter()
            .flatten()
            .map(|(name, values)| (name.clone(), values.len()))
            .collect();
        let all = self.ranks.gather(own)?;
        let before = &all[..self.ranks.rank()];
        let begun: BTreeSet<&String> = before.iter().flat_map(BTreeMap::keys).collect();
        let lens: BTreeMap<&String, usize> = all
            .iter()
            .flatten()
            .map(|(name, &len)| (name, len))
            .collect();
        let mut start = 0;
        let segment = |(name, len): (&String, usize)| {
            let segment = Segment {
                is_begun: begun.contains(name),
                name: name.clone(),
                start,
                len,
            };
            start += len;
            segment
        };
        Ok(lens.into_iter().map(segment).collect())
    }

    fn chain<W: Wire>(&self, segments: &[Segment], parts: &[HostGradients]) -> Vec<f32> {
        let n_values = segments.last().map_or(0, |last| last.start + last.len);
        let mut values = vec![W::zeroed(); n_values];
        self.ranks.chain(
            bytemuck::cast_slice_mut(&mut values),
            &mut |place, bytes| {
                let start = place / size_of::<W>();
                add_piece(
                    bytemuck::cast_slice_mut::<u8, W>(bytes),
                    start,
                    segments,
                    parts,
                );
            },
        );
        values.into_iter().map(W::read).collect()
    }
}

/// Adds the gradients of batches to `values`, which begin at offset `start`.
fn add_piece<W: Wire>(
    values: &mut [W],
    start: usize,
    segments: &[Segment],
    parts: &[HostGradients],
) {
    let end = start + values.len();
    for segment in segments {
        let (from, to) = (
            segment.start.max(start),
            (segment.start + segment.len).min(end),
        );
        if from >= to {
            continue;
        }
        let sums = &mut values[from - start..to - start];
        let mut is_begun = segment.is_begun;
        for part in parts {
            let Some(gradient) = part.get(&segment.name) else {
                continue;
            };
            let gradient = &gradient[from - segment.start..to - segment.start];
            for (sum, &value) in sums.iter_mut().zip(gradient) {
                // The first gradient is copied: adding it to zero would turn -0 into 0.
                *sum = W::round(if is_begun { sum.read() + value } else { value });
            }
            is_begun = true;
        }
    }
}

impl Gradients {
    fn into_host(self) -> Result<HostGradients, TrainError> {
        let host = |(name, gradient): (String, Tensor<1>)| {
            Ok((name, HostTensor::from_device(gradient)?.values))
        };
        self.into_iter().map(host).collect()
    }

    /// Rounds every element to bf16.
    fn rounded(self) -> Result<Self, TrainError> {
        let rounded = |(name, gradient): (String, Tensor<1>)| {
            let device = gradient.device();
            let mut tensor = HostTensor::from_device(gradient)?;
            for value in &mut tensor.values {
                *value = bf16::round(*value).read();
            }
            Ok((name, tensor.to_device(&device)))
        };
        self.into_iter().map(rounded).collect()
    }
}
