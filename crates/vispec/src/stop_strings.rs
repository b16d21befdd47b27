//! Detection of stop strings in text that arrives in pieces.

/// Result of scanning a piece of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scanned {
    /// Text in which no stop string can begin any more; often empty.
    Text(String),
    /// The text before a stop string that is now complete. No more text may follow.
    Stopped(String),
}

/// Holds back text for as long as it may be the beginning of a stop string.
///
/// If there are several stop strings, the one that is completed first counts; among those, the
/// longest. So the result does not depend on how the text is cut into pieces.
#[derive(Debug, Clone)]
pub(crate) struct StopStrings {
    stops: Vec<String>,
    held: String,
}

impl StopStrings {
    /// Creates a scanner for these strings; empty strings are ignored.
    pub(crate) fn new(stops: &[String]) -> Self {
        Self {
            stops: stops
                .iter()
                .filter(|stop| !stop.is_empty())
                .cloned()
                .collect(),
            held: String::new(),
        }
    }

    /// Scans the next piece.
    pub(crate) fn push(&mut self, piece: &str) -> Scanned {
        self.held.push_str(piece);
        if let Some(start) = self.found() {
            self.held.truncate(start);
            return Scanned::Stopped(std::mem::take(&mut self.held));
        }
        let rest = self.held.split_off(self.beginning());
        Scanned::Text(std::mem::replace(&mut self.held, rest))
    }

    /// Returns the text that is still held back when the text ends.
    pub(crate) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Returns the start of the stop string that is completed first.
    fn found(&self) -> Option<usize> {
        let matches = self.stops.iter().filter_map(|stop| {
            let start = self.held.find(stop.as_str())?;
            Some((start + stop.len(), start))
        });
        matches.min().map(|(_, start)| start)
    }

    /// Returns the start of the longest suffix that is a prefix of a stop string.
    fn beginning(&self) -> usize {
        let mut starts = self.held.char_indices().map(|(start, _)| start);
        starts
            .find(|&start| {
                self.stops
                    .iter()
                    .any(|stop| stop.starts_with(&self.held[start..]))
            })
            .unwrap_or(self.held.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(stops: &[String], pieces: &[&str]) -> (String, bool) {
        let mut scanner = StopStrings::new(stops);
        let mut text = String::new();
        for piece in pieces {
            match scanner.push(piece) {
                Scanned::Text(more) => text.push_str(&more),
                Scanned::Stopped(more) => return (text + &more, true),
            }
        }
        (text + &scanner.finish(), false)
    }

    #[test]
    fn nothing_of_a_stop_string_shows() {
        let stops = ["END".to_owned()];
        assert_eq!(run(&stops, &["a E", "N", "D b"]), ("a ".to_owned(), true));
        assert_eq!(run(&stops, &["a E", "N"]), ("a EN".to_owned(), false));
        assert_eq!(run(&stops, &["EEN", "EEND"]), ("EENE".to_owned(), true));
    }

    #[test]
    fn the_string_that_is_complete_first_counts() {
        let stops = ["abc".to_owned(), "b".to_owned()];
        for pieces in [&["abc"][..], &["a", "bc"], &["a", "b", "c"]] {
            assert_eq!(run(&stops, pieces), ("a".to_owned(), true));
        }
    }

    #[test]
    fn text_is_held_back_no_longer_than_needed() {
        let mut scanner = StopStrings::new(&["\n\nUser".to_owned()]);
        assert_eq!(scanner.push("Hi\n"), Scanned::Text("Hi".to_owned()));
        assert_eq!(scanner.push("you"), Scanned::Text("\nyou".to_owned()));
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            text in "[abé]{0,12}",
            stops in proptest::collection::vec("[abé]{1,3}", 0..3),
            cuts in proptest::collection::vec(any::<bool>(), 12),
        ) {
            let mut pieces = vec![String::new()];
            for (c, cut) in text.chars().zip(cuts) {
                if cut {
                    pieces.push(String::new());
                }
                pieces.last_mut().unwrap().push(c);
            }
            let pieces: Vec<_> = pieces.iter().map(String::as_str).collect();
            let (found, stopped) = run(&stops, &pieces);
            prop_assert_eq!(&(found.clone(), stopped), &run(&stops, &[&text]));
            prop_assert!(text.starts_with(&found));
            prop_assert_eq!(stopped, stops.iter().any(|stop| text.contains(stop)));
            prop_assert!(stops.iter().all(|stop| !found.contains(stop)));
        }
    }
}
