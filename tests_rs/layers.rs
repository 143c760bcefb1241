//! Use only what is below you; siblings do not know each other, and no file uses one that uses it: a folder's `mod.rs` and its
//! files are one. When an arrow points up, the map is printed.

use std::collections::{BTreeMap, BTreeSet};
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

/// A file, as a module: `["node", "slot"]`. A folder's `mod.rs` is the folder.
type Module = Vec<String>;

fn module_of(path: &Path) -> Module {
    let relative = path.strip_prefix(root()).expect("a source").with_extension("");
    let mut names: Module = relative.iter().map(|name| name.to_string_lossy().into_owned()).collect();
    if names.last().is_some_and(|last| last == "mod" || last == "lib") {
        names.pop();
    }
    names
}

/// The code of a source, without its comments and its tests.
fn code_of(path: &Path) -> String {
    let text = fs::read_to_string(path).expect("a source");
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .fold(String::new(), |code, line| code + line + "\n")
}

/// Reads `a::b::{c, d::e}`: every path in it. Also that of an expression, up to its end.
fn paths(text: &str, before: &[&str], found: &mut Vec<Module>) -> usize {
    let word = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let path = [before, &[&text[..word]]].concat();
    if let Some(rest) = text[word..].strip_prefix("::{") {
        let mut at = 0;
        loop {
            at += rest[at..].len() - rest[at..].trim_start().len();
            if rest[at..].starts_with('}') {
                return word + 3 + at + 1;
            }
            at += paths(&rest[at..], &path, found);
            at = rest[at..].find([',', '}']).map_or(rest.len(), |end| at + end);
            at += usize::from(rest[at..].starts_with(','));
        }
    }
    match text[word..].strip_prefix("::") {
        Some(rest) if rest.starts_with(|c: char| c.is_alphabetic() || c == '_') => word + 2 + paths(rest, &path, found),
        _ => {
            found.push(path.iter().map(|&name| name.to_owned()).collect());
            word
        }
    }
}

/// The files that a file names by `crate::` and `super::`.
fn files_used(module: &Module, code: &str, files: &BTreeMap<Module, String>) -> BTreeSet<Module> {
    let mut used = BTreeSet::new();
    for start in ["crate::", "super::"] {
        let is_whole = |at: usize| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
        for (at, _) in code.match_indices(start).filter(|&(at, _)| is_whole(at)) {
            let mut found = Vec::new();
            paths(&code[at..], &[], &mut found);
            for path in found {
                let ups = path.iter().take_while(|name| *name == "super").count();
                let from = if ups == 0 { Module::new() } else { module[..module.len().saturating_sub(ups)].to_vec() };
                let whole = [from, path[ups.max(1)..].to_vec()].concat();
                let file = (0..=whole.len()).rev().map(|len| &whole[..len]).find(|file| files.contains_key(*file));
                used.extend(file.filter(|file| file != module && !file.is_empty()).map(<[String]>::to_vec));
            }
        }
    }
    used
}

/// A way from a file back to it.
fn circle<'a>(
    at: &'a Module,
    used: &'a BTreeMap<Module, BTreeSet<Module>>,
    way: &mut Vec<&'a Module>,
    done: &mut BTreeSet<&'a Module>,
) -> Option<String> {
    if let Some(start) = way.iter().position(|&file| file == at) {
        let names: Vec<String> = way[start..].iter().chain([&at]).map(|file| file.join("/")).collect();
        return Some(names.join(" -> "));
    }
    if !done.insert(at) {
        return None;
    }
    way.push(at);
    let found = used[at].iter().find_map(|next| circle(next, used, way, done));
    way.pop();
    found
}

#[test]
fn no_file_uses_one_that_uses_it() {
    let files: BTreeMap<Module, String> = sources(&root())
        .iter()
        .map(|path| (module_of(path), code_of(path)))
        .filter(|(file, _)| !file.is_empty())
        .collect();
    let used: BTreeMap<Module, BTreeSet<Module>> =
        files.iter().map(|(file, code)| (file.clone(), files_used(file, code, &files))).collect();
    let arrows: usize = used.values().map(BTreeSet::len).sum();
    println!("{} files, {arrows} arrows between them", files.len());
    assert!(arrows > 3 * files.len(), "hardly any arrow is seen");
    let mut done = BTreeSet::new();
    for file in used.keys() {
        assert_eq!(circle(file, &used, &mut Vec::new(), &mut done), None, "a circle");
    }
}

#[test]
fn paths_are_read_as_the_compiler_reads_them() {
    let read = |text| {
        let mut found = Vec::new();
        paths(text, &[], &mut found);
        found.iter().map(|path| path.join("::")).collect::<Vec<_>>()
    };
    assert_eq!(
        read("crate::a::{self, b::{C, d}, e as f};"),
        ["crate::a::self", "crate::a::b::C", "crate::a::b::d", "crate::a::e"]
    );
    assert_eq!(read("super::super::a::B::<T>::new()"), ["super::super::a::B"]);
}
