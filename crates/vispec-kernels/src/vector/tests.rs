//! Tests of each register type against plain arithmetic.

use super::*;

/// All checks, run with one register type.
struct Check;

impl Routine for Check {
    unsafe fn run<V: Vector>(self) {
        // SAFETY: upheld by the caller; all buffers are long enough.
        unsafe {
            arithmetic::<V>();
            exponential::<V>();
            transposition::<V>();
            parts::<V>();
        }
    }
}

#[test]
fn registers_agree_with_plain_arithmetic() {
    for isa in Isa::available() {
        // SAFETY: the instruction set is available.
        unsafe { dispatch(isa, Check) };
    }
}

/// Applies `operation` to every lane.
unsafe fn apply<V: Vector>(values: [f32; MAX_LANES], operation: impl Fn(V) -> V) -> Vec<f32> {
    let mut out = [0.0; MAX_LANES];
    // SAFETY: the buffers hold `MAX_LANES` floats.
    unsafe { operation(V::load(values.as_ptr())).store(out.as_mut_ptr()) };
    out[..V::LANES].to_vec()
}

unsafe fn arithmetic<V: Vector>() {
    let values: [f32; MAX_LANES] = std::array::from_fn(|lane| lane as f32 * 0.75 - 3.0);
    // SAFETY: upheld by the caller.
    unsafe {
        let two = || V::splat(2.0);
        type Pair<V> = (Box<dyn Fn(V) -> V>, fn(f32) -> f32);
        let pairs: [Pair<V>; 8] = [
            (Box::new(move |x| x.add(two())), |x| x + 2.0),
            (Box::new(move |x| x.sub(two())), |x| x - 2.0),
            (Box::new(move |x| x.mul(two())), |x| x * 2.0),
            (Box::new(move |x| x.div(two())), |x| x / 2.0),
            (Box::new(move |x| x.max(two())), |x| x.max(2.0)),
            (Box::new(move |x| x.min(two())), |x| x.min(2.0)),
            (Box::new(move |x| x.fused(two(), two())), |x| x * 2.0 + 2.0),
            (Box::new(move |x| x.round()), f32::round_ties_even),
        ];
        for (operation, expected) in pairs {
            let expected: Vec<f32> = values[..V::LANES].iter().copied().map(expected).collect();
            assert_eq!(apply::<V>(values, operation), expected);
        }
        let total = V::load(values.as_ptr()).total();
        assert!((total - values[..V::LANES].iter().sum::<f32>()).abs() < 1e-4);
        let nan = apply::<V>([f32::NAN; MAX_LANES], |x| x.max(two()).min(two()).exp());
        assert!(nan.iter().all(|nan| nan.is_nan()));
        let halves = [bf16::from_f32(1.5); MAX_LANES];
        assert!(
            apply::<V>(values, |_| bf16::load(halves.as_ptr()))
                .iter()
                .all(|x| x.to_bits() == 1.5_f32.to_bits())
        );
    }
}

unsafe fn exponential<V: Vector>() {
    for step in -8_700..8_800 {
        let x = step as f32 * 0.01;
        // SAFETY: upheld by the caller.
        let exp = f64::from(unsafe { apply::<V>([x; MAX_LANES], |x| x.exp()) }[0]);
        let expected = f64::from(x).exp();
        assert!(
            (exp / expected - 1.0).abs() < 3e-7,
            "exp({x}) is {exp}, not {expected}"
        );
    }
    for (x, low, high) in [
        (-1e4, 0.0, 1e-37),
        (f32::NEG_INFINITY, 0.0, 1e-37),
        (1e4, 1e38, 3.4e38),
    ] {
        // SAFETY: upheld by the caller.
        let exp = unsafe { apply::<V>([x; MAX_LANES], |x| x.exp()) }[0];
        assert!((low..high).contains(&exp), "exp({x}) is {exp}");
    }
}

unsafe fn transposition<V: Vector>() {
    let block: Vec<f32> = (0..64).map(|index| index as f32).collect();
    let mut turned = [f32::NAN; TURN * 9];
    // SAFETY: rows of 8 and columns of 8 at a stride of 9 are in range.
    unsafe {
        let rows = std::array::from_fn(|row| block.as_ptr().add(row * TURN));
        V::transpose(rows, turned.as_mut_ptr(), 9);
    }
    for (index, value) in block.iter().enumerate() {
        assert_eq!(
            turned[index % TURN * 9 + index / TURN].to_bits(),
            value.to_bits()
        );
    }
}

unsafe fn parts<V: Vector>() {
    let values = [1.0, 2.0, 3.0];
    let mut out = [9.0; 4];
    // SAFETY: three floats are readable and writable.
    unsafe { V::load_part(values.as_ptr(), 3).store_part(out.as_mut_ptr(), 3) };
    assert_eq!(
        out.map(f32::to_bits),
        [1.0_f32, 2.0, 3.0, 9.0].map(f32::to_bits)
    );
}
