//! Files with secrets: made whole or not at all, never over an existing file, readable by their owner only.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use pkcs8::der::SecretDocument;
use pkcs8::pkcs5::pbes2::{Kdf, Parameters};
use pkcs8::pkcs5::{EncryptionScheme, scrypt};
use pkcs8::{EncryptedPrivateKeyInfoOwned, LineEnding};
use zeroize::Zeroizing;

use super::{PrivateKey, PrivateKeyError, random};

/// Bytes of a secret file read. A key has a few hundred.
const FILE_LEN_MAX: usize = 16 * 1024;
/// Shorter passphrases protect nothing, whatever the key derivation costs (NIST SP 800-63B: at least 8 characters).
const PASSPHRASE_LEN_MIN: usize = 8;
/// scrypt with N = 2^14, r = 8, p = 5: one of OWASP's equally strong settings, and the one whose 16 MiB `openssl pkey` reads
/// (it refuses 32 MiB). About 0.1 s.
const SCRYPT: (u8, u32, u32) = (14, 8, 5);
/// What a file may ask for, so that a damaged one costs seconds and not the machine: memory (N · r · 128 bytes) of 256 MiB,
/// work (N · r · p) of 64 times our own, PBKDF2 rounds of 16 times OWASP's 600 000.
const SCRYPT_MEMORY_MAX: u64 = 256 << 20;
const SCRYPT_WORK_MAX: u64 = 64 * ((5 * 8) << 14);
const PBKDF2_ROUNDS_MAX: u32 = 16 * 600_000;
const PEM_LABEL: &str = "ENCRYPTED PRIVATE KEY";

/// Why a secret file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// The operating system refuses.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The refusal.
        error: io::Error,
    },
    /// It is there already; secrets are never overwritten.
    #[error("{} exists and is not overwritten", .0.display())]
    Exists(PathBuf),
    /// Others may read or change it.
    #[error("{} has mode {mode:03o}: a secret must be closed to group and others (chmod 600)", path.display())]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not a regular file of the expected size and text.
    #[error("{}: {why}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: &'static str,
    },
    /// The passphrase does not open it. (With this format a damaged file looks the same.)
    #[error("the passphrase does not open {}", .0.display())]
    Passphrase(PathBuf),
    /// The passphrase for a new key is too short.
    #[error("the passphrase must have at least {PASSPHRASE_LEN_MIN} bytes")]
    WeakPassphrase,
    /// The key inside cannot be used.
    #[error("{}: {error}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: PrivateKeyError,
    },
}

/// Keeps `key` in a new file: PKCS#8 PEM, encrypted under `passphrase` by PBES2 with scrypt and AES-256-CBC. `openssl pkey`
/// reads it.
///
/// # Errors
/// [`SecretFileError`]; then there is no file, or the one that was there before.
pub fn save_encrypted(path: &Path, key: &PrivateKey, passphrase: &Zeroizing<String>) -> Result<(), SecretFileError> {
    if passphrase.len() < PASSPHRASE_LEN_MIN {
        return Err(SecretFileError::WeakPassphrase);
    }
    let bad = |error| SecretFileError::Key { path: path.to_owned(), error };
    let (mut salt, mut iv) = ([0; 16], [0; 16]);
    random(&mut salt).and_then(|()| random(&mut iv)).map_err(bad)?;
    let params = scrypt::Params::new(SCRYPT.0, SCRYPT.1, SCRYPT.2).expect("constant and valid");
    let scheme = Parameters::generate_scrypt_aes256cbc(params, &salt, iv).expect("valid for these sizes");
    let der = key.to_pkcs8_der();
    let encrypted_data = scheme.encrypt(passphrase.as_bytes(), der.as_bytes()).expect("a key is short");
    let encrypted_data = pkcs8::der::asn1::OctetString::new(encrypted_data).expect("a key is short");
    let info = EncryptedPrivateKeyInfoOwned { encryption_algorithm: EncryptionScheme::Pbes2(scheme), encrypted_data };
    let pem = SecretDocument::encode_msg(&info).and_then(|document| document.to_pem(PEM_LABEL, LineEnding::LF));
    create(path, pem.expect("a short structure encodes").as_bytes())
}

