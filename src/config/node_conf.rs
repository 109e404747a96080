//! A Corda node's configuration file: HOCON, as Corda 4.10 reads it.
//!
//! Like the node, this fills placeholders such as `${DB_PASSWORD}` from the environment and `${baseDirectory}` with the file's
//! folder, and lets variables such as `corda_p2pAddress` override keys. Unlike the node, it notices keys that are given twice.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use hocon_rs::parser::HoconParser;
use hocon_rs::parser::read::StrRead;
use hocon_rs::raw::field::ObjectField;
use hocon_rs::raw::raw_object::RawObject;
use hocon_rs::raw::raw_value::RawValue;
use tracing::subscriber::NoSubscriber;
use zeroize::Zeroizing;

/// The file's name in a node's folder.
pub const NODE_CONF: &str = "node.conf";
/// Bytes of a node.conf: hand-written, and of a few pages at most.
const BYTES_MAX: u64 = 1024 * 1024;
/// What stands in for passwords that a node.conf does not give: Corda's own `corda-reference.conf`.
const PASSWORDS: [(&str, &str); 2] = [("keyStorePassword", "cordacadevpass"), ("trustStorePassword", "trustpass")];

/// Why a node.conf cannot be used. Nothing in it repeats the file's text, which may hold passwords.
#[derive(Debug, thiserror::Error)]
pub enum NodeConfError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Too long to be a node.conf.
    #[error("{0}: longer than {BYTES_MAX} bytes")]
    TooLong(PathBuf),
    /// Not HOCON, or a placeholder or included file is missing.
    #[error("{path}: not a valid node.conf: {problem}")]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The key is needed and not there.
    #[error("{path}: {key} is missing")]
    Missing {
        /// Which file.
        path: PathBuf,
        /// Which key.
        key: String,
    },
    /// The value went through Corda's configuration obfuscator.
    #[error(
        "{path}: {key} is obfuscated by Corda's configuration obfuscator and cannot be read here: give the secret itself by \
         reference, such as file:PATH"
    )]
    Obfuscated {
        /// Which file.
        path: PathBuf,
        /// Which key.
        key: String,
    },
}

/// How a value is hidden, or ought to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Obfuscation {
    /// `<{iv:data}>`: encrypted by Corda's configuration obfuscator with a key of the machine's hardware address.
    Done,
    /// `<encrypt{text}>`: meant for the obfuscator, and in clear.
    Due,
}

/// A node.conf, resolved. Its texts may be secret: no `Debug` prints them.
pub struct NodeConf {
    path: PathBuf,
    /// By full key, such as `rpcUsers[0].user`.
    values: BTreeMap<String, Zeroizing<String>>,
    repeated: BTreeSet<String>,
    overridden: BTreeMap<String, String>,
}

impl core::fmt::Debug for NodeConf {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("NodeConf").field("path", &self.path).field("keys", &self.values.keys()).finish_non_exhaustive()
    }
}

impl NodeConf {
    /// Reads `path` with the process's environment.
    ///
    /// # Errors
    /// [`NodeConfError`].
    pub fn read(path: &Path) -> Result<Self, NodeConfError> {
        Self::read_with(path, &std::env::vars().collect())
    }

