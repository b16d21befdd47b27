//! Device names. This is the only file that knows the backends of this build.

use std::fmt;
use std::str::FromStr;

use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::error::ModelError;

/// A device as named by the user, before it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceSpec {
    /// `flex`: the CPU, with the kernels of `vispec-kernels`.
    Flex,
    /// `cuda:N`: NVIDIA GPU with index N.
    Cuda(usize),
    /// `rocm:N`: AMD GPU with index N.
    Rocm(usize),
    /// `wgpu`: the GPU that wgpu chooses, through any graphics API it finds.
    Wgpu,
    /// `vulkan`: the GPU that wgpu chooses, through Vulkan.
    Vulkan,
    /// `metal`: the GPU of an Apple machine.
    Metal,
    /// `tch`: LibTorch on the CPU. Burn has deprecated this backend.
    LibTorch,
}

/// The names that [`DeviceSpec`] accepts.
const DEVICE_NAMES: &str = "flex, cuda[:N], rocm[:N], wgpu, vulkan, metal, tch";

impl FromStr for DeviceSpec {
    type Err = ModelError;

    fn from_str(name: &str) -> Result<Self, ModelError> {
        let unknown = || ModelError::UnknownDevice {
            found: name.to_owned(),
            expected: DEVICE_NAMES,
        };
        let (kind, index) = match name.split_once(':') {
            None => (name, None),
            Some((kind, index)) => (kind, Some(index.parse::<usize>().map_err(|_| unknown())?)),
        };
        match (kind, index) {
            ("flex", None) => Ok(Self::Flex),
            ("cuda", index) => Ok(Self::Cuda(index.unwrap_or(0))),
            ("rocm", index) => Ok(Self::Rocm(index.unwrap_or(0))),
            ("wgpu", None) => Ok(Self::Wgpu),
            ("vulkan", None) => Ok(Self::Vulkan),
            ("metal", None) => Ok(Self::Metal),
            ("tch", None) => Ok(Self::LibTorch),
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flex => f.write_str("flex"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
            Self::Rocm(index) => write!(f, "rocm:{index}"),
            Self::Wgpu => f.write_str("wgpu"),
            Self::Vulkan => f.write_str("vulkan"),
            Self::Metal => f.write_str("metal"),
            Self::LibTorch => f.write_str("tch"),
        }
    }
}

impl DeviceSpec {
    /// Opens the device.
    ///
    /// # Errors
    /// Returns [`ModelError::DeviceFeature`] if this program was built without the backend,
    /// [`ModelError::DeviceUnavailable`] if there is no such device or its driver is missing.
    pub fn open(self) -> Result<Device, ModelError> {
        match self {
            Self::Flex => open_flex(self),
            Self::Cuda(index) => open_cuda(self, index),
            Self::Rocm(index) => open_rocm(self, index),
            Self::Wgpu => open_wgpu(self),
            Self::Vulkan => open_vulkan(self),
            Self::Metal => open_metal(self),
            Self::LibTorch => open_libtorch(self),
        }
    }

    #[allow(dead_code, reason = "not used when every backend is compiled in")]
    fn needs(self, feature: &'static str) -> ModelError {
        ModelError::DeviceFeature {
            device: self.to_string(),
            feature,
        }
    }

