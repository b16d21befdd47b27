//! Conversions between tensors of Burn and of CubeCL.

use burn::tensor::{DType, Device, Int, Shape, Tensor, TensorData};
use burn_cubecl::cubecl::prelude::BufferArg;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{Cube, cubecl::ir::ElemType};

/// Returns whether the tensor is on a CubeCL device.
pub(crate) fn is_here<const D: usize>(tensor: &Tensor<D>) -> bool {
    tensor.clone().try_into_primitive::<Cube>().is_ok()
}

/// Converts a tensor on the stack's device to a contiguous CubeCL tensor.
pub(super) fn own<const D: usize>(tensor: Tensor<D>) -> CubeTensor {
    let tensor = tensor.try_into_primitive::<Cube>();
    into_contiguous(tensor.expect("a tensor of the device that the stack is on"))
}

/// Like [`own`], but for a tensor that is written in place: copies it if it has another owner.
pub(super) fn unique<const D: usize>(tensor: Tensor<D>) -> CubeTensor {
    let tensor = own(tensor);
    if tensor.can_mut() {
        tensor
    } else {
        tensor.copy()
    }
}

/// Like [`own`], but for integers.
pub(super) fn ints(tensor: Tensor<1, Int>) -> CubeTensor {
    let tensor = tensor.try_into_primitive::<Cube>();
    into_contiguous(tensor.expect("a tensor of the device that the stack is on"))
}

/// Uploads integers to a device.
pub(in crate::nn) fn upload(values: &[u32], device: &Device) -> Tensor<1, Int> {
    let data = TensorData::new(values.to_vec(), [values.len()]);
    Tensor::<1, Int>::from_data(data, (device, DType::U32))
}

/// Converts a CubeCL tensor to a Burn tensor.
pub(super) fn tensor<const D: usize>(cube: CubeTensor) -> Tensor<D> {
    Tensor::from_primitive::<Cube>(cube)
}

/// Allocates a tensor on the device of `like`, with its data type.
pub(super) fn empty<const D: usize>(like: &CubeTensor, dims: [usize; D]) -> CubeTensor {
    let shape = Shape::from(dims);
    let bytes = shape.num_elements() * like.dtype.size();
    let handle = like.client.empty(bytes);
    CubeTensor::new_contiguous(
        like.client.clone(),
        like.device.clone(),
        shape,
        handle,
        like.dtype,
    )
}

/// Returns the kernel argument for a tensor, which stays alive.
pub(super) fn argument(tensor: &CubeTensor) -> BufferArg {
    tensor.clone().into_buffer_arg()
}

/// Returns the element type for kernels.
pub(super) fn element(dtype: DType) -> ElemType {
    burn::backend::cubecl::dtype_to_storage_type(dtype)
}

/// Converts a size to the 32-bit integers of kernels.
pub(super) fn number(value: usize) -> u32 {
    u32::try_from(value).expect("sizes of a pass fit 32 bits")
}
