//! Use only what is below you; siblings do not know each other. When an arrow points up, the map is printed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each layer and the folders it may use. Files at the root are nouns: everyone may use them, and they use no folder.
const MAY_USE: [(&str, &[&str]); 12] = [
    ("root", &[]),
    ("ring", &[]),
    ("node", &[]),
    ("gossip", &[]),
    ("values", &[]),
    ("snapshot", &[]),
    ("runtime", &["node"]),
    ("cluster", &["runtime", "node", "ring", "gossip", "snapshot"]),
    ("api", &["cluster", "runtime", "snapshot", "values"]),
    ("monitor", &["cluster", "runtime"]),
    ("simulation", &["cluster", "runtime", "node", "snapshot"]),
    ("py", &["cluster", "runtime", "simulation", "snapshot", "values", "monitor"]),
];

/// What deciders and nouns of the protocol must not know: they are handed time and chance, and effects are not theirs.
const DECIDERS: [&str; 3] = ["ring", "node", "gossip"];
const FOREIGN: [&str; 7] = ["std::time", "std::thread", "std::net", "log::", "pyo3", "rayon", "crate::lock"];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder of sources").map(|entry| entry.expect("an entry").path());
    entries
        .flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|end| end == "rs"))
        .collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn layer_of(path: &Path) -> String {
    let relative = path.strip_prefix(root()).expect("a source");
    let first = relative.components().next().expect("a name").as_os_str().to_string_lossy().into_owned();
    if relative.components().count() == 1 { "root".to_owned() } else { first }
}

/// The folders that a source names after `crate::`.
fn used(text: &str) -> BTreeSet<&str> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let names = code
        .flat_map(|line| line.split("crate::").skip(1))
        .map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default());
    let folders: Vec<&str> = MAY_USE.iter().map(|(layer, _)| *layer).collect();
    names.filter(|name| folders.contains(name)).collect()
}

#[test]
fn no_arrow_points_up_or_sideways() {
    let map =
        include_str!("../src/README.md").split("```text").nth(1).and_then(|map| map.split("```").next()).unwrap_or("");
    for path in sources(&root()).iter().filter(|path| !path.ends_with("lib.rs")) {
        let layer = layer_of(path);
        let text = fs::read_to_string(path).expect("a source");
        let (_, allowed) =
            MAY_USE.iter().find(|(name, _)| *name == layer).unwrap_or_else(|| panic!("{layer} is on no map"));
        for folder in used(&text) {
            assert!(
                folder == layer || allowed.contains(&folder),
                "{} uses {folder}, which is not below it:\n{map}",
                path.display()
            );
        }
    }
}

#[test]
fn deciders_know_no_clock_no_thread_and_no_log() {
    for path in sources(&root()).iter().filter(|path| DECIDERS.contains(&layer_of(path).as_str())) {
        let text = fs::read_to_string(path).expect("a source");
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        for line in code {
            for foreign in FOREIGN {
                assert!(!line.contains(foreign), "{}: {line}", path.display());
            }
        }
    }
}

#[test]
fn every_file_says_first_what_it_is() {
    for path in sources(&root()) {
        let text = fs::read_to_string(&path).expect("a source");
        assert!(text.starts_with("//!") || text.starts_with("#![doc = include_str!"), "{} does not", path.display());
    }
}