    /// Reads `path` with `environment`.
    ///
    /// # Errors
    /// [`NodeConfError`].
    pub fn read_with(path: &Path, environment: &HashMap<String, String>) -> Result<Self, NodeConfError> {
        let io = |source| NodeConfError::Io { path: path.to_owned(), source };
        let malformed = |problem: &dyn core::fmt::Display| NodeConfError::Malformed {
            path: path.to_owned(),
            problem: problem.to_string(),
        };
        if std::fs::metadata(path).map_err(io)?.len() > BYTES_MAX {
            return Err(NodeConfError::TooLong(path.to_owned()));
        }
        let text = Zeroizing::new(std::fs::read_to_string(path).map_err(io)?);
        let absolute = std::path::absolute(path).map_err(io)?;
        let folder = absolute.parent().unwrap_or(Path::new("/"));

        // The library tells the log what it reads, passwords included.
        let (raw, resolved) = tracing::subscriber::with_default(NoSubscriber::default(), || {
            let raw = HoconParser::new(StrRead::new(&braced(&text))).parse();
            let whole = frame(&text, &absolute, folder, environment);
            (raw, hocon_rs::Config::parse_str::<hocon_rs::Value>(&whole, None))
        });
        let raw = raw.map_err(|error| malformed(&error))?;
        let resolved = resolved.map_err(|error| malformed(&error))?;

        let mut values = BTreeMap::new();
        flatten(String::new(), &resolved, &mut values);
        // What only the frame put there is not the file's.
        let own: BTreeSet<_> = keys(&raw).into_iter().collect();
        let is_own = |key: &str| own.contains(key.split(['.', '[']).next().unwrap_or(key));
        let has_includes = raw.iter().any(|field| matches!(field, ObjectField::Inclusion { .. }));
        let placeholders: BTreeSet<_> = placeholders(&text).into_iter().chain(["baseDirectory"]).collect();
        values.retain(|key, _| is_own(key) || (has_includes && !placeholders.contains(key.as_str())));

        let mut overridden = BTreeMap::new();
        for (name, value) in environment {
            let Some(key) = name.strip_prefix("corda_").or_else(|| name.strip_prefix("corda.")) else { continue };
            let key = key.replace('_', ".");
            // As Corda: what stands for a list's element replaces the list.
            let plain = key.split('.').all(|part| part.parse::<usize>().is_err()) && !key.is_empty();
            if plain {
                values.insert(key.clone(), Zeroizing::new(value.clone()));
                overridden.insert(key, name.clone());
            }
        }
        let mut repeated = BTreeSet::new();
        repetitions("", &raw, &mut repeated);
        Ok(Self { path: absolute, values, repeated, overridden })
    }

    /// The file, as an absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All full keys that have a value.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// Whether the file gives `key` more than once; the last value counts, as for Corda.
    pub fn is_repeated(&self, key: &str) -> bool {
        self.repeated.contains(key)
    }

    /// The environment variable that overrides `key`, if one does.
    pub fn overridden_by(&self, key: &str) -> Option<&str> {
        self.overridden.get(key).map(String::as_str)
    }

    /// The value of `key` as text, whatever it is. It may be secret.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(|value| value.as_str())
    }

    /// The elements of the list `key`, in order.
    pub fn list(&self, key: &str) -> Vec<&str> {
        (0..).map_while(|i| self.text(&format!("{key}[{i}]"))).collect()
    }

    /// Whether the value of `key` went through Corda's obfuscator, or was meant to.
    pub fn obfuscation(&self, key: &str) -> Option<Obfuscation> {
        let text = self.text(key)?.trim();
        let inside = text.strip_prefix('<')?.strip_suffix("}>")?;
        match inside.strip_prefix("encrypt{") {
            Some(_) => Some(Obfuscation::Due),
            None => inside.starts_with('{').then_some(Obfuscation::Done),
        }
    }

    /// The secret under `key`, or Corda's default for it. A value that waits for the obfuscator is what is inside the braces.
    ///
    /// # Errors
    /// [`NodeConfError::Missing`], [`NodeConfError::Obfuscated`].
    pub fn secret(&self, key: &str) -> Result<Zeroizing<String>, NodeConfError> {
        let (path, named) = (self.path.clone(), key.to_owned());
        let default = || PASSWORDS.iter().find(|(name, _)| *name == key).map(|(_, value)| *value);
        let text = self.text(key).or_else(default).ok_or(NodeConfError::Missing { path, key: named })?;
        let text = match self.obfuscation(key) {
            Some(Obfuscation::Done) => {
                return Err(NodeConfError::Obfuscated { path: self.path.clone(), key: key.to_owned() });
            }
            Some(Obfuscation::Due) => text.trim().trim_start_matches("<encrypt{").trim_end_matches("}>"),
            None => text,
        };
        Ok(Zeroizing::new(text.to_owned()))
    }
}

/// The file, preceded by what its placeholders may mean. Included by its path, so that its own includes are found beside it.
fn frame(text: &str, path: &Path, folder: &Path, environment: &HashMap<String, String>) -> Zeroizing<String> {
    let mut out = Zeroizing::new(format!("baseDirectory = {}\n", quoted(&folder.display().to_string())));
    for name in placeholders(text) {
        if let Some(value) = environment.get(name) {
            // Writing to a string cannot fail.
            let _ = writeln!(out, "{name} = {}", quoted(value));
        }
    }
    let _ = writeln!(out, "include required(file({}))", quoted(&path.display().to_string()));
    out
}

