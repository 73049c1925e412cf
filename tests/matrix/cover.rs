//! Rows that cover the axes: every value of each beside the plainest of all others, and every combination
//! of any two axes, or of any three.

use std::collections::HashSet;

/// Every set of `count` of these axes.
pub fn sets(axes: &[usize], count: u32) -> Vec<Vec<usize>> {
    (0..1_u32 << axes.len())
        .filter(|set| set.count_ones() == count)
        .map(|set| (0..axes.len()).filter(|at| set >> at & 1 == 1).map(|at| axes[at]).collect())
        .collect()
}

/// Rows in which every combination of each of these groups of axes stands at least once. The same in
/// each run.
pub fn covering(sizes: [usize; 7], groups: &[Vec<usize>]) -> Vec<[usize; 7]> {
    let mut missing: HashSet<(usize, Vec<usize>)> = HashSet::new();
    for (index, axes) in groups.iter().enumerate() {
        let mut combinations = vec![Vec::new()];
        for axis in axes {
            let longer = combinations.iter().flat_map(|combination: &Vec<usize>| {
                (0..sizes[*axis]).map(|place| [combination.as_slice(), &[place]].concat())
            });
            combinations = longer.collect();
        }
        missing.extend(combinations.into_iter().map(|combination| (index, combination)));
    }
    let part = |row: &[usize; 7], group: usize| -> (usize, Vec<usize>) {
        (group, groups[group].iter().map(|axis| row[*axis]).collect())
    };
    let mut rows = single(sizes);
    for row in &rows {
        for group in 0..groups.len() {
            missing.remove(&part(row, group));
        }
    }
    let mut dice = 0x9E37_79B9_7F4A_7C15_u64;
    let mut roll = |sides: usize| {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        (dice >> 11) as usize % sides
    };
    while let Some((group, combination)) = missing.iter().min().cloned() {
        let mut best = (0, [0; 7]);
        for _ in 0..20 {
            let mut row = sizes.map(&mut roll);
            for (axis, place) in groups[group].iter().zip(&combination) {
                row[*axis] = *place;
            }
            let news = (0..groups.len()).filter(|other| missing.contains(&part(&row, *other)));
            best = best.max((news.count(), row));
        }
        for other in 0..groups.len() {
            missing.remove(&part(&best.1, other));
        }
        rows.push(best.1);
    }
    rows
}

/// Every value of each axis, the first of all others beside it.
fn single(sizes: [usize; 7]) -> Vec<[usize; 7]> {
    let mut rows = vec![[0; 7]];
    for (axis, size) in sizes.into_iter().enumerate() {
        for place in 1..size {
            let mut row = [0; 7];
            row[axis] = place;
            rows.push(row);
        }
    }
    rows
}

#[test]
fn everything_is_covered() {
    let sizes = [3, 4, 2, 3, 2, 4, 3];
    let rows = covering(sizes, &sets(&[0, 1, 2, 3, 4, 5, 6], 2));
    for first in 0..7 {
        for second in first + 1..7 {
            let pairs: HashSet<_> = rows.iter().map(|row| (row[first], row[second])).collect();
            assert_eq!(pairs.len(), sizes[first] * sizes[second], "{first} {second}");
        }
    }
    assert!(rows.len() < 60, "{}", rows.len());
}
