//! Whether an answer may be drafted, and the reasons why drafting was off or changed.

use std::fmt;
use std::str::FromStr;

use crate::Idle;

/// Whether an answer is drafted. The setting does not change its tokens.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
pub enum Speculation {
    /// The answer is decoded plainly.
    Off,
    /// The answer is drafted if a drafter is available, and decoded plainly otherwise.
    #[default]
    On,
    /// The answer is drafted, or the request is refused if no drafter is available.
    Required,
}

impl Speculation {
    /// Returns the name that users type.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::On => "on",
            Self::Required => "required",
        }
    }
}

impl FromStr for Speculation {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        [Self::Off, Self::On, Self::Required]
            .into_iter()
            .find(|speculation| speculation.as_str() == name)
            .ok_or_else(|| format!("{name:?}, expected off, on or required"))
    }
}

/// Why drafting was off for an answer, or changed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SpeculationReason {
    /// Plain decoding was requested.
    NotWanted,
    /// The target has no drafter.
    NoDrafter,
    /// The draft has no vision: it sees only placeholders for images and videos.
    ImagesUnseen,
    /// Most cycles verified only the root.
    Idle(Idle),
}

impl SpeculationReason {
    /// All reasons. [`Idle::LastToken`] is not among them: the last token of an answer is never
    /// drafted for.
    pub const ALL: [Self; 7] = [
        Self::NotWanted,
        Self::NoDrafter,
        Self::ImagesUnseen,
        Self::Idle(Idle::NothingProposed),
        Self::Idle(Idle::NotWorthwhile),
        Self::Idle(Idle::Paused),
        Self::Idle(Idle::TooRisky),
    ];

    /// Returns the name for reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotWanted => "not_wanted",
            Self::NoDrafter => "no_drafter",
            Self::ImagesUnseen => "images_unseen",
            Self::Idle(idle) => idle.as_str(),
        }
    }

    /// Returns the reason as a clause that continues a sentence.
    #[must_use]
    pub fn because(self) -> &'static str {
        match self {
            Self::NotWanted => "plain decoding was requested",
            Self::NoDrafter => "there is no draft for this target, or its use is disabled",
            Self::ImagesUnseen => {
                "the draft has no vision and reads a placeholder for every image token"
            }
            Self::Idle(Idle::Paused) => "the draft is rarely right here, plain decoding is faster",
            Self::Idle(Idle::TooRisky) => {
                "wrong guesses could cost more time than this answer may lose so far"
            }
            Self::Idle(Idle::NotWorthwhile) => {
                "no guess is likely enough to be worth verifying here"
            }
            Self::Idle(Idle::NothingProposed | Idle::LastToken) => "there was nothing to propose",
        }
    }
}

impl fmt::Display for SpeculationReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self {
            Self::ImagesUnseen => "changed",
            Self::Idle(Idle::Paused) => "paused",
            Self::Idle(Idle::TooRisky) => "held back",
            Self::NotWanted | Self::NoDrafter | Self::Idle(_) => "off",
        };
        write!(f, "speculation {what}: {}", self.because())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for speculation in [Speculation::Off, Speculation::On, Speculation::Required] {
            assert_eq!(speculation.as_str().parse(), Ok(speculation));
        }
        let error = "maybe".parse::<Speculation>().unwrap_err();
        assert_eq!(error, "\"maybe\", expected off, on or required");
    }

    #[test]
    fn every_reason_has_a_name_of_its_own() {
        let names = SpeculationReason::ALL.map(SpeculationReason::as_str);
        let distinct = std::collections::HashSet::from(names);
        assert_eq!(distinct.len(), SpeculationReason::ALL.len());
        let reasons = Idle::ALL.map(SpeculationReason::Idle);
        let told = reasons
            .iter()
            .filter(|reason| SpeculationReason::ALL.contains(reason));
        assert_eq!(told.count(), Idle::ALL.len() - 1);
    }
}
