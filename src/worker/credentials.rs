//! Private keys with their certificates, as several sections of the settings name them: in two files, in a key store, or the key on
//! tokens and the certificates in a file.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use tokio::runtime::Handle;
use zeroize::Zeroizing;

use super::{StartError, key};
use crate::config::{KeyKind, SecretRef, Settings, SignerKind};
use crate::domain::PublicKey;
use crate::hsm::pkcs11::{self, TransportKey};
use crate::keys::keystore::{KeyStore, KeyStoreError};
use crate::keys::{PrivateKey, file};
use crate::network::Certificate;
use crate::tls::TlsError;
use crate::tls::peers::{Identity, read_chain};

/// A value, and the setting that it stands in.
type Set<'a, T> = (&'static str, &'a T);

/// Where a key and its certificates lie, and which settings say so.
pub(super) enum Place<'a> {
    /// PEM each.
    Files {
        certificate: Set<'a, Path>,
        key: Set<'a, Path>,
        /// Not configured if the key is not encrypted.
        passphrase: Set<'a, SecretRef>,
    },
    /// JKS or PKCS#12.
    KeyStore(Entry<'a>),
    /// PEM, and PKCS#11.
    Tokens(OnTokens<'a>),
}

/// A key on the tokens of section `signing`.
pub(super) struct OnTokens<'a> {
    certificate: Set<'a, Path>,
    label: Set<'a, str>,
    id: Set<'a, str>,
    settings: &'a Settings,
}

/// An entry of a key store.
pub(super) struct Entry<'a> {
    store: Set<'a, Path>,
    alias: &'a str,
    passphrase: Set<'a, SecretRef>,
    /// Not configured if the key has the store's, as in every PKCS#12 and in Corda's JKS.
    key_passphrase: Set<'a, SecretRef>,
}

/// A key, and its certificates in DER: its own first, each certified by the next.
#[derive(Debug)]
pub(super) struct Opened<K = PrivateKey> {
    pub(super) key: K,
    pub(super) chain: Vec<Vec<u8>>,
}

/// A key that was opened, or that can be.
pub(super) enum Key {
    /// In this process.
    Here(Box<PrivateKey>),
    /// On tokens, which were not asked yet.
    OnTokens(Box<pkcs11::Options>),
}

/// Where the worker's TLS certificate for nodes lies.
pub(super) fn tls(settings: &Settings) -> Place<'_> {
    let p2p = &settings.p2p;
    match p2p.tls_kind {
        KeyKind::File => Place::Files {
            certificate: ("p2p.tls_certificate", &p2p.tls_certificate),
            key: ("p2p.tls_key", &p2p.tls_key),
            passphrase: ("p2p.tls_passphrase", &p2p.tls_passphrase),
        },
        KeyKind::KeyStore => Place::KeyStore(Entry {
            store: ("p2p.tls_keystore", &p2p.tls_keystore),
            alias: &p2p.tls_alias,
            passphrase: ("p2p.tls_passphrase", &p2p.tls_passphrase),
            key_passphrase: ("p2p.tls_key_passphrase", &p2p.tls_key_passphrase),
        }),
        KeyKind::Pkcs11 => Place::Tokens(OnTokens {
            certificate: ("p2p.tls_certificate", &p2p.tls_certificate),
            label: ("p2p.tls_key_label", &p2p.tls_key_label),
            id: ("p2p.tls_key_id", &p2p.tls_key_id),
            settings,
        }),
    }
}

/// Where the worker's own legal identity lies, if the settings name it.
pub(super) fn identity(settings: &Settings) -> Option<Place<'_>> {
    let identity = &settings.identity;
    let place = match identity.kind {
        KeyKind::File => Place::Files {
            certificate: ("identity.certificate", &identity.certificate),
            key: ("identity.key", &identity.key),
            passphrase: ("identity.passphrase", &identity.passphrase),
        },
        KeyKind::KeyStore => Place::KeyStore(Entry {
            store: ("identity.keystore", &identity.keystore),
            alias: &identity.alias,
            passphrase: ("identity.passphrase", &identity.passphrase),
            key_passphrase: ("identity.key_passphrase", &identity.key_passphrase),
        }),
        KeyKind::Pkcs11 => Place::Tokens(OnTokens {
            certificate: ("identity.certificate", &identity.certificate),
            label: ("identity.key_label", &identity.key_label),
            id: ("identity.key_id", &identity.key_id),
            settings,
        }),
    };
    Some(place).filter(|place| !place.certificates().as_os_str().is_empty())
}

