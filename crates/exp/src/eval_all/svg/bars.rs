//! Bars in groups, with intervals.

use super::{Frame, LEFT, Plot, RIGHT, WIDTH, Words, escape, paint, ticks};

/// A bar: a value from 0 up and, where known, its interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Bar {
    pub(crate) value: f64,
    pub(crate) interval: Option<[f64; 2]>,
}

/// Bars side by side, one for each series; `None` leaves a gap.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BarGroup {
    pub(crate) name: String,
    pub(crate) bars: Vec<Option<Bar>>,
}

/// Draws `groups` whose bars belong to `series`. What is not finite is left out.
pub(crate) fn bars(words: &Words<'_>, series: &[&str], groups: &[BarGroup]) -> Plot {
    let shown = |bar: &Option<Bar>| bar.filter(|bar| bar.value.is_finite());
    let interval = |bar: &Bar| bar.interval.filter(|ends| ends.iter().all(|end| end.is_finite()));
    let every = groups.iter().flat_map(|group| group.bars.iter().filter_map(shown));
    let high = every.map(|bar| interval(&bar).map_or(bar.value, |ends| ends[1].max(bar.value))).fold(0.0, f64::max);
    let keys: Vec<(&str, usize)> = series.iter().copied().zip(0..).collect();
    let mut frame = Frame::new(words, &keys, ticks(0.0, if high > 0.0 { high } else { 1.0 }));
    let room = (WIDTH - RIGHT - LEFT) / groups.len().max(1) as f64;
    let width = (room * 0.86 / series.len().max(1) as f64).min(48.0);
    for (g, group) in groups.iter().enumerate() {
        let middle = LEFT + room * (g as f64 + 0.5);
        let start = middle - width * series.len() as f64 / 2.0;
        for (s, bar) in group.bars.iter().enumerate() {
            let Some(bar) = shown(bar) else { continue };
            let (x, y, base) = (start + width * s as f64, frame.at(bar.value), frame.at(0.0));
            let said = interval(&bar).map_or(String::new(), |[low, high]| format!(" [{low:.4}, {high:.4}]"));
            let (fill, opacity) = paint(s);
            let name = series.get(s).copied().unwrap_or_default();
            frame.out += &format!(
                "<rect class=\"bar\" x=\"{:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{fill}\" \
                 fill-opacity=\"{opacity}\"><title>{}: {} {:.4}{said}</title></rect>\n",
                x + 1.0,
                (width - 2.0).max(1.0),
                (base - y).max(0.0),
                escape(name),
                escape(&group.name),
                bar.value
            );
            if let Some([low, high]) = interval(&bar) {
                let (x, low, high) = (x + width / 2.0, frame.at(low), frame.at(high));
                let cap = (width / 4.0).min(5.0);
                frame.out += &format!(
                    "<path class=\"whisker\" d=\"M{:.1} {high:.1}h{:.1}M{x:.1} {high:.1}V{low:.1}M{:.1} {low:.1}h{:.1}\" \
                     stroke=\"currentColor\" fill=\"none\"/>\n",
                    x - cap,
                    2.0 * cap,
                    x - cap,
                    2.0 * cap
                );
            }
        }
        frame.below(middle, &group.name);
    }
    frame.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval_all::html::tests::balanced;

    const WORDS: Words<'_> =
        Words { id: "p", title: "A <plot>", description: "what it shows", x: "part", y: "NDCG@10" };

    fn group(name: &str, bars: &[Option<Bar>]) -> BarGroup {
        BarGroup { name: name.into(), bars: bars.to_vec() }
    }

    #[test]
    fn bars_whiskers_gaps_and_nothing_that_is_no_number() {
        let bar = |value, interval| Some(Bar { value, interval });
        let svg = bars(
            &WORDS,
            &["a & b", "c"],
            &[
                group("head", &[bar(0.4, Some([0.3, 0.5])), bar(0.2, None)]),
                group("tail", &[None, bar(f64::NAN, Some([0.0, 1.0]))]),
                group("rare", &[bar(0.1, Some([f64::NAN, 0.2])), bar(0.0, Some([0.0, 0.0]))]),
            ],
        )
        .svg;
        balanced(&svg);
        assert_eq!(svg.matches("class=\"bar\"").count(), 4);
        assert_eq!(svg.matches("class=\"whisker\"").count(), 2);
        assert_eq!(svg.matches("class=\"key\"").count(), 2);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert!(svg.contains("<title id=\"p-title\">A &lt;plot&gt;</title>") && svg.contains("aria-labelledby"));
        // the axis goes from 0 to 0.5 over 240 px below the legend's 30 px: 0.4 begins at 78 and is 192 high
        assert!(svg.contains("y=\"78.0\" width=\"46.0\" height=\"192.0\" fill=\"#0072b2\""), "{svg}");
        assert!(svg.contains("<title>a &amp; b: head 0.4000 [0.3000, 0.5000]</title>"));
    }

    #[test]
    fn nothing_to_draw_is_still_a_drawing() {
        balanced(&bars(&WORDS, &[], &[]).svg);
        balanced(&bars(&WORDS, &["a"], &[group("x", &[None])]).svg);
    }
}
