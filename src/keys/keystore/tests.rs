use std::process::Command;

use super::*;
use crate::domain::{SignatureScheme, Timestamp};

fn passphrase(text: &str) -> Zeroizing<String> {
    Zeroizing::new(text.to_owned())
}

/// A folder of an unmodified Corda 4.10 node, made by Corda's own network bootstrapper in development mode.
fn node_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/corda-node/certificates")
}

/// `keytool`, or `None` with a line that says what was skipped.
fn keytool(folder: &Path) -> Option<impl Fn(&[&str]) -> String> {
    if Command::new("keytool").arg("-help").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "CI has Java");
        eprintln!("skipped: no keytool program");
        return None;
    }
    let folder = folder.to_owned();
    Some(move |arguments: &[&str]| {
        let output = Command::new("keytool").args(arguments).current_dir(&folder).output().expect("keytool runs");
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {out}{err}");
        format!("{out}{err}")
    })
}

fn make(keytool: &impl Fn(&[&str]) -> String, store: &str, alias: &str, key: &[&str], more: &[&str]) {
    let fixed = ["-genkeypair", "-dname", "O=Notary Worker 1,L=Zurich,C=CH", "-validity", "30"];
    let named = ["-alias", alias, "-keystore", store, "-storepass", "store pass", "-keypass"];
    let key_pass = if more.contains(&"JKS") { "key pass" } else { "store pass" };
    keytool(&[&fixed[..], &named, &[key_pass], key, more].concat());
}

const ED25519: &[&str] = &["-keyalg", "Ed25519"];
const P256: &[&str] = &["-keyalg", "EC", "-groupname", "secp256r1"];
const RSA: &[&str] = &["-keyalg", "RSA", "-keysize", "2048"];

/// The key signs, and what it signs verifies with the key of its certificate.
fn check_pair(store: &KeyStore, alias: &str, key_pass: &str) -> SignatureScheme {
    let key = store.key(alias, &passphrase(key_pass)).expect("opened");
    let chain = store.chain(alias).expect("there");
    assert!(!chain.is_empty());
    let spki = key.public_key().as_spki();
    assert!(chain[0].windows(spki.len()).any(|window| window == spki), "{alias}: the certificate has the key");
    assert_eq!(key.public_key().verify(b"message", &key.sign(b"message")), Ok(()));
    key.public_key().scheme()
}

#[test]
fn the_key_stores_of_a_corda_node_are_read() {
    let dev = passphrase("cordacadevpass");
    let node = KeyStore::open(&node_folder().join("nodekeystore.jks"), &dev).expect("opened");
    let mut aliases: Vec<_> = node.key_aliases().collect();
    aliases.sort_unstable();
    assert_eq!(aliases, ["cordaclientca", "distributed-notary-private-key", "identity-private-key"]);
    assert_eq!(check_pair(&node, "identity-private-key", &dev), SignatureScheme::Ed25519);
    assert_eq!(check_pair(&node, "cordaclientca", &dev), SignatureScheme::EcdsaSecp256r1Sha256);
    assert_eq!(node.chain("identity-private-key").expect("there").len(), 4);

    let service = KeyStore::open(&node_folder().join("distributedService.jks"), &dev).expect("opened");
    assert_eq!(check_pair(&service, "distributed-notary-private-key", &dev), SignatureScheme::Ed25519);

    let tls = KeyStore::open(&node_folder().join("sslkeystore.jks"), &dev).expect("opened");
    assert_eq!(check_pair(&tls, "cordaclienttls", &dev), SignatureScheme::EcdsaSecp256r1Sha256);

    let trust = KeyStore::open(&node_folder().join("truststore.jks"), &passphrase("trustpass")).expect("opened");
    assert_eq!(trust.trusted().map(|(alias, _)| alias).collect::<Vec<_>>(), ["cordarootca"]);
    assert_eq!(trust.key_aliases().count(), 0);
    // The root of a chain is the trust store's.
    assert_eq!(trust.trusted().next().expect("one").1, tls.chain("cordaclienttls").expect("there")[3]);
}

