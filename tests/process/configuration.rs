//! Broken configurations (fault F39; rows CF1, CF2): every fault at once, each with the path to its key, before anything connects,
//! and no secret in what is said.

use std::io::ErrorKind;
use std::net::TcpListener;

use super::worker;
use super::{stderr, stdout};

/// Stands for a secret wherever one is given in clear.
const SECRET: &str = "hunter2hunter2";

/// What is wrong with a file, and what must be said: each a part of one line.
struct Damaged {
    what: &'static str,
    text: &'static str,
    said: &'static [&'static str],
}

const fn damaged(what: &'static str, text: &'static str, said: &'static [&'static str]) -> Damaged {
    Damaged { what, text, said }
}

/// `SECRET` and `PORT` are filled in.
const FILES: &[Damaged] = &[
    damaged("not TOML", "[broker\n", &["line 1"]),
    damaged("an unquoted secret", "[broker]\npassword = SECRET\n", &["line 2, column"]),
    damaged("an unclosed secret", "[signing]\npin = \"SECRET\n", &["line 2, column"]),
    damaged("a key twice", "[flow]\nslots = 1\nslots = 2\n", &["line 3"]),
    damaged("a section twice", "[flow]\nslots = 1\n[flow]\nslots = 2\n", &["line 3"]),
    damaged("an unknown key", "[flow]\nslotz = 1\n", &["flow.slotz: no such setting", "did you mean flow.slots?"]),
    damaged("an unknown section", "[flaw]\nslots = 1\n", &["flaw.slots: no such setting", "did you mean flow.slots?"]),
    damaged(
        "a misspelt secret",
        "[broker]\npasword = \"SECRET\"\n",
        &["broker.pasword", "did you mean broker.password?"],
    ),
    damaged("a word for a number", "[flow]\nslots = \"many\"\n", &["flow.slots: "]),
    damaged("a number for a path", "[store]\npath = [1]\n", &["store.path: "]),
    damaged("a table for a value", "[store.path]\na = 1\n", &["store.path: invalid type"]),
    damaged("below its bounds", "[flow]\nslots = 0\n", &["flow.slots: 0 is outside 1..=65536"]),
    damaged(
        "above its bounds",
        "[limits]\nmessage_bytes_max = 900000000\n",
        &["limits.message_bytes_max: 900000000 is outside"],
    ),
    damaged("an unknown kind", "[store]\nkind = \"mysql\"\n", &["store.kind: "]),
    damaged("no address", "[observe]\nlisten = \"somewhere\"\n", &["observe.listen: "]),
    damaged(
        "open to the world",
        "[broker]\nlisten = \"0.0.0.0:PORT\"\n",
        &["broker.listen: 0.0.0.0:", "take 127.0.0.1"],
    ),
    damaged(
        "two listeners at one address",
        "[broker]\nlisten = \"127.0.0.1:PORT\"\n[observe]\nlisten = \"127.0.0.1:PORT\"\n",
        &["observe.listen: "],
    ),
    damaged("no legal name", "[worker]\nname = \"nobody\"\n", &["worker.name: \"nobody\" is no legal name"]),
    damaged(
        "worker and service of one name",
        "[worker]\nname = \"O=A, L=Zurich, C=CH\"\n[service]\nname = \"O=A, L=Zurich, C=CH\"\n",
        &["worker.name: "],
    ),
    damaged("a passphrase in clear", "[signing]\npassphrase = \"SECRET\"\n", &["signing.passphrase: ", "by reference"]),
    damaged("a PIN in clear", "[signing]\npin = 12345678\n", &["signing.pin: ", "by reference"]),
    damaged("no passphrase", "[signing]\npassphrase = \"\"\n", &["signing.passphrase: the key file has no passphrase"]),
    damaged(
        "a cap below its base",
        "[signing]\nretry_base_ms = 500\nretry_cap_ms = 100\n",
        &["signing.retry_cap_ms: 100"],
    ),
    damaged(
        "a broker that nobody named",
        "[broker]\nkind = \"rabbitmq\"\n",
        &["broker.hosts: names no host", "broker.user: name the broker user"],
    ),
    damaged(
        "a broker elsewhere in the clear",
        "[broker]\nkind = \"artemis\"\nhosts = \"localhost:PORT, broker.example:5672\"\nuser = \"u\"\npassword = \"file:p\"\n",
        &["broker.hosts: broker.example is not this machine: it needs TLS, so set broker.tls_ca"],
    ),
    damaged(
        "a broker's whole address",
        "[broker]\nkind = \"rabbitmq\"\nhosts = \"amqp://u:SECRET@localhost:PORT\"\nuser = \"u\"\npassword = \"file:p\"\n",
        &["broker.hosts: give HOST:PORT alone"],
    ),
    damaged(
        "a broker user without a password, half of mutual TLS, an odd prefix",
        "[broker]\nkind = \"rabbitmq\"\nhosts = \"localhost:PORT\"\nuser = \"u\"\ntls_key = \"k\"\nprefix = \"a/b\"\n",
        &["broker.password: ", "broker.tls_certificate: tls_key needs its certificate", "broker.prefix: \"a/b\""],
    ),
    damaged(
        "an administrator's password for everybody",
        "[broker]\nkind = \"rabbitmq\"\nhosts = \"localhost:PORT\"\nuser = \"u\"\npassword = \"file:p\"\n\
         management = \"http://u:SECRET@broker.example:15672\"\n",
        &["broker.management: it must not hold a user or a password"],
    ),
    damaged("a database that nobody named", "[store]\nkind = \"postgres\"\n", &["store.url: names no database"]),
    damaged(
        "a password in the database's address",
        "[store]\nkind = \"postgres\"\nurl = \"postgresql://u:SECRET@localhost:PORT/notary\"\n",
        &["store.url: it holds a password", "give store.password by reference"],
    ),
    damaged(
        "a password with every sign",
        "[store]\nkind = \"postgres\"\nurl = \"postgresql://u:a/b?SECRET@c@localhost:PORT/notary\"\n",
        &["store.url: it holds a password"],
    ),
    damaged(
        "a password among the database's options",
        "[store]\nkind = \"postgres\"\nurl = \"postgresql://u@localhost:PORT/notary?password=SECRET\"\n",
        &["store.url: it holds a password"],
    ),
    damaged(
        "no user, no database",
        "[store]\nkind = \"postgres\"\nurl = \"postgresql://localhost:PORT/\"\n",
        &["store.url: names no user"],
    ),
    damaged(
        "unsafe durability, elsewhere, in the clear",
        "[store]\nkind = \"postgres\"\nurl = \"postgresql://u@db.example:5432/notary\"\nunsafe_for_tests = true\n",
        &[
            "store.unsafe_for_tests: is for a database on this machine only",
            "store.url: db.example is not this machine",
        ],
    ),
    damaged(
        "too few connections for its commits",
        "[store]\nkind = \"postgres\"\nurl = \"postgresql://u@localhost:PORT/notary\"\n[uniqueness]\ncommits_in_flight_max = 8\n",
        &["store.connections_max: 4 are too few", "make it 9"],
    ),
    damaged(
        "tokens that nobody named",
        "[signing]\nkind = \"pkcs11\"\nkey_label = \"\"\nkey_id = \"\"\n",
        &["signing.module: ", "signing.tokens: ", "signing.pin: ", "signing.key_label: "],
    ),
    damaged(
        "an id that is no hex",
        "[signing]\nkind = \"pkcs11\"\nmodule = \"m.so\"\ntokens = \"t\"\npin = \"file:p\"\nkey_id = \"xyz\"\n",
        &["signing.key_id: \"xyz\" is not hex"],
    ),
    damaged(
        "wrong in many ways at once",
        "[flow]\nslots = 0\nslotz = 1\n[worker]\nname = \"nobody\"\n[signing]\npassphrase = \"SECRET\"\n[store]\nkind = \"x\"\n",
        &["flow.slots: ", "flow.slotz: ", "worker.name: ", "signing.passphrase: ", "store.kind: "],
    ),
];

