//! `export-bundle RUN` and `import-bundle`: teacher bundles from a trained student and from files of others.

mod export;
mod import;

use std::{ffi::OsString, path::Path, process::ExitCode};

use anyo_core::{bundle::Manifest, cli, run::resolve_run_of};
use anyo_student::STUDENT_APPS;

pub use self::{
    export::ExportRunConfig,
    import::{ImportRunConfig, SourceFormat},
};

/// Folder of DLLM2Rec's three files inside a run folder.
pub const DLLM2REC_FOLDER: &str = "dllm2rec";

/// `export-bundle`.
pub fn export_main(words: impl Iterator<Item = OsString>) -> ExitCode {
    let app = cli::App {
        name: "export-bundle",
        about: "Writes what a trained student ranks for every training row as a teacher bundle.",
        examples: &["export-bundle latest", "export-bundle result/result_20260101_120000 export.top_n=50"],
        resumable: &["threads", "export.part_rows", "export.part_seconds"],
        subcommand: None,
    };
    cli::run_words::<ExportRunConfig>(&app, with_run(words.collect()), |config, run| export::run(&config, run))
}

/// `import-bundle`.
pub fn import_main(words: impl Iterator<Item = OsString>) -> ExitCode {
    let app = cli::App {
        name: "import-bundle",
        about: "Makes a teacher bundle of lists from outside: DLLM2Rec's three files, or any table.",
        examples: &["import-bundle dataset=movielens-1m from=lists.tsv position=train"],
        resumable: &["threads"],
        subcommand: None,
    };
    cli::run_words::<ImportRunConfig>(&app, words.collect(), |config, run| import::run(&config, run))
}

/// A first plain word names the run; `latest` becomes the folder of that moment, so that a resumed export goes on with
/// the same student.
pub(crate) fn with_run(mut words: Vec<OsString>) -> Vec<OsString> {
    const KEY: &str = "student_run=";
    let resumes = words.iter().any(|word| word == "--resume" || word.to_string_lossy().starts_with("--resume="));
    if let Some(first) = words.get_mut(1) {
        let text = first.to_string_lossy().into_owned();
        if !resumes && !text.starts_with(['-', '+', '~']) && (!text.contains('=') || Path::new(&text).is_dir()) {
            *first = format!("{KEY}{text}").into();
        }
    }
    for word in &mut words {
        if *word == *format!("{KEY}latest")
            && let Ok(found) = resolve_run_of("latest", STUDENT_APPS)
        {
            *word = format!("{KEY}{}", found.display()).into();
        }
    }
    words
}

/// The finished bundle in a few lines.
fn summary(manifest: &Manifest, folder: &Path) -> String {
    let (lists, data) = (&manifest.lists, &manifest.dataset);
    let vectors = manifest
        .embeddings
        .as_ref()
        .map_or("no item vectors".to_owned(), |e| format!("item vectors [{}, {}]", e.n_items, e.dim));
    let history = if lists.exclude_history { "without items of the history" } else { "history kept" };
    format!(
        "{} of {} {} rows of {} with {} items each, {history}; {vectors}; distance: {}\nbundle: {}\n",
        lists.rows,
        lists.of,
        manifest.position.name(),
        data.name,
        lists.top_n,
        manifest.confidence.meaning,
        folder.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_word_names_the_run() {
        let turn = |words: &[&str]| {
            let words = std::iter::once("export-bundle").chain(words.iter().copied()).map(OsString::from).collect();
            with_run(words)[1..].iter().map(|w| w.to_string_lossy().into_owned()).collect::<Vec<_>>()
        };
        assert_eq!(turn(&["result/r", "export.top_n=5"]), ["student_run=result/r", "export.top_n=5"]);
        assert_eq!(turn(&["--resume", "r"]), ["--resume", "r"]);
        assert_eq!(turn(&["student_run=r"]), ["student_run=r"]);
        assert_eq!(turn(&["--help"]), ["--help"]);
        assert!(turn(&[]).is_empty());
    }
}
