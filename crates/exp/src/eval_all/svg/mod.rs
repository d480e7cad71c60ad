//! Plots as SVG text for an HTML page: pure functions from numbers to a drawing, with title and description for those who
//! cannot see it.
//!
//! Own code and no crate: two kinds of plot need some 300 lines; plotters brings its back ends, fonts and a drawing area
//! whose output has neither `title` nor `desc`, and takes its text colour from no style sheet.

mod bars;
mod lines;

pub(super) use self::{
    bars::{Bar, BarGroup, bars},
    lines::{Line, lines},
};

/// Okabe and Ito's colours, told apart by most colour-blind people, without black and yellow (they vanish on one of the
/// two backgrounds), and three more.
const COLOURS: [&str; 9] =
    ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#8c8c8c", "#a6761d", "#7570b3"];
const WIDTH: f64 = 760.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 14.0;
/// Width of a letter at 12 px, about.
const LETTER: f64 = 6.6;

/// A finished drawing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plot {
    /// Unique within the report, good as a file's name.
    pub(super) id: String,
    pub(super) title: String,
    /// For an HTML page: it takes colour and width from there.
    pub(super) svg: String,
}

impl Plot {
    /// The drawing as a file of its own, which a Markdown page can show: light or dark by the reader's setting.
    pub(super) fn file(&self) -> String {
        const OWN: &str = "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"760\" ";
        const STYLE: &str = "<style>svg { color: #1b1f24; background: #ffffff; } \
                             @media (prefers-color-scheme: dark) { svg { color: #e6e8eb; background: #14171b; } }</style>\n";
        let whole = self.svg.replacen("<svg ", OWN, 1);
        let place = whole.find("<title").unwrap_or(whole.len());
        format!("{}{STYLE}{}", &whole[..place], &whole[place..])
    }
}

/// What every plot has besides its numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Words<'a> {
    /// Unique within the page; names the title and the description.
    pub(super) id: &'a str,
    pub(super) title: &'a str,
    pub(super) description: &'a str,
    pub(super) x: &'a str,
    pub(super) y: &'a str,
}

/// The colour of a series as an attribute's value, and how much of it: from the tenth series on they repeat, paler.
fn paint(series: usize) -> (&'static str, f64) {
    (COLOURS[series % COLOURS.len()], if series < COLOURS.len() { 1.0 } else { 0.45 })
}

/// Text for XML.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// Round numbers that span `low..=high`, four to nine of them, ascending.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let span = if high > low { high - low } else { high.abs().max(1.0) };
    let raw = span / 5.0;
    let magnitude = 10f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|f| f * magnitude).into_iter().find(|s| *s >= raw * 0.999).unwrap_or(raw);
    let first = (low / step + 1e-9).floor();
    let last = ((low + span) / step - 1e-9).ceil();
    (0..=(last - first) as usize).map(|i| (first + i as f64) * step).collect()
}

/// A tick with as many decimals as its neighbours need.
fn tick_text(value: f64, ticks: &[f64]) -> String {
    let step = ticks.windows(2).map(|w| w[1] - w[0]).fold(f64::INFINITY, f64::min);
    if !step.is_finite() || value.abs() >= 1e6 {
        return format!("{value:e}");
    }
    let decimals = (0..8).find(|&d| ((step * 10f64.powi(d)).round() - step * 10f64.powi(d)).abs() < 1e-6).unwrap_or(4);
    // -0.0 would carry its sign
    format!("{:.*}", decimals as usize, if value.abs() < step / 1e6 { 0.0 } else { value })
}

/// The frame of a plot: where values lie, and the parts drawn first.
struct Frame {
    top: f64,
    height: f64,
    y: Vec<f64>,
    id: String,
    title: String,
    out: String,
}

