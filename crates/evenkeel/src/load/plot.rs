//! Plots as SVG, written by hand: axes with round marks, lines, steps, bars and dots, a title and a legend.
//!
//! Colours are CSS variables, so that a page shows the same plot light or dark; a plot that is a file of its own brings
//! them along. Everything that comes from outside is escaped here.

mod axis;

use std::fmt::Write as _;

pub use axis::Axis;

/// How a plot is laid out, in its own units; a browser scales it to its width.
struct Frame {
    width: f64,
    height: f64,
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
    /// Of a letter: an upper bound of what browsers draw.
    letter: f64,
}

const FRAME: Frame = Frame {
    width: 960.0,
    height: 320.0,
    left: 70.0,
    right: 22.0,
    top: 44.0,
    bottom: 48.0,
    letter: 6.9,
};

/// Points of a line that are drawn; of more, so many at even distances and the extremes between them.
const POINTS_MAX: usize = 1_000;
/// The variables of the colours, light.
pub(crate) const LIGHT: &str = "--paper:#ffffff;--ink:#1f2328;--faint:#59636e;--line:#d8dee4;--c1:#0969da;--c2:#bc4c00;--c3:#8250df;--c4:#1a7f37;--bad:#cf222e";
/// The same, dark.
pub(crate) const DARK: &str = "--paper:#0d1117;--ink:#e6edf3;--faint:#9198a1;--line:#2f353d;--c1:#58a6ff;--c2:#f0883e;--c3:#bc8cff;--c4:#3fb950;--bad:#ff7b72";
/// How the parts of a plot look.
pub(crate) const STYLE: &str = "svg text{font:12px system-ui,sans-serif;fill:var(--faint)}svg .t{font-weight:600;font-size:14px;fill:var(--ink)}\
svg .g{stroke:var(--line);stroke-width:1}svg .a{stroke:var(--faint);stroke-width:1}svg .l{fill:none;stroke-width:1.8;stroke-linejoin:round}\
svg .k{fill:var(--ink)}svg .m{fill:var(--ink);paint-order:stroke;stroke:var(--paper);stroke-width:4px}";

/// A colour of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// The first one.
    Blue,
    /// The second one.
    Orange,
    /// The third one.
    Violet,
    /// The fourth one.
    Green,
    /// For what is bad.
    Red,
    /// For what is beside the point.
    Grey,
}

impl Colour {
    fn css(self) -> &'static str {
        match self {
            Self::Blue => "var(--c1)",
            Self::Orange => "var(--c2)",
            Self::Violet => "var(--c3)",
            Self::Green => "var(--c4)",
            Self::Red => "var(--bad)",
            Self::Grey => "var(--faint)",
        }
    }
}

/// Something that is drawn.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// A line through points; a point that is not a number breaks it.
    Line(Vec<(f64, f64)>),
    /// The same, dashed.
    Dashed(Vec<(f64, f64)>),
    /// A small dot at each point.
    Dots(Vec<(f64, f64)>),
    /// Bars: from, to, height.
    Bars(Vec<(f64, f64, f64)>),
    /// A vertical line over the whole height with a word at its top.
    Mark(f64, String),
}

/// A plot.
#[derive(Clone, Debug)]
pub struct Plot {
    title: String,
    x_name: String,
    x: Axis,
    y: Axis,
    shapes: Vec<(Shape, Colour, String)>,
}

impl Plot {
    /// An empty plot. `title` names what is on the vertical axis, with its unit.
    pub fn new(title: impl Into<String>, x_name: impl Into<String>, x: Axis, y: Axis) -> Self {
        Self {
            title: title.into(),
            x_name: x_name.into(),
            x,
            y,
            shapes: Vec::new(),
        }
    }

    /// With something drawn, called `name` in the legend; an empty name is not in it.
    #[must_use]
    pub fn with(mut self, shape: Shape, colour: Colour, name: impl Into<String>) -> Self {
        self.shapes.push((shape, colour, name.into()));
        self
    }

    /// As a part of a page that has the colours and the style.
    pub fn inline(&self) -> String {
        self.svg("")
    }

    /// As a file of its own, that is light or dark as its reader has it.
    pub fn file(&self) -> String {
        let Frame { width, height, .. } = FRAME;
        let head = format!(
            "<style>svg{{{LIGHT};background:var(--paper)}}@media(prefers-color-scheme:dark){{svg{{{DARK}}}}}{STYLE}</style>\
             <rect width=\"{width}\" height=\"{height}\" fill=\"var(--paper)\"/>"
        );
        format!("{}\n", self.svg(&head))
    }

    fn across(&self, x: f64) -> f64 {
        FRAME.left + self.x.place(x) * (FRAME.width - FRAME.left - FRAME.right)
    }

    fn up(&self, y: f64) -> f64 {
        FRAME.height - FRAME.bottom - self.y.place(y) * (FRAME.height - FRAME.top - FRAME.bottom)
    }