/// The certificates of the service's identity, its own first: in a file of their own, or beside the service key.
///
/// # Errors
/// [`StartError`].
pub(super) fn service_chain(settings: &Settings) -> Result<Vec<Vec<u8>>, StartError> {
    let file = &settings.identity.service_certificate;
    match settings.signing.kind {
        SignerKind::KeyStore if file.as_os_str().is_empty() => signing(settings).chain(),
        _ => chain(("identity.service_certificate", file)),
    }
}

/// The file that [`service_chain`] reads, if one is named.
pub(super) fn service_certificates(settings: &Settings) -> Option<&Path> {
    let file = &settings.identity.service_certificate;
    match settings.signing.kind {
        _ if !file.as_os_str().is_empty() => Some(file),
        SignerKind::KeyStore => Some(&settings.signing.keystore),
        SignerKind::File | SignerKind::Pkcs11 => None,
    }
}

/// Every file of the worker's own identity, and that with the service's certificates.
pub(super) fn identity_files(settings: &Settings) -> Vec<PathBuf> {
    let own = identity(settings).map(|place| place.files()).unwrap_or_default();
    own.into_iter().chain(service_certificates(settings).map(Path::to_owned)).collect()
}

/// Where `signing.kind = "keystore"` has the service key.
pub(super) fn signing(settings: &Settings) -> Entry<'_> {
    let signing = &settings.signing;
    Entry {
        store: ("signing.keystore", &signing.keystore),
        alias: &signing.alias,
        passphrase: ("signing.passphrase", &signing.passphrase),
        key_passphrase: ("signing.key_passphrase", &signing.key_passphrase),
    }
}

impl Place<'_> {
    /// Reads certificates and key; a key on tokens is left there. Blocks as long as fetching the passphrases takes.
    ///
    /// # Errors
    /// [`StartError`]; what is wrong about a file is for the operator to correct.
    pub(super) fn open(&self) -> Result<Opened<Key>, StartError> {
        match self {
            Self::KeyStore(entry) => {
                entry.open().map(|Opened { key, chain }| Opened { key: Key::Here(Box::new(key)), chain })
            }
            Self::Tokens(tokens) => {
                Ok(Opened { key: Key::OnTokens(Box::new(tokens.options()?)), chain: chain(tokens.certificate)? })
            }
            Self::Files { certificate, key, passphrase } => {
                let read = match passphrase.1.is_configured() {
                    false => file::load_plain(key.1),
                    true => file::load_encrypted(key.1, &fetch(*passphrase)?),
                };
                let key = read.map_err(|error| StartError::of(key.0)(&error).misconfigured())?;
                Ok(Opened { key: Key::Here(Box::new(key)), chain: chain(*certificate)? })
            }
        }
    }

    /// The certificates alone; the key stays closed.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(super) fn chain(&self) -> Result<Vec<Vec<u8>>, StartError> {
        match self {
            Self::KeyStore(entry) => entry.chain(),
            Self::Files { certificate, .. } => chain(*certificate),
            Self::Tokens(tokens) => chain(tokens.certificate),
        }
    }

    /// The file with the certificates.
    pub(super) fn certificates(&self) -> &Path {
        match self {
            Self::KeyStore(entry) => entry.store.1,
            Self::Files { certificate, .. } => certificate.1,
            Self::Tokens(tokens) => tokens.certificate.1,
        }
    }

    /// The setting that names the key.
    pub(super) fn key_setting(&self) -> &'static str {
        match self {
            Self::KeyStore(entry) => entry.store.0,
            Self::Files { key, .. } => key.0,
            Self::Tokens(tokens) if tokens.label.1.is_empty() => tokens.id.0,
            Self::Tokens(tokens) => tokens.label.0,
        }
    }

    /// The setting that names the file with the certificates.
    pub(super) fn setting(&self) -> &'static str {
        match self {
            Self::KeyStore(entry) => entry.store.0,
            Self::Files { certificate, .. } => certificate.0,
            Self::Tokens(tokens) => tokens.certificate.0,
        }
    }

    /// Every file that it takes.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let (named, secrets) = match self {
            Self::KeyStore(entry) => (vec![entry.store.1], vec![entry.passphrase.1, entry.key_passphrase.1]),
            Self::Files { certificate, key, passphrase } => (vec![certificate.1, key.1], vec![passphrase.1]),
            Self::Tokens(tokens) => (vec![tokens.certificate.1], Vec::new()),
        };
        let secrets = secrets.into_iter().filter_map(SecretRef::source);
        named.into_iter().map(Path::to_owned).chain(secrets).collect()
    }
}

