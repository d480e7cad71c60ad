//! Lines through points, each series with a colour, a dash and a marker of its own.

use super::{Frame, LEFT, Plot, RIGHT, WIDTH, Words, escape, paint, tick_text, ticks};

/// Points in the order of drawing; with intervals where `ends` has one for a point.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Line {
    pub(crate) name: String,
    /// Decides the colour: the place that the method has in other plots.
    pub(crate) series: usize,
    pub(crate) points: Vec<(f64, f64)>,
    /// `[low, high]` of each point, or empty.
    pub(crate) ends: Vec<[f64; 2]>,
}

/// More points than this carry no markers.
const MARKED: usize = 40;
const DASHES: [&str; 4] = ["", "6 3", "2 3", "8 3 2 3"];

/// Draws `series`. Points that are not finite are left out.
pub(crate) fn lines(words: &Words<'_>, series: &[Line]) -> Plot {
    let finite = |line: &Line| -> Vec<(f64, f64, Option<[f64; 2]>)> {
        let ends = |at: usize| line.ends.get(at).copied().filter(|ends| ends.iter().all(|end| end.is_finite()));
        let points = line.points.iter().enumerate().map(|(at, &(x, y))| (x, y, ends(at)));
        points.filter(|(x, y, _)| x.is_finite() && y.is_finite()).collect()
    };
    let drawn: Vec<_> = series.iter().map(finite).collect();
    let all = || drawn.iter().flatten();
    let least = |values: &mut dyn Iterator<Item = f64>| values.fold(f64::INFINITY, f64::min);
    let most = |values: &mut dyn Iterator<Item = f64>| values.fold(f64::NEG_INFINITY, f64::max);
    let low = least(&mut all().map(|(_, y, ends)| ends.map_or(*y, |e| e[0].min(*y))));
    let high = most(&mut all().map(|(_, y, ends)| ends.map_or(*y, |e| e[1].max(*y))));
    let (left, right) = (least(&mut all().map(|p| p.0)), most(&mut all().map(|p| p.0)));
    let names: Vec<(&str, usize)> = series.iter().map(|line| (line.name.as_str(), line.series)).collect();
    let is_empty = all().next().is_none();
    let y = if is_empty { ticks(0.0, 1.0) } else { ticks(low, high) };
    let x = if is_empty { ticks(0.0, 1.0) } else { ticks(left, right) };
    let mut frame = Frame::new(words, &names, y);
    let (first, last) = (x[0], x[x.len() - 1]);
    let across = |value: f64| LEFT + (WIDTH - RIGHT - LEFT) * (value - first) / (last - first);
    for &tick in &x {
        // the last label would leave the drawing
        frame.below(across(tick).min(WIDTH - RIGHT - 12.0), &tick_text(tick, &x));
    }
    for (s, points) in drawn.iter().enumerate() {
        let path: Vec<String> =
            points.iter().map(|(x, y, _)| format!("{:.1} {:.1}", across(*x), frame.at(*y))).collect();
        if path.is_empty() {
            continue;
        }
        let (fill, opacity) = paint(names[s].1);
        frame.out += &format!(
            "<path class=\"line\" d=\"M{}\" fill=\"none\" stroke=\"{fill}\" stroke-width=\"2\" \
             stroke-opacity=\"{opacity}\" stroke-dasharray=\"{}\">\
             <title>{}</title></path>\n",
            path.join("L"),
            DASHES[s % DASHES.len()],
            escape(names[s].0)
        );
        for (px, py, ends) in points.iter().filter(|_| points.len() <= MARKED) {
            let (x, y) = (across(*px), frame.at(*py));
            if let Some([low, high]) = ends {
                let (low, high) = (frame.at(*low), frame.at(*high));
                frame.out += &format!("<path class=\"whisker\" d=\"M{x:.1} {high:.1}V{low:.1}\" stroke=\"{fill}\"/>\n");
            }
            let shape = match s % 3 {
                0 => format!("<circle class=\"mark\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{fill}\">"),
                1 => format!(
                    "<rect class=\"mark\" x=\"{:.1}\" y=\"{:.1}\" width=\"7\" height=\"7\" fill=\"{fill}\">",
                    x - 3.5,
                    y - 3.5
                ),
                _ => format!("<path class=\"mark\" d=\"M{x:.1} {:.1}l4 7h-8z\" fill=\"{fill}\">", y - 4.0),
            };
            let end = ["</circle>", "</rect>", "</path>"][s % 3];
            frame.out += &format!("{shape}<title>{}: {px} → {py:.4}</title>{end}\n", escape(names[s].0));
        }
    }
    frame.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval_all::html::tests::balanced;

    const WORDS: Words<'_> = Words { id: "q", title: "t", description: "d", x: "step", y: "loss" };

    fn line(name: &str, points: &[(f64, f64)]) -> Line {
        Line { name: name.into(), series: 0, points: points.to_vec(), ends: Vec::new() }
    }

    #[test]
    fn lines_have_markers_and_skip_what_is_no_number() {
        let mut budget = line("b", &[(0.0, 0.5), (10.0, 1.0)]);
        budget.ends = vec![[0.4, 0.6], [0.9, 1.0]];
        let svg =
            lines(&WORDS, &[line("a", &[(0.0, 0.0), (5.0, f64::NAN), (10.0, 1.0)]), budget, line("none", &[])]).svg;
        balanced(&svg);
        assert_eq!((svg.matches("class=\"line\"").count(), svg.matches("class=\"mark\"").count()), (2, 4));
        assert_eq!(svg.matches("class=\"whisker\"").count(), 2);
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
        // both axes end at their largest value: the upper right corner is (746, 30)
        assert!(svg.contains("d=\"M62.0 270.0L746.0 30.0\""), "{svg}");
        let long: Vec<(f64, f64)> = (0..100).map(|i| (f64::from(i), f64::from(i % 7))).collect();
        assert!(!lines(&WORDS, &[line("long", &long)]).svg.contains("class=\"mark\""));
        balanced(&lines(&WORDS, &[]).svg);
        balanced(&lines(&WORDS, &[line("one", &[(3.0, 3.0)])]).svg);
    }
}
