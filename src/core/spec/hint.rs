//! "Did you mean": the closest of some words.

/// The closest word, where it is close enough to be a typing error.
pub fn closest<'a>(text: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // One error in three letters at most, or the guess would be noise.
    let limit = (text.chars().count() / 3).clamp(1, 3);
    words
        .into_iter()
        .map(|word| (distance(&text.to_lowercase(), &word.to_lowercase()), word))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, word)| word)
}

/// The same as a hint.
pub fn did_you_mean<'a>(text: &str, words: impl IntoIterator<Item = &'a str>) -> Option<String> {
    closest(text, words).map(|word| format!("did you mean `{word}`?"))
}

/// Edits from one word to the other; a swap of neighbours is one (optimal string alignment).
fn distance(left: &str, right: &str) -> usize {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    /// Longer texts are no typing errors of field names.
    const LONG: usize = 64;
    if left.len() > LONG || right.len() > LONG {
        return usize::MAX;
    }
    let mut rows = vec![vec![0; right.len() + 1]; left.len() + 1];
    rows[0] = (0..=right.len()).collect();
    for (row, line) in rows.iter_mut().enumerate() {
        line[0] = row;
    }
    for row in 1..=left.len() {
        for column in 1..=right.len() {
            let differs = usize::from(left[row - 1] != right[column - 1]);
            let mut best = (rows[row - 1][column] + 1)
                .min(rows[row][column - 1] + 1)
                .min(rows[row - 1][column - 1] + differs);
            if row > 1 && column > 1 && left[row - 1] == right[column - 2] && left[row - 2] == right[column - 1] {
                best = best.min(rows[row - 2][column - 2] + 1);
            }
            rows[row][column] = best;
        }
    }
    rows[left.len()][right.len()]
}

#[cfg(test)]
mod tests {
    use super::{closest, distance};

    #[test]
    fn typing_errors_are_found_and_other_words_are_not() {
        let words = ["thresholds", "target", "phases", "pool"];
        for (text, expected) in [
            ("tresholds", Some("thresholds")),
            ("Target", Some("target")),
            ("phsaes", Some("phases")),
            ("poll", Some("pool")),
            ("x", None),
            ("whatever", None),
            ("", None),
        ] {
            assert_eq!(closest(text, words), expected, "{text}");
        }
    }

    #[test]
    fn distances_are_edits() {
        for (left, right, edits) in [
            ("", "", 0),
            ("a", "", 1),
            ("ab", "ba", 1),
            ("kitten", "sitting", 3),
            ("ü", "u", 1),
        ] {
            assert_eq!(distance(left, right), edits, "{left} {right}");
        }
    }
}