impl OnTokens<'_> {
    /// Where the key is. Nothing is loaded or connected.
    fn options(&self) -> Result<pkcs11::Options, StartError> {
        let options = key::on_tokens(self.settings, self.label, self.id).map_err(|faults| {
            let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
            StartError::of(self.label.0)(&faults.join("; ")).misconfigured()
        })?;
        let signing = &self.settings.signing;
        let of_service = signing.kind == SignerKind::Pkcs11
            && options.key.label == signing.key_label
            && hex::encode(&options.key.id).eq_ignore_ascii_case(&signing.key_id);
        match of_service {
            true => {
                Err(StartError::of(self.label.0)(&"it names the service key: make a key of its own").misconfigured())
            }
            false => Ok(options),
        }
    }
}

impl Entry<'_> {
    /// As [`Place::open`].
    ///
    /// # Errors
    /// [`StartError`]; a wrong passphrase or alias is for the operator to correct.
    pub(super) fn open(&self) -> Result<Opened, StartError> {
        let (store, passphrase) = self.store()?;
        let of_key = match self.key_passphrase.1.is_configured() {
            true => fetch(self.key_passphrase)?,
            false => passphrase,
        };
        let key = store.key(self.alias, &of_key).map_err(|error| self.refused(error))?;
        let chain = store.chain(self.alias).map_err(|error| self.refused(error))?.to_vec();
        // Whoever uses a certificate says what is wrong with it otherwise.
        let certified = chain.first().and_then(|own| Certificate::from_der(own).ok());
        if certified.is_some_and(|own| own.public_key() != key.public_key()) {
            let problem =
                format!("{}: the certificate of {:?} is that of another key", self.store.1.display(), self.alias);
            return Err(StartError::of(self.store.0)(&problem).misconfigured());
        }
        Ok(Opened { key, chain })
    }

    /// As [`Place::chain`].
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(super) fn chain(&self) -> Result<Vec<Vec<u8>>, StartError> {
        Ok(self.store()?.0.chain(self.alias).map_err(|error| self.refused(error))?.to_vec())
    }

    fn store(&self) -> Result<(KeyStore, Zeroizing<String>), StartError> {
        let passphrase = fetch(self.passphrase)?;
        let store = KeyStore::open(self.store.1, &passphrase).map_err(|error| self.failed(&error))?;
        Ok((store, passphrase))
    }

    /// What the store says of an entry of its own.
    fn refused(&self, error: KeyStoreError) -> StartError {
        self.failed(&KeyStoreError::In { path: self.store.1.to_owned(), error: Box::new(error) })
    }

    fn failed(&self, error: &KeyStoreError) -> StartError {
        let failed = StartError::of(self.store.0)(error);
        match error {
            KeyStoreError::Io { .. } => failed,
            _ => failed.misconfigured(),
        }
    }
}

/// The worker's key for TLS with nodes, on its tokens.
///
/// # Errors
/// [`StartError`]: `setting` names the key.
pub(super) async fn open_tls_key(
    setting: &'static str,
    options: pkcs11::Options,
    runtime: &Handle,
) -> Result<TransportKey, StartError> {
    TransportKey::open(options, runtime).await.map_err(|error| key::not_open(setting, &error))
}

/// Who the worker is to nodes, with its key on tokens. Handshakes wait for signatures, on threads that are not `runtime`'s.
pub(super) fn identity_on_tokens(
    chain: Vec<Vec<u8>>,
    key: TransportKey,
    runtime: &Handle,
) -> Result<Identity, TlsError> {
    let (key, runtime) = (Arc::new(key), runtime.clone());
    let public_key = key.public_key().clone();
    let sign = move |message: &[u8]| {
        let (key, message) = (Arc::clone(&key), message.to_vec());
        wait(&runtime, async move { key.sign(&message).await.map_err(|error| error.to_string()) })
            .unwrap_or_else(|| Err("the worker ends".into()))
    };
    Identity::with_remote_key(chain, public_key, Arc::new(sign))
}

/// The same before its tokens are asked: good for looking at its certificates.
pub(super) fn identity_unopened(chain: Vec<Vec<u8>>) -> Result<Identity, TlsError> {
    let public_key = certified_key(&chain).ok_or_else(|| TlsError::Identity("no certificate that reads".into()))?;
    Identity::with_remote_key(chain, public_key, Arc::new(|_| Err("its token was not opened".into())))
}

/// The key that the first certificate of a chain is for.
pub(super) fn certified_key(chain: &[Vec<u8>]) -> Option<PublicKey> {
    Some(Certificate::from_der(chain.first()?).ok()?.public_key().clone())
}

/// Waits on a thread that is none of `runtime`'s, those for blocking work included, for what runs there; `None` if the runtime ends first. A task of the runtime and not
/// `block_on`: while the worker ends there is no clock for deadlines, and a task is dropped.
pub(super) fn wait<T: Send + 'static>(runtime: &Handle, what: impl Future<Output = T> + Send + 'static) -> Option<T> {
    let (tell, told) = sync_channel(1);
    runtime.spawn(async move {
        let _ = tell.try_send(what.await);
    });
    told.recv().ok()
}

