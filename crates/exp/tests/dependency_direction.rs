//! The crates depend on one another only in the direction that docs/specification/00_overview.md allows.

use std::{collections::BTreeMap, env, path::Path, process::Command};

use serde_json::Value;

/// Each package and which of ours it may use, future ones included. `anyo-exp` may use all; nothing may use it.
/// anyo-teacher and anyo-distill meet only in files.
const ALLOWED: &[(&str, &[&str])] = &[
    ("anyo-core", &[]),
    ("anyo-lm", &["anyo-core"]),
    ("anyo-student", &["anyo-core"]),
    ("anyo-slm", &["anyo-core"]),
    ("anyo-llm-client", &["anyo-core"]),
    ("anyo-teacher", &["anyo-core", "anyo-lm", "anyo-student"]),
    ("anyo-distill", &["anyo-core", "anyo-student"]),
    ("anyo-so8t", &["anyo-core", "anyo-lm", "anyo-slm"]),
    ("anyo-llm-server", &["anyo-core", "anyo-slm"]),
    ("anyo-sqltutor", &["anyo-core", "anyo-llm-client"]),
];

/// Packages that must build without libtorch: they may not switch on core's `torch` feature, nor use tch.
const WITHOUT_TORCH: &[&str] = &["anyo-llm-client", "anyo-sqltutor"];

/// (package, what it uses, features asked for), of normal, build and test dependencies alike.
type Edges = BTreeMap<String, Vec<(String, Vec<String>)>>;

fn edges(metadata: &Value) -> Edges {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let dependency = |d: &Value| (text(&d["name"]), list(&d["features"]).iter().map(text).collect());
    list(&metadata["packages"])
        .iter()
        .map(|package| (text(&package["name"]), list(&package["dependencies"]).iter().map(dependency).collect()))
        .collect()
}

/// Every edge that is not allowed, in words.
fn forbidden(edges: &Edges) -> Vec<String> {
    let mut wrong = Vec::new();
    for (package, dependencies) in edges {
        let allowed = ALLOWED.iter().find(|(name, _)| name == package).map(|(_, allowed)| *allowed);
        if package != "anyo-exp" && allowed.is_none() {
            wrong.push(format!("{package} is not in the table of this test: say what it may use"));
        }
        for (used, features) in dependencies {
            let ours = used.starts_with("anyo-");
            if ours
                && (used == "anyo-exp" || (package != "anyo-exp" && !allowed.unwrap_or(&[]).contains(&used.as_str())))
            {
                wrong.push(format!("{package} -> {used}"));
            }
            let torch =
                ["tch", "torch-sys"].contains(&used.as_str()) || (ours && features.iter().any(|f| f == "torch"));
            if torch && WITHOUT_TORCH.contains(&package.as_str()) {
                wrong.push(format!("{package} -> libtorch through {used}"));
            }
        }
    }
    wrong
}

#[test]
fn the_workspace_has_no_forbidden_edge() {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(&root)
        .output()
        .expect("cargo metadata starts");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let edges = edges(&serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON"));
    assert!(edges.contains_key("anyo-core") && edges.contains_key("anyo-exp"), "not this workspace: {edges:?}");
    assert_eq!(forbidden(&edges), Vec::<String>::new());
}

#[test]
fn a_forbidden_edge_is_found() {
    let edges = |package: &str, used: &str, features: &[&str]| {
        let features = features.iter().map(|&f| f.to_owned()).collect();
        Edges::from([(package.to_owned(), vec![(used.to_owned(), features)])])
    };
    assert_eq!(forbidden(&edges("anyo-distill", "anyo-teacher", &[])), ["anyo-distill -> anyo-teacher"]);
    assert_eq!(forbidden(&edges("anyo-core", "anyo-student", &[])), ["anyo-core -> anyo-student"]);
    assert_eq!(forbidden(&edges("anyo-student", "anyo-exp", &[])), ["anyo-student -> anyo-exp"]);
    assert_eq!(forbidden(&edges("anyo-exp", "anyo-exp", &[])), ["anyo-exp -> anyo-exp"]);
    assert_eq!(
        forbidden(&edges("anyo-sqltutor", "anyo-core", &["torch"])),
        ["anyo-sqltutor -> libtorch through anyo-core"]
    );
    assert_eq!(
        forbidden(&edges("anyo-new", "serde", &[])),
        ["anyo-new is not in the table of this test: say what it may use"]
    );
    assert_eq!(forbidden(&edges("anyo-teacher", "anyo-lm", &["torch"])), Vec::<String>::new());
}
