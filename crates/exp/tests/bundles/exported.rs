//! What an export holds, against scores computed one history at a time.

use anyo_core::{
    Batch,
    bundle::{Bundle, Position, Wanted, dllm2rec, read_pt},
    data::TargetIndex,
    torch::DeviceChoice,
};
use anyo_student::Source;

use super::{EXPORT, IMPORT, run, with_student};
use crate::project::Project;

fn source(project: &Project) -> Source {
    Source::open(&project.at("result/student"), None, DeviceChoice::Cpu, &mut |_| ()).unwrap()
}

/// Items and distances of one row from a full sort of its scores.
fn by_hand(source: &Source, index: &TargetIndex<'_>, row: usize, k: usize, exclude: bool) -> (Vec<u32>, Vec<f32>, u32) {
    let (history, target) = (index.history(row), index.target(row).unwrap());
    let scores = source.recommender().score(&Batch { users: &[0], histories: &[history] }).unwrap();
    let scores = Vec::<f32>::try_from(scores.view([-1])).unwrap();
    let is_out = |item: u32| exclude && item != target && history.contains(&item);
    let mut items: Vec<u32> = (0..scores.len() as u32).filter(|&item| !is_out(item)).collect();
    let rank = items.iter().filter(|&&item| scores[item as usize] >= scores[target as usize]).count() as u32;
    items.sort_by(|&a, &b| scores[b as usize].total_cmp(&scores[a as usize]).then(a.cmp(&b)));
    items.truncate(k);
    let best = scores[items[0] as usize];
    let distances = items.iter().map(|&item| best - scores[item as usize]).collect();
    (items, distances, rank)
}

#[test]
fn window_lists_are_those_of_the_evaluator_and_sequence_lists_come_near() {
    let project = with_student(&["student.max_len=6"]);
    let both = ["result/student", "threads=1", "export.top_n=7"];
    run(&project, EXPORT, &[&both[..], &["run.dir=result/window", "export.pass=window"]].concat()).done();
    let told = run(&project, EXPORT, &[&both[..], &["run.dir=result/sequence"]].concat()).done();
    assert!(
        told.out.contains("with 7 items each, without items of the history; item vectors [60, 16]"),
        "{}",
        told.out
    );
    let source = source(&project);
    let open = |name: &str| {
        Bundle::open_for_training(&project.at(&format!("result/{name}/bundle")), &source.dataset, Wanted::ALL).unwrap()
    };
    let (window, sequence) = (open("window"), open("sequence"));
    let index = TargetIndex::new(&source.dataset.train);
    let (mut same, mut short) = (0, 0);
    for row in 0..index.len() {
        let (items, distances, rank) = by_hand(&source, &index, row, 7, true);
        let (got, far) = window.rankings(row).unwrap();
        // scores of a batch may differ in the last bits from those of one row, which can swap near ties
        assert!(distances.iter().zip(far).all(|(a, b)| (a - b).abs() < 1e-4), "row {row}: {distances:?} {far:?}");
        assert!(got.iter().filter(|item| !items.contains(item)).count() <= 1, "row {row}: {items:?} {got:?}");
        let (got_rank, got_distance) = window.true_rank(row).unwrap();
        assert!(got_rank.abs_diff(rank) <= 1 && got_distance >= 0.0, "row {row}: {got_rank} {rank}");
        same += sequence.rankings(row).unwrap().0.iter().filter(|item| got.contains(item)).count();
        short += usize::from(index.history(row).len() <= 6);
    }
    assert!(short < index.len(), "some histories are longer than the network's input");
    let share = same as f64 / (7 * index.len()) as f64;
    eprintln!("items shared by the lists of both passes: {share:.3} ({} rows)", index.len());
    assert!(share > 0.5, "{share}");
    let vectors = window.item_embeddings().unwrap();
    assert_eq!(vectors, &source.item_vectors().unwrap());
    let time = project.json("result/window/metrics/time.json");
    assert_eq!(time["rows"].as_u64(), Some(index.len() as u64));
    assert!(time["distill_teacher_export_time"].as_f64().is_some_and(|t| t > 0.0));
}

/// A state must not know what comes after its place: cutting the newest items off every sequence changes no list that
/// is left, as long as the sequences fit the network's input at the same places.
#[test]
fn no_list_looks_ahead() {
    // gru4rec has no position vectors, so a place's state depends on the items before it only
    let project = with_student(&["student=gru4rec", "student.rows=every_position", "student.max_len=60"]);
    for (name, pass) in [("sequence", "sequence"), ("window", "window")] {
        let words = ["result/student", "threads=1", &format!("export.pass={pass}"), &format!("run.dir=result/{name}")];
        run(&project, EXPORT, &words).done();
    }
    let source = source(&project);
    let open = |name: &str| Bundle::open(&project.at(&format!("result/{name}/bundle")), Some(&source.dataset)).unwrap();
    let (sequence, window) = (open("sequence"), open("window"));
    for row in 0..sequence.n_rows() {
        let ((_, a), (_, b)) = (sequence.rankings(row).unwrap(), window.rankings(row).unwrap());
        assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4), "row {row}: {a:?} {b:?}");
        assert!(sequence.true_rank(row).unwrap().0.abs_diff(window.true_rank(row).unwrap().0) <= 1);
    }
}