fn chain((setting, file): Set<'_, Path>) -> Result<Vec<Vec<u8>>, StartError> {
    read_chain(file).map_err(|error| StartError::of(setting)(&error).misconfigured())
}

fn fetch((setting, secret): Set<'_, SecretRef>) -> Result<Zeroizing<String>, StartError> {
    secret.fetch().map_err(|error| StartError::of(setting)(&error))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{broker, network};
    use super::*;
    use crate::config;
    use crate::domain::Timestamp;
    use crate::ports::Clock;
    use crate::tls::peers::PeerTls;

    /// A day on which the node's certificates are valid.
    struct ThatDay;

    impl Clock for ThatDay {
        fn now(&self) -> Timestamp {
            Timestamp::new(1_800_000_000, 0).expect("in range")
        }
    }

    /// Settings for a copy of the folder of an unmodified Corda 4.10 node.
    fn settings(more: &[&str]) -> (tempfile::TempDir, Settings) {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, secret) in [("pass", "cordacadevpass"), ("trust", "trustpass"), ("wrong", "another")] {
            file::create(&folder.path().join(name), secret.as_bytes()).expect("written");
        }
        let corda = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/corda-node/certificates");
        let (corda, secrets) = (corda.display(), folder.path().display());
        let mut overrides = vec![
            "broker.kind=p2p".to_owned(),
            "signing.kind=keystore".to_owned(),
            format!("signing.keystore={corda}/nodekeystore.jks"),
            format!("signing.passphrase=file:{secrets}/pass"),
            "p2p.tls_kind=keystore".to_owned(),
            format!("p2p.tls_keystore={corda}/sslkeystore.jks"),
            format!("p2p.tls_passphrase=file:{secrets}/pass"),
            format!("network.root={corda}/truststore.jks"),
            format!("network.root_passphrase=file:{secrets}/trust"),
        ];
        overrides.extend(more.iter().map(|setting| setting.replace("SECRETS", &secrets.to_string())));
        (folder, config::load(None, &overrides).expect("valid").settings)
    }

    /// ID5: goal: everything in the certificates folder of a Corda node is used where it lies.
    #[test]
    fn a_corda_node_has_a_service_key_a_tls_identity_and_a_root() {
        let (_folder, settings) = settings(&[]);
        let service = signing(&settings).open().expect("opened");
        assert_eq!(service.chain.len(), 3);
        assert_eq!(signing(&settings).chain().expect("opened"), service.chain);
        let root = network::root(&settings).expect("read");
        assert_eq!(service.chain[2], root.as_der());
        let identity = broker::tls_identity_in_files(&settings).expect("opened");
        assert_eq!(identity.name().to_string(), settings.worker.name);
        PeerTls::new(root, identity, Arc::new(ThatDay)).expect("other nodes believe it");
    }

    #[test]
    fn what_is_wrong_about_a_key_store_is_said_under_its_setting() {
        for (wrong, part, said) in [
            ("p2p.tls_passphrase=file:SECRETS/wrong", "p2p.tls_keystore", "the passphrase does not open"),
            ("p2p.tls_alias=cordaclientca", "p2p.tls_keystore", "no private key \"cordaclientca\""),
            (
                "p2p.tls_key_passphrase=file:SECRETS/wrong",
                "p2p.tls_keystore",
                "does not open the key \"cordaclienttls\"",
            ),
            ("p2p.tls_passphrase=file:SECRETS/none", "p2p.tls_passphrase", "No such file"),
        ] {
            let (_folder, settings) = settings(&[wrong]);
            let error = broker::tls_identity_in_files(&settings).expect_err("refused");
            assert!(error.part == part && error.reason.contains(said), "{wrong}: {error}");
        }
        for (wrong, part, said) in [
            ("network.root_passphrase=file:SECRETS/wrong", "network.root", "the passphrase does not open"),
            ("network.root_passphrase=", "network.root_passphrase", "needs its passphrase"),
        ] {
            let (_folder, settings) = settings(&[wrong]);
            let error = network::root(&settings).expect_err("refused");
            assert!(error.part == part && error.reason.contains(said) && error.misconfigured, "{wrong}: {error}");
        }
        // A key store with keys is none of trust.
        let (_folder, mut settings) = settings(&["network.root_passphrase=file:SECRETS/pass"]);
        settings.network.root = settings.p2p.tls_keystore.clone();
        let error = network::root(&settings).expect_err("refused");
        assert!(error.reason.contains("no trusted certificate"), "{error}");
    }
}
