//! Rules of the house that a machine can check: who may depend on whom, words that the core may
//! not use, file and function length.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Crate, its folder, and what of ours and of the wide world it may depend on (ARCHITECTURE.md).
const DEPENDENCIES: [(&str, &[&str]); 10] = [
    ("src/model", &["bytes", "bytestring", "xxhash-rust"]),
    ("src/selector", &["understudy-model"]),
    ("src/broker", &["understudy-model", "understudy-selector", "bytes", "regex"]),
    ("protocols/amqp", &["understudy-model", "amq-protocol", "bytes"]),
    ("protocols/stomp", &["understudy-model", "bytes", "memchr"]),
    ("protocols/native", &["understudy-model", "bytes"]),
    (
        "protocols/native/client",
        &["understudy-native", "understudy-tls", "bytes", "thiserror", "tokio", "tracing"],
    ),
    ("protocols/tls", &["rustls", "tokio"]),
    ("storage", &["understudy-model", "bytes", "heed", "crc32fast", "rustix", "thiserror"]),
    ("replication", &["understudy-model", "bytes"]),
];

/// What the deterministic core knows nothing of.
const CORE: [&str; 5] = ["src/model", "src/selector", "src/broker", "replication/src", "src/node"];
const BANNED_IN_CORE: [&str; 10] = [
    "std::time",
    "SystemTime",
    "Instant::now",
    "std::thread",
    "std::fs",
    "std::net",
    "tokio",
    "async fn",
    "HashMap<",
    "HashSet<",
];
/// The parts of the root package that the simulator runs.
const SANS_IO_FILES: [&str; 5] =
    ["src/node.rs", "src/inflight.rs", "src/cache.rs", "src/upkeep.rs", "src/boot.rs"];

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 100;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            rust_files(&path, found);
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
}

fn files_below(folders: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in folders {
        rust_files(&root().join(folder), &mut found);
    }
    found
}

/// Names in one section of a manifest.
fn section(manifest: &str, name: &str) -> BTreeSet<String> {
    let lines = manifest.lines().skip_while(|line| line.trim() != format!("[{name}]")).skip(1);
    lines
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split(['.', '=', ' ']).next())
        .filter(|name| !name.is_empty() && !name.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

#[test]
fn crates_depend_on_what_they_may_only() {
    for (folder, allowed) in DEPENDENCIES {
        let manifest = std::fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        let found = section(&manifest, "dependencies");
        let allowed: BTreeSet<String> = allowed.iter().map(|name| (*name).to_owned()).collect();
        let surplus: Vec<&String> = found.difference(&allowed).collect();
        assert!(surplus.is_empty(), "{folder} may not depend on {surplus:?}");
        assert!(!found.is_empty(), "{folder}: the manifest was not understood");
    }
}

/// The code of a file in front of its tests, without comments.
fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_core_knows_no_clock_thread_file_socket_or_hash_order() {
    let mut files = files_below(&CORE);
    files.extend(SANS_IO_FILES.map(|file| root().join(file)));
    files.retain(|path| !path.components().any(|part| part.as_os_str() == "tests"));
    assert!(files.len() > 30, "the folders have moved");
    for path in files {
        let code = code(&path);
        for word in BANNED_IN_CORE {
            assert!(!code.contains(word), "{} uses {word}", path.display());
        }
    }
}

fn own_files() -> Vec<PathBuf> {
    files_below(&["src", "protocols", "storage", "replication"])
}

#[test]
fn files_and_functions_are_short_enough_to_read() {
    let mut too_long = Vec::new();
    for path in own_files() {
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        if lines.len() > FILE_LINES_MAX {
            too_long.push(format!("{}: {} lines", path.display(), lines.len()));
        }
        // A function ends at the brace in the column in which it began.
        for (at, line) in lines.iter().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let begins = ["fn ", "pub fn ", "pub(crate) fn ", "pub(super) fn ", "async fn "];
            if !begins.iter().any(|begin| line.trim_start().starts_with(begin)) {
                continue;
            }
            let end = format!("{}}}", " ".repeat(indent));
            let length = lines[at..].iter().position(|line| *line == end).unwrap_or(0);
            if length > FUNCTION_LINES_MAX {
                too_long.push(format!("{}:{}: {length} lines", path.display(), at + 1));
            }
        }
    }
    assert!(too_long.is_empty(), "{too_long:#?}");
}

/// It is there to be read and followed.
#[test]
fn the_python_client_is_short_and_not_dense() {
    let text = std::fs::read_to_string(root().join("clients/python/understudy.py")).unwrap();
    assert!(text.lines().count() <= 300, "{} lines", text.lines().count());
    assert!(text.lines().all(|line| line.chars().count() <= 100));
}

/// Whoever drops one of the public client's futures must know what becomes of it.
#[test]
fn the_clients_futures_say_what_dropping_them_does() {
    let mut count = 0;
    for path in files_below(&["protocols/native/client/src"]) {
        let text = std::fs::read_to_string(&path).unwrap();
        let pieces: Vec<&str> = text.split("    pub async fn ").collect();
        for before in pieces.iter().rev().skip(1) {
            count += 1;
            let doc: Vec<&str> =
                before.lines().rev().take_while(|line| line.trim().starts_with("///")).collect();
            let says = doc.iter().any(|line| line.contains("# Cancel safety"));
            assert!(says, "{}: {:?} of a public future", path.display(), doc.last());
        }
    }
    assert!(count > 15, "the client has moved");
}

#[test]
fn documents_that_are_named_are_there() {
    let mut documents = vec![];
    for folder in [root().to_owned(), root().join("docs")] {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        documents.extend(entries.filter(|path| path.extension().is_some_and(|end| end == "md")));
    }
    assert!(documents.len() > 10, "the documents have moved");
    for document in documents {
        let text = std::fs::read_to_string(&document).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            let is_there = document.parent().unwrap().join(file).exists();
            let named = document.display();
            assert!(
                file.starts_with("http") || is_there,
                "{named} names {link}, which is not there"
            );
        }
    }
}

/// `docs/replication.md section 7.4` in a comment.
#[test]
fn sections_that_the_code_points_to_are_there() {
    let text = std::fs::read_to_string(root().join("docs/replication.md")).unwrap();
    let headings = text.lines().filter_map(|line| line.strip_prefix("##"));
    let sections: Vec<&str> = headings
        .filter_map(|line| line.trim_start_matches('#').split_whitespace().next())
        .map(|number| number.trim_end_matches('.'))
        .collect();
    let mut count = 0;
    for path in files_below(&["src", "replication", "tests/simulation"]) {
        let code = std::fs::read_to_string(&path).unwrap();
        for rest in code.split("docs/replication.md section ").skip(1) {
            let number = rest.split(|c: char| c != '.' && !c.is_ascii_digit()).next();
            let number = number.unwrap_or_default().trim_end_matches('.');
            let file = path.display();
            assert!(
                sections.contains(&number),
                "{file} names section {number}, which is not there"
            );
            count += 1;
        }
    }
    assert!(count > 15, "{count}: the words have changed");
}
