//! Bitwise comparison.

/// The bits of some numbers, which also distinguish values that `==` considers equal.
#[derive(Clone, PartialEq, Eq)]
pub struct Bits(Vec<u32>);

impl Bits {
    pub fn of(values: &[f32]) -> Self {
        Self(values.iter().map(|value| value.to_bits()).collect())
    }
}

impl std::fmt::Debug for Bits {
    /// Prints only the count, since there are too many numbers.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} numbers", self.0.len())
    }
}
