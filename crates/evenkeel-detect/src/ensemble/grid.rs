//! Which values were ever seen in which context: a bitmap, and how far a new value is from anything in it.
//!
//! A value may be well within the usual range and still never have come *here*: after such a value, at such a level.
//! Rows are contexts, columns are values, 32 cells each way; a set bit says "has been". Both axes start narrow and
//! widen by doubling their cells when a value falls outside, so nothing need be known of the range beforehand; what
//! was set keeps its place as cells merge. The idea of counting what context was never seen is that of the
//! contextual anomaly detectors on the Numenta benchmark, which look at the range of the whole file first.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "cells are numbered 0 to 31, and floats are clamped or saturate before they become cells"
)]

use serde::{Deserialize, Serialize};

/// Cells on an axis: the bits of a row.
const CELLS: i32 = 32;
/// Contexts on either side that count as the same.
const NEIGHBOURS: i32 = 2;
/// How far a value counts as being from anything, as a share of the range, when its context is new.
const UNKNOWN: f64 = 0.06;
/// The first cell's width, as a share of the first value.
const FIRST_WIDTH: f64 = 1e-3;
const WIDTH_MIN: f64 = 1e-9;
/// Doublings that could ever be needed between the narrowest cell and the widest range.
const DOUBLINGS_MAX: usize = 512;

/// An axis of 32 cells that widens as it must.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
struct Axis {
    /// Cells in one unit of the value: a power of two; 0 before the first value.
    density: f64,
    low: f64,
    high: f64,
    /// Number of the first cell, counted from zero's.
    first: i32,
}

/// What has to be done to the cells when an axis has moved.
enum Move {
    /// Cells merged in pairs; the number of the first cell was this one.
    Merge(i32),
    /// Cells moved up by so many places.
    Shift(i32),
}

impl Axis {
    fn cell(&self, value: f64) -> usize {
        let cell = (value * self.density).floor() - f64::from(self.first);
        cell.clamp(0.0, f64::from(CELLS - 1)) as usize
    }

    /// Whether `value` is within the range so far.
    fn holds(&self, value: f64) -> bool {
        self.density > 0.0 && value >= self.low && value <= self.high
    }

    /// So many cells as a share of the range, at most 1.
    fn share(&self, cells: u32) -> f64 {
        if cells == 0 {
            return 0.0;
        }
        let width = self.density.recip();
        // A series that never moved has no range; below a few cells, differences are rounding.
        let range = (self.high - self.low).max(4.0 * width);
        (f64::from(cells) * width / range).min(1.0)
    }

    /// Takes `value` into the range, and tells `then` of each move that the cells have to make. The first cell is
    /// no narrower than `unit`.
    fn fit(&mut self, value: f64, unit: f64, mut then: impl FnMut(&Move)) {
        if self.density <= 0.0 {
            let width = (value.abs() * FIRST_WIDTH).max(unit).max(WIDTH_MIN);
            self.density = (-width.log2().floor()).exp2();
            self.low = value;
            self.high = value;
            self.first = ((value * self.density).floor() as i32).saturating_sub(CELLS / 2);
            return;
        }
        if value >= self.low && value <= self.high {
            return;
        }
        self.low = self.low.min(value);
        self.high = self.high.max(value);
        for _ in 0..DOUBLINGS_MAX {
            let bottom = (self.low * self.density).floor();
            let top = (self.high * self.density).floor();
            if top - bottom >= f64::from(CELLS) {
                then(&Move::Merge(self.first));
                self.first >>= 1;
                self.density *= 0.5;
                continue;
            }
            let (bottom, top) = (bottom as i32, top as i32);
            if bottom < self.first || top >= self.first.saturating_add(CELLS) {
                let centred = i32::midpoint(bottom, top).saturating_sub(CELLS / 2);
                let first = centred.min(bottom).max(top.saturating_sub(CELLS - 1));
                then(&Move::Shift(self.first.saturating_sub(first)));
                self.first = first;
            }
            return;
        }
    }
}

