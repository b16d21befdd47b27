//! Tensors to CubeCL's and back.

use burn::tensor::{DType, Device, Int, Shape, Tensor, TensorData};
use burn_cubecl::cubecl::prelude::BufferArg;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{Cube, cubecl::ir::ElemType};

/// Whether the tensor is CubeCL's.
pub(crate) fn is_here<const D: usize>(tensor: &Tensor<D>) -> bool {
    tensor.clone().try_into_primitive::<Cube>().is_ok()
}

/// A tensor that was made by this stack, or for it, as CubeCL has it, one element behind the other.
pub(super) fn own<const D: usize>(tensor: Tensor<D>) -> CubeTensor {
    let tensor = tensor.try_into_primitive::<Cube>();
    into_contiguous(tensor.expect("a tensor of the device that the stack is on"))
}

/// The same for a tensor that is written in place: a copy if somebody else has it, too.
pub(super) fn unique<const D: usize>(tensor: Tensor<D>) -> CubeTensor {
    let tensor = own(tensor);
    if tensor.can_mut() {
        tensor
    } else {
        tensor.copy()
    }
}

/// The same for whole numbers.
pub(super) fn ints(tensor: Tensor<1, Int>) -> CubeTensor {
    let tensor = tensor.try_into_primitive::<Cube>();
    into_contiguous(tensor.expect("a tensor of the device that the stack is on"))
}

/// Whole numbers on the device of the tensor.
pub(in crate::nn) fn upload(values: &[u32], device: &Device) -> Tensor<1, Int> {
    let data = TensorData::new(values.to_vec(), [values.len()]);
    Tensor::<1, Int>::from_data(data, (device, DType::U32))
}

/// Back to Burn.
pub(super) fn tensor<const D: usize>(cube: CubeTensor) -> Tensor<D> {
    Tensor::from_primitive::<Cube>(cube)
}

/// Room for a result beside `like`, of its type.
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

/// What a kernel is given of the tensor, which stays alive.
pub(super) fn argument(tensor: &CubeTensor) -> BufferArg {
    tensor.clone().into_buffer_arg()
}

/// The type as kernels take it.
pub(super) fn element(dtype: DType) -> ElemType {
    burn::backend::cubecl::dtype_to_storage_type(dtype)
}

/// Numbers of kernels have 32 bits.
pub(super) fn number(value: usize) -> u32 {
    u32::try_from(value).expect("sizes of a pass fit 32 bits")
}
