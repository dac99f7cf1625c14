//! Rules about the source tree itself: who may import whom, what stays pure, how long things are.
//!
//! The tables below are the architecture. Change them only together with `docs/ARCHITECTURE.md`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// The pure modules of `src/core`, in reading order, and the modules each may import.
const CORE: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("model", &["base"]),
    ("measure", &["base", "model"]),
    ("lifecycle", &["base", "model"]),
    ("schedule", &["base", "model"]),
    ("spec", &["base", "model", "measure", "schedule"]),
    ("topology", &["base", "model", "schedule"]),
    ("diff", &["base", "model", "schedule", "topology"]),
    ("report", &["base", "model", "measure"]),
];

/// The modules of `src`, in reading order, and the modules of `src` each may import.
const SERVICES: &[(&str, &[&str])] = &[
    ("runtime", &[]),
    ("source", &["runtime"]),
    ("provider", &["runtime"]),
    ("bus", &["runtime"]),
    ("store", &["runtime"]),
    ("ingest", &["runtime", "bus", "store"]),
    ("worker", &["runtime", "bus"]),
    ("control", &["runtime", "source", "provider", "bus", "store", "ingest"]),
    ("api", &["runtime", "bus", "store", "control"]),
    ("cli", &["*"]),
];

/// What a pure module must not mention.
const IMPURE: &[&str] = &[
    "async fn",
    ".await",
    "tokio::",
    "std::fs",
    "std::net::Tcp",
    "std::net::Udp",
    "std::process",
    "std::thread",
    "std::env",
    "::now()",
    "rand::",
    "tracing::",
];

/// Driver crates that stand in one place only.
const DRIVERS: &[(&str, &str)] = &[
    ("sqlx::", "store/"),
    ("git2::", "source/git"),
    ("rdkafka::", "bus/kafka"),
    ("axum::", "api/"),
    ("clap::", "cli/"),
    ("notify::", "source/directory"),
    ("indicatif::", "cli/"),
    ("comfy_table::", "cli/"),
    ("anyhow::", "cli/"),
];

const FILE_LINES_MAX: usize = 500;
const FN_LINES_MAX: usize = 70;

#[test]
fn tree_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut problems = String::new();
    for table in [CORE, SERVICES] {
        table_is_acyclic(table, &mut problems);
    }
    map_names_every_module(&mut problems);
    for path in rust_files(&root) {
        let text = fs::read_to_string(&path).unwrap();
        let name = path.strip_prefix(&root).unwrap().to_string_lossy().replace('\\', "/");
        check_file(&name, &text, &mut problems);
    }
    assert!(problems.is_empty(), "\n{problems}");
}

/// An import may only point up the table, so the table itself cannot hold a cycle.
fn table_is_acyclic(table: &[(&str, &[&str])], problems: &mut String) {
    for (i, (module, imports)) in table.iter().enumerate() {
        for import in imports.iter().filter(|import| **import != "*") {
            if !table[..i].iter().any(|(name, _)| name == import) {
                writeln!(problems, "table: `{module}` may not import `{import}`, it comes later").unwrap();
            }
        }
    }
}

fn map_names_every_module(problems: &mut String) {
    let map = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ARCHITECTURE.md");
    let map = fs::read_to_string(map).unwrap_or_default();
    for (module, _) in CORE.iter().chain(SERVICES) {
        if !map.contains(&format!("`{module}`")) {
            writeln!(problems, "docs/ARCHITECTURE.md does not mention `{module}`").unwrap();
        }
    }
}

fn check_file(name: &str, text: &str, problems: &mut String) {
    if name.ends_with("tests.rs") || name.contains("/tests/") {
        return;
    }
    // Unit tests may use anything; the rules hold for the code above them.
    // Only tests written in the file end it: one that names a file of tests at its top goes on.
    let code = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap();
    if !code.starts_with("//!") {
        writeln!(problems, "{name}: must start with a `//!` line that says what it owns").unwrap();
    }
    let lines = code.lines().count();
    if lines > FILE_LINES_MAX {
        writeln!(problems, "{name}: {lines} lines, at most {FILE_LINES_MAX}").unwrap();
    }
    long_functions(name, code, problems);
    let (table, inner) = match name.split_once('/') {
        Some(("core", inner)) => (CORE, inner),
        Some(("load", _)) | None => return,
        Some(_) => (SERVICES, name),
    };
    let Some((module, _)) = inner.split_once('/') else {
        return;
    };
    let Some((_, allowed)) = table.iter().find(|(known, _)| *known == module) else {
        writeln!(problems, "{name}: `{module}` is not in the module table").unwrap();
        return;
    };
    let pure = name.starts_with("core/");
    for (index, line) in code.lines().enumerate() {
        // Comments may name anything.
        let line = line.split("//").next().unwrap();
        let at = format!("{name}:{}", index + 1);
        imports(&at, module, allowed, line, problems);
        for word in IMPURE.iter().filter(|word| pure && line.contains(**word)) {
            writeln!(problems, "{at}: `{module}` is pure, `{word}` does not belong here").unwrap();
        }
        for (driver, home) in DRIVERS
            .iter()
            .filter(|(driver, home)| line.contains(driver) && !inner.starts_with(home))
        {
            writeln!(problems, "{at}: `{driver}` stands only in `{home}`").unwrap();
        }
    }
}

fn imports(at: &str, module: &str, allowed: &[&str], line: &str, problems: &mut String) {
    for import in crate_paths(line) {
        if import == "{" {
            writeln!(
                problems,
                "{at}: one module per `use crate::` line, no groups of modules"
            )
            .unwrap();
        } else if import != module && allowed != ["*"] && !allowed.contains(&import) {
            writeln!(problems, "{at}: `{module}` may not import `{import}`").unwrap();
        }
    }
}

/// The first path segment after each `crate::` in a line.
fn crate_paths(line: &str) -> impl Iterator<Item = &str> {
    line.split("crate::").skip(1).map(|rest| {
        let end = rest
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        if rest.starts_with('{') { "{" } else { &rest[..end] }
    })
}

/// Relies on rustfmt: a function ends at the first `}` with the indent of its `fn` line.
fn long_functions(name: &str, code: &str, problems: &mut String) {
    let lines: Vec<&str> = code.lines().collect();
    for (start, line) in lines.iter().enumerate() {
        let body = line.trim_start();
        let indent = line.len() - body.len();
        let is_fn = [
            "fn ",
            "pub fn ",
            "pub(crate) fn ",
            "pub(super) fn ",
            "async fn ",
            "pub async fn ",
            "pub(crate) async fn ",
            "pub(super) async fn ",
        ];
        if !is_fn.iter().any(|prefix| body.starts_with(prefix)) {
            continue;
        }
        let end = format!("{}}}", " ".repeat(indent));
        let length = lines[start..].iter().position(|l| *l == end).unwrap_or(0);
        if length > FN_LINES_MAX {
            writeln!(
                problems,
                "{name}:{}: function of {length} lines, at most {FN_LINES_MAX}",
                start + 1
            )
            .unwrap();
        }
    }
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        match entry.path() {
            path if path.is_dir() => files.extend(rust_files(&path)),
            path if path.extension().is_some_and(|ext| ext == "rs") => files.push(path),
            _ => (),
        }
    }
    files.sort();
    files
}