/// With the braces that HOCON lets a file omit: without them, the library takes a file that breaks off for one that ends.
fn braced(text: &str) -> Zeroizing<String> {
    let lines = text.lines().map(str::trim);
    let mut said = lines.filter(|line| !line.is_empty() && !line.starts_with('#') && !line.starts_with("//"));
    match said.next() {
        Some(line) if line.starts_with(['{', '[']) => Zeroizing::new(text.to_owned()),
        _ => Zeroizing::new(format!("{{\n{text}\n}}")),
    }
}

/// As JSON, which HOCON contains.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The names in `${NAME}` and `${?NAME}` that may be environment variables.
fn placeholders(text: &str) -> Vec<&str> {
    let ends = text.split("${").skip(1).filter_map(|rest| rest.split_once('}'));
    let names = ends.map(|(name, _)| name.trim_start_matches('?').trim());
    names.filter(|name| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')).collect()
}

/// All values under their full keys; empty lists and objects count as values.
fn flatten(key: String, value: &hocon_rs::Value, out: &mut BTreeMap<String, Zeroizing<String>>) {
    let text = match value {
        hocon_rs::Value::Object(object) if !object.is_empty() => {
            for (name, value) in object {
                flatten(join(&key, name), value, out);
            }
            return;
        }
        hocon_rs::Value::Array(array) if !array.is_empty() => {
            for (i, value) in array.iter().enumerate() {
                flatten(format!("{key}[{i}]"), value, out);
            }
            return;
        }
        hocon_rs::Value::Object(_) | hocon_rs::Value::Array(_) if key.is_empty() => return,
        hocon_rs::Value::Object(_) => "{}".to_owned(),
        hocon_rs::Value::Array(_) => "[]".to_owned(),
        hocon_rs::Value::Boolean(value) => value.to_string(),
        hocon_rs::Value::Number(value) => value.to_string(),
        hocon_rs::Value::String(value) => value.clone(),
        // As if it were not there: that is what null means in HOCON.
        hocon_rs::Value::Null => return,
    };
    out.insert(key, Zeroizing::new(text));
}

fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") }
}

/// The first parts of a raw object's keys.
fn keys(object: &RawObject) -> Vec<String> {
    let mut out = Vec::new();
    for field in object.iter() {
        if let ObjectField::KeyValue { key, .. } = field {
            let path = key.as_path();
            out.extend(path.first().map(|part| part.split('.').next().unwrap_or(part).to_owned()));
        }
    }
    out
}

/// Full keys that are given a plain value again. Objects given again are merged, which is no repetition, and `+=` adds.
fn repetitions(prefix: &str, object: &RawObject, out: &mut BTreeSet<String>) {
    let mut seen = BTreeSet::new();
    walk(prefix, object, &mut seen, out);
}

