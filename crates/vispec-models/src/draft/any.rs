//! A drafter of any kind, so that sequences with different drafters can share passes.

use std::sync::Arc;

use burn::tensor::Tensor;
use vispec_core::{
    BoxError, Drafter, DynamicTreeDrafter, Idle, KnownPicks, NoDraft, PassLoad,
    PromptLookupDrafter, Proposal, SuffixStore, TokenId,
};

use super::medusa::MedusaSession;
use super::neural::NeuralDraftSession;
use crate::prompt::EncodedPrompt;
use crate::target::VlmTarget;

/// A drafter of one of the kinds that [`Engine`](crate::Engine) provides, or a custom one.
pub enum AnyDrafter {
    /// Plain decoding.
    None(NoDraft),
    /// Prompt lookup.
    PromptLookup(PromptLookupDrafter),
    /// ViSpec, EAGLE-2 or EAGLE-3.
    Neural(Box<DynamicTreeDrafter<VlmTarget, NeuralDraftSession>>),
    /// Medusa.
    Medusa(Box<DynamicTreeDrafter<VlmTarget, MedusaSession>>),
    /// Any other drafter.
    Custom(Box<dyn Drafter<VlmTarget> + Send>),
}

impl std::fmt::Debug for AnyDrafter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("AnyDrafter").field(&self.name()).finish()
    }
}

macro_rules! each {
    ($drafter:expr, $inner:ident => $does:expr) => {
        match $drafter {
            AnyDrafter::None($inner) => $does,
            AnyDrafter::PromptLookup($inner) => $does,
            AnyDrafter::Neural($inner) => $does,
            AnyDrafter::Medusa($inner) => $does,
            AnyDrafter::Custom($inner) => $does,
        }
    };
}

impl AnyDrafter {
    /// Adds prompt lookup to a drafter that has a network: tokens found by lookup compete for
    /// places in the tree with those that the network scores. Other drafters are returned
    /// unchanged.
    pub(crate) fn with_lookup(self) -> Self {
        match self {
            Self::Neural(drafter) => Self::Neural(Box::new(drafter.with_lookup())),
            Self::Medusa(drafter) => Self::Medusa(Box::new(drafter.with_lookup())),
            other => other,
        }
    }

    /// Makes a drafter that uses lookup also search earlier answers. Drafters without lookup are
    /// returned unchanged.
    #[must_use]
    pub fn with_store(self, store: Arc<SuffixStore>) -> Self {
        match self {
            Self::PromptLookup(drafter) => Self::PromptLookup(drafter.with_store(store)),
            Self::Neural(drafter) => Self::Neural(Box::new(drafter.with_store(store))),
            Self::Medusa(drafter) => Self::Medusa(Box::new(drafter.with_store(store))),
            other => other,
        }
    }
}

impl Drafter<VlmTarget> for AnyDrafter {
    fn name(&self) -> &str {
        each!(self, inner => Drafter::<VlmTarget>::name(inner))
    }

    fn note_picks(&mut self, picks: Option<KnownPicks>) {
        each!(self, inner => Drafter::<VlmTarget>::note_picks(inner, picks));
    }

    fn note_load(&mut self, load: PassLoad) {
        each!(self, inner => Drafter::<VlmTarget>::note_load(inner, load));
    }

    fn begin(
        &mut self,
        prompt: &EncodedPrompt,
        features: Tensor<2>,
        next: TokenId,
    ) -> Result<Proposal, BoxError> {
        each!(self, inner => Drafter::<VlmTarget>::begin(inner, prompt, features, next))
    }

    fn advance(
        &mut self,
        accepted: &[TokenId],
        features: Tensor<2>,
        next: TokenId,
    ) -> Result<Proposal, BoxError> {
        each!(self, inner => Drafter::<VlmTarget>::advance(inner, accepted, features, next))
    }

    fn grow(&mut self) -> Result<Proposal, BoxError> {
        each!(self, inner => Drafter::<VlmTarget>::grow(inner))
    }

