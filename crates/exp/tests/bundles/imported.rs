//! Lists of others, real ones where they are there.

use anyo_core::bundle::Manifest;

use super::{IMPORT, run};
use crate::project::{Project, shared_data};

#[test]
fn the_public_lists_of_movielens_1m_import_as_test_lists_only() {
    let Some(data) = shared_data() else { return };
    let project = Project::new();
    let from = format!("from={}", data.join("movielens-1m/sasrec_top100.tsv").display());
    let root = format!("data.root={}", data.display());
    let words = ["dataset=movielens-1m", &root, &from, "table.row=user", "table.item=id"];
    let told = run(&project, IMPORT, &[&words[..], &["position=test", "run.dir=result/t"]].concat()).done();
    assert!(told.out.contains("6040 of 6040 test rows of movielens-1m with 100 items each"), "{}", told.out);
    assert!(told.err.contains("no training takes them"), "{}", told.err);
    let manifest = Manifest::read(&project.at("result/t/bundle")).unwrap();
    // the data's own notes say that the target is in 3976 of the lists
    let bundle = anyo_core::bundle::Bundle::open(&project.at("result/t/bundle"), None).unwrap();
    assert_eq!((0..6040).filter(|&row| bundle.true_rank(row).is_some()).count(), 3976);
    assert!(manifest.embeddings.is_none());
    let failed = run(&project, IMPORT, &[&words[..], &["position=train"]].concat());
    failed.failed(1, &["sasrec_top100.tsv line 1: user 5077: has ", "targets at this position"]);
}

#[test]
fn dllm2rec_windows_take_numbered_lists() {
    let Some(data) = shared_data() else { return };
    let project = Project::new();
    let mut text = String::new();
    for row in 0..14_980 {
        text += &format!("{row},\"[{}, {}]\",\"[0.5, 1.25]\"\n", row, row + 1);
    }
    project.write("lists.csv", &text);
    let root = format!("data.root={}", data.display());
    let words =
        ["dataset=amazon-games-dllm2rec", &root, "from=lists.csv", "table.confidence=distance", "position=valid"];
    let told = run(&project, IMPORT, &words).done();
    assert!(told.out.contains("of amazon-games-dllm2rec with 2 items each"), "{}", told.out);
}

#[test]
fn mistakes() {
    let project = Project::new();
    let toy = ["dataset.toy.n_users=120", "dataset.toy.n_items=60", "from=lists.tsv"];
    project.write("lists.tsv", "0\t1\t2\n1\t60\t3\n");
    run(&project, IMPORT, &toy).failed(2, &["position"]);
    run(&project, IMPORT, &[&toy[..], &["position=dev"]].concat()).failed(2, &["position"]);
    let words = [&toy[..], &["position=train"]].concat();
    run(&project, IMPORT, &words)
        .failed(1, &["lists.tsv line 2: row 1: item 60: the catalogue has items 0..60", "hint: "]);
    run(&project, IMPORT, &[&words[..], &["table.top_n=0"]].concat()).failed(2, &["table.top_n"]);
    run(&project, IMPORT, &["from=none", "position=train", "format=dllm2rec"]).failed(1, &["none/myrank_train.txt"]);
}