    fn svg(&self, head: &str) -> String {
        let Frame { width, height, .. } = FRAME;
        let title = escaped(&self.title);
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{title}\">{head}"
        );
        // Writing to a String does not fail.
        let _ = write!(out, "<text class=\"t\" x=\"8\" y=\"20\">{title}</text>");
        self.draw_axes(&mut out);
        for (shape, colour, _) in &self.shapes {
            self.draw(&mut out, shape, *colour);
        }
        self.draw_legend(&mut out);
        out.push_str("</svg>");
        out
    }

    fn draw_axes(&self, out: &mut String) {
        let left = FRAME.left;
        let (right, bottom) = (FRAME.width - FRAME.right, FRAME.height - FRAME.bottom);
        for (value, label) in self.y.marks() {
            let y = self.up(*value);
            let _ = write!(
                out,
                "<line class=\"g\" x1=\"{left}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                FRAME.left - 8.0,
                y + 4.0,
                escaped(label)
            );
        }
        let _ = write!(
            out,
            "<line class=\"a\" x1=\"{left}\" x2=\"{right}\" y1=\"{bottom}\" y2=\"{bottom}\"/>"
        );
        let mut free_from = f64::NEG_INFINITY;
        for (value, label) in self.x.marks() {
            let x = self.across(*value);
            let half = label.chars().count() as f64 * FRAME.letter / 2.0;
            let _ = write!(
                out,
                "<line class=\"a\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{bottom}\" y2=\"{:.1}\"/>",
                bottom + 5.0
            );
            // A label that would touch the one before it is left out; its mark stays.
            if x - half >= free_from + 6.0 {
                let _ = write!(
                    out,
                    "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                    bottom + 19.0,
                    escaped(label)
                );
                free_from = x + half;
            }
        }
        let _ = write!(
            out,
            "<text x=\"{right}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            FRAME.height - 8.0,
            escaped(&self.x_name)
        );
    }

    fn draw(&self, out: &mut String, shape: &Shape, colour: Colour) {
        let colour = colour.css();
        match shape {
            Shape::Line(points) | Shape::Dashed(points) => {
                let dash = if matches!(shape, Shape::Dashed(_)) {
                    " stroke-dasharray=\"6 4\""
                } else {
                    ""
                };
                for part in points.split(|(x, y)| !(x.is_finite() && y.is_finite())) {
                    if let [(x, y)] = part {
                        let (x, y) = (self.across(*x), self.up(*y));
                        let _ = write!(
                            out,
                            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2\" fill=\"{colour}\"/>"
                        );
                        continue;
                    }
                    let mut path = String::new();
                    for (x, y) in fewer(part) {
                        let join = if path.is_empty() { 'M' } else { 'L' };
                        let _ = write!(path, "{join}{:.1} {:.1}", self.across(x), self.up(y));
                    }
                    if !path.is_empty() {
                        let _ = write!(
                            out,
                            "<path class=\"l\" stroke=\"{colour}\"{dash} d=\"{path}\"/>"
                        );
                    }
                }
            }
            Shape::Dots(points) => {
                // Dots that would cover each other are drawn once: a thousand requests in one place are one dot.
                let half = |v: f64| (v * 2.0).round() / 2.0;
                let mut path = String::new();
                let mut seen = std::collections::BTreeSet::new();
                for (x, y) in points
                    .iter()
                    .filter(|(x, y)| x.is_finite() && y.is_finite())
                {
                    let at = format!("M{} {}h0", half(self.across(*x)), half(self.up(*y)));
                    if !seen.contains(&at) {
                        path.push_str(&at);
                        seen.insert(at);
                    }
                }
                let _ = write!(
                    out,
                    "<path stroke=\"{colour}\" stroke-width=\"3.4\" stroke-linecap=\"round\" d=\"{path}\"/>"
                );
            }
            Shape::Bars(bars) => {
                for (from, to, height) in bars.iter().filter(|(_, _, h)| *h > 0.0) {
                    let (x0, x1, y) = (self.across(*from), self.across(*to), self.up(*height));
                    let _ = write!(
                        out,
                        "<rect x=\"{x0:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{colour}\"/>",
                        (x1 - x0 - 0.8).max(0.8),
                        (FRAME.height - FRAME.bottom - y).max(1.0)
                    );
                }
            }
            Shape::Mark(x, _) => {
                let x = self.across(*x);
                let _ = write!(
                    out,
                    "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{}\" y2=\"{}\" stroke=\"{colour}\" stroke-dasharray=\"3 3\"/>",
                    FRAME.top,
                    FRAME.height - FRAME.bottom
                );
            }
        }
    }

    /// From the right end of the title's line; words of marks at their lines, each below the one before where they would
    /// touch.
    fn draw_legend(&self, out: &mut String) {
        let mut right = FRAME.width - FRAME.right;
        for (shape, colour, name) in self.shapes.iter().rev().filter(|(_, _, n)| !n.is_empty()) {
            let x = right - name.chars().count() as f64 * FRAME.letter;
            let css = colour.css();
            let _ = match shape {
                Shape::Dashed(_) => write!(
                    out,
                    "<line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"16\" y2=\"16\" stroke=\"{css}\" stroke-width=\"2\" stroke-dasharray=\"6 3\"/>",
                    x - 24.0,
                    x - 6.0
                ),
                Shape::Bars(_) | Shape::Dots(_) => write!(
                    out,
                    "<rect x=\"{:.1}\" y=\"11\" width=\"10\" height=\"10\" rx=\"2\" fill=\"{css}\"/>",
                    x - 16.0
                ),
                _ => write!(
                    out,
                    "<line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"16\" y2=\"16\" stroke=\"{css}\" stroke-width=\"3\"/>",
                    x - 24.0,
                    x - 6.0
                ),
            };
            let _ = write!(
                out,
                "<text class=\"k\" x=\"{x:.1}\" y=\"20\">{}</text>",
                escaped(name)
            );
            right = x - 38.0;
        }
        let (mut free_from, mut line) = (f64::NEG_INFINITY, 0.0);
        for (shape, _, _) in &self.shapes {
            let Shape::Mark(at, word) = shape else {
                continue;
            };
            let x = self.across(*at);
            let width = word.chars().count() as f64 * FRAME.letter + 6.0;
            line = if x < free_from { line + 15.0 } else { 0.0 };
            let (x_text, anchor) = if x + width > FRAME.width - FRAME.right {
                (x - 4.0, "end")
            } else {
                (x + 4.0, "start")
            };
            let _ = write!(
                out,
                "<text class=\"m\" x=\"{x_text:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
                FRAME.top - 6.0 + line,
                escaped(word)
            );
            free_from = x + width;
        }
    }
}