impl Frame {
    /// Opens the drawing: title, legend, horizontal lines with their values.
    fn new(words: &Words<'_>, series: &[(&str, usize)], y: Vec<f64>) -> Self {
        let (legend, top) = legend(series);
        let height = 240.0;
        let total = top + height + 52.0;
        let id = escape(words.id);
        let mut out = format!(
            "<svg viewBox=\"0 0 {WIDTH} {total:.0}\" role=\"img\" \
             aria-labelledby=\"{id}-title {id}-desc\" font-family=\"system-ui, sans-serif\" font-size=\"12\" \
             fill=\"currentColor\">\n<title id=\"{id}-title\">{}</title>\n<desc id=\"{id}-desc\">{}</desc>\n{legend}",
            escape(words.title),
            escape(words.description)
        );
        let mut frame = Self { top, height, y, id: words.id.into(), title: words.title.into(), out: String::new() };
        for &tick in &frame.y {
            let at = frame.at(tick);
            out += &format!(
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"currentColor\" \
                 stroke-opacity=\"0.2\"/>\n<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n",
                WIDTH - RIGHT,
                LEFT - 6.0,
                at + 4.0,
                tick_text(tick, &frame.y)
            );
        }
        let middle = top + height / 2.0;
        out += &format!(
            "<text x=\"14\" y=\"{middle:.1}\" text-anchor=\"middle\" transform=\"rotate(-90 14 {middle:.1})\">{}</text>\n\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\n",
            escape(words.y),
            (LEFT + WIDTH - RIGHT) / 2.0,
            top + height + 40.0,
            escape(words.x)
        );
        frame.out = out;
        frame
    }

    /// The height of a value.
    fn at(&self, value: f64) -> f64 {
        let (low, high) = (self.y[0], self.y[self.y.len() - 1]);
        self.top + self.height * (1.0 - (value - low) / (high - low))
    }

    /// A word below the plot.
    fn below(&mut self, x: f64, text: &str) {
        let y = self.top + self.height + 18.0;
        self.out += &format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{}</text>\n", escape(text));
    }

    fn finish(mut self) -> Plot {
        self.out += "</svg>\n";
        Plot { id: self.id, title: self.title, svg: self.out }
    }
}

/// Squares with names, in as many rows as they need; and where the plot may begin.
fn legend(series: &[(&str, usize)]) -> (String, f64) {
    let (mut x, mut y, mut out) = (LEFT, 14.0, String::new());
    for &(name, at) in series {
        let (fill, opacity) = paint(at);
        let width = name.chars().count() as f64 * LETTER + 32.0;
        if x + width > WIDTH && x > LEFT {
            (x, y) = (LEFT, y + 20.0);
        }
        out += &format!(
            "<rect class=\"key\" x=\"{x:.1}\" y=\"{:.1}\" width=\"12\" height=\"12\" fill=\"{fill}\" \
             fill-opacity=\"{opacity}\"/>\n<text x=\"{:.1}\" y=\"{:.1}\">{}</text>\n",
            y - 10.0,
            x + 17.0,
            y,
            escape(name)
        );
        x += width;
    }
    (out, y + 16.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_span_the_values() {
        assert_eq!(ticks(0.0, 1.0), [0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0]);
        for (low, high) in [(0.0, 0.0312), (0.02, 0.9), (-0.3, 0.1), (0.0, 12345.0), (0.5, 0.5), (0.0, 0.0)] {
            let found = ticks(low, high);
            assert!((3..=12).contains(&found.len()), "{low} {high}: {found:?}");
            assert!(found[0] <= low + 1e-12 && found[found.len() - 1] >= high - 1e-12, "{low} {high}: {found:?}");
        }
        let found = ticks(0.0, 0.12);
        let texts: Vec<String> = found.iter().map(|&t| tick_text(t, &found)).collect();
        assert_eq!(texts, ["0.000", "0.025", "0.050", "0.075", "0.100", "0.125"]);
    }

    #[test]
    fn text_is_escaped() {
        assert_eq!(escape("a<b> & \"c\"\n"), "a&lt;b&gt; &amp; &quot;c&quot; ");
    }
}
