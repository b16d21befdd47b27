//! Tables: what is in them (`all`) and how they are written ([`Table`]).

mod build;
mod figures;
mod paper_form;
mod predictions;
mod table;

pub(crate) use build::all;
pub(crate) use figures::figures;
pub(crate) use paper_form::{paper_reference, tasks_in_order};
pub(crate) use predictions::predictions;
pub use table::Table;
pub(crate) use table::escape_html;

/// A number with two decimals, or a dash if there is none.
pub(crate) fn two(value: f64) -> String {
    if value.is_finite() {
        format!("{value:.2}")
    } else {
        "-".to_owned()
    }
}

/// A share as a percentage with one decimal.
pub(crate) fn percent(share: f64) -> String {
    if share.is_finite() {
        format!("{:.1} %", share * 100.0)
    } else {
        "-".to_owned()
    }
}