#[test]
fn stores_by_keytool_open_with_their_passphrases_only() {
    let dir = tempfile::tempdir().expect("dir");
    let Some(keytool) = keytool(dir.path()) else { return };
    for (file, kind, key_pass) in [
        ("a.jks", &["-storetype", "JKS"][..], "key pass"),
        ("a.p12", &["-storetype", "PKCS12"], "store pass"),
        ("old.p12", &["-storetype", "PKCS12", "-J-Dkeystore.pkcs12.legacy"], "store pass"),
    ] {
        make(&keytool, file, "Service", ED25519, kind);
        make(&keytool, file, "tls", P256, kind);
        make(&keytool, file, "rsa", RSA, kind);
        let export = ["-exportcert", "-alias", "tls", "-keystore", file, "-storepass", "store pass"];
        keytool(&[&export[..], &["-file", "root.cer"]].concat());
        let import = ["-importcert", "-noprompt", "-alias", "root", "-keystore", file, "-storepass", "store pass"];
        keytool(&[&import[..], &["-file", "root.cer"], kind].concat());

        let path = dir.path().join(file);
        let store = KeyStore::open(&path, &passphrase("store pass")).expect(file);
        assert_eq!(check_pair(&store, "service", key_pass), SignatureScheme::Ed25519, "{file}");
        assert_eq!(check_pair(&store, "TLS", key_pass), SignatureScheme::EcdsaSecp256r1Sha256, "{file}");
        let root = std::fs::read(dir.path().join("root.cer")).expect("exported");
        assert_eq!(store.trusted().collect::<Vec<_>>(), [("root", &root[..])], "{file}");

        let error = store.key("rsa", &passphrase(key_pass)).expect_err("RSA");
        assert!(
            matches!(&error, KeyStoreError::Key { error: PrivateKeyError::UnsupportedScheme, .. }),
            "{file}: {error}"
        );
        let error = store.key("tls", &passphrase("another")).expect_err("wrong");
        assert!(matches!(&error, KeyStoreError::KeyPassphrase(alias) if alias == "tls"), "{file}: {error}");
        let error = store.key("none", &passphrase(key_pass)).expect_err("missing");
        assert!(error.to_string().contains("it holds") && error.to_string().contains("tls"), "{file}: {error}");
        let error = KeyStore::open(&path, &passphrase("store puss")).expect_err("wrong");
        assert!(error.is_passphrase() && error.to_string().contains(file), "{error}");
    }
    make(&keytool, "a.jceks", "tls", P256, &["-storetype", "JCEKS"]);
    let error = KeyStore::open(&dir.path().join("a.jceks"), &passphrase("store pass")).expect_err("JCEKS");
    assert!(error.to_string().contains("JCEKS"), "{error}");
}

