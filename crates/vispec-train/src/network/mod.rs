//! Trainable modules of drafts, and of the language models and vision towers of targets.
//!
//! The inference modules in vispec-models use kernels without gradients and keep caches. The
//! modules here run over whole samples, with several passes in one graph: on the CPU with training
//! kernels, elsewhere with Burn's own operations. Both use the same checkpoints, and tests compare
//! their outputs.

mod adaptor;
mod attention;
mod build;
mod cpu;
mod draft;
mod drafted;
mod eagle3;
mod images;
mod layers;
mod medusa;
mod parameters;
pub(crate) mod path;
mod rows;
mod target;
mod tower;

pub use build::{DraftShape, NetworkKind};
pub use draft::{DraftInputs, DraftNetwork};
pub use drafted::{DraftedPass, DraftedRows, Supervision};
pub use eagle3::Eagle3Network;
pub use medusa::MedusaNetwork;
pub use parameters::{HostTensor, Parameters, Trainable};
pub use rows::DraftRows;
pub(crate) use rows::indices;
pub use target::{TargetInputs, TargetNetwork, TargetShape};
pub use tower::{Pictures, SeeingNetwork, TowerShape};

use burn::module::{Module, ModuleMapper, ModuleVisitor};

/// A trainable draft.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "there is one of it")]
pub enum Network {
    /// ViSpec or EAGLE-2.
    Draft(DraftNetwork),
    /// EAGLE-3.
    Eagle3(Eagle3Network),
    /// Medusa heads.
    Medusa(MedusaNetwork),
}

impl Trainable for Network {
    fn visit(&self, visitor: &mut impl ModuleVisitor) {
        match self {
            Self::Draft(network) => network.visit(visitor),
            Self::Eagle3(network) => network.visit(visitor),
            Self::Medusa(network) => network.visit(visitor),
        }
    }

    fn map(self, mapper: &mut impl ModuleMapper) -> Self {
        match self {
            Self::Draft(network) => Self::Draft(network.map(mapper)),
            Self::Eagle3(network) => Self::Eagle3(network.map(mapper)),
            Self::Medusa(network) => Self::Medusa(network.map(mapper)),
        }
    }
}

impl Trainable for TargetNetwork {
    fn visit(&self, visitor: &mut impl ModuleVisitor) {
        Module::visit(self, visitor);
    }

    fn map(self, mapper: &mut impl ModuleMapper) -> Self {
        Module::map(self, mapper)
    }
}

impl Trainable for SeeingNetwork {
    fn visit(&self, visitor: &mut impl ModuleVisitor) {
        Module::visit(self, visitor);
    }

    fn map(self, mapper: &mut impl ModuleMapper) -> Self {
        Module::map(self, mapper)
    }
}
