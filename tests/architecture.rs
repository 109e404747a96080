//! The arrows between modules, checked against the source (STYLE: `domain` ← `ports`, `wire` ← `stages` ← `actors`; adapters know
//! ports; nobody knows `worker` but the command line), and which folder may name which third-party crate.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Module → the modules of this crate it may name.
const ARROWS: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("ports", &["domain"]),
    ("wire", &["domain"]),
    ("stages", &["domain", "ports", "wire"]),
    ("observe", &["domain", "ports", "stages"]),
    ("actors", &["domain", "ports", "stages", "observe"]),
    ("tls", &["domain", "ports", "keys", "network"]),
    ("broker", &["domain", "ports", "observe", "tls"]),
    ("sql", &["domain", "ports", "observe", "tls"]),
    ("hsm", &["domain", "ports", "keys", "observe"]),
    ("keys", &["domain"]),
    ("network", &["domain", "ports", "wire", "keys", "observe"]),
    ("config", &["domain"]),
    ("client", &["domain", "ports", "wire", "broker", "keys", "network"]),
    (
        "worker",
        &[
            "domain", "ports", "wire", "stages", "actors", "broker", "sql", "hsm", "keys", "network", "observe",
            "config", "tls",
        ],
    ),
    (
        "commands",
        &[
            "domain", "ports", "wire", "stages", "actors", "broker", "sql", "hsm", "keys", "network", "observe",
            "config", "client", "worker", "tls",
        ],
    ),
];

/// Third-party crate → the modules that may name it. Crates not listed are free.
const CRATES: &[(&str, &[&str])] = &[
    ("actix", &["actors"]),
    ("redb", &["sql"]),
    ("tokio_postgres", &["sql"]),
    ("postgres_protocol", &["sql"]),
    ("postgres", &["sql"]),
    ("deadpool", &["sql"]),
    ("deadpool_postgres", &["sql"]),
    ("tokio_postgres_rustls", &["sql"]),
    ("lapin", &["broker"]),
    ("async_rs", &["broker"]),
    ("futures_io", &["broker"]),
    ("ureq", &["broker", "network"]),
    ("zip", &["network"]),
    ("cryptoki", &["hsm"]),
    ("rustls", &["tls", "broker", "sql", "network"]),
    ("tokio_rustls", &["tls", "broker"]),
    ("sd_notify", &["observe"]),
    ("rustix", &["worker", "sql"]),
    ("toml", &["broker", "hsm", "config"]),
    ("snap", &["wire"]),
    ("metrics", &["observe"]),
    ("metrics_exporter_prometheus", &["observe"]),
    ("axum", &["observe"]),
    ("tracing_subscriber", &["observe"]),
    ("config", &["config"]),
    ("clap", &["commands"]),
    ("clap_complete", &["commands"]),
    ("x509_cert", &["network"]),
    ("pkcs8", &["keys"]),
    ("tokio", &["actors", "tls", "broker", "sql", "hsm", "keys", "network", "observe", "client", "worker", "commands"]),
];

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("the entry can be read").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// Each source file of the library with its top-level module and its code: no comments, no test modules, and nothing from
/// `#[cfg(test)]` on.
fn sources() -> Vec<(PathBuf, String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = Vec::new();
    for path in files(&root) {
        let inner = path.strip_prefix(&root).expect("it lies below the root");
        if inner.components().any(|part| matches!(part.as_os_str().to_str(), Some("tests" | "tests.rs"))) {
            continue;
        }
        let first = inner.components().next().expect("it has a name").as_os_str().to_string_lossy().into_owned();
        let module = first.trim_end_matches(".rs").to_owned();
        let text = fs::read_to_string(&path).expect("it can be read");
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let code = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
        sources.push((path, module, code));
    }
    assert!(sources.len() > 20, "the sources were found");
    sources
}

/// Names that follow `prefix` in `code`, such as `domain` after `crate::`.
fn named_after(code: &str, prefix: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices(prefix) {
        let rest = &code[at + prefix.len()..];
        let group = rest.strip_prefix('{').map(|inner| inner.split('}').next().unwrap_or_default());
        for part in group.unwrap_or(rest).split(',').take(if group.is_some() { usize::MAX } else { 1 }) {
            let name: String = part.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            names.insert(name);
        }
    }
    names
}

#[test]
fn modules_name_only_what_their_arrows_allow() {
    for (path, module, code) in sources() {
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == module) else {
            assert!(module == "lib" || module == "main", "{}: give {module} a row in ARROWS", path.display());
            continue;
        };
        for named in named_after(&code, "crate::") {
            let known = ARROWS.iter().any(|(name, _)| *name == named);
            let fine = named == module || allowed.contains(&named.as_str()) || !known;
            assert!(fine, "{}: `{module}` must not know `{named}`", path.display());
        }
    }
}

#[test]
fn third_party_crates_are_named_in_their_folders_only() {
    for (path, module, code) in sources() {
        for (third_party, folders) in CRATES {
            let named = code.lines().any(|line| {
                line.match_indices(&format!("{third_party}::")).any(|(at, _)| {
                    let before = line[..at].chars().next_back();
                    !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
                })
            });
            // `config` is also a module of this crate, `metrics` one of `observe`, and `postgres` one of `sql`.
            let ours =
                matches!(*third_party, "config" | "metrics" | "postgres") && code.contains(&format!("{third_party}::"));
            let fine = !named
                || folders.contains(&module.as_str())
                || (ours && !code.contains(&format!("use {third_party}::")));
            assert!(fine || module == "main", "{}: `{module}` must not name {third_party}", path.display());
        }
    }
}

/// `(what, files that may name it)`: promises that types alone do not keep.
const VOUCHERS: &[(&str, &[&str])] = &[
    // Only a check may vouch for a request; suites, benchmarks and simulations do so knowingly.
    ("CheckedRequest::assume_checked", &["src/domain/check.rs", "src/domain/request.rs", "src/commands/bench"]),
    // Only a store's durable commit makes something that can be signed.
    ("CommittedTx::after_durable_commit", &["src/domain/verdict.rs", "src/sql/", "src/commands/bench"]),
    // Only the serializer makes what the service key signs beside commits: a node info, from its fields.
    ("Announcement::of_serialized_node_info", &["src/domain/announcement.rs", "src/wire/network.rs"]),
    ("into_verdict(", &["src/domain/verdict.rs", "src/sql/"]),
];

#[test]
fn vouching_for_requests_and_commits_stays_where_it_belongs() {
    for (path, _, code) in sources() {
        for (voucher, homes) in VOUCHERS {
            let place = path.to_string_lossy().replace('\\', "/");
            let fine = !code.contains(voucher) || homes.iter().any(|home| place.contains(home));
            assert!(fine, "{place} must not use {voucher}");
        }
    }
}

#[test]
fn unfinished_code_is_not_kept() {
    for (path, _, code) in sources() {
        for marker in ["todo!(", "unimplemented!(", "dbg!("] {
            assert!(!code.contains(marker), "{}: {marker}", path.display());
        }
    }
}
