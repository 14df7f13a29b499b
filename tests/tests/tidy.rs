//! Rules of the house that no compiler checks: the arrows between the crates, where `unsafe` and
//! the reactor may be named, sizes, the top level, nothing left undone.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Longest a source file may be, in lines.
const MAX_LINES: usize = 600;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the workspace")
}

/// The files that git knows or would add, relative to the root.
fn files() -> Vec<String> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .unwrap_or_else(|e| panic!("git ls-files: {e}"));
    assert!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    let files: Vec<String> =
        listed.lines().filter(|file| root().join(file).is_file()).map(str::to_owned).collect();
    assert!(files.len() > 20, "only {} files: is this the workspace?", files.len());
    files
}

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
}

fn sources() -> Vec<(String, String)> {
    let rust = files().into_iter().filter(|file| file.ends_with(".rs"));
    rust.map(|file| (file.clone(), read(&file))).collect()
}

/// The code of each line, without what follows `//` (a `//` inside a string cuts it short, which
/// only hides the rest of that line), with its number from 1.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(n, line)| (n + 1, line.split("//").next().unwrap_or_default()))
}

/// Whether `word` stands in `line` with no letter, digit or `_` beside it.
fn has_word(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(part) && !line[at + word.len()..].starts_with(part))
}

fn assert_none(found: &[String], rule: &str) {
    assert!(found.is_empty(), "{rule}:\n{}", found.join("\n"));
}

/// Places outside `allowed` (path prefixes) where `test` finds something.
fn places(allowed: &[&str], test: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for (file, text) in sources() {
        // This file names everything it forbids.
        if file == "tests/tests/tidy.rs" || allowed.iter().any(|prefix| file.starts_with(prefix)) {
            continue;
        }
        for (n, line) in code(&text).filter(|(_, line)| test(line)) {
            found.push(format!("{file}:{n}: {}", line.trim()));
        }
    }
    found
}

/// The `[dependencies]` of a manifest (not dev- or build-), by name.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let text = read(manifest);
    let mut inside = false;
    let mut names = BTreeSet::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = line.ends_with("dependencies]") && !line.contains("dev-");
        } else if inside
            && let Some(name) = line.split(['=', '.', ' ']).next()
            && !name.is_empty()
            && !name.starts_with('#')
        {
            names.insert(name.to_owned());
        }
    }
    assert!(!names.is_empty() || manifest.starts_with("bench"), "{manifest} has no dependencies?");
    names
}

#[test]
fn the_arrows_between_the_crates() {
    let ours = ["engine", "contract", "control", "bench", "tests"];
    for (manifest, allowed) in [
        ("engine/contract/Cargo.toml", &[][..]),
        ("engine/Cargo.toml", &["contract"]),
        ("control/Cargo.toml", &["contract", "engine"]),
        ("tests/Cargo.toml", &[]),
        ("bench/Cargo.toml", &["contract", "engine"]),
    ] {
        let names = dependencies(manifest);
        let wrong: Vec<_> = names
            .iter()
            .filter(|n| ours.contains(&n.as_str()) && !allowed.contains(&n.as_str()))
            .collect();
        assert!(wrong.is_empty(), "{manifest} must not depend on {wrong:?}");
    }
}

#[test]
fn only_controls_main_names_the_engine() {
    let engine = |line: &str| {
        line.match_indices("engine::").any(|(at, _)| {
            let before = &line[..at];
            !before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':')
        })
    };
    let found = places(&["control/src/main.rs", "engine/", "bench/", "tests/"], engine);
    assert_none(&found, "only control/src/main.rs may name `engine::`");
}

#[test]
fn unsafe_has_three_rooms() {
    let allowed = ["engine/contract/", "engine/src/io", "bench/src/relay"];
    let found = places(&allowed, |line| has_word(line, "unsafe"));
    assert_none(&found, "`unsafe` belongs into engine/contract, engine/src/io and bench/src/relay");
}

#[test]
fn the_reactor_has_one_room() {
    let allowed = ["engine/src/io", "bench/src/relay"];
    let reactor = |line: &str| ["glommio::", "io_uring::"].iter().any(|name| line.contains(name));
    let found = places(&allowed, reactor);
    assert_none(&found, "only engine/src/io (and bench/src/relay) may name glommio or io_uring");
}

#[test]
fn files_stay_short() {
    let found: Vec<String> = sources()
        .iter()
        .map(|(file, text)| (file, text.lines().count()))
        .filter(|(_, lines)| *lines > MAX_LINES)
        .map(|(file, lines)| format!("{file}: {lines} lines"))
        .collect();
    assert_none(&found, "a source file has at most 600 lines");
}

#[test]
fn the_top_level_is_fixed() {
    let allowed = [
        "Cargo.toml",
        "Cargo.lock",
        "engine",
        "control",
        "bench",
        "tests",
        "tuning",
        "examples",
        "README.md",
        "clippy.toml",
        "rustfmt.toml",
        "deny.toml",
    ];
    let tops: BTreeSet<String> =
        files().iter().filter_map(|file| file.split('/').next()).map(str::to_owned).collect();
    let found: Vec<String> = tops
        .into_iter()
        .filter(|top| {
            !allowed.contains(&top.as_str()) && !top.starts_with('.') && !top.starts_with("LICENSE")
        })
        .collect();
    assert_none(&found, "not a part of the fixed top level");
}

#[test]
fn nothing_is_left_undone() {
    let mut found = Vec::new();
    for (file, text) in sources().iter().filter(|(file, _)| file != "tests/tests/tidy.rs") {
        for (n, line) in text.lines().enumerate() {
            let undone = ["todo!(", "unimplemented!(", "#[ignore", "FIXME", "XXX", "dbg!("];
            // Half of a test that needs a process of its own: the other half runs it.
            let half = line.contains("#[ignore = \"started by ");
            if !half && (undone.iter().any(|word| line.contains(word)) || has_word(line, "TODO")) {
                found.push(format!("{file}:{}: {}", n + 1, line.trim()));
            }
        }
    }
    assert_none(&found, "left undone");
}

#[test]
fn vague_names_stay_out() {
    let found: Vec<String> = sources()
        .into_iter()
        .map(|(file, _)| file)
        .filter(|file| {
            let stem =
                Path::new(file).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            [
                "util", "utils", "helper", "helpers", "misc", "common", "manager", "handler",
                "factory",
            ]
            .contains(&stem)
        })
        .collect();
    assert_none(&found, "a file is named after one thing");
}

#[test]
fn other_crates_forbid_unsafe() {
    for file in ["control/src/lib.rs", "tests/src/lib.rs"] {
        assert!(read(file).contains("#![forbid(unsafe_code)]"), "{file} must forbid unsafe code");
    }
}