/// Opens a file of [`save_encrypted`], or one by `openssl pkcs8 -topk8 -v2 aes-256-cbc`. One try: the caller decides about more.
///
/// # Errors
/// [`SecretFileError`].
pub fn load_encrypted(path: &Path, passphrase: &Zeroizing<String>) -> Result<PrivateKey, SecretFileError> {
    let pem = read(path)?;
    let malformed = |why| SecretFileError::Malformed { path: path.to_owned(), why };
    let Ok((PEM_LABEL, document)) = SecretDocument::from_pem(&pem) else {
        return Err(malformed("not an encrypted PKCS#8 key in PEM form"));
    };
    let info: EncryptedPrivateKeyInfoOwned =
        document.decode_msg().map_err(|_| malformed("not an encrypted PKCS#8 key in PEM form"))?;
    let scheme = info.encryption_algorithm.pbes2().ok_or_else(|| malformed("not encrypted by PBES2"))?;
    if !is_affordable(&scheme.kdf) {
        return Err(malformed("its key derivation is unknown or costs too much"));
    }
    let der = info.decrypt(passphrase.as_bytes()).map_err(|_| SecretFileError::Passphrase(path.to_owned()))?;
    PrivateKey::from_pkcs8_der(der.as_bytes()).map_err(|error| match error {
        // Garbage with good padding: one wrong passphrase in 256 gets here.
        PrivateKeyError::Malformed => SecretFileError::Passphrase(path.to_owned()),
        error => SecretFileError::Key { path: path.to_owned(), error },
    })
}

pub(super) fn is_affordable(kdf: &Kdf) -> bool {
    match kdf {
        Kdf::Pbkdf2(params) => params.iteration_count <= PBKDF2_ROUNDS_MAX,
        Kdf::Scrypt(params) => {
            let block = params.cost_parameter.saturating_mul(u64::from(params.block_size));
            block.saturating_mul(128) <= SCRYPT_MEMORY_MAX
                && block.saturating_mul(u64::from(params.parallelization)) <= SCRYPT_WORK_MAX
        }
        _ => false,
    }
}

/// Keeps `key` unencrypted in a new file: PKCS#8 PEM. For throw-away keys of development networks only.
///
/// # Errors
/// As [`create`].
pub fn save_plain(path: &Path, key: &PrivateKey) -> Result<(), SecretFileError> {
    create(path, key.to_pkcs8_pem().as_bytes())
}

/// Opens a file of [`save_plain`].
///
/// # Errors
/// [`SecretFileError`].
pub fn load_plain(path: &Path) -> Result<PrivateKey, SecretFileError> {
    PrivateKey::from_pkcs8_pem(&read(path)?).map_err(|error| SecretFileError::Key { path: path.to_owned(), error })
}

/// Makes a new file with mode 600. It appears under its name complete and on disk, or not at all, and replaces nothing.
///
/// # Errors
/// [`SecretFileError::Exists`] or [`SecretFileError::Io`].
pub fn create(path: &Path, content: &[u8]) -> Result<(), SecretFileError> {
    let fail = |error| SecretFileError::Io { path: path.to_owned(), error };
    let no_name = || fail(io::Error::new(io::ErrorKind::InvalidInput, "not a file name"));
    let (dir, name) = (path.parent().ok_or_else(no_name)?, path.file_name().ok_or_else(no_name)?);
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    let mut suffix = [0; 8];
    random(&mut suffix).map_err(|error| SecretFileError::Key { path: path.to_owned(), error })?;
    let unfinished = dir.join(format!(".{}.{}", name.display(), hex::encode(suffix)));

    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
        file.write_all(content)?;
        file.sync_all()?;
        // Unlike a rename, a link fails if the name is taken.
        std::fs::hard_link(&unfinished, path)
    };
    let written = write();
    let removed = std::fs::remove_file(&unfinished);
    match written {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(SecretFileError::Exists(path.to_owned())),
        Err(error) => Err(fail(error)),
        Ok(()) => removed.and_then(|()| File::open(dir)?.sync_all()).map_err(fail),
    }
}

