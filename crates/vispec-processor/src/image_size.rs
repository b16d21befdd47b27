//! Height and width as named fields, so that they cannot be swapped.

/// The size of an image or of a grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ImageSize {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl ImageSize {
    /// Creates a size from rows and columns, in this order.
    #[must_use]
    pub const fn new(height: usize, width: usize) -> Self {
        Self { height, width }
    }

    /// Creates the size of a square.
    #[must_use]
    pub const fn square(side: usize) -> Self {
        Self {
            height: side,
            width: side,
        }
    }

    /// Returns rows times columns.
    #[must_use]
    pub const fn area(self) -> usize {
        self.height * self.width
    }
}

impl std::fmt::Display for ImageSize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} high and {} wide", self.height, self.width)
    }
}
