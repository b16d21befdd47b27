//! Toy targets and drafters for tests and examples (feature `test-util`).
//!
//! [`TableModel`] is a target whose next-token distribution is a function of the preceding tokens.
//! The drafters propose arbitrary trees, to show that they cannot change the output.

mod drafters;
mod faulty;
mod retrieve_indices;
mod table_draft;
mod table_model;

pub use drafters::{CheckingDrafter, ContinuationDrafter, FixedTreeDrafter, RandomDrafter};
pub use faulty::{Fault, FaultyDrafter};
pub use retrieve_indices::RetrieveIndices;
pub use table_draft::TableDraft;
pub use table_model::{TableCache, TableFeatures, TableModel};
