//! A drafter that fails.

use crate::{BoxError, Drafter, NodeId, Proposal, TargetModel, TokenId, TokenTree};

/// Ways in which a plug-in can fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The drafter returns an error.
    Error,
    /// The drafter panics.
    Panic,
    /// The drafter reports a growing tree and panics when it should grow it.
    PanicWhileGrowing,
    /// The root of the tree is not the last token.
    WrongRoot,
    /// The drafter proposes a token outside every vocabulary.
    NoSuchToken,
}

/// Proposes nothing in two cycles and fails in the third.
#[derive(Debug)]
pub struct FaultyDrafter {
    fault: Fault,
    cycles: usize,
}

impl FaultyDrafter {
    /// Creates a drafter with this fault.
    #[must_use]
    pub fn new(fault: Fault) -> Self {
        Self { fault, cycles: 0 }
    }

    fn propose(&mut self, next: TokenId) -> Result<Proposal, BoxError> {
        self.cycles += 1;
        if self.cycles < 3 {
            return Ok(TokenTree::new(next).into());
        }
        match self.fault {
            Fault::Error => Err("no more trees".into()),
            Fault::Panic => panic!("a broken drafter"),
            Fault::PanicWhileGrowing => Ok(Proposal::Growing),
            Fault::WrongRoot => Ok(TokenTree::new(next + 1).into()),
            Fault::NoSuchToken => {
                let mut tree = TokenTree::new(next);
                tree.push(NodeId::ROOT, TokenId::MAX)?;
                Ok(tree.into())
            }
        }
    }
}

impl<T: TargetModel> Drafter<T> for FaultyDrafter {
    fn name(&self) -> &str {
        "faulty"
    }

    fn begin(
        &mut self,
        _prompt: &T::Prompt,
        _features: T::Features,
        next: TokenId,
    ) -> Result<Proposal, BoxError> {
        self.propose(next)
    }

    fn advance(
        &mut self,
        _accepted: &[TokenId],
        _features: T::Features,
        next: TokenId,
    ) -> Result<Proposal, BoxError> {
        self.propose(next)
    }

    fn grow(&mut self) -> Result<Proposal, BoxError> {
        panic!("a drafter that breaks while it grows")
    }
}
