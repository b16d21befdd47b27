//! The small operations between matrix products: normalisation, gating, rotary embedding.

use crate::isa::Isa;

/// See [`crate::Kernels::rms_norm`].
pub(crate) fn rms_norm(_isa: Isa, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let hidden = weight.len();
    assert_eq!(x.len(), out.len(), "rms_norm: `out` must be as long as `x`");
    assert!(
        hidden > 0 && x.len().is_multiple_of(hidden),
        "rms_norm: `weight` must divide the rows"
    );
    for (x, out) in x.chunks_exact(hidden).zip(out.chunks_exact_mut(hidden)) {
        let mean = x.iter().map(|x| x * x).sum::<f32>() / hidden as f32;
        let scale = 1.0 / (mean + eps).sqrt();
        for ((x, w), out) in x.iter().zip(weight).zip(out) {
            *out = x * scale * w;
        }
    }
}

/// See [`crate::Kernels::silu_mul`].
pub(crate) fn silu_mul(_isa: Isa, gate: &[f32], up: &[f32], out: &mut [f32]) {
    assert_eq!(
        gate.len(),
        up.len(),
        "silu_mul: `up` must be as long as `gate`"
    );
    assert_eq!(
        gate.len(),
        out.len(),
        "silu_mul: `out` must be as long as `gate`"
    );
    for ((gate, up), out) in gate.iter().zip(up).zip(out) {
        *out = gate / (1.0 + (-gate).exp()) * up;
    }
}

/// See [`crate::Kernels::rotary`].
pub(crate) fn rotary(_isa: Isa, x: &mut [f32], cos: &[f32], sin: &[f32], head_dim: usize) {
    assert!(
        head_dim > 0 && head_dim.is_multiple_of(2),
        "rotary: `head_dim` must be even"
    );
    let half = head_dim / 2;
    assert_eq!(
        cos.len(),
        sin.len(),
        "rotary: `sin` must be as long as `cos`"
    );
    assert_eq!(
        cos.len() % half,
        0,
        "rotary: `cos` must be [rows, head_dim / 2]"
    );
    let rows = cos.len() / half;
    if rows == 0 {
        assert!(x.is_empty(), "rotary: `x` has rows without angles");
        return;
    }
    assert_eq!(
        x.len() % (rows * head_dim),
        0,
        "rotary: `x` must be [rows, heads, head_dim]"
    );
    let row_len = x.len() / rows;
    for (row, x) in x.chunks_exact_mut(row_len.max(1)).enumerate() {
        let (cos, sin) = (&cos[row * half..][..half], &sin[row * half..][..half]);
        for head in x.chunks_exact_mut(head_dim) {
            let (low, high) = head.split_at_mut(half);
            for (((a, b), cos), sin) in low.iter_mut().zip(high).zip(cos).zip(sin) {
                (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
            }
        }
    }
}