/// At most about [`POINTS_MAX`] of a line's points: the lowest and the highest of each stretch, in their order.
fn fewer(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= POINTS_MAX {
        return points.to_vec();
    }
    let stretch = points.len().div_ceil(POINTS_MAX / 2);
    let by_height = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
    points
        .chunks(stretch)
        .flat_map(|part| {
            let low = part.iter().min_by(by_height).copied();
            let high = part.iter().max_by(by_height).copied();
            let mut both: Vec<_> = low.into_iter().chain(high).collect();
            both.sort_by(|a, b| a.0.total_cmp(&b.0));
            both
        })
        .collect()
}

/// Text for HTML and SVG, in elements and in quoted attributes.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // No document may hold these; nor does a text that is turned around mean what it shows.
            c if (c.is_control() && c != '\n' && c != '\t')
                || ('\u{202a}'..='\u{202e}').contains(&c)
                || ('\u{2066}'..='\u{2069}').contains(&c) =>
            {
                out.push('\u{fffd}');
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot() -> Plot {
        Plot::new(
            "Latency, ms",
            "time",
            Axis::seconds(30.0),
            Axis::from_zero(10.0),
        )
    }

    #[test]
    fn nothing_from_outside_becomes_markup() {
        let evil = "</text><script>alert('1')</script>\"&\u{0}\u{202e}";
        let svg = Plot::new(evil, evil, Axis::seconds(1.0), Axis::from_zero(1.0))
            .with(
                Shape::Line(vec![(0.0, 0.0), (1.0, 1.0)]),
                Colour::Blue,
                evil,
            )
            .with(Shape::Mark(0.5, evil.to_owned()), Colour::Grey, "")
            .file();
        assert!(!svg.contains("<script") && !svg.contains("'1'") && !svg.contains('\u{0}'));
        assert_eq!(svg.matches("&lt;script&gt;").count(), 5, "{svg}");
    }

    #[test]
    fn a_line_is_broken_where_nothing_was_measured_and_bounded() {
        let broken = plot().with(
            Shape::Line(vec![
                (0.0, 1.0),
                (1.0, 2.0),
                (2.0, f64::NAN),
                (3.0, 1.0),
                (4.0, 1.0),
            ]),
            Colour::Blue,
            "p50",
        );
        assert_eq!(broken.inline().matches("<path").count(), 2);
        let long: Vec<_> = (0..100_000)
            .map(|i| (f64::from(i) / 5_000.0, if i == 77_777 { 9.0 } else { 1.0 }))
            .collect();
        let kept = fewer(&long);
        assert!(kept.len() <= POINTS_MAX + 2, "{}", kept.len());
        assert!(
            kept.iter().any(|(_, y)| *y > 8.0),
            "the one that stands out is there"
        );
        assert!(kept.windows(2).all(|w| w[0].0 <= w[1].0));
    }

    #[test]
    fn values_beyond_the_axes_stay_inside_the_plot() {
        let svg = plot()
            .with(Shape::Bars(vec![(-5.0, 99.0, 1e9)]), Colour::Red, "errors")
            .with(
                Shape::Dots(vec![(1e9, -1e9), (f64::INFINITY, 0.0)]),
                Colour::Green,
                "",
            )
            .inline();
        assert!(svg.contains("<rect x=\"70.0\" y=\"44.0\""), "{svg}");
        assert_eq!(svg.matches("h0").count(), 1, "one dot, in the corner");
        assert!(!svg.contains("inf") && !svg.contains("NaN"));
    }
}
