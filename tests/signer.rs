//! Every holder of the service key, against the suite of the `Signer` port.

#[path = "suites/signer.rs"]
mod suite;

use std::num::NonZeroUsize;
use std::path::PathBuf;

use notary_worker::domain::SignatureScheme;
use notary_worker::hsm::FileKey;
use notary_worker::keys::file::SecretFileError;
use notary_worker::ports::Signer;
use tempfile::TempDir;
use zeroize::Zeroizing;

const THREADS: NonZeroUsize = NonZeroUsize::new(2).expect("not zero");

struct KeyFile {
    dir: TempDir,
}

impl KeyFile {
    fn new(scheme: SignatureScheme) -> Self {
        let file = Self { dir: tempfile::tempdir().expect("a directory") };
        FileKey::generate(&file.path(), scheme, &Self::passphrase()).expect("a new key");
        file
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("service.p8")
    }

    fn passphrase() -> Zeroizing<String> {
        Zeroizing::new("correct horse".into())
    }
}

impl suite::Fixture for KeyFile {
    fn open(&self) -> Box<dyn Signer> {
        Box::new(FileKey::load(&self.path(), &Self::passphrase(), THREADS).expect("the key opens"))
    }
}

signer_suite!(file_key_ed25519, KeyFile::new(SignatureScheme::Ed25519));
signer_suite!(file_key_p256, KeyFile::new(SignatureScheme::EcdsaSecp256r1Sha256));

#[test]
fn a_file_key_is_never_replaced_and_prints_no_secret() {
    let file = KeyFile::new(SignatureScheme::Ed25519);
    let before = std::fs::read(file.path()).expect("the file");
    let error =
        FileKey::generate(&file.path(), SignatureScheme::Ed25519, &KeyFile::passphrase()).expect_err("replaced");
    assert!(matches!(error, SecretFileError::Exists(_)), "{error}");
    assert_eq!(std::fs::read(file.path()).expect("the file"), before);

    let key = FileKey::load(&file.path(), &KeyFile::passphrase(), THREADS).expect("the key opens");
    assert_eq!(format!("{key:?}"), format!("FileKey(of {:?})", key.public_key()));
    let error = FileKey::load(&file.path(), &Zeroizing::new("wrong horse".into()), THREADS).expect_err("opened");
    assert!(!error.to_string().contains("wrong horse"), "{error}");
}
