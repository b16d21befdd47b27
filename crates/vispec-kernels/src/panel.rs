//! Memory layout of quantised weights: panels of sixteen outputs, so that a register holds one step
//! of all outputs of a panel, and nothing is summed across a register.
//!
//! A panel goes through the inputs in order. A line of 64 bytes has four bytes for each output of
//! the panel: four inputs as bytes, or eight inputs as nibbles (the first four in the low nibbles).
//! All are unsigned: the weight plus 128 or plus 8. Scales are `[panel, group, output]`. A partial
//! last panel is padded with zeros.

use half::bf16;

use crate::scratch::Line;

/// From this value on, adjacent floats differ by a whole number.
pub(crate) const INTEGERS: f32 = 12_582_912.0;
/// Outputs per panel.
pub(crate) const PANEL: usize = 16;

/// Width of a quantised weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bits {
    /// Signed bytes from -127 to 127.
    Eight,
    /// Nibbles for -8 to 7.
    Four,
}

impl Bits {
    /// Returns the offset that makes a weight unsigned.
    pub(crate) fn offset(self) -> f32 {
        match self {
            Self::Eight => 128.0,
            Self::Four => 8.0,
        }
    }
}

/// Shape of a quantised weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Rows of the weight.
    pub(crate) outputs: usize,
    /// Weights per output.
    pub(crate) inputs: usize,
    /// Number of inputs that share a scale.
    pub(crate) group: usize,
    /// Width of a weight in bits.
    pub(crate) bits: Bits,
}

impl Layout {
    /// Returns the number of inputs per line.
    pub(crate) fn line_inputs(self) -> usize {
        match self.bits {
            Bits::Eight => 4,
            Bits::Four => 8,
        }
    }

    /// Returns the number of lines per panel.
    pub(crate) fn panel_lines(self) -> usize {
        self.inputs / self.line_inputs()
    }

    /// Returns the number of scales per panel.
    pub(crate) fn panel_scales(self) -> usize {
        self.inputs / self.group * PANEL
    }

    /// Returns the number of lines of the weight.
    pub(crate) fn lines(self) -> usize {
        self.outputs.div_ceil(PANEL) * self.panel_lines()
    }

    /// Returns the number of scales of the weight.
    pub(crate) fn scales(self) -> usize {
        self.outputs.div_ceil(PANEL) * self.panel_scales()
    }

    /// Writes a row of unsigned weights into a panel.
    pub(crate) fn put(self, panel: &mut [Line], row: usize, unsigned: &[u8]) {
        let own = 4 * row..4 * row + 4;
        for (line, unsigned) in panel
            .iter_mut()
            .zip(unsigned.chunks_exact(self.line_inputs()))
        {
            let (low, high) = unsigned.split_at(4);
            let bytes = &mut line.0[own.clone()];
            bytes.copy_from_slice(low);
            for (byte, high) in bytes.iter_mut().zip(high) {
                *byte |= high << 4;
            }
        }
    }

    /// Reads a weight from a panel.
    pub(crate) fn get(self, panel: &[Line], row: usize, input: usize) -> f32 {
        let in_line = input % self.line_inputs();
        let byte = panel[input / self.line_inputs()].0[4 * row + in_line % 4];
        let unsigned = match (self.bits, in_line) {
            (Bits::Eight, _) => byte,
            (Bits::Four, 0..4) => byte & 15,
            (Bits::Four, _) => byte >> 4,
        };
        f32::from(unsigned) - self.bits.offset()
    }
}

/// A borrowed [`QuantizedWeight`](crate::QuantizedWeight).
#[derive(Clone, Copy, Debug)]
pub struct QuantizedPanels<'a> {
    /// [`Layout::lines`] lines.
    pub(crate) values: &'a [Line],
    /// [`Layout::scales`] scales.
    pub(crate) scales: &'a [bf16],
    pub(crate) layout: Layout,
}
