//! Tables: their contents (`all`) and their output formats ([`Table`]).

mod build;
mod figures;
mod paper_form;
mod predictions;
mod table;

use crate::series::Series;

pub(crate) use build::all;
pub use build::{DEPTHS_NOTE, depth_cells};
pub(crate) use figures::figures;
pub(crate) use paper_form::{paper_reference, tasks_in_order};
pub(crate) use predictions::predictions;
pub use table::Table;
pub(crate) use table::escape_html;

/// Formats a number with two decimals, or as a dash if it is not a number.
pub(crate) fn two(value: f64) -> String {
    if value.is_finite() {
        format!("{value:.2}")
    } else {
        "-".to_owned()
    }
}

/// Formats a share as a percentage with one decimal.
pub(crate) fn percent(share: f64) -> String {
    if share.is_finite() {
        format!("{:.1} %", share * 100.0)
    } else {
        "-".to_owned()
    }
}

/// Returns the first three cells of a row.
fn row_start(series: &Series) -> Vec<String> {
    vec![
        series.key.target_name().to_owned(),
        format!("{}", series.key.temperature()),
        series.label.clone(),
    ]
}
