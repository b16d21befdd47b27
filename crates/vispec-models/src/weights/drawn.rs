//! Random tensors. A checkpoint can describe tensors by name and shape only, like those of a
//! published model; their values are generated on the device. So speed and memory of a large model
//! can be measured without storing or transferring its weights.

use std::collections::{BTreeMap, HashMap};

use burn::tensor::{DType, Device, Distribution, Tensor};
use serde::Deserialize;

/// Metadata key of a safetensors file whose value describes such tensors as JSON.
const KEY: &str = "vispec_drawn_tensors";

/// A tensor of normally distributed numbers.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DrawnTensor {
    pub(super) shape: Vec<usize>,
    mean: f64,
    /// Standard deviation; if it is 0, all elements equal the mean.
    deviation: f64,
}

impl DrawnTensor {
    /// Element type that the tensor would have on disk.
    pub(super) const DTYPE: DType = DType::BF16;

    /// Parses the tensors that the metadata of a file describes, by name.
    ///
    /// # Errors
    /// Returns what is wrong with the description.
    pub(super) fn described(
        metadata: Option<&HashMap<String, String>>,
    ) -> Result<BTreeMap<String, Self>, String> {
        let Some(text) = metadata.and_then(|metadata| metadata.get(KEY)) else {
            return Ok(BTreeMap::new());
        };
        let tensors: BTreeMap<String, Self> =
            serde_json::from_str(text).map_err(|error| format!("{KEY}: {error}"))?;
        for (
            name,
            Self {
                shape, deviation, ..
            },
        ) in &tensors
        {
            let widest = DType::F64.size();
            if shape
                .iter()
                .try_fold(widest, |n, &m| n.checked_mul(m))
                .is_none()
            {
                return Err(format!("{KEY}: {name} of shape {shape:?} is too large"));
            }
            if *deviation < 0.0 {
                return Err(format!(
                    "{KEY}: the deviation of {name} is {deviation}, expected 0 or more"
                ));
            }
        }
        Ok(tensors)
    }

    /// Generates the tensor.
    pub(super) fn draw<const D: usize>(&self, options: (&Device, DType)) -> Tensor<D> {
        let shape = self.shape.clone();
        if self.deviation == 0.0 {
            return Tensor::full(shape, self.mean, options);
        }
        let distribution = Distribution::Normal(self.mean, self.deviation);
        Tensor::random(shape, distribution, options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(text: &str) -> Result<BTreeMap<String, DrawnTensor>, String> {
        DrawnTensor::described(Some(&HashMap::from([(KEY.to_owned(), text.to_owned())])))
    }

    #[test]
    fn descriptions_that_make_no_tensor_are_refused() {
        for (text, reason) in [
            ("nothing", "expected"),
            (r#"{"a": {"shape": [1], "mean": 0}}"#, "deviation"),
            (
                r#"{"a": {"shape": [4294967296, 4294967296], "mean": 0, "deviation": 1}}"#,
                "too large",
            ),
            (
                r#"{"a": {"shape": [1], "mean": 0, "deviation": -1}}"#,
                "0 or more",
            ),
        ] {
            let error = described(text).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
        assert!(DrawnTensor::described(None).unwrap().is_empty());
        let of_published = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        assert!(
            DrawnTensor::described(Some(&of_published))
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    #[cfg(feature = "flex")]
    fn numbers_have_the_mean_and_the_deviation_that_are_described() {
        let text = r#"{"a": {"shape": [100, 100], "mean": 0.0, "deviation": 0.5},
            "b": {"shape": [3], "mean": 1.0, "deviation": 0}}"#;
        let tensors = described(text).unwrap();
        let device = Device::flex();
        let drawn: Tensor<2> = tensors["a"].draw((&device, DType::F32));
        let values: Vec<f32> = drawn.into_data().try_into_vec().unwrap();
        assert_eq!(values.len(), 10_000);
        let mean = values.iter().sum::<f32>() / 1e4;
        let square = values.iter().map(|value| value * value).sum::<f32>() / 1e4;
        assert!(mean.abs() < 0.03, "{mean}");
        assert!((square.sqrt() - 0.5).abs() < 0.03, "{square}");
        let ones: Tensor<1> = tensors["b"].draw((&device, DType::BF16));
        assert_eq!(ones.dtype(), DType::BF16);
        let ones: Vec<f32> = Tensor::<1>::cast(ones, DType::F32)
            .into_data()
            .try_into_vec()
            .unwrap();
        assert_eq!(ones, [1.0; 3]);
    }
}
