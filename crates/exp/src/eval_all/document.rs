//! The report before it has a format: sections of sentences, tables and plots; and how numbers are written in it.

use super::svg::Plot;

/// Folder of the plots beside the Markdown.
pub(super) const PLOTS: &str = "plots";

/// A report.
#[derive(Debug, Clone, Default)]
pub(super) struct Document {
    pub(super) title: String,
    pub(super) sections: Vec<Section>,
}

/// A part with a heading.
#[derive(Debug, Clone, Default)]
pub(super) struct Section {
    pub(super) title: String,
    pub(super) blocks: Vec<Block>,
}

/// What stands in a section.
#[derive(Debug, Clone)]
pub(super) enum Block {
    /// A paragraph.
    Text(String),
    /// A table; the first column holds names.
    Table(Table),
    /// A drawing.
    Plot(Plot),
}

/// A table of texts.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Table {
    pub(super) head: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
}

/// What stands where there is no number.
pub(super) const NONE: &str = "–";

impl Table {
    pub(super) fn new(head: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { head: head.into_iter().map(Into::into).collect(), rows: Vec::new() }
    }

    /// The table for a terminal, two spaces between columns, numbers to the right.
    pub(super) fn to_text(&self) -> String {
        let lines: Vec<&Vec<String>> = std::iter::once(&self.head).chain(&self.rows).collect();
        let width = |column: usize| {
            lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let mut out = String::new();
        for (at, line) in lines.iter().enumerate() {
            let mut text = String::new();
            for (column, (cell, &width)) in line.iter().zip(&widths).enumerate() {
                let pad = " ".repeat(width - cell.chars().count());
                text += &if column == 0 { format!(" {cell}{pad}") } else { format!("  {pad}{cell}") };
            }
            out += text.trim_end();
            out.push('\n');
            if at == 0 {
                out += &format!(" {}\n", "─".repeat(widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1)));
            }
        }
        out
    }

    fn to_markdown(&self) -> String {
        let line = |cells: &[String]| {
            format!("| {} |\n", cells.iter().map(|cell| cell.replace('|', "\\|")).collect::<Vec<_>>().join(" | "))
        };
        let rule = format!("|---{}|\n", "|---:".repeat(self.head.len().saturating_sub(1)));
        line(&self.head) + &rule + &self.rows.iter().map(|row| line(row)).collect::<String>()
    }
}

impl Document {
    /// Every plot.
    pub(super) fn plots(&self) -> impl Iterator<Item = &Plot> {
        self.sections.iter().flat_map(|section| &section.blocks).filter_map(|block| match block {
            Block::Plot(plot) => Some(plot),
            Block::Text(_) | Block::Table(_) => None,
        })
    }

    /// The report with plots as files beside it.
    pub(super) fn to_markdown(&self) -> String {
        let mut out = format!("# {}\n", self.title);
        for section in &self.sections {
            let told: Vec<String> = section
                .blocks
                .iter()
                .map(|block| match block {
                    Block::Text(text) => format!("{text}\n"),
                    Block::Table(table) => table.to_markdown(),
                    Block::Plot(plot) => format!("![{}]({PLOTS}/{}.svg)\n", plot.title, plot.id),
                })
                .collect();
            if !told.is_empty() {
                out += &format!("\n## {}\n\n{}", section.title, told.join("\n"));
            }
        }
        out
    }
}

/// A number or [`NONE`].
pub(super) fn maybe(value: Option<f64>, write: impl Fn(f64) -> String) -> String {
    value.filter(|value| value.is_finite()).map_or(NONE.to_owned(), write)
}

/// A metric: four decimals.
pub(super) fn four(value: f64) -> String {
    maybe(Some(value), |value| format!("{value:.4}"))
}

/// A difference: four decimals with its sign.
pub(super) fn signed(value: f64) -> String {
    maybe(Some(value), |value| format!("{value:+.4}"))
}

/// `[low, high]`.
pub(super) fn range(ends: Option<[f64; 2]>, write: impl Fn(f64) -> String) -> String {
    ends.map_or(NONE.to_owned(), |[low, high]| format!("[{}, {}]", write(low), write(high)))
}

/// A p value: four decimals, small ones as a power of ten.
pub(super) fn p_value(p: f64) -> String {
    maybe(Some(p), |p| match p {
        p if p < 1e-99 => "< 1e-99".to_owned(),
        p if p < 1e-4 => format!("{p:.1e}"),
        p => format!("{p:.4}"),
    })
}

/// Seconds in the unit that fits.
pub(super) fn seconds(value: f64) -> String {
    maybe(Some(value), |s| match s {
        s if s < 0.1 => format!("{:.2} ms", s * 1e3),
        s if s < 120.0 => format!("{s:.1} s"),
        s if s < 7200.0 => format!("{:.1} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    })
}

/// Bytes in the unit that fits.
pub(super) fn bytes(value: f64) -> String {
    maybe(Some(value), |b| match b {
        b if b < 1e6 => format!("{:.0} kB", b / 1e3),
        b if b < 1e9 => format!("{:.1} MB", b / 1e6),
        b => format!("{:.2} GB", b / 1e9),
    })
}

/// A whole number in groups of three.
pub(super) fn count(value: f64) -> String {
    maybe(Some(value), |value| {
        let digits = format!("{value:.0}");
        let mut out = String::new();
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                out.push(',');
            }
            out.push(digit);
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!([four(0.123_45), signed(0.5), signed(-0.000_01)], ["0.1235", "+0.5000", "-0.0000"]);
        assert_eq!([p_value(0.012_34), p_value(1.2e-7), p_value(0.0)], ["0.0123", "1.2e-7", "< 1e-99"]);
        assert_eq!(
            [seconds(0.0012), seconds(5.0), seconds(600.0), seconds(9000.0)],
            ["1.20 ms", "5.0 s", "10.0 min", "2.5 h"]
        );
        assert_eq!([count(7.0), count(1234567.0), bytes(1.5e6)], ["7", "1,234,567", "1.5 MB"]);
        for text in [four(f64::NAN), p_value(f64::NAN), seconds(f64::INFINITY), maybe(None, four), range(None, four)] {
            assert_eq!(text, NONE);
        }
    }

    #[test]
    fn one_table_for_the_terminal_and_for_markdown() {
        let mut table = Table::new(["method", "HR@10"]);
        table.rows.push(vec!["a|b".into(), "0.1".into()]);
        table.rows.push(vec!["long name".into(), "0.25".into()]);
        assert_eq!(table.to_text(), " method     HR@10\n ────────────────\n a|b          0.1\n long name   0.25\n");
        assert_eq!(table.to_markdown(), "| method | HR@10 |\n|---|---:|\n| a\\|b | 0.1 |\n| long name | 0.25 |\n");
    }
}