    /// Drafters that use the same network share its passes; the others grow their trees separately.
    fn grow_together(drafters: &mut [&mut Self]) -> Vec<Result<Proposal, BoxError>> {
        let n_drafters = drafters.len();
        let mut none = Kind::default();
        let mut lookup = Kind::default();
        let mut neural = Kind::default();
        let mut medusa = Kind::default();
        let mut custom = Kind::default();
        for (index, drafter) in drafters.iter_mut().enumerate() {
            match drafter {
                Self::None(inner) => none.push(index, inner),
                Self::PromptLookup(inner) => lookup.push(index, inner),
                Self::Neural(inner) => neural.push(index, &mut **inner),
                Self::Medusa(inner) => medusa.push(index, &mut **inner),
                Self::Custom(inner) => custom.push(index, inner),
            }
        }
        let mut results = Vec::from_iter((0..n_drafters).map(|_| Ok(Proposal::Growing)));
        none.grow_into(&mut results);
        lookup.grow_into(&mut results);
        neural.grow_into(&mut results);
        medusa.grow_into(&mut results);
        custom.grow_into(&mut results);
        results
    }

    fn idle(&self) -> Idle {
        each!(self, inner => Drafter::<VlmTarget>::idle(inner))
    }
}

/// Drafters of one kind, with their indices among all drafters.
struct Kind<'a, D> {
    places: Vec<usize>,
    drafters: Vec<&'a mut D>,
}

impl<D> Default for Kind<'_, D> {
    fn default() -> Self {
        Self {
            places: Vec::new(),
            drafters: Vec::new(),
        }
    }
}

impl<'a, D: Drafter<VlmTarget>> Kind<'a, D> {
    fn push(&mut self, place: usize, drafter: &'a mut D) {
        self.places.push(place);
        self.drafters.push(drafter);
    }

    fn grow_into(mut self, results: &mut [Result<Proposal, BoxError>]) {
        if self.drafters.is_empty() {
            return;
        }
        let mut grown = D::grow_together(&mut self.drafters).into_iter();
        for place in self.places {
            let result = grown.next();
            results[place] = result.unwrap_or_else(|| Err("the drafter returned no tree".into()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Grows the given number of times and then panics.
    struct Broken(usize);

    impl Drafter<VlmTarget> for Broken {
        fn name(&self) -> &str {
            "broken"
        }

        fn begin(
            &mut self,
            _: &EncodedPrompt,
            _: Tensor<2>,
            _: TokenId,
        ) -> Result<Proposal, BoxError> {
            Ok(Proposal::Growing)
        }

        fn advance(
            &mut self,
            _: &[TokenId],
            _: Tensor<2>,
            _: TokenId,
        ) -> Result<Proposal, BoxError> {
            Ok(Proposal::Growing)
        }

        fn grow(&mut self) -> Result<Proposal, BoxError> {
            assert!(self.0 > 0, "as told");
            self.0 -= 1;
            Ok(Proposal::Growing)
        }
    }

    #[test]
    fn results_stay_with_their_drafters_and_a_panic_with_its_own() {
        let custom = |left| AnyDrafter::Custom(Box::new(Broken(left)));
        let mut all = [custom(1), AnyDrafter::None(NoDraft), custom(0), custom(2)];
        let mut growing = Vec::from_iter(all.iter_mut());
        let results = AnyDrafter::grow_together(&mut growing);
        assert_eq!(results.len(), 4);
        assert!(matches!(results[0], Ok(Proposal::Growing)));
        let nothing_grows = results[1].as_ref().unwrap_err().to_string();
        assert_eq!(nothing_grows, "no tree is growing");
        let panicked = results[2].as_ref().unwrap_err().to_string();
        assert!(panicked.contains("as told"), "{panicked}");
        assert!(matches!(results[3], Ok(Proposal::Growing)));
    }

    #[test]
    fn drafters_can_go_to_another_thread() {
        fn check<T: Send>() {}
        check::<AnyDrafter>();
    }
}
