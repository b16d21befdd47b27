//! Comparing bit for bit.

/// The bits of some numbers, which tell apart what `==` does not.
#[derive(Clone, PartialEq, Eq)]
pub struct Bits(Vec<u32>);

impl Bits {
    pub fn of(values: &[f32]) -> Self {
        Self(values.iter().map(|value| value.to_bits()).collect())
    }
}

impl std::fmt::Debug for Bits {
    /// Not the numbers: there are too many.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} numbers", self.0.len())
    }
}