#[test]
fn damaged_configurations_end_with_2_a_line_for_each_fault_no_connection_and_no_secret() {
    assert!(FILES.len() >= 30);
    let folder = tempfile::tempdir().expect("a folder");
    // Stands for every server: whoever connects is seen.
    let server = TcpListener::bind("127.0.0.1:0").expect("a port");
    server.set_nonblocking(true).expect("set");
    let port = server.local_addr().expect("bound").port().to_string();
    for (number, Damaged { what, text, said }) in FILES.iter().enumerate() {
        let file = folder.path().join(format!("damaged-{number}.toml"));
        std::fs::write(&file, text.replace("SECRET", SECRET).replace("PORT", &port)).expect("written");
        let file = file.to_str().expect("UTF-8");
        for verb in [&["run"][..], &["doctor"], &["config", "check"], &["config", "show"]] {
            let output = worker::run(&[verb, &["--config", file]].concat());
            let printed = stderr(&output);
            assert_eq!(output.status.code(), Some(2), "{what}, {verb:?}: {printed}");
            assert_eq!(stdout(&output), "", "{what}, {verb:?}");
            for part in *said {
                let lines = printed.lines().filter(|line| line.contains(part)).count();
                assert_eq!(lines, 1, "{what}, {verb:?}: {part:?} in one line of\n{printed}");
            }
            // The first line is the headline; a fault takes one each, and there is none without its key.
            let mut lines = printed.lines();
            assert_eq!(lines.next(), Some("notary: the configuration is not valid:"), "{what}");
            assert!(lines.all(|line| line.contains(": ")), "{what}, {verb:?}:\n{printed}");
            assert!(!printed.contains(SECRET) && !printed.contains("12345678"), "{what}, {verb:?}:\n{printed}");
        }
    }
    let connected = server.accept().map(drop).map_err(|error| error.kind());
    assert_eq!(connected, Err(ErrorKind::WouldBlock), "something was connected");
}

#[test]
fn faults_of_the_environment_and_of_set_are_named_with_their_layer() {
    let output = worker::notary()
        .args(["config", "show", "--set", "signing.pin hunter2hunter2", "--set", "flow.slotz=1"])
        .env("NOTARY__STORE__PASSWORD", SECRET)
        .env("NOTARY__STOER__PATH", "x")
        .output()
        .expect("it ends");
    let printed = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{printed}");
    for part in [
        "--set signing.pin: give it as KEY=VALUE",
        "flow.slotz: no such setting (from --set); did you mean flow.slots?",
        "store.password: ",
        "stoer.path: no such setting (from environment); did you mean store.path?",
    ] {
        assert!(printed.contains(part), "{part} in\n{printed}");
    }
    assert!(!printed.contains(SECRET), "{printed}");
}
