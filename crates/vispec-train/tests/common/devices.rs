//! The devices on which goldens of training are checked.

use burn::tensor::Device;
use vispec_models::DeviceSpec;

/// Returns the CPU and, if the build supports it and it is available, a GPU or Mesa's software
/// Vulkan.
#[expect(clippy::print_stderr, reason = "reports that the GPU is skipped")]
pub(crate) fn devices() -> Vec<Device> {
    let mut devices = vec![DeviceSpec::Flex.open().unwrap()];
    if cfg!(feature = "wgpu") {
        match DeviceSpec::Wgpu.open() {
            Ok(device) => devices.push(device),
            Err(error) => eprintln!("on the CPU only: {error}"),
        }
    }
    devices
}
