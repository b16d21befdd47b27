//! Running estimates of event rates, from an initial guess and later observations.

/// Weight of the guess, in observations.
const GUESS_WEIGHT: f64 = 6.0;
/// Factor on the weight of an observation with each further observation of the same class.
const FORGETTING: f64 = 0.99;

/// Rates of a few classes of events.
#[derive(Clone, Debug)]
pub(crate) struct Rates {
    classes: Vec<Seen>,
    /// Observed and guessed hits over all classes; their ratio corrects the guesses.
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

    /// Returns the rate of `class`, given the guess without any observation.
    pub(crate) fn rate(&self, class: usize, guess: f64) -> f64 {
        let Seen { hits, trials } = self.classes[class];
        let guess = (guess * self.hits / self.guessed).min(1.0);
        (hits + GUESS_WEIGHT * guess) / (trials + GUESS_WEIGHT)
    }

    /// Records whether an event of `class` with the guess `guess` happened.
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
        // Guesses about other classes are corrected downwards, too.
        assert!(rates.rate(1, 0.7) < 0.2);
        for _ in 0..400 {
            rates.observe(0, 0.7, true);
        }
        assert!(rates.rate(0, 0.7) > 0.95);
        assert!(rates.rate(1, 0.7) > 0.7);
    }
}
