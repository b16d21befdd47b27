//! How quantised weights lie in memory: in panels of sixteen outputs, so that a register holds
//! one step of all of them, and nothing is added up across a register.
//!
//! A panel goes through the inputs in order. A line of 64 bytes has four bytes for each of its
//! outputs: four inputs as bytes, or eight as nibbles (the first four in the low ones). All are
//! unsigned: 128 or 8 more than the weight. Scales are `[panel, group, output]`. A last panel
//! that is not full has zeros in its place.

use crate::quantize::Bits;
use crate::scratch::Line;

/// Outputs of a panel.
pub(crate) const PANEL: usize = 16;

/// Shape of a quantised weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Rows of the weight.
    pub(crate) outputs: usize,
    /// Weights per output.
    pub(crate) inputs: usize,
    /// Inputs that share a scale.
    pub(crate) group: usize,
    /// Width of a weight.
    pub(crate) bits: Bits,
}

impl Layout {
    /// Inputs of a line.
    pub(crate) fn line_inputs(self) -> usize {
        match self.bits {
            Bits::Eight => 4,
            Bits::Four => 8,
        }
    }

    /// Lines of a panel.
    pub(crate) fn panel_lines(self) -> usize {
        self.inputs / self.line_inputs()
    }

    /// Scales of a panel.
    pub(crate) fn panel_scales(self) -> usize {
        self.inputs / self.group * PANEL
    }

    /// Lines of the weight.
    pub(crate) fn lines(self) -> usize {
        self.outputs.div_ceil(PANEL) * self.panel_lines()
    }

    /// Scales of the weight.
    pub(crate) fn scales(self) -> usize {
        self.outputs.div_ceil(PANEL) * self.panel_scales()
    }

    /// What is added to a weight to make it unsigned.
    fn offset(self) -> i32 {
        match self.bits {
            Bits::Eight => 128,
            Bits::Four => 8,
        }
    }

    /// Line, byte of it, and shift of a weight.
    fn place(self, row: usize, input: usize) -> (usize, usize, u32) {
        let in_line = input % self.line_inputs();
        let shift = if in_line < 4 { 0 } else { 4 };
        (input / self.line_inputs(), 4 * row + in_line % 4, shift)
    }

    /// Writes a weight into a panel of zeros.
    pub(crate) fn put(self, panel: &mut [Line], row: usize, input: usize, weight: i8) {
        let (line, byte, shift) = self.place(row, input);
        let unsigned = (i32::from(weight) + self.offset()) as u8;
        panel[line].0[byte] |= unsigned << shift;
    }

    /// Reads a weight from a panel.
    pub(crate) fn get(self, panel: &[Line], row: usize, input: usize) -> i32 {
        let (line, byte, shift) = self.place(row, input);
        let byte = panel[line].0[byte];
        let unsigned = match self.bits {
            Bits::Eight => byte,
            Bits::Four => byte >> shift & 15,
        };
        i32::from(unsigned) - self.offset()
    }
}
