//! Packing of rows of `x`: padded with zeros to whole steps, in the order of the widened weights.

use half::bf16;

/// Copies the elements in their original order.
pub(crate) fn in_order(x: &[f32], packed: &mut [f32]) {
    let (body, padding) = packed.split_at_mut(x.len());
    body.copy_from_slice(x);
    padding.fill(0.0);
}

/// Writes the even elements, then the odd ones, in each block of `2 * LANES`.
pub(crate) fn even_odd<const LANES: usize>(x: &[f32], packed: &mut [f32]) {
    let mut blocks = packed.chunks_exact_mut(2 * LANES);
    let mut inputs = x.chunks_exact(2 * LANES);
    for (x, block) in inputs.by_ref().zip(blocks.by_ref()) {
        let (even, odd) = block.split_at_mut(LANES);
        for lane in 0..LANES {
            even[lane] = x[2 * lane];
            odd[lane] = x[2 * lane + 1];
        }
    }
    let rest = inputs.remainder();
    if let Some(block) = (!rest.is_empty()).then(|| blocks.next()).flatten() {
        block.fill(0.0);
        for (index, &x) in rest.iter().enumerate() {
            block[index % 2 * LANES + index / 2] = x;
        }
    }
}

/// Copies the elements in their original order, rounded to the nearest bf16 (ties to even).
#[cfg_attr(
    not(target_arch = "x86_64"),
    allow(dead_code, reason = "for AVX-512 BF16")
)]
pub(crate) fn rounded(x: &[f32], packed: &mut [bf16]) {
    let (body, padding) = packed.split_at_mut(x.len());
    for (packed, &x) in body.iter_mut().zip(x) {
        *packed = bf16::from_f32(x);
    }
    padding.fill(bf16::ZERO);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_odd_separates_and_pads() {
        let x: Vec<f32> = (1..=11).map(|x| x as f32).collect();
        let mut packed = [f32::NAN; 16];
        even_odd::<4>(&x, &mut packed);
        assert_eq!(packed[..8], [1.0, 3.0, 5.0, 7.0, 2.0, 4.0, 6.0, 8.0]);
        assert_eq!(packed[8..], [9.0, 11.0, 0.0, 0.0, 10.0, 0.0, 0.0, 0.0]);
    }
}
