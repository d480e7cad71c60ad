//! The built-in data: generated books whose titles carry what ids alone do not.
//!
//! **Items.** Series of 1 to 9 parts are made until there are `n_items`; each series has a made-up name and one of eight
//! genres, and a title reads "Iron Harbor 3: The Long Night (mystery)". Ids are drawn at random, so neither id nor index
//! tells series or part. Series popularity is Zipf-like (weight of rank r: 1/r). Four series in ten are *late*: they appear
//! when nine tenths of the time that the data covers have passed.
//!
//! **Users.** Each likes two genres and has 5 to 60 interactions (5 plus an exponential of mean 10), evenly over the
//! time. After part p of a series comes part p + 1, if there is one, with probability 0.8; otherwise a series that the user
//! has not begun and that has appeared is drawn, with probability 0.85 from the liked genres, by popularity, and read from
//! its first part. No item comes twice.
//!
//! **Why late series.** Where every series has always been there, a part follows the one before it so reliably that three
//! occurrences teach it to a model that knows ids only (measured: NDCG@10 .97 on targets with at most ten occurrences),
//! and titles say nothing new. New items, of which training has seen next to nothing but whose titles tell what they
//! are, are where ids end.
//!
use rand_chacha::{ChaCha8Rng, rand_core::Rng};

use super::{
    config::ToyConfig,
    dataset::Item,
    read::{Interactions, ItemTable},
};
use crate::seed::{Stream, rng};

const FIRST: [&str; 32] = [
    "Iron", "Silver", "Hollow", "Crimson", "Winter", "Paper", "Salt", "Amber", "Quiet", "Copper", "Velvet", "Stone",
    "Hidden", "Golden", "Broken", "Distant", "Ivory", "Thunder", "Glass", "Willow", "Ashen", "Bitter", "Cobalt",
    "Drifting", "Ember", "Fallow", "Gentle", "Harvest", "Jade", "Lantern", "Marble", "Northern",
];
const SECOND: [&str; 32] = [
    "Harbor",
    "Orchard",
    "Meridian",
    "Compass",
    "Lighthouse",
    "Carnival",
    "Archive",
    "Bridge",
    "Garden",
    "Engine",
    "Kingdom",
    "Market",
    "Observatory",
    "Parade",
    "River",
    "Station",
    "Theatre",
    "Valley",
    "Workshop",
    "Causeway",
    "Foundry",
    "Gallery",
    "Island",
    "Junction",
    "Library",
    "Mill",
    "Outpost",
    "Pier",
    "Quarry",
    "Ridge",
    "Summit",
    "Terrace",
];
const LEAD: [&str; 16] = [
    "The Long",
    "The Last",
    "A Borrowed",
    "The Second",
    "No Ordinary",
    "The Missing",
    "A Perfect",
    "The Sleeping",
    "Under the",
    "Beyond the",
    "The Burning",
    "A Distant",
    "The Secret",
    "After the",
    "The Unwritten",
    "Return to the",
];
const TAIL: [&str; 16] = [
    "Night", "Letter", "Witness", "Journey", "Promise", "Storm", "Guest", "Winter", "Melody", "Shadow", "Tide", "Map",
    "Crown", "Mirror", "Door", "Signal",
];
const GENRES: [&str; 8] = ["mystery", "space voyage", "romance", "comedy", "frontier", "haunting", "sports", "cooking"];

/// Goes into the data set's hash: another rule makes other data from the same options.
pub(super) const RULE: &str = "\ntoy-3";

/// When late series appear, as a share of the time that the data covers.
const APPEARANCE: f64 = 0.9;
/// Share of the series that are late.
const LATE: f64 = 0.4;
/// The time that the data covers, in seconds.
const SECONDS: f64 = 1e7;

struct Series {
    genre: usize,
    weight: f64,
    items: Vec<u32>,
    late: bool,
}

/// Generates items and interactions; the same sizes and seed give the same data everywhere.
pub(super) fn generate(config: &ToyConfig) -> (Interactions, ItemTable) {
    let mut rng = rng(config.seed, Stream::Data, 0, 0);
    let (series, table) = catalogue(config.n_items, &mut rng);
    let mut out = Interactions {
        items: table.items.iter().map(|item| item.id.clone()).collect(),
        time: Some(Vec::new()),
        ..Interactions::default()
    };
    for user in 0..config.n_users {
        out.users.push((user + 1).to_string());
        for (item, time) in history(&series, config.n_items, &mut rng) {
            out.user.push(user as u32);
            out.item.push(item);
            if let Some(times) = &mut out.time {
                times.push((time * SECONDS).floor());
            }
        }
    }
    (out, table)
}