/// Reads a secret text file that only its owner may read.
///
/// # Errors
/// [`SecretFileError::Permissions`] if group or others may do anything with it, [`SecretFileError::Malformed`] if it is no
/// regular file, too large or not UTF-8, [`SecretFileError::Io`].
pub fn read(path: &Path) -> Result<Zeroizing<String>, SecretFileError> {
    let fail = |error| SecretFileError::Io { path: path.to_owned(), error };
    let malformed = |why| SecretFileError::Malformed { path: path.to_owned(), why };
    let file = File::open(path).map_err(fail)?;
    let metadata = file.metadata().map_err(fail)?;
    if !metadata.is_file() {
        return Err(malformed("not a regular file"));
    }
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(SecretFileError::Permissions { path: path.to_owned(), mode });
    }
    // Room for one byte too many, and never moved while it grows.
    let mut content = Zeroizing::new(Vec::with_capacity(FILE_LEN_MAX + 1));
    file.take(FILE_LEN_MAX as u64 + 1).read_to_end(&mut content).map_err(fail)?;
    if content.len() > FILE_LEN_MAX {
        return Err(malformed("too large"));
    }
    match String::from_utf8(std::mem::take(&mut *content)) {
        Ok(text) => Ok(Zeroizing::new(text)),
        Err(error) => {
            drop(Zeroizing::new(error.into_bytes()));
            Err(malformed("not UTF-8"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::domain::SignatureScheme;

    fn key() -> PrivateKey {
        PrivateKey::generate(SignatureScheme::EcdsaSecp256r1Sha256).expect("a key")
    }

    fn passphrase(text: &str) -> Zeroizing<String> {
        Zeroizing::new(text.to_owned())
    }

    fn set_mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("chmod");
    }

    #[test]
    fn an_encrypted_key_opens_with_its_passphrase_only() {
        let dir = tempfile::tempdir().expect("dir");
        for scheme in [SignatureScheme::Ed25519, SignatureScheme::EcdsaSecp256r1Sha256] {
            let path = dir.path().join(scheme.name());
            let key = PrivateKey::generate(scheme).expect("a key");
            save_encrypted(&path, &key, &passphrase("correct horse")).expect("saved");
            let again = load_encrypted(&path, &passphrase("correct horse")).expect("opened");
            assert_eq!(again.public_key(), key.public_key());
            let error = load_encrypted(&path, &passphrase("correct house")).expect_err("wrong passphrase");
            assert!(matches!(error, SecretFileError::Passphrase(_)), "{error}");
            let text = std::fs::read_to_string(&path).expect("text");
            assert!(text.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----\n"));
        }
        let error = save_encrypted(&dir.path().join("x"), &key(), &passphrase("short")).expect_err("weak");
        assert!(matches!(error, SecretFileError::WeakPassphrase));
    }

    #[test]
    fn openssl_reads_our_keys_and_we_read_those_of_openssl() {
        if Command::new("openssl").arg("version").output().is_err() {
            assert!(std::env::var_os("CI").is_none(), "CI has openssl");
            eprintln!("skipped: no openssl program");
            return;
        }
        let dir = tempfile::tempdir().expect("dir");
        let openssl = |args: &[&str]| {
            let output = Command::new("openssl").args(args).current_dir(dir.path()).output().expect("openssl runs");
            assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
            output.stdout
        };
        for (scheme, algorithm) in
            [(SignatureScheme::Ed25519, "ED25519"), (SignatureScheme::EcdsaSecp256r1Sha256, "EC")]
        {
            let key = PrivateKey::generate(scheme).expect("a key");
            let ours = format!("ours-{algorithm}");
            save_encrypted(&dir.path().join(&ours), &key, &passphrase("correct horse")).expect("saved");
            let public =
                openssl(&["pkey", "-in", &ours, "-passin", "pass:correct horse", "-pubout", "-outform", "DER"]);
            assert_eq!(public, key.public_key().as_spki());

            let mut generate = vec!["genpkey", "-algorithm", algorithm, "-aes-256-cbc", "-pass", "pass:correct horse"];
            if algorithm == "EC" {
                generate.extend(["-pkeyopt", "ec_paramgen_curve:P-256"]);
            }
            let theirs = format!("theirs-{algorithm}");
            openssl(&[&generate[..], &["-out", &theirs]].concat());
            let public =
                openssl(&["pkey", "-in", &theirs, "-passin", "pass:correct horse", "-pubout", "-outform", "DER"]);
            set_mode(&dir.path().join(&theirs), 0o600);
            let key = load_encrypted(&dir.path().join(&theirs), &passphrase("correct horse")).expect("opened");
            assert_eq!(public, key.public_key().as_spki());
        }
    }

    #[test]
    fn secrets_are_private_and_never_overwritten() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("key.p8");
        let first = key();
        save_plain(&path, &first).expect("saved");
        assert_eq!(std::fs::metadata(&path).expect("metadata").permissions().mode() & 0o777, 0o600);
        let error = save_plain(&path, &key()).expect_err("overwritten");
        assert!(matches!(error, SecretFileError::Exists(_)), "{error}");
        assert_eq!(load_plain(&path).expect("opened").public_key(), first.public_key());
        let files: Vec<_> =
            std::fs::read_dir(dir.path()).expect("dir").map(|entry| entry.expect("entry").file_name()).collect();
        assert_eq!(files, ["key.p8"], "nothing unfinished is left");

        for mode in [0o640, 0o604, 0o620, 0o601] {
            set_mode(&path, mode);
            let error = load_plain(&path).expect_err("open to others");
            assert!(matches!(error, SecretFileError::Permissions { mode: found, .. } if found == mode), "{error}");
        }
        set_mode(&path, 0o400);
        assert!(load_plain(&path).is_ok());
    }

    #[test]
    fn other_files_are_refused() {
        let dir = tempfile::tempdir().expect("dir");
        let load = |content: &[u8]| {
            let path = dir.path().join("file");
            let _ = std::fs::remove_file(&path);
            create(&path, content).expect("made");
            load_encrypted(&path, &passphrase("correct horse")).expect_err("accepted").to_string()
        };
        assert!(load(b"").contains("PEM"));
        assert!(load(&[0xff; 100]).contains("UTF-8"));
        assert!(load(&[b'a'; FILE_LEN_MAX + 1]).contains("too large"));
        assert!(load(key().to_pkcs8_pem().as_bytes()).contains("not an encrypted PKCS#8 key"), "a plain key");
        let missing = load_encrypted(&dir.path().join("none"), &passphrase("x")).expect_err("missing");
        assert!(matches!(missing, SecretFileError::Io { .. }));
        let directory = dir.path().join("dir");
        std::fs::create_dir(&directory).expect("dir");
        assert!(matches!(read(&directory), Err(SecretFileError::Malformed { .. })));
    }

    #[test]
    fn a_file_cannot_ask_for_unbounded_work() {
        let scheme = |params| Parameters::generate_scrypt_aes256cbc(params, &[0; 16], [0; 16]).expect("valid").kdf;
        let scrypt = |n, r, p| scheme(scrypt::Params::new(n, r, p).expect("valid"));
        let pbkdf2 =
            |rounds| Parameters::generate_pbkdf2_sha256_aes256cbc(rounds, &[0; 16], [0; 16]).expect("valid").kdf;
        assert!(is_affordable(&scrypt(SCRYPT.0, SCRYPT.1, SCRYPT.2)) && is_affordable(&scrypt(17, 8, 1)));
        assert!(is_affordable(&pbkdf2(600_000)));
        assert!(!is_affordable(&scrypt(20, 8, 1)), "1 GiB");
        assert!(!is_affordable(&scrypt(14, 8, 1000)), "minutes");
        assert!(!is_affordable(&pbkdf2(PBKDF2_ROUNDS_MAX + 1)));
    }
}
