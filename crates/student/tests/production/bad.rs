//! What is refused, and what a failed export leaves.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyo_core::{Result, torch::DeviceChoice};
use anyo_student::{ExportedStudent, Loaded, config::StudentConfig, is_exported};
use serde_json::{Value, json};
use tch::Device;

use super::{export, neural, student};

fn gru() -> StudentConfig {
    neural("gru4rec", &[("d_model", 4.into())])
}

fn exported(dir: &Path) -> PathBuf {
    let out = dir.join("a/student");
    let config = gru();
    export(&student(&config, None), &config, &out).unwrap();
    out
}

fn error<T>(result: Result<T>) -> String {
    let error = result.err().expect("an error");
    assert!(error.hint().is_some(), "no hint: {error}");
    error.to_string()
}

fn open(folder: &Path) -> Result<ExportedStudent> {
    ExportedStudent::open(folder, Device::Cpu)
}

#[test]
fn nothing_is_overwritten_and_nothing_half_made_stays() {
    let dir = tempfile::tempdir().unwrap();
    let config = gru();
    let out = exported(dir.path());
    let before = fs::read(out.join("manifest.json")).unwrap();
    let told = error(export(&student(&config, None), &config, &out));
    assert!(told.contains("there is something at this place already"), "{told}");
    assert_eq!(fs::read(out.join("manifest.json")).unwrap(), before);
    // equal weights make equal files
    let again = dir.path().join("again");
    export(&student(&config, None), &config, &again).unwrap();
    assert_eq!(fs::read(again.join("items.bin")).unwrap(), fs::read(out.join("items.bin")).unwrap());
    // what a killed export left is removed
    let third = dir.path().join("third");
    fs::create_dir(dir.path().join("third.part")).unwrap();
    fs::write(dir.path().join("third.part/student.pt"), "half").unwrap();
    fs::write(dir.path().join("third.part/.tmp_student.safetensors"), "half").unwrap();
    export(&student(&config, None), &config, &third).unwrap();
    assert!(third.is_dir() && !dir.path().join("third.part").exists());
    // but not what others keep there
    fs::create_dir(dir.path().join("fourth.part")).unwrap();
    fs::write(dir.path().join("fourth.part/thesis.txt"), "years of work").unwrap();
    let told = export(&student(&config, None), &config, &dir.path().join("fourth")).unwrap_err().to_string();
    assert!(told.contains("fourth.part: cannot remove what an earlier export left"), "{told}");
    assert!(dir.path().join("fourth.part/thesis.txt").is_file());
}

#[test]
fn recommenders_without_weights_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let knn = json!({"name": "item_knn", "neighbours": 5, "shrinkage": 1.0, "history": 3, "decay": 0.5});
    let knn: StudentConfig = serde_json::from_value(knn).unwrap();
    let told = error(export(&student(&gru(), None), &knn, &dir.path().join("out")));
    assert!(told.contains("`item_knn` has no weights to export"), "{told}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn every_changed_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let out = exported(dir.path());
    assert!(is_exported(&out) && open(&out).is_ok());
    for name in ["student.safetensors", "student.pt", "encoder.pt", "items.bin", "item_bias.bin", "item_ids.json"] {
        let path = out.join(name);
        let bytes = fs::read(&path).unwrap();
        let mut changed = bytes.clone();
        *changed.last_mut().unwrap() ^= 1;
        fs::write(&path, &changed).unwrap();
        let told = error(open(&out));
        assert!(told.contains(&format!("{name}: its sha256 is ")), "{told}");
        fs::write(&path, &bytes[1..]).unwrap();
        let told = error(open(&out));
        assert!(told.contains(&format!("{name}: has {} bytes, the manifest says", bytes.len() - 1)), "{told}");
        fs::remove_file(&path).unwrap();
        assert!(open(&out).err().unwrap().to_string().contains(&format!("{name}: cannot read")));
        fs::write(&path, &bytes).unwrap();
    }
    assert!(open(&out).is_ok());
}

#[test]
fn a_changed_manifest_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let out = exported(dir.path());
    let path = out.join("manifest.json");
    let whole: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let changes: [(&str, Value, &str); 9] = [
        ("/kind", json!("anyo-teacher"), "is no exported student: kind: wanted \"anyo-student\", got \"anyo-teacher\""),
        ("/schema_version", json!(2), "schema_version: wanted 1, got 2"),
        ("/dataset/n_items", json!(36), "items.shape [37, 4]: the data set has 36 items"),
        ("/items/shape", json!([37, 5]), "items.bin has Some(592) bytes"),
        ("/items/bias", json!(false), "`item_bias.bin` must not be there"),
        ("/model/config/dropout", json!(7.0), "model.config.dropout: "),
        ("/model/config/d_model", json!(5), "student.safetensors: "),
        ("/weights/s_fc.bias", json!([38]), "names or shapes of its tensors are not those of the manifest"),
        ("/output/dtype", json!(null), "expected a string"),
    ];
    for (pointer, value, want) in changes {
        let mut manifest = whole.clone();
        *manifest.pointer_mut(pointer).unwrap() = value;
        fs::write(&path, manifest.to_string()).unwrap();
        let told = error(open(&out));
        assert!(told.contains(want), "{pointer}: {told}");
    }
    let mut manifest = whole.clone();
    manifest["files"]["../../secret"] = manifest["files"]["items.bin"].clone();
    fs::write(&path, manifest.to_string()).unwrap();
    assert!(error(open(&out)).contains("`../../secret` is no file of an exported student"));
    fs::write(&path, &whole.to_string()[..200]).unwrap();
    assert!(error(open(&out)).contains("is not whole JSON"));
    // recommend says the same
    assert!(error(Loaded::open(&out, DeviceChoice::Cpu, &mut |_| ())).contains("is not whole JSON"));
}
