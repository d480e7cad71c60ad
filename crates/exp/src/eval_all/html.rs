//! The report as one HTML file that needs nothing else: no script, no font, no picture from elsewhere.

use super::{
    document::{Block, Document, Table},
    svg::escape,
};

/// Light and dark by the reader's setting; black on white on paper.
const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #ffffff; --soft: #f3f4f6; --line: #c9ced6; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --paper: #14171b; --soft: #1f242b; --line: #3c444f; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 70rem; padding: 1.5rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, 'Segoe UI', sans-serif; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; border-bottom: 1px solid var(--line); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; margin: .8rem 0; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; white-space: normal; min-width: 9rem; overflow-wrap: anywhere; }
thead th { background: var(--soft); }
table.facts td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
svg { width: 100%; max-width: 760px; height: auto; display: block; margin: .8rem 0; }
@media print {
  :root { --ink: #000; --paper: #fff; --soft: #eee; --line: #999; }
  body { max-width: none; padding: 0; font-size: 10pt; } table { font-size: 7.5pt; } .wide { overflow: visible; }
  svg, table { break-inside: avoid; } h2 { break-after: avoid; }
}";

/// The whole page.
pub(super) fn page(document: &Document) -> String {
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<title>{0}</title>\n\
         <style>{STYLE}\n</style>\n</head>\n<body>\n<main>\n<h1>{0}</h1>\n",
        escape(&document.title)
    );
    for section in &document.sections {
        out += &format!("<section>\n<h2>{}</h2>\n", escape(&section.title));
        for block in &section.blocks {
            match block {
                Block::Text(text) => out += &format!("<p>{}</p>\n", escape(text)),
                Block::Table(found) => out += &table(found),
                Block::Plot(plot) => {
                    out += &format!("<figure class=\"wide\" style=\"margin: 0\">\n{}</figure>\n", plot.svg);
                }
            }
        }
        out += "</section>\n";
    }
    out + "</main>\n</body>\n</html>\n"
}

fn table(table: &Table) -> String {
    let cells = |tag: &str, cells: &[String], scope: &str| -> String {
        let cell = |text: &String| format!("<{tag}{scope}>{}</{tag}>", escape(text));
        format!("<tr>{}</tr>\n", cells.iter().map(cell).collect::<String>())
    };
    let head = cells("th", &table.head, " scope=\"col\"");
    let rows: String = table.rows.iter().map(|row| cells("td", row, "")).collect();
    // two columns of words are facts, not figures
    let class = if table.head.len() == 2 { " class=\"facts\"" } else { "" };
    format!(
        "<div class=\"wide\">\n<table{class}>\n<thead>\n{head}</thead>\n<tbody>\n{rows}</tbody>\n</table>\n</div>\n"
    )
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::eval_all::{document::Section, svg::Plot};

    /// Every tag is closed in its order, and every `id` is there once.
    pub(crate) fn balanced(text: &str) {
        let mut open: Vec<&str> = Vec::new();
        for part in text.split('<').skip(1) {
            let (tag, _) = part.split_once('>').unwrap_or_else(|| panic!("`<` without `>`: {part}"));
            if tag.starts_with('!') || tag.ends_with('/') {
                continue;
            }
            match tag.strip_prefix('/') {
                Some(name) => assert_eq!(open.pop(), Some(name), "in {part}"),
                None => open.push(tag.split_whitespace().next().unwrap_or_default()),
            }
        }
        assert!(open.is_empty(), "never closed: {open:?}");
        let ids: Vec<&str> = text.split(" id=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        let mut single = ids.clone();
        single.sort_unstable();
        single.dedup();
        assert_eq!(ids.len(), single.len(), "{ids:?}");
    }

    #[test]
    fn a_page_is_well_formed_and_alone() {
        let mut table = Table::new(["a", "b", "c"]);
        table.rows.push(vec!["<script>".into(), "1 & 2".into(), "\"3\"".into()]);
        let plot = Plot { id: "p".into(), title: "P".into(), svg: "<svg></svg>\n".into() };
        let blocks = vec![Block::Text("a < b".into()), Block::Table(table), Block::Plot(plot)];
        let document = Document { title: "T & U".into(), sections: vec![Section { title: "S".into(), blocks }] };
        let page = page(&document);
        balanced(&page);
        assert!(page.contains("<td>&lt;script&gt;</td><td>1 &amp; 2</td>") && page.contains("<p>a &lt; b</p>"));
        for word in ["http:", "https:", "<script", "url(", "src="] {
            assert!(!page.contains(word), "{word}");
        }
    }
}
