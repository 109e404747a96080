//! A worker in the place of a Corda notary worker (ID5, CF1, CF2, OB1): it serves from the node's own folder. The folders are those of
//! a development network, which lie as Corda's own do (`tests/corda/development` sees to that).

mod worker;

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Output;

use serde_json::Value;
use worker::{Worker, notary};

struct Nodes(tempfile::TempDir);

impl Nodes {
    /// A network of so many workers and two parties, the workers at ports that were free.
    fn up(workers: usize) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port();
        // The other nodes' ports are only named.
        let port = port.min(60_000);
        let dir = folder.path().join("network");
        let up = ["network", "dev", "up", dir.to_str().expect("UTF-8"), "--workers", &workers.to_string(), "--port"];
        let output = notary().args(up).arg(port.to_string()).output().expect("the program starts");
        assert!(output.status.success(), "{}", stderr(&output));
        Self(folder)
    }

    fn worker(&self, n: usize) -> PathBuf {
        self.0.path().join(format!("network/worker-{n}"))
    }

    /// Runs a verb in the place of worker `n`.
    fn verb(&self, n: usize, verb: &[&str], more: &[&str]) -> Output {
        let mut command = notary();
        command.args(verb).arg("--corda-node").arg(self.worker(n)).args(["--set", "observe.listen=127.0.0.1:0"]);
        command.args(more).output().expect("the program starts")
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_worker_serves_from_a_nodes_folder_and_leaves_it_as_it_was() {
    let nodes = Nodes::up(1);
    let before = files(&nodes);
    let created = nodes.verb(1, &["store", "create"], &[]);
    assert!(created.status.success(), "{}", stderr(&created));
    let mut command = notary();
    command.arg("run").arg("--corda-node").arg(nodes.worker(1)).args(["--set", "observe.listen=127.0.0.1:0"]);
    let worker = Worker::start(command);
    assert_eq!(worker.get("/ready").0, 200);
    assert!(worker.terminate().success());
    // Whatever the worker writes is in a folder of its own.
    let after = files(&nodes);
    let ours = |path: &&(PathBuf, Vec<u8>)| path.0.starts_with(nodes.worker(1).join("notary"));
    assert!(after.iter().filter(ours).count() > 0);
    assert_eq!(before, after.iter().filter(|file| !ours(file)).cloned().collect::<Vec<_>>());
}

fn files(nodes: &Nodes) -> Vec<(PathBuf, Vec<u8>)> {
    let (mut found, mut folders) = (Vec::new(), vec![nodes.worker(1)]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            match path.is_dir() {
                true => folders.push(path),
                false => found.push((path.clone(), fs::read(path).expect("readable"))),
            }
        }
    }
    found.sort();
    found
}

#[test]
fn two_workers_with_a_store_each_are_refused() {
    let nodes = Nodes::up(2);
    assert!(nodes.verb(1, &["store", "create"], &[]).status.success());
    let refused = nodes.verb(1, &["run"], &[]);
    assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("store.sole_worker"), "{}", stderr(&refused));
    let doctor = nodes.verb(1, &["doctor"], &[]);
    assert_eq!(doctor.status.code(), Some(1));
    assert!(stdout(&doctor).contains("store: shared"), "{}", stdout(&doctor));
}

#[test]
fn file_environment_and_set_go_before_the_folder_and_every_value_has_its_origin() {
    let nodes = Nodes::up(1);
    let mut command = notary();
    command.env("NOTARY__FLOW__SLOTS", "7").env("corda_p2pAddress", "worker.example.com:10002");
    command.args(["config", "show", "--corda-node"]).arg(nodes.worker(1));
    let shown = command.args(["--set", "signing.slots=8"]).output().expect("the program starts");
    assert!(shown.status.success(), "{}", stderr(&shown));
    for line in [
        "flow.slots = 7  # environment",
        "signing.slots = 8  # --set",
        "p2p.addresses = \"worker.example.com:10002\"  # node: p2pAddress",
        "p2p.listen = \"0.0.0.0:10002\"  # node: p2pAddress",
        "signing.kind = \"keystore\"  # node: a Corda node's way",
    ] {
        assert!(stdout(&shown).lines().any(|shown| shown == line), "{line} in\n{}", stdout(&shown));
    }
}

#[test]
fn an_import_accounts_for_every_key_and_is_a_sound_configuration() {
    let nodes = Nodes::up(1);
    let conf = nodes.worker(1).join("node.conf");
    let out = nodes.0.path().join("worker.toml");
    let import = |more: &[&str]| {
        let mut command = notary();
        command.args(["config", "import"]).arg(&conf).args(more);
        command.output().expect("the program starts")
    };
    let imported = import(&["--out", out.to_str().expect("UTF-8")]);
    assert_eq!(imported.status.code(), Some(0), "{}{}", stdout(&imported), stderr(&imported));
    for key in ["myLegalName: taken: worker.name", "p2pAddress: taken:", "notary.serviceLegalName: taken: service.name"]
    {
        assert!(stdout(&imported).contains(key), "{key} in\n{}", stdout(&imported));
    }
    let check = notary().args(["config", "check", "--config"]).arg(&out).output().expect("the program starts");
    assert!(check.status.success(), "{}", stderr(&check));
    // What is there is not overwritten.
    assert_eq!(import(&["--out", out.to_str().expect("UTF-8")]).status.code(), Some(3));

    let text = fs::read_to_string(&conf).expect("readable");
    fs::write(&conf, format!("{text}\nkeyStorePassword = \"<{{abc=:ZGVm}}>\"\nunheardOf {{ a = 1 }}\n"))
        .expect("written");
    let report = import(&["--json"]);
    assert_eq!(report.status.code(), Some(1));
    let report: Value = serde_json::from_str(&stdout(&report)).expect("JSON");
    let fate = |key: &str| {
        let keys = report["keys"].as_array().expect("keys");
        keys.iter().find(|account| account["key"] == key).unwrap_or_else(|| panic!("{key} in {keys:?}")).clone()
    };
    assert_eq!(fate("unheardOf.a")["fate"], "unknown");
    assert!(fate("keyStorePassword")["reason"].as_str().expect("a reason").contains("obfuscat"));
    // A configuration that is not sound yet is written all the same, with what to correct.
    let zone = format!("{text}\ncompatibilityZoneURL = \"https://zone.example.com\"\ndevMode = false\n");
    fs::write(&conf, zone).expect("written");
    let draft = import(&[]);
    assert_eq!(draft.status.code(), Some(1), "{}", stderr(&draft));
    assert!(stderr(&draft).contains("correct in what is written: network.tls_ca"), "{}", stderr(&draft));
    assert!(stdout(&draft).contains("url = \"https://zone.example.com\""), "{}", stdout(&draft));
    fs::write(&conf, format!("{text}\nkeyStorePassword = \"<{{abc=:ZGVm}}>\"\n")).expect("written");
    // A worker does not start with it, and says which value it is.
    let refused = nodes.verb(1, &["config", "check"], &[]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("keyStorePassword is obfuscated"), "{}", stderr(&refused));
}