fn catalogue(n_items: usize, rng: &mut ChaCha8Rng) -> (Vec<Series>, ItemTable) {
    let mut ids: Vec<usize> = (1000..1000 + 2 * n_items).collect();
    shuffle(&mut ids, rng);
    let mut names: Vec<usize> = (0..FIRST.len() * SECOND.len()).collect();
    shuffle(&mut names, rng);
    let mut series: Vec<Series> = Vec::new();
    let mut table = ItemTable::default();
    while table.items.len() < n_items {
        let number = series.len();
        let round = number / names.len();
        let code = names[number % names.len()];
        // after all names are used once, they come again with a suffix
        let again = if round > 0 { format!(" {}", (b'A' + (round % 26) as u8) as char) } else { String::new() };
        let name = format!("{} {}{again}", FIRST[code / SECOND.len()], SECOND[code % SECOND.len()]);
        let (genre, n_parts) = (below(GENRES.len(), rng), 1 + below(9, rng));
        let mut items = Vec::new();
        for part in 1..=n_parts.min(n_items - table.items.len()) {
            let subtitle = format!("{} {}", LEAD[below(LEAD.len(), rng)], TAIL[below(TAIL.len(), rng)]);
            let at = table.items.len();
            let id = ids[at].to_string();
            let title = format!("{name} {part}: {subtitle} ({})", GENRES[genre]);
            table.place.insert(id.clone(), at);
            table.items.push(Item { id, title, text: GENRES[genre].to_owned() });
            items.push(at as u32);
        }
        let late = uniform(rng) < LATE;
        series.push(Series { genre, weight: 1.0 / (number + 1) as f64, items, late });
    }
    (series, table)
}

/// Items and their times (shares of the whole), oldest first.
fn history(series: &[Series], n_items: usize, rng: &mut ChaCha8Rng) -> Vec<(u32, f64)> {
    let n = (5 + (exponential(rng) * 10.0) as usize).min(60).min(n_items / 2);
    let liked = [below(GENRES.len(), rng), below(GENRES.len(), rng)];
    let end = 0.97 + 0.03 * uniform(rng);
    let mut begun = vec![false; series.len()];
    let mut out = Vec::with_capacity(n);
    let (mut current, mut next) = (0, usize::MAX);
    while out.len() < n {
        let time = end * (out.len() + 1) as f64 / n as f64;
        let goes_on = next < series[current].items.len() && uniform(rng) < 0.8;
        if !goes_on {
            let by_taste = uniform(rng) < 0.85;
            let open = |s: usize, taste: bool| {
                !begun[s] && (!series[s].late || time >= APPEARANCE) && (!taste || liked.contains(&series[s].genre))
            };
            let any = |taste: bool| (0..series.len()).any(|s| open(s, taste));
            let taste = by_taste && any(true);
            if !any(taste) {
                break;
            }
            current = draw(series, |s| open(s, taste), rng);
            begun[current] = true;
            next = 0;
        }
        out.push((series[current].items[next], time));
        next += 1;
    }
    out
}

/// One of the series that `fits`, by weight.
fn draw(series: &[Series], fits: impl Fn(usize) -> bool, rng: &mut ChaCha8Rng) -> usize {
    let weight = |s: usize| if fits(s) { series[s].weight } else { 0.0 };
    let mut left = uniform(rng) * (0..series.len()).map(weight).sum::<f64>();
    let mut last = 0;
    for s in 0..series.len() {
        let w = weight(s);
        if w > 0.0 {
            last = s;
            left -= w;
            if left < 0.0 {
                break;
            }
        }
    }
    last
}

/// In `[0, 1)`.
fn uniform(rng: &mut ChaCha8Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// Mean 1.
fn exponential(rng: &mut ChaCha8Rng) -> f64 {
    // a table-free logarithm differs between machines in the last bit only, and the callers round it away
    -(1.0 - uniform(rng)).ln()
}

fn below(n: usize, rng: &mut ChaCha8Rng) -> usize {
    ((uniform(rng) * n as f64) as usize).min(n - 1)
}

fn shuffle(values: &mut [usize], rng: &mut ChaCha8Rng) {
    for i in (1..values.len()).rev() {
        values.swap(i, below(i + 1, rng));
    }
}
