//! Which scenario comes next: drawn by weight, without putting back, so that each round through the weights has the exact mix.

use crate::random::Rng;
use std::cell::RefCell;

/// The scenarios of one load thread as a deck of cards: as many of each as its weight says, shuffled anew once all are drawn. A test
/// of as many iterations as there are cards plays each card once.
pub(crate) struct Deck {
    weights: Vec<u64>,
    left: RefCell<Left>,
}

struct Left {
    cards: Vec<u64>,
    total: u64,
}

impl Deck {
    pub(crate) fn new(weights: Vec<u64>) -> Self {
        let cards = vec![0; weights.len()];
        let left = RefCell::new(Left { cards, total: 0 });
        Self { weights, left }
    }

    /// Draws the index of a scenario; 0 where there are none.
    pub(crate) fn draw(&self, rng: &Rng) -> usize {
        if self.weights.len() <= 1 {
            return 0;
        }
        let left = &mut *self.left.borrow_mut();
        if left.total == 0 {
            left.cards.copy_from_slice(&self.weights);
            left.total = self.weights.iter().sum();
        }
        let mut place = rng.below(left.total);
        for (index, cards) in left.cards.iter_mut().enumerate() {
            if place < *cards {
                *cards -= 1;
                left.total -= 1;
                return index;
            }
            place -= *cards;
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::Deck;
    use crate::random::Rng;

    #[test]
    fn each_round_has_the_exact_mix_and_another_order() {
        let (deck, rng) = (Deck::new(vec![3, 7, 1]), Rng::new(1, 1));
        let mut rounds = Vec::new();
        for _ in 0..20 {
            let round: Vec<usize> = (0..11).map(|_| deck.draw(&rng)).collect();
            let of = |scenario| round.iter().filter(|drawn| **drawn == scenario).count();
            assert_eq!((of(0), of(1), of(2)), (3, 7, 1));
            rounds.push(round);
        }
        rounds.sort();
        rounds.dedup();
        assert!(rounds.len() > 10, "{rounds:?}");
    }

    #[test]
    fn one_scenario_or_none_is_always_the_first() {
        let rng = Rng::new(1, 1);
        assert_eq!(Deck::new(vec![5]).draw(&rng), 0);
        assert_eq!(Deck::new(Vec::new()).draw(&rng), 0);
    }
}
