//! What a data set is, as configuration: `conf/dataset/*.yaml` holds one complete value per data set.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where data lies on this machine (`data:` of the applications).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Folder of the source files; a data set's `path` is looked for below it.
    pub root: PathBuf,
    /// Folder of the processed forms; null keeps none.
    pub cache: Option<PathBuf>,
}

/// A data set: where it is read from, how it is filtered and how it is split. Nothing depends on `name`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatasetConfig {
    /// Name for reports and for the cache folder: letters, digits, `-`, `_`, `.`.
    pub name: String,
    /// How the interactions are written.
    pub format: Format,
    /// The interactions: a file below `data.root`, or a path of its own; null for `toy` and `windows`.
    pub path: Option<String>,
    /// Read when `path` is its `instead_of` and does not exist.
    pub alternative: Option<Alternative>,
    /// What to pass to `cmd/download_data.sh`, for the hint when a file is missing.
    pub download: Option<String>,
    /// Layout of a delimited text file.
    pub text: TextConfig,
    /// Which column is what, in `delimited`, `parquet`, `ndjson` and `atomic`.
    pub columns: Columns,
    /// Titles and other text of the items; null leaves the ids.
    pub items: Option<ItemsConfig>,
    /// How titles are cleaned.
    pub title: TitleConfig,
    /// What is kept, in which order.
    pub filter: FilterConfig,
    /// Which interactions are learned from and which are asked for.
    pub split: SplitConfig,
    /// Files of `format: windows`.
    pub windows: Option<WindowsConfig>,
    /// Sizes of `format: toy`.
    pub toy: Option<ToyConfig>,
}

/// How interactions (or items) are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// From the file's extension: csv, tsv, txt, dat, parquet, ndjson, jsonl, inter, item.
    Auto,
    /// Generated; reads nothing.
    Toy,
    /// Text with one row a line and a separator.
    Delimited,
    /// Apache Parquet.
    Parquet,
    /// One JSON object a line.
    Ndjson,
    /// RecBole's atomic files: tab-separated with a typed header such as `user_id:token`.
    Atomic,
    /// One user a line: the user, then the items oldest to newest, separated by tabs or spaces.
    Sequences,
    /// Tables of `seq`, `len_seq`, `next`: histories with their target, one file for each part.
    Windows,
}

/// A second place to read from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alternative {
    /// Only for this `path`; another path that is missing is an error.
    pub instead_of: String,
    /// How it is written.
    pub format: Format,
    /// Where it lies.
    pub path: String,
}

/// Layout of a delimited text file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextConfig {
    /// One or more characters between columns, such as `,` or `::`; null: comma for csv, tab otherwise.
    pub separator: Option<String>,
    /// Whether the first line names the columns.
    pub header: bool,
    /// How letters are written.
    pub encoding: Encoding,
    /// Whether `"` encloses values that contain the separator.
    pub quotes: bool,
    /// A line is split into at most so many columns, the rest belongs to the last; null: no limit.
    pub max_columns: Option<usize>,
}

/// How letters are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// UTF-8.
    Utf8,
    /// ISO-8859-1, one byte a letter.
    Latin1,
}

/// A column by its name in the header, or by its number counted from 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Column {
    /// Counted from 1.
    Number(usize),
    /// As in the header.
    Name(String),
}

/// Which column is what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Columns {
    /// The user.
    pub user: Option<Column>,
    /// The item.
    pub item: Option<Column>,
    /// When it happened, a number such as Unix seconds; null: the order of the file.
    pub time: Option<Column>,
    /// The rating, for `filter.min_rating`; null: none.
    pub rating: Option<Column>,
}

/// Titles and other text of the items.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ItemsConfig {
    /// The file, found like [`DatasetConfig::path`]; `auto`: the interactions' path with extension `item`, if there;
    /// null: none.
    pub path: Option<String>,
    /// How it is written: any table format.
    pub format: Format,
    /// Layout of a delimited text file.
    pub text: TextConfig,
    /// Column of the id.
    pub id: Column,
    /// Column of the title; null: the id is the title.
    pub title: Option<Column>,
    /// Columns of other text, joined by a comma.
    pub other: Vec<Column>,
    /// Splits the values of `other`, such as `|` in `Comedy|Drama`; null: taken as they are.
    pub other_separator: Option<String>,
    /// 0/1 columns that stand for words; null: none.
    pub flags: Option<Flags>,
    /// Added to the file's (whole-number) ids to get the interactions' ids.
    pub id_shift: i64,
    /// What becomes of an interaction whose item is not in the file.
    pub unknown: UnknownItems,
}

