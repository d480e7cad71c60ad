//! Killed and interrupted in the middle, the export continues and ends in the same bytes.

use super::{EXPORT, run, start, with_student};
use crate::project::{Project, said, signal, wait_for};

/// Some hundred batches, each on disk at once.
const SLOW: &[&str] =
    &["result/student", "threads=1", "export.pass=window", "export.batch_places=200", "export.part_rows=1"];

fn same(project: &Project, name: &str) {
    for file in ["manifest.json", "rankings.parquet", "item_embeddings.safetensors"] {
        let [a, b] = ["whole", name].map(|run| project.bytes(&format!("result/{run}/bundle/{file}")));
        assert!(a == b, "{name}: {file} differs");
    }
    assert!(!project.at(&format!("result/{name}/bundle.part")).exists());
}

#[test]
fn kill_and_interrupt_then_resume_to_the_same_bytes() {
    let project = with_student(&["dataset.toy.n_users=600"]);
    run(&project, EXPORT, &[SLOW, &["run.dir=result/whole"]].concat()).done();
    for (name, number) in [("killed", libc::SIGKILL), ("sigint", libc::SIGINT)] {
        let dir = format!("run.dir=result/{name}");
        let mut child = start(&project, EXPORT, &[SLOW, &[&dir]].concat());
        let part = project.at(&format!("result/{name}/bundle.part/part_000020.bin"));
        wait_for(&mut child, || part.exists());
        signal(&child, number);
        if number == libc::SIGKILL {
            child.wait().unwrap();
        } else {
            said(child)
                .failed(130, &["interrupted: ", "rows are kept", &format!("export-bundle --resume result/{name}")]);
        }
        assert!(!project.at(&format!("result/{name}/bundle")).exists(), "nothing half-made is to be seen");
        let told = run(&project, EXPORT, &["--resume", &format!("result/{name}")]).done();
        assert!(told.err.contains("rows were there already"), "{}", told.err);
        same(&project, name);
    }
    // finished already: nothing is done again
    run(&project, EXPORT, &["--resume", "result/killed"]).done();
    same(&project, "killed");
    // other part sizes may be chosen when continuing, other lists not
    run(&project, EXPORT, &["--resume", "result/killed", "export.top_n=5"]).failed(2, &["export.top_n"]);
}