#[test]
fn stores_by_openssl_keep_their_chains_in_order() {
    let dir = tempfile::tempdir().expect("dir");
    if Command::new("openssl").arg("version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "CI has openssl");
        return eprintln!("skipped: no openssl program");
    }
    let openssl = |arguments: &[&str]| {
        let output = Command::new("openssl").args(arguments).current_dir(dir.path()).output().expect("openssl runs");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"];
    let req = |more: &[&str]| openssl(&[&["req", "-x509"][..], &curve, more].concat());
    req(&["-subj", "/CN=root", "-keyout", "root.key", "-out", "root.pem"]);
    let middle = ["-subj", "/CN=middle", "-keyout", "middle.key", "-out", "middle.pem"];
    req(&[&middle[..], &["-CA", "root.pem", "-CAkey", "root.key"]].concat());
    let own = ["-subj", "/CN=own", "-keyout", "own.key", "-out", "own.pem"];
    req(&[&own[..], &["-CA", "middle.pem", "-CAkey", "middle.key"]].concat());
    let pem = |name: &str| {
        let text = std::fs::read_to_string(dir.path().join(name)).expect("made");
        der::Document::from_pem(&text).expect("PEM").1.as_bytes().to_vec()
    };
    // Out of order, to see that issuers decide.
    let others = ["root.pem", "middle.pem"].map(|name| std::fs::read_to_string(dir.path().join(name)).expect("made"));
    std::fs::write(dir.path().join("others.pem"), others.concat()).expect("written");
    let export = ["pkcs12", "-export", "-in", "own.pem", "-inkey", "own.key", "-certfile", "others.pem"];
    for (file, more) in [
        ("new.p12", &[][..]),
        ("old.p12", &["-keypbe", "PBE-SHA1-3DES", "-certpbe", "PBE-SHA1-3DES", "-macalg", "SHA1"]),
        ("sha512.p12", &["-macalg", "SHA512", "-iter", "3000"]),
        ("open.p12", &["-keypbe", "NONE", "-certpbe", "NONE"]),
    ] {
        let named = ["-name", "cordaclienttls", "-passout", "pass:store päss", "-out", file];
        openssl(&[&export[..], &named, more].concat());
        let store = KeyStore::open(&dir.path().join(file), &passphrase("store päss")).expect(file);
        check_pair(&store, "cordaclienttls", "store päss");
        let chain = store.chain("cordaclienttls").expect("there");
        assert_eq!(chain, [pem("own.pem"), pem("middle.pem"), pem("root.pem")], "{file}");
        assert_eq!(store.trusted().count(), 0, "what accompanies a key is not trusted by that");
    }
    let nameless = ["-nomac", "-passout", "pass:x", "-out", "nomac.p12"];
    openssl(&[&export[..], &nameless].concat());
    let error = KeyStore::open(&dir.path().join("nomac.p12"), &passphrase("x")).expect_err("no integrity");
    assert!(error.to_string().contains("integrity"), "{error}");
}

#[test]
fn what_the_writer_makes_keytool_and_we_read() {
    let dir = tempfile::tempdir().expect("dir");
    let dev = passphrase("cordacadevpass");
    let node = KeyStore::open(&node_folder().join("nodekeystore.jks"), &dev).expect("opened");
    let mut writer = jks::Writer::new(Timestamp::new(1_790_000_000, 0).expect("in range"));
    for alias in ["identity-private-key", "cordaclientca"] {
        let (key, chain) = (node.key(alias, &dev).expect("opened"), node.chain(alias).expect("there"));
        writer = writer.key(alias, &key, chain, &dev).expect("sealed");
    }
    let root = node.chain("identity-private-key").expect("there")[3].clone();
    let bytes = writer.trusted("CordaRootCA", &root).finish(&dev);
    let again = KeyStore::from_bytes(&bytes, &dev).expect("read");
    for alias in ["identity-private-key", "cordaclientca"] {
        check_pair(&again, alias, &dev);
        assert_eq!(again.chain(alias).expect("there"), node.chain(alias).expect("there"));
    }
    assert_eq!(again.trusted().collect::<Vec<_>>(), [("cordarootca", &root[..])]);

    std::fs::write(dir.path().join("ours.jks"), &bytes).expect("written");
    let Some(keytool) = keytool(dir.path()) else { return };
    let listed = keytool(&["-list", "-keystore", "ours.jks", "-storepass", "cordacadevpass"]);
    for expected in ["3 entries", "identity-private-key, ", "PrivateKeyEntry", "cordarootca, ", "trustedCertEntry"] {
        assert!(listed.contains(expected), "{expected}: {listed}");
    }
    // Opens the keys, as a node does.
    keytool(&[
        "-importkeystore",
        "-noprompt",
        "-srckeystore",
        "ours.jks",
        "-srcstorepass",
        "cordacadevpass",
        "-destkeystore",
        "copy.p12",
        "-deststoretype",
        "PKCS12",
        "-deststorepass",
        "cordacadevpass",
    ]);
    let copy = KeyStore::open(&dir.path().join("copy.p12"), &dev).expect("opened");
    assert_eq!(check_pair(&copy, "identity-private-key", &dev), SignatureScheme::Ed25519);
    assert_eq!(copy.chain("identity-private-key").expect("there").len(), 4, "Java found all of the chain");
}

/// Every shorter file and every changed byte is refused, and by none is more taken than the file holds.
#[test]
fn damaged_stores_are_refused_whatever_is_damaged() {
    let dir = tempfile::tempdir().expect("dir");
    let dev = passphrase("cordacadevpass");
    let mut stores = vec![std::fs::read(node_folder().join("truststore.jks")).expect("there")];
    if let Some(keytool) = keytool(dir.path()) {
        make(&keytool, "a.p12", "tls", P256, &["-storetype", "PKCS12", "-J-Dkeystore.pkcs12.macIterationCount=1"]);
        stores.push(std::fs::read(dir.path().join("a.p12")).expect("made"));
    }
    for (store, right) in stores.iter().zip([&passphrase("trustpass"), &passphrase("store pass")]) {
        assert!(KeyStore::from_bytes(store, right).is_ok());
        for len in 0..store.len() {
            assert!(KeyStore::from_bytes(&store[..len], right).is_err(), "{len} bytes");
        }
        for at in (0..store.len()).step_by(7) {
            let mut damaged = store.clone();
            damaged[at] ^= 0x40;
            // A byte that nothing depends on, such as the NULL of an algorithm, is no damage; a key that opens is the same key.
            if let Ok(found) = KeyStore::from_bytes(&damaged, right) {
                let count = (found.key_aliases().count(), found.trusted().count());
                assert!(matches!(count, (0, 1) | (1, 0)), "byte {at}: {found:?}");
            }
        }
    }
    for (bytes, word) in [
        (&b"-----BEGIN CERTIFICATE-----"[..], "neither"),
        (&[][..], "neither"),
        (&[0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, 1], "too early"),
        (&[0x30, 0x80, 0x02], "BER"),
    ] {
        let error = KeyStore::from_bytes(bytes, &dev).expect_err("refused").to_string();
        assert!(error.contains(word), "{word}: {error}");
    }
    let large = vec![0x30; FILE_LEN_MAX + 1];
    assert!(matches!(KeyStore::from_bytes(&large, &dev), Err(KeyStoreError::TooLarge(_))));
    let missing = KeyStore::open(&dir.path().join("none"), &dev).expect_err("missing").to_string();
    assert!(missing.contains("none"), "{missing}");
}

#[test]
fn a_jks_with_absurd_counts_is_refused_before_anything_is_reserved() {
    let secret = passphrase("x");
    // The digest is right, so only the bounds are left to refuse it.
    let store = |content: &[u8]| {
        let mut writer = jks::Writer::new(Timestamp::new(0, 0).expect("in range")).finish(&secret);
        writer.truncate(8);
        writer.extend_from_slice(content);
        jks::with_digest(writer, &secret)
    };
    let refused = |content: &[u8]| KeyStore::from_bytes(&store(content), &secret).expect_err("refused").to_string();
    assert!(refused(&u32::MAX.to_be_bytes()).contains("more entries"));
    let entry = [&1u32.to_be_bytes()[..], &1u32.to_be_bytes(), &[0, 1, b'a'], &[0; 8]].concat();
    assert!(refused(&[&entry[..], &u32::MAX.to_be_bytes()].concat()).contains("too early"), "the key's length");
    assert!(refused(&[&entry[..], &[0; 4], &u32::MAX.to_be_bytes()].concat()).contains("longer chain"));
    assert!(refused(&[&0u32.to_be_bytes()[..], b"x"].concat()).contains("behind the last"));
    let unknown = [&1u32.to_be_bytes()[..], &3u32.to_be_bytes(), &[0, 1, b'a'], &[0; 8]].concat();
    assert!(refused(&unknown).contains("unknown kind"));
}