/// Where a value lies on a grid while it has not been seen there.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Place {
    /// How far from anything that was seen in its context, as a share of the range so far: 0 to 1.
    pub(super) distance: f64,
    row: usize,
    column: usize,
    /// The axes need not move for it.
    fits: bool,
}

/// A grid of `ROWS` contexts (1 or 32) by 32 cells of the value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Grid<const ROWS: usize>
where
    [u32; ROWS]: Serialize + for<'a> Deserialize<'a>,
{
    seen: [u32; ROWS],
    /// What was seen in the generation before this one.
    before: [u32; ROWS],
    values: Axis,
    contexts: Axis,
}

impl<const ROWS: usize> Default for Grid<ROWS>
where
    [u32; ROWS]: Serialize + for<'a> Deserialize<'a>,
{
    fn default() -> Self {
        Self {
            seen: [0; ROWS],
            before: [0; ROWS],
            values: Axis::default(),
            contexts: Axis::default(),
        }
    }
}

impl<const ROWS: usize> Grid<ROWS>
where
    [u32; ROWS]: Serialize + for<'a> Deserialize<'a>,
{
    /// How far `value` is from anything seen in `context`, as a share of the range so far, and where on the grid that
    /// is. All must be finite; below `unit`, differences do not matter.
    pub(super) fn look(&self, context: f64, value: f64, unit: f64) -> Place {
        if self.values.holds(value) && (ROWS == 1 || self.contexts.holds(context)) {
            return self.place(context, value);
        }
        let (low, high) = (self.values.low, self.values.high);
        let mut wider = self.clone();
        wider.fit(context, value, unit);
        let place = wider.place(context, value);
        let outside = (value - high).max(low - value).max(0.0);
        let outside = outside / (high - low).max(4.0 * wider.values.density.recip());
        let distance = if self.values.density <= 0.0 {
            0.0
        } else {
            place.distance.max(outside).min(1.0)
        };
        Place {
            distance,
            fits: false,
            ..place
        }
    }

    /// Now the value has been seen at the place that [`Grid::look`] found for it.
    pub(super) fn learn(&mut self, place: &Place, context: f64, value: f64, unit: f64) {
        if !place.fits {
            self.fit(context, value, unit);
        }
        self.seen[place.row] |= 1 << place.column;
    }

    /// Takes both into the axes' ranges.
    fn fit(&mut self, context: f64, value: f64, unit: f64) {
        let (seen, before) = (&mut self.seen, &mut self.before);
        self.values.fit(value, unit, |step| {
            for row in seen.iter_mut().chain(before.iter_mut()) {
                *row = moved(*row, step);
            }
        });
        if ROWS > 1 {
            self.contexts.fit(context, unit, |step| {
                move_rows(seen, step);
                move_rows(before, step);
            });
        }
    }

    /// The place of what is within the axes' ranges.
    fn place(&self, context: f64, value: f64) -> Place {
        let row = if ROWS == 1 {
            0
        } else {
            self.contexts.cell(context)
        };
        let column = self.values.cell(value);
        let mut near = 0;
        let from = (row as i32 - NEIGHBOURS).max(0) as usize;
        let to = (row as i32 + NEIGHBOURS).min(ROWS as i32 - 1) as usize;
        for (seen, before) in self.seen[from..=to].iter().zip(&self.before[from..=to]) {
            near |= seen | before;
        }
        let distance = if near == 0 {
            UNKNOWN
        } else {
            let up = (near >> column).trailing_zeros();
            let down = (near << (31 - column)).leading_zeros();
            self.values.share(up.min(down))
        };
        Place {
            distance,
            row,
            column,
            fits: true,
        }
    }

    /// Begins a generation: what was seen before the last one is forgotten.
    pub(super) fn turn(&mut self) {
        self.before = std::mem::replace(&mut self.seen, [0; ROWS]);
    }
}

