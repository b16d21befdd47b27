//! Running estimates of how often something happens, from a guess and what was seen since.

/// How many observations the guess weighs as much as.
const GUESS_WEIGHT: f64 = 6.0;
/// What an observation counts for one observation of the same class later.
const FORGETTING: f64 = 0.99;

/// Rates of a few classes of events.
#[derive(Clone, Debug)]
pub(crate) struct Rates {
    classes: Vec<Seen>,
    /// Hits seen and hits that had been guessed, over all classes: whether guesses can be trusted.
    hits: f64,
    guessed: f64,
}

#[derive(Clone, Copy, Default, Debug)]
struct Seen {
    hits: f64,
    trials: f64,
}

impl Rates {
    pub(crate) fn new(n_classes: usize) -> Self {
        Self {
            classes: vec![Seen::default(); n_classes],
            hits: GUESS_WEIGHT,
            guessed: GUESS_WEIGHT,
        }
    }

    /// The rate of `class`, given what one would guess without having seen anything.
    pub(crate) fn rate(&self, class: usize, guess: f64) -> f64 {
        let Seen { hits, trials } = self.classes[class];
        let guess = (guess * self.hits / self.guessed).min(1.0);
        (hits + GUESS_WEIGHT * guess) / (trials + GUESS_WEIGHT)
    }

    /// Notes whether an event of `class` happened, whose guess was `guess`.
    pub(crate) fn observe(&mut self, class: usize, guess: f64, hit: bool) {
        let hit = f64::from(u8::from(hit));
        let seen = &mut self.classes[class];
        seen.hits = seen.hits * FORGETTING + hit;
        seen.trials = seen.trials * FORGETTING + 1.0;
        self.hits = self.hits * FORGETTING + hit;
        self.guessed = self.guessed * FORGETTING + guess;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_with_the_guess_and_follows_what_is_seen() {
        let mut rates = Rates::new(2);
        assert!((rates.rate(0, 0.7) - 0.7).abs() < 1e-12);
        for _ in 0..400 {
            rates.observe(0, 0.7, false);
        }
        assert!(rates.rate(0, 0.7) < 0.05);
        // Guesses about other classes are worth less, too.
        assert!(rates.rate(1, 0.7) < 0.2);
        for _ in 0..400 {
            rates.observe(0, 0.7, true);
        }
        assert!(rates.rate(0, 0.7) > 0.95);
        assert!(rates.rate(1, 0.7) > 0.7);
    }
}