/// 0/1 columns that stand for words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flags {
    /// Number of the first such column, counted from 1.
    pub first: usize,
    /// The word of each column.
    pub names: Vec<String>,
}

/// What becomes of an interaction whose item is not in the item file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnknownItems {
    /// An error that names the item and the file.
    Error,
    /// It stays; its id is its title.
    Keep,
    /// It is left out and counted.
    Drop,
}

/// How titles are cleaned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TitleConfig {
    /// What the source does to titles.
    pub style: TitleStyle,
    /// Whether a year in brackets at the end stays; only `movielens` looks for one.
    pub year: Year,
    /// Whether HTML entities such as `&amp;` are decoded.
    pub html: bool,
}

/// What the source does to titles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TitleStyle {
    /// Nothing.
    Raw,
    /// The article is behind a comma: "Usual Suspects, The (1995)".
    Movielens,
}

/// What becomes of the year.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Year {
    /// It stays.
    Keep,
    /// It goes.
    Strip,
}

/// What is kept, in which order. Applied from top to bottom.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilterConfig {
    /// Interactions rated lower go; null: all stay.
    pub min_rating: Option<f64>,
    /// Order of one user's interactions with equal times.
    pub ties: Ties,
    /// What becomes of a second interaction of the same user with the same item.
    pub duplicates: Duplicates,
    /// Users with fewer interactions go; repeated with `item_core` until nothing changes. 0 or 1: all stay.
    pub user_core: usize,
    /// Items with fewer interactions go. 0 or 1: all stay.
    pub item_core: usize,
    /// Only so many of a user's newest interactions stay; null: all.
    pub max_history: Option<usize>,
    /// Which items can be recommended.
    pub catalogue: Catalogue,
}

/// Order of one user's interactions with equal times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ties {
    /// As in the file.
    FileOrder,
    /// By item id.
    ItemId,
}

/// What becomes of a second interaction of the same user with the same item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Duplicates {
    /// All stay.
    KeepAll,
    /// The oldest stays.
    KeepFirst,
    /// The newest stays.
    KeepLast,
}

/// Which items can be recommended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Catalogue {
    /// Those with an interaction left after filtering.
    Interactions,
    /// Those and everything in the item file.
    All,
}

/// Which interactions are learned from and which are asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitConfig {
    /// The rule.
    pub kind: SplitKind,
    /// Shares of train, valid and test in `temporal`, `llara` and `dllm2rec`; they add up to 1.
    pub fractions: [f64; 3],
    /// What `temporal` asks of a user in each period.
    pub targets: Targets,
    /// Longest history of a window.
    pub window: usize,
    /// Shortest history of a window and of a row of `temporal`; shorter ones are dropped and counted.
    pub min_len: usize,
    /// How training rows are written in `leave_one_out`, `temporal` and `llara`.
    pub train_form: TrainForm,
    /// Draws the users of `llara`; not the run's seed, so that runs with different seeds stay comparable.
    pub seed: u64,
}

/// The rule of a split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SplitKind {
    /// A user's last interaction is the test target, the last but one the validation target.
    LeaveOneOut,
    /// Two cuts in time for all users.
    Temporal,
    /// Users are divided; a held-out user is asked for the last item once.
    Llara,
    /// All windows of all users sorted by the time of their target, then divided.
    Dllm2rec,
    /// As the source's files say (`format: windows`).
    Given,
}

/// What `temporal` asks of a user in each period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Targets {
    /// The first interaction of the period.
    First,
    /// Every interaction of the period, each after all earlier ones.
    All,
}

/// How training rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrainForm {
    /// One row a user; every item after the first is a target.
    Sequences,
    /// One row a target: at most `window` items before it.
    Windows,
}

/// Files of histories with their target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowsConfig {
    /// Training rows.
    pub train: String,
    /// Validation rows.
    pub valid: String,
    /// Test rows.
    pub test: String,
    /// The padding id, which is also the number of items: ids are `0..pad`.
    pub pad: u32,
    /// Column of the user in the training file; null: rows that continue one another are one user.
    pub user: Option<Column>,
}

/// Sizes of the generated data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToyConfig {
    /// Number of users.
    pub n_users: usize,
    /// Number of items, at least 50.
    pub n_items: usize,
    /// Seed of the generator.
    pub seed: u64,
}