#[test]
fn a_budget_labels_the_rows_it_says_and_no_others() {
    let project = with_student(&[]);
    let all = ["result/student", "threads=1", "run.dir=result/all"];
    run(&project, EXPORT, &all).done();
    let some =
        ["result/student", "threads=1", "run.dir=result/some", "export.rows=50", "export.distance=neg_log_softmax"];
    run(&project, EXPORT, &some).done();
    let source = source(&project);
    let open = |name: &str| Bundle::open(&project.at(&format!("result/{name}/bundle")), Some(&source.dataset)).unwrap();
    let (all, some) = (open("all"), open("some"));
    assert_eq!((some.n_labelled(), some.n_missing()), (50, some.n_rows() - 50));
    assert_eq!(some.manifest().selection["budget"], 50);
    for row in (0..some.n_rows()).filter(|&row| some.rankings(row).is_some()) {
        let ((_, gaps), (_, logs)) = (all.rankings(row).unwrap(), some.rankings(row).unwrap());
        // log probabilities differ by the gaps of the scores
        assert!(gaps.iter().zip(logs).all(|(gap, log)| (gap - (log - logs[0])).abs() < 1e-4), "{gaps:?} {logs:?}");
        assert!(logs[0] > 0.0);
    }
    let error = dllm2rec::write(&project.at("files"), &some).unwrap_err().to_string();
    assert!(error.contains("rows have no list"), "{error}");
}

#[test]
fn three_files_go_out_and_come_back() {
    let project = with_student(&[]);
    let words = ["result/student", "threads=1", "run.dir=result/e", "dllm2rec=true", "export.top_n=10"];
    run(&project, EXPORT, &words).done();
    let source = source(&project);
    let first = Bundle::open(&project.at("result/e/bundle"), Some(&source.dataset)).unwrap();
    assert_eq!(project.read("result/e/dllm2rec/myrank_train.txt").lines().count(), first.n_rows());
    let tensor = read_pt(&project.at("result/e/dllm2rec/all_embeddings.pt")).unwrap();
    assert_eq!(&tensor, first.item_embeddings().unwrap());
    let toy = ["dataset.toy.n_users=120", "dataset.toy.n_items=60", "from=result/e/dllm2rec", "run.dir=result/i"];
    run(&project, IMPORT, &[&toy[..], &["position=train"]].concat()).done();
    let second = Bundle::open_for_training(&project.at("result/i/bundle"), &source.dataset, Wanted::ALL).unwrap();
    assert!((0..first.n_rows()).all(|row| first.rankings(row) == second.rankings(row)));
    assert_eq!(second.manifest().position, Position::Train);
}

#[test]
fn baselines_and_other_positions_export_too() {
    let project = Project::new();
    let cache = format!("data.cache={}", project.at("cache").display());
    let toy = ["dataset.toy.n_users=120", "dataset.toy.n_items=60", "eval.bootstrap=0", "threads=1", &cache];
    project.run(&[&toy[..], &["student=item_knn", "run.dir=result/student"]].concat()).done();
    let words = ["result/student", "threads=1", "run.dir=result/e", "export.position=valid"];
    let told = run(&project, EXPORT, &words).done();
    assert!(told.out.contains("no item vectors") && told.out.contains("valid rows"), "{}", told.out);
    let source = source(&project);
    let bundle = Bundle::open(&project.at("result/e/bundle"), Some(&source.dataset)).unwrap();
    assert_eq!(bundle.n_rows(), source.dataset.valid.len());
    let wanted = Wanted { rankings: true, embeddings: false };
    let error = Bundle::open_for_training(bundle.folder(), &source.dataset, wanted).unwrap_err().to_string();
    assert!(error.contains("made for the valid rows"), "{error}");
}

#[test]
fn mistakes_are_told_before_anything_starts() {
    let project = with_student(&[]);
    run(&project, EXPORT, &[]).failed(2, &["student_run"]);
    run(&project, EXPORT, &["nowhere"]).failed(1, &["nowhere: there is no such run folder", "hint: "]);
    run(&project, EXPORT, &["result/student", "export.rows=0"]).failed(2, &["export.rows"]);
    run(&project, EXPORT, &["result/student", "export.topn=5"]).failed(2, &["export.topn", "export.top_n"]);
    run(&project, EXPORT, &["result/student", "export.top_n=61"]).failed(1, &["top_n: wanted 1 to 60"]);
    std::fs::remove_file(project.at("result/student/models/student.safetensors")).unwrap();
    run(&project, EXPORT, &["result/student"]).failed(1, &["there are no final weights", "--resume"]);
}