/// The bits of one row after the axis has moved.
fn moved(row: u32, step: &Move) -> u32 {
    match *step {
        Move::Merge(first) => (0..CELLS)
            .filter(|cell| row >> cell & 1 == 1)
            .map(|cell| merged(cell, first))
            .fold(0, |row, cell| row | 1 << cell),
        Move::Shift(by) if by >= 0 => row.checked_shl(by.unsigned_abs()).unwrap_or(0),
        Move::Shift(by) => row.checked_shr(by.unsigned_abs()).unwrap_or(0),
    }
}

/// Where a cell is after cells have merged in pairs.
fn merged(cell: i32, first: i32) -> i32 {
    (first.saturating_add(cell) >> 1)
        .saturating_sub(first >> 1)
        .clamp(0, CELLS - 1)
}

/// The rows after the contexts' axis has moved.
fn move_rows<const ROWS: usize>(rows: &mut [u32; ROWS], step: &Move) {
    let mut after = [0; ROWS];
    for (cell, bits) in (0..CELLS).zip(rows.iter()) {
        let place = match *step {
            Move::Merge(first) => merged(cell, first),
            Move::Shift(by) => cell.saturating_add(by),
        };
        if let Ok(place) = usize::try_from(place)
            && let Some(row) = after.get_mut(place)
        {
            *row |= bits;
        }
    }
    *rows = after;
}

#[cfg(test)]
mod tests {
    use super::*;

    impl<const ROWS: usize> Grid<ROWS>
    where
        [u32; ROWS]: Serialize + for<'a> Deserialize<'a>,
    {
        /// The distance of a value that is learned afterwards.
        fn push(&mut self, context: f64, value: f64, unit: f64) -> f64 {
            let place = self.look(context, value, unit);
            self.learn(&place, context, value, unit);
            place.distance
        }
    }

    #[test]
    fn what_was_seen_is_not_new() {
        let mut grid = Grid::<32>::default();
        for i in 0..1000_u32 {
            grid.push(f64::from(i % 10), f64::from(i % 10) * 3.0, 0.0);
        }
        assert!(grid.push(4.0, 12.0, 0.0).abs() < 1e-12);
    }

    #[test]
    fn a_usual_value_in_the_wrong_context_is_new() {
        let mut grid = Grid::<32>::default();
        for i in 0..1000_u32 {
            let level = f64::from(i % 100);
            grid.push(level, level, 0.0);
        }
        assert!(grid.push(5.0, 90.0, 0.0) > 0.6);
        // and once it was there, it is known
        assert!(grid.push(5.0, 90.0, 0.0).abs() < 1e-12);
    }

    #[test]
    fn merging_cells_keeps_what_was_seen() {
        let mut grid = Grid::<1>::default();
        for value in [1.0, 1.001, 2.0, 50.0, 1000.0, -3000.0] {
            grid.push(0.0, value, 0.0);
        }
        for value in [1.0, 1000.0, -3000.0] {
            assert!(grid.push(0.0, value, 0.0).abs() < 1e-12, "{value}");
        }
        assert!(grid.push(0.0, -1500.0, 0.0) > 0.2);
    }

    #[test]
    fn what_has_not_come_for_two_generations_is_new_again() {
        let mut grid = Grid::<1>::default();
        for value in [0.0, 50.0, 100.0] {
            grid.push(0.0, value, 0.0);
        }
        grid.turn();
        assert!(grid.push(0.0, 0.0, 0.0).abs() < 1e-12);
        assert!(grid.push(0.0, 100.0, 0.0).abs() < 1e-12);
        grid.turn();
        assert!(grid.push(0.0, 50.0, 0.0) > 0.4);
    }

    #[test]
    fn rounding_on_a_constant_is_not_far() {
        let mut grid = Grid::<1>::default();
        for _ in 0..100 {
            grid.push(0.0, 45.0, 0.0);
        }
        assert!(grid.push(0.0, 45.000_000_1, 0.0) < 1e-6);
        assert!(grid.push(0.0, 60.0, 0.0) > 0.99);
    }
}
