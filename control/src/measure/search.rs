//! Which load to try next: a pure function of the trials so far.
//!
//! RFC 2544 §26.1 asks for the highest rate at which nothing is lost. It is looked for by halving, in steps of equal
//! ratio, together with the rates for other losses: what was learned for one of them serves all.

/// A load that was tried.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point {
    /// Packets a second that were to be offered.
    pub(super) asked: f64,
    /// Packets a second that the generator managed.
    pub(super) offered: f64,
    /// Packets offered.
    pub(super) packets: u64,
    /// Packets of these that did not arrive.
    pub(super) lost: u64,
}

impl Point {
    /// Share that was lost.
    pub(super) fn loss(&self) -> f64 {
        self.lost as f64 / self.packets.max(1) as f64
    }

    /// Whether the generator was what limited it.
    pub(super) fn is_short(&self) -> bool {
        self.offered < self.asked * 0.98
    }

    /// The rate that it says something about.
    fn rate(&self) -> f64 {
        if self.is_short() { self.offered } else { self.asked }
    }
}

/// What is looked for.
#[derive(Clone, Debug)]
pub(super) struct Search {
    /// Lowest rate to try, packets a second.
    pub(super) least: f64,
    /// Highest rate to try.
    pub(super) most: f64,
    /// How far apart, as a ratio, a rate that passes and one that fails may be in the end; more than 1.
    pub(super) precision: f64,
    /// Shares that may be lost, each a rate to be found.
    pub(super) goals: Vec<f64>,
}

/// What is known about a goal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bracket {
    /// The trial with the highest rate that passes below all that fail.
    pub(super) passes: Option<usize>,
    /// The lowest rate that fails; none if the generator or the highest rate was the limit.
    pub(super) fails: Option<f64>,
}

impl Search {
    /// What the trials say about a goal.
    pub(super) fn bracket(&self, points: &[Point], goal: f64) -> Bracket {
        let fails = points.iter().filter(|p| p.loss() > goal).map(Point::rate).reduce(f64::min);
        let below = |p: &Point| p.loss() <= goal && fails.is_none_or(|fails| p.rate() < fails);
        let passes = points.iter().enumerate().filter(|(_, p)| below(p));
        let passes = passes.max_by(|(_, a), (_, b)| a.rate().total_cmp(&b.rate())).map(|(i, _)| i);
        Bracket { passes, fails }
    }

    /// The rate to try next; `None` when every goal is found.
    pub(super) fn next(&self, points: &[Point]) -> Option<f64> {
        let Some(first) = points.first() else { return Some(self.most) };
        let open: Vec<(f64, f64)> = self.goals.iter().filter_map(|goal| self.open(points, *goal)).collect();
        let (low, high) = *open.first()?;
        // What arrives of too much is a good guess of what would be enough.
        let guess = first.offered * (1.0 - first.loss());
        let apart = |a: f64, b: f64| a > b * self.precision;
        match points.len() == 1 && apart(guess, low) && apart(high, guess) {
            true => Some(guess),
            false => Some((low * high).sqrt()),
        }
    }

    /// Between which rates a goal is, unless that is known well enough.
    fn open(&self, points: &[Point], goal: f64) -> Option<(f64, f64)> {
        let Bracket { passes, fails } = self.bracket(points, goal);
        let most = points.iter().filter(|p| p.is_short()).map(|p| p.offered).fold(self.most, f64::min);
        let high = fails.unwrap_or(most).min(most);
        let low = passes.map_or(self.least, |i| points[i].rate());
        (high > low * self.precision).then_some((low, high))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PDR: f64 = 0.005;

    fn search(precision: f64) -> Search {
        Search { least: 1e3, most: 1e7, precision, goals: vec![PDR, 0.0] }
    }

    /// All trials until there is nothing left to try.
    fn run(search: &Search, mut path: impl FnMut(f64) -> Point) -> Vec<Point> {
        let mut points = Vec::new();
        while let Some(rate) = search.next(&points) {
            assert!(rate >= search.least && rate <= search.most, "{rate}");
            assert!(points.len() < 500, "endless: {points:?}");
            points.push(path(rate));
        }
        points
    }

    /// A path that carries `capacity` packets a second, fed by a generator that makes no more than `fastest`.
    fn limited(rate: f64, capacity: f64, fastest: f64) -> Point {
        let offered = rate.min(fastest);
        let packets = offered.ceil() as u64;
        Point { asked: rate, offered, packets, lost: packets - packets.min(capacity.ceil() as u64) }
    }

    #[test]
    fn what_is_lost_by_too_much_guides_the_second_trial() {
        let points = run(&search(1.05), |rate| limited(rate, 123_456.0, 1e9));
        assert_eq!((points[0].asked, points[1].asked.round()), (1e7, 123_456.0));
        assert!(points.len() < 16, "{points:?}");
    }

    #[test]
    fn what_passes_above_a_rate_that_fails_does_not_count() {
        let point = |rate, lost| Point { asked: rate, offered: rate, packets: 1000, lost };
        let points = [point(9e3, 0), point(5e3, 100), point(2e3, 0), point(1e3, 0)];
        assert_eq!(search(1.05).bracket(&points, 0.0), Bracket { passes: Some(2), fails: Some(5e3) });
    }

    #[test]
    fn a_path_that_carries_nothing_has_no_rate() {
        let points = run(&search(1.05), |rate| limited(rate, 0.0, 1e9));
        let bracket = search(1.05).bracket(&points, PDR);
        assert_eq!(bracket.passes, None);
        assert!(bracket.fails.unwrap() < 1.06e3);
    }

    proptest! {
        #[test]
        fn a_rate_is_found_as_precisely_as_asked(
            capacity in 2e3..9e6, fastest in 2e3..2e7, precision in 1.01..2.0,
        ) {
            let search = search(precision);
            let points = run(&search, |rate| limited(rate, capacity, fastest));
            // Packets are whole, rates are not.
            let near = 1.0 + 2.0 / capacity;
            for goal in [PDR, 0.0] {
                let Bracket { passes, fails } = search.bracket(&points, goal);
                let found = points[passes.unwrap()];
                prop_assert!(found.loss() <= goal);
                let best = (capacity / (1.0 - goal)).min(fastest).min(search.most);
                prop_assert!(found.offered <= best * near && found.offered * precision * near * 1.02 >= best,
                    "{} of {best}", found.offered);
                let capacity_is_the_limit = capacity * 1.03 < fastest.min(search.most);
                if capacity_is_the_limit {
                    prop_assert!(fails.unwrap() > found.offered);
                } else if fastest < capacity * 0.99 {
                    prop_assert_eq!(fails, None);
                }
            }
        }

        #[test]
        fn whatever_a_path_does_it_ends_and_less_loss_is_no_more_rate(
            precision in 1.02..2.0,
            noise in proptest::collection::vec((0u64..3, 0.2..1.0), 1..50),
        ) {
            let search = search(precision);
            let mut noise = noise.iter().cycle();
            let points = run(&search, |rate| {
                let (lost, speed) = noise.next().unwrap();
                Point { asked: rate, offered: rate * speed, packets: 300, lost: *lost }
            });
            let rate = |goal| search.bracket(&points, goal).passes.map_or(0.0, |i| points[i].rate());
            prop_assert!(rate(0.0) <= rate(PDR));
        }
    }
}
