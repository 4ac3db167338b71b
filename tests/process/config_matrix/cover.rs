//! Rows that cover every two choices of every two factors, made by a greedy algorithm.

/// For each factor, by its place, the choice that a row takes.
pub(super) type Row = Vec<usize>;

/// The space to cover: how many choices each factor has, and which two are compatible.
pub(super) struct Space<'a> {
    /// How many choices each factor has.
    pub(super) sizes: Vec<usize>,
    /// Whether two choices, each a factor and its choice, can be in one row.
    pub(super) fits: &'a dyn Fn(Choice, Choice) -> bool,
}

/// A factor and one of its choices.
pub(super) type Choice = (usize, usize);

/// The pairs of choices that no row has yet.
struct Open {
    starts: Vec<usize>,
    all: usize,
    /// Whether two choices fit, by their numbers.
    fit: Vec<bool>,
    /// Whether a row with both is yet to come.
    open: Vec<bool>,
}

impl Open {
    fn of(space: &Space<'_>) -> Self {
        let mut starts = Vec::new();
        let mut all = 0;
        for size in &space.sizes {
            starts.push(all);
            all += size;
        }
        let (fit, open) = (vec![true; all * all], vec![false; all * all]);
        let mut pairs = Self {
            starts,
            all,
            fit,
            open,
        };
        for first in 0..space.sizes.len() {
            for second in first + 1..space.sizes.len() {
                for one in 0..space.sizes[first] {
                    for other in 0..space.sizes[second] {
                        let (a, b) = ((first, one), (second, other));
                        let fits = (space.fits)(a, b);
                        let at = pairs.at(a, b);
                        let mirrored = pairs.at(b, a);
                        pairs.fit[at] = fits;
                        pairs.fit[mirrored] = fits;
                        pairs.open[at] = fits;
                        pairs.open[mirrored] = fits;
                    }
                }
            }
        }
        pairs
    }

    fn at(&self, a: Choice, b: Choice) -> usize {
        (self.starts[a.0] + a.1) * self.all + self.starts[b.0] + b.1
    }

    /// An open pair, the first there is.
    fn first(&self) -> Option<(Choice, Choice)> {
        let at = self.open.iter().position(|open| *open)?;
        Some((self.choice(at / self.all), self.choice(at % self.all)))
    }

    fn choice(&self, number: usize) -> Choice {
        let factor = self.starts.partition_point(|start| *start <= number) - 1;
        (factor, number - self.starts[factor])
    }

    fn close(&mut self, row: &Row) {
        for (a, b) in pairs(row) {
            let (at, mirrored) = (self.at(a, b), self.at(b, a));
            self.open[at] = false;
            self.open[mirrored] = false;
        }
    }
}

/// Every two choices of a row.
pub(super) fn pairs(row: &Row) -> impl Iterator<Item = (Choice, Choice)> {
    let second = move |first: usize| (first + 1..row.len()).map(move |second| (first, second));
    let places = (0..row.len()).flat_map(second);
    places.map(|(first, second)| ((first, row[first]), (second, row[second])))
}

/// Rows in which every two choices that fit are together at least once.
pub(super) fn pairwise(space: &Space<'_>) -> Vec<Row> {
    let mut open = Open::of(space);
    let mut by_size: Vec<usize> = (0..space.sizes.len()).collect();
    by_size.sort_by_key(|factor| std::cmp::Reverse(space.sizes[*factor]));
    let mut rows = Vec::new();
    while let Some((one, other)) = open.first() {
        let mut chosen = vec![one, other];
        for &factor in &by_size {
            if chosen.iter().any(|(chosen, _)| *chosen == factor) {
                continue;
            }
            let size = space.sizes[factor];
            // Where several are as good, each has its turn.
            let turn = rows.len();
            let candidates = (0..size).map(|step| (factor, (step + turn) % size));
            let fitting = candidates
                .filter(|candidate| chosen.iter().all(|c| open.fit[open.at(*candidate, *c)]));
            let gain = |candidate: &Choice| {
                let closed = chosen
                    .iter()
                    .filter(|c| open.open[open.at(*candidate, **c)]);
                closed.count()
            };
            let best = fitting.rev_max_by_key(gain);
            chosen.push(best.unwrap_or_else(|| panic!("no choice of factor {factor} fits")));
        }
        chosen.sort_unstable();
        let row: Row = chosen.into_iter().map(|(_, choice)| choice).collect();
        open.close(&row);
        rows.push(row);
    }
    rows
}

/// The first of those with the largest key.
trait FirstMax: Iterator + Sized {
    fn rev_max_by_key<K: Ord>(self, key: impl Fn(&Self::Item) -> K) -> Option<Self::Item> {
        self.fold(None, |best: Option<Self::Item>, item| match best {
            Some(best) if key(&best) >= key(&item) => Some(best),
            _ => Some(item),
        })
    }
}

impl<I: Iterator> FirstMax for I {}

/// A part of these rows in which every choice is at least once, and more up to that many rows.
pub(super) fn part(rows: &[Row], at_least: usize) -> Vec<Row> {
    let mut open: Vec<Choice> = rows.iter().flat_map(choices).collect();
    open.sort_unstable();
    open.dedup();
    let mut rest: Vec<&Row> = rows.iter().collect();
    let mut part = Vec::new();
    while !rest.is_empty() && (!open.is_empty() || part.len() < at_least) {
        let gain = |row: &(usize, &&Row)| choices(row.1).filter(|c| open.contains(c)).count();
        let best = rest.iter().enumerate().rev_max_by_key(gain);
        let (at, _) = best.expect("there is a row");
        let row = rest.remove(at).clone();
        open.retain(|choice| !choices(&row).any(|c| c == *choice));
        part.push(row);
    }
    part
}

fn choices(row: &Row) -> impl Iterator<Item = Choice> {
    row.iter().copied().enumerate()
}

#[test]
fn every_two_choices_that_fit_are_in_a_row() {
    let never = |a: Choice, b: Choice| !(a == (0, 1) && b == (3, 2));
    let space = Space {
        sizes: vec![4, 3, 1, 5, 2],
        fits: &never,
    };
    let rows = pairwise(&space);
    let covered: std::collections::BTreeSet<_> = rows.iter().flat_map(pairs).collect();
    let mut expected = 0;
    for first in 0..space.sizes.len() {
        for second in first + 1..space.sizes.len() {
            expected += space.sizes[first] * space.sizes[second];
        }
    }
    assert_eq!(covered.len(), expected - 1, "all but the one that can't be");
    assert!(!covered.contains(&((0, 1), (3, 2))));
    assert!((19..=30).contains(&rows.len()), "{}", rows.len());
    let part = part(&rows, 0);
    let seen: std::collections::BTreeSet<_> = part.iter().flat_map(choices).collect();
    assert_eq!(seen.len(), 4 + 3 + 1 + 5 + 2);
    assert!(part.len() < rows.len());
}
