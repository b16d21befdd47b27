//! Where goldens of training are checked.

use burn::tensor::Device;
use vispec_models::DeviceSpec;

/// The CPU and, where this build can use it and it is there, a GPU or Mesa's software Vulkan.
#[expect(clippy::print_stderr, reason = "says that it is skipped")]
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