fn walk(prefix: &str, object: &RawObject, seen: &mut BTreeSet<String>, out: &mut BTreeSet<String>) {
    for field in object.iter() {
        let ObjectField::KeyValue { key, value, .. } = field else { continue };
        let full = join(prefix, &key.as_path().join("."));
        match value {
            RawValue::Object(inner) => walk(&full, inner, seen, out),
            RawValue::AddAssign(_) => {}
            _ if !seen.insert(full.clone()) => drop(out.insert(full)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, variables: &[(&str, &str)]) -> Result<NodeConf, NodeConfError> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(NODE_CONF);
        std::fs::write(&path, text).expect("written");
        let environment = variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        NodeConf::read_with(&path, &environment)
    }

    #[test]
    fn values_are_found_under_their_full_keys_however_they_are_written() {
        let conf = read(
            "myLegalName : \"O=Worker, L=London, C=GB\" // a comment\n# another\nnotary { validating=false }\n\
             dataSourceProperties = { dataSource.url = \"jdbc:h2:file:\"${baseDirectory}\"/x\", \"dataSource.user\" = sa }\n\
             rpcUsers=[{ user=a, permissions=[ALL] }, { user=b, permissions=[] }]\n\
             flowTimeout { timeout = 30 seconds }\nempty {}\nnothing = null\n",
            &[],
        )
        .expect("valid");
        let url = conf.text("dataSourceProperties.dataSource.url").expect("given");
        assert!(url.starts_with("jdbc:h2:file:/") && url.ends_with("/x"), "{url}");
        for (key, value) in [
            ("myLegalName", "O=Worker, L=London, C=GB"),
            ("notary.validating", "false"),
            ("dataSourceProperties.dataSource.user", "sa"),
            ("rpcUsers[1].user", "b"),
            ("rpcUsers[0].permissions[0]", "ALL"),
            ("rpcUsers[1].permissions", "[]"),
            ("flowTimeout.timeout", "30 seconds"),
            ("empty", "{}"),
        ] {
            assert_eq!(conf.text(key), Some(value), "{key}");
        }
        assert_eq!((conf.text("nothing"), conf.text("baseDirectory")), (None, None));
    }

    #[test]
    fn the_environment_fills_placeholders_and_overrides_keys_as_it_does_for_a_node_cf2() {
        let text = "p2pAddress = ${ADDRESS}\nrpcSettings { address = ${?ABSENT} }\njarDirs = [a]\n";
        let variables = [("ADDRESS", "host \"q\":1"), ("corda_notary_validating", "false"), ("corda_jarDirs_0", "b")];
        let conf = read(text, &variables).expect("valid");
        assert_eq!(conf.text("p2pAddress"), Some("host \"q\":1"));
        assert_eq!(conf.text("notary.validating"), Some("false"));
        assert_eq!(conf.overridden_by("notary.validating"), Some("corda_notary_validating"));
        // Neither the variable itself, nor what is said of lists.
        assert_eq!((conf.text("ADDRESS"), conf.text("jarDirs[0]")), (None, Some("a")));
        assert!(matches!(read(text, &[]), Err(NodeConfError::Malformed { .. })), "a placeholder without a value");
    }

    #[test]
    fn keys_given_twice_are_noticed_and_the_last_one_counts_cf1() {
        let conf =
            read("a = 1\nb { c = 1 }\nb { d = 1 }\nb.c = 2\na = 2\nlist = [1]\nlist += 2\n", &[]).expect("valid");
        assert_eq!((conf.text("a"), conf.text("b.c")), (Some("2"), Some("2")));
        assert_eq!(conf.list("list"), ["1", "2"]);
        let repeated = ["a", "b.c", "b.d", "list"].map(|key| conf.is_repeated(key));
        assert_eq!(repeated, [true, true, false, false]);
    }

    #[test]
    fn included_files_are_found_beside_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("secrets.conf"), "keyStorePassword = \"from include\"").expect("written");
        let path = folder.path().join(NODE_CONF);
        std::fs::write(&path, "include required(\"secrets.conf\")\nmyLegalName = x\n").expect("written");
        let conf = NodeConf::read_with(&path, &HashMap::new()).expect("valid");
        assert_eq!(*conf.secret("keyStorePassword").expect("given"), "from include");
        std::fs::write(&path, "include required(\"missing.conf\")").expect("written");
        assert!(NodeConf::read_with(&path, &HashMap::new()).is_err());
    }

    #[test]
    fn secrets_have_cordas_defaults_and_obfuscated_ones_are_named_as_such_ob1() {
        let conf =
            read("keyStorePassword = \"<{aXY=:ZGF0YQ==}>\"\nother = \"<encrypt{in clear}>\"\n", &[]).expect("valid");
        assert_eq!(conf.obfuscation("keyStorePassword"), Some(Obfuscation::Done));
        let refused = conf.secret("keyStorePassword").expect_err("obfuscated");
        assert!(matches!(&refused, NodeConfError::Obfuscated { key, .. } if key == "keyStorePassword"), "{refused}");
        assert!(!refused.to_string().contains("ZGF0"), "{refused}");
        assert_eq!(conf.obfuscation("other"), Some(Obfuscation::Due));
        assert_eq!(*conf.secret("other").expect("readable"), "in clear");
        assert_eq!(*conf.secret("trustStorePassword").expect("a default"), "trustpass");
        assert!(matches!(conf.secret("notary.password"), Err(NodeConfError::Missing { .. })));
    }

    #[test]
    fn what_is_no_node_conf_is_refused_without_repeating_it() {
        for text in ["keyStorePassword = \"s3cr3t", "a { b = s3cr3t", "= s3cr3t", "[1]"] {
            let refused = read(text, &[]).expect_err(text).to_string();
            assert!(!refused.contains("s3cr3t"), "{refused}");
        }
        let missing = NodeConf::read_with(Path::new("no/such/node.conf"), &HashMap::new()).expect_err("missing");
        assert!(matches!(missing, NodeConfError::Io { .. }), "{missing}");
        assert!(matches!(read(&" ".repeat(2 << 20), &[]), Err(NodeConfError::TooLong(_))));
        // Depth is bounded by the parser.
        assert!(read(&"a { ".repeat(10_000), &[]).is_err());
    }
}