    #[allow(dead_code, reason = "not used by a build without GPU backends")]
    fn unavailable(self, reason: impl Into<String>) -> ModelError {
        ModelError::DeviceUnavailable {
            device: self.to_string(),
            reason: reason.into(),
        }
    }
}

/// Returns whether `device` is the CPU backend, which uses the kernels of `vispec-kernels`.
#[must_use]
pub fn is_cpu(device: &Device) -> bool {
    #[cfg(feature = "flex")]
    {
        *device == Device::flex()
    }
    #[cfg(not(feature = "flex"))]
    {
        let _ = device;
        false
    }
}

/// Rows and columns of the matrices used to check arithmetic.
const SIDE: usize = 32;
/// Name of the values in errors of reading them.
const TEST: &str = "a test of arithmetic";

/// Checks that `device` multiplies matrices of `dtype` correctly. Some drivers claim to support a
/// type but compute wrong numbers in it.
///
/// # Errors
/// Returns [`ModelError::WrongArithmetic`] if a number is wrong, or [`ModelError::DeviceRead`] if
/// the device fails.
pub(crate) fn check_arithmetic(device: &Device, dtype: DType) -> Result<(), ModelError> {
    // Whole numbers whose products and sums every type represents exactly.
    let [a, b] = [0, 3].map(|seed| -> Vec<f32> {
        let value = |index: usize| [0.0, 1.0, 2.0, 1.0, 0.0, 3.0, 1.0][(index + seed) % 7];
        (0..SIDE * SIDE).map(value).collect()
    });
    let [on_device, other] = [&a, &b].map(|values| {
        let data = TensorData::new(values.clone(), [SIDE, SIDE]);
        Tensor::<2>::from_data(data, (device, dtype))
    });
    let product = Tensor::<2>::cast(on_device.matmul(other.transpose()), DType::F32);
    let found = product.try_into_data();
    let found = found.map_err(|error| ModelError::device_read(TEST, &error))?;
    let found = found.as_slice::<f32>();
    let found = found.map_err(|error| ModelError::device_read(TEST, &error))?;
    let pairs = a
        .chunks(SIDE)
        .flat_map(|x| b.chunks(SIDE).map(move |y| (x, y)));
    for ((x, y), &found) in pairs.zip(found) {
        let expected: f32 = x.iter().zip(y).map(|(x, y)| x * y).sum();
        if found.to_bits() != expected.to_bits() {
            return Err(ModelError::WrongArithmetic {
                device: format!("{device:?}"),
                dtype: format!("{dtype:?}").to_lowercase(),
                found,
                expected,
            });
        }
    }
    Ok(())
}

#[cfg(feature = "flex")]
fn open_flex(_spec: DeviceSpec) -> Result<Device, ModelError> {
    Ok(Device::flex())
}
#[cfg(not(feature = "flex"))]
fn open_flex(spec: DeviceSpec) -> Result<Device, ModelError> {
    Err(spec.needs("flex"))
}

#[cfg(any(feature = "cuda", feature = "rocm"))]
fn nth(
    spec: DeviceSpec,
    kind: burn::tensor::DeviceType,
    index: usize,
    driver: &str,
) -> Result<Device, ModelError> {
    let found = Device::enumerate(kind).into_vec();
    let n_found = found.len();
    found.into_iter().nth(index).ok_or_else(|| {
        spec.unavailable(format!(
            "found {n_found} such devices; is the driver ({driver}) installed?"
        ))
    })
}

#[cfg(feature = "cuda")]
fn open_cuda(spec: DeviceSpec, index: usize) -> Result<Device, ModelError> {
    nth(spec, burn::tensor::DeviceType::Cuda, index, "libcuda")
}
#[cfg(not(feature = "cuda"))]
fn open_cuda(spec: DeviceSpec, _index: usize) -> Result<Device, ModelError> {
    Err(spec.needs("cuda"))
}

#[cfg(feature = "rocm")]
fn open_rocm(spec: DeviceSpec, index: usize) -> Result<Device, ModelError> {
    nth(
        spec,
        burn::tensor::DeviceType::Rocm,
        index,
        "the HIP runtime",
    )
}
#[cfg(not(feature = "rocm"))]
fn open_rocm(spec: DeviceSpec, _index: usize) -> Result<Device, ModelError> {
    Err(spec.needs("rocm"))
}

#[cfg(feature = "wgpu")]
fn open_wgpu(spec: DeviceSpec) -> Result<Device, ModelError> {
    use std::sync::OnceLock;
    // The runtime can be set up only once per process, before the first operation.
    static OPENED: OnceLock<Result<Device, String>> = OnceLock::new();
    OPENED
        .get_or_init(|| Device::wgpu_options().init().map_err(|e| e.to_string()))
        .clone()
        .map_err(|reason| spec.unavailable(reason))
}
#[cfg(not(feature = "wgpu"))]
fn open_wgpu(spec: DeviceSpec) -> Result<Device, ModelError> {
    Err(spec.needs("wgpu"))
}

#[cfg(any(feature = "vulkan", feature = "metal"))]
fn first(spec: DeviceSpec, kind: burn::tensor::DeviceType) -> Result<Device, ModelError> {
    Device::enumerate(kind)
        .into_vec()
        .into_iter()
        .next()
        .ok_or_else(|| spec.unavailable("no adapter found; is a driver installed?"))
}

#[cfg(feature = "vulkan")]
fn open_vulkan(spec: DeviceSpec) -> Result<Device, ModelError> {
    first(spec, burn::tensor::DeviceType::Vulkan)
}
#[cfg(not(feature = "vulkan"))]
fn open_vulkan(spec: DeviceSpec) -> Result<Device, ModelError> {
    Err(spec.needs("vulkan"))
}

#[cfg(feature = "metal")]
fn open_metal(spec: DeviceSpec) -> Result<Device, ModelError> {
    first(spec, burn::tensor::DeviceType::Metal)
}
#[cfg(not(feature = "metal"))]
fn open_metal(spec: DeviceSpec) -> Result<Device, ModelError> {
    Err(spec.needs("metal"))
}

#[cfg(feature = "tch")]
#[expect(
    deprecated,
    reason = "offered as long as Burn has it, documented as deprecated"
)]
fn open_libtorch(_spec: DeviceSpec) -> Result<Device, ModelError> {
    Ok(Device::libtorch())
}
#[cfg(not(feature = "tch"))]
fn open_libtorch(spec: DeviceSpec) -> Result<Device, ModelError> {
    Err(spec.needs("tch"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_others_are_refused() {
        for name in [
            "flex", "cuda:0", "cuda:3", "rocm:1", "wgpu", "vulkan", "metal", "tch",
        ] {
            assert_eq!(name.parse::<DeviceSpec>().unwrap().to_string(), name);
        }
        for name in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "flex:0", "FLEX"] {
            assert!(matches!(
                name.parse::<DeviceSpec>(),
                Err(ModelError::UnknownDevice { found, .. }) if found == name
            ));
        }
    }

    #[test]
    #[cfg(not(feature = "cuda"))]
    fn a_backend_that_is_not_compiled_in_names_its_feature() {
        let error = DeviceSpec::Cuda(0).open().unwrap_err();
        assert!(matches!(
            error,
            ModelError::DeviceFeature {
                feature: "cuda",
                ..
            }
        ));
    }
}
