//! Finding an item as a person names it.

use super::{Dataset, Item};
use crate::{Error, Result};

impl Dataset {
    /// The item with this id or title: the exact id, the exact title, the title in any case, then the only title that
    /// contains the text.
    ///
    /// # Errors
    /// When nothing or more than one item fits; lists the nearest titles.
    pub fn find_item(&self, text: &str) -> Result<u32> {
        self.catalogue().find_item(text)
    }

    /// Its items under its name.
    pub fn catalogue(&self) -> Catalogue<'_> {
        Catalogue { name: &self.name, items: &self.items }
    }
}

/// The items of a data set, with or without its rows.
#[derive(Debug, Clone, Copy)]
pub struct Catalogue<'a> {
    /// Name of the data set, for messages.
    pub name: &'a str,
    /// Items by number.
    pub items: &'a [Item],
}

impl Catalogue<'_> {
    /// As [`Dataset::find_item`].
    ///
    /// # Errors
    /// As [`Dataset::find_item`].
    pub fn find_item(&self, text: &str) -> Result<u32> {
        let text = text.trim();
        let lower = text.to_lowercase();
        let pick = |fits: &dyn Fn(&Item) -> bool| -> Vec<u32> {
            self.items.iter().zip(0u32..).filter(|(item, _)| fits(item)).map(|(_, at)| at).collect()
        };
        if let [one] = pick(&|item| item.id == text)[..] {
            return Ok(one);
        }
        if text.is_empty() {
            return Err(Error::invalid("wanted an item id or a title, got nothing"));
        }
        let stages: [&dyn Fn(&Item) -> bool; 3] =
            [&|item| item.title == text, &|item| item.title.to_lowercase() == lower, &|item| {
                item.title.to_lowercase().contains(&lower)
            }];
        for fits in stages {
            match pick(fits)[..] {
                [] => {}
                [one] => return Ok(one),
                ref many => return Err(self.ambiguous(text, many)),
            }
        }
        let mut near: Vec<(f64, u32)> = self
            .items
            .iter()
            .zip(0..)
            .map(|(item, at)| (strsim::jaro_winkler(&item.title.to_lowercase(), &lower), at))
            .collect();
        near.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let near: Vec<u32> = near.into_iter().take(5).map(|(_, at)| at).collect();
        Err(Error::Invalid {
            message: format!("no item `{text}` in data set `{}`", self.name),
            hint: Some(format!("the nearest titles are {}", self.list(&near))),
        })
    }

    fn ambiguous(&self, text: &str, many: &[u32]) -> Error {
        let more = if many.len() > 8 { format!(" and {} more", many.len() - 8) } else { String::new() };
        Error::Invalid {
            message: format!("{} items fit `{text}`", many.len()),
            hint: Some(format!("give the id of one of {}{more}", self.list(&many[..many.len().min(8)]))),
        }
    }

    fn list(&self, items: &[u32]) -> String {
        let show = |&at: &u32| {
            let item = &self.items[at as usize];
            format!("\"{}\" (id {})", item.title, item.id)
        };
        items.iter().map(show).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Dataset, Item, Rows};

    fn dataset() -> Dataset {
        let titles = ["Alien", "Aliens", "The Usual Suspects", "heat", "Heat", "Twins", "Twins"];
        let item =
            |(i, title): (usize, &&str)| Item { id: (i + 10).to_string(), title: (*title).into(), text: String::new() };
        Dataset {
            name: "x".into(),
            items: titles.iter().enumerate().map(item).collect(),
            users: Vec::new(),
            train: Rows::new(),
            valid: Rows::new(),
            test: Rows::new(),
            train_counts: Vec::new(),
            train_order: Vec::new(),
            hash: String::new(),
            items_hash: String::new(),
            provenance: serde_json::Value::Null,
            protocol: String::new(),
        }
    }

    #[test]
    fn ids_titles_and_parts() {
        let data = dataset();
        for (text, want) in [("10", 0), ("Alien", 0), ("ALIENS", 1), ("usual", 2), ("heat", 3), ("Heat", 4)] {
            assert_eq!(data.find_item(text).unwrap(), want, "{text}");
        }
        for (text, hint) in [("Twins", "id 15"), ("HEAT", "id 13"), ("Alein", "\"Alien\""), ("ali", "\"Aliens\"")] {
            let error = data.find_item(text).unwrap_err();
            assert!(error.hint().unwrap().contains(hint), "{text}: {error} {:?}", error.hint());
        }
        assert!(data.find_item("").is_err());
    }
}
