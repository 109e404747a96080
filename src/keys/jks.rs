//! JKS, the key store of Java before version 9, and of every Corda node. The format is that of OpenJDK's
//! `sun.security.provider.JavaKeyStore` and `KeyProtector`; all numbers are big-endian, all text is Java's modified UTF-8.
//!
//! ```text
//! magic FEEDFEED, version 2 (u32 each), entries (u32), then each entry:
//!   1 (private key): alias (u16 length, text), milliseconds since 1970 (i64), EncryptedPrivateKeyInfo (u32 length, DER),
//!                    certificates (u32), each: "X.509" (text), certificate (u32 length, DER)
//!   2 (trusted):     alias, milliseconds, "X.509", certificate
//! SHA-1 of passphrase (UTF-16BE), "Mighty Aphrodite", and all of the above
//! ```
//!
//! It protects little: the key protector is a stream of SHA-1, one round for a guess. Corda nodes know nothing else, so their
//! folders are read and written this way; a key of one's own is better kept in PKCS#12, a file of `keys::file`, or on a token.

use der::asn1::{AnyRef, ObjectIdentifier, OctetStringRef};
use der::{Decode, Encode, Sequence};
use sha1::{Digest, Sha1};
use zeroize::Zeroizing;

use super::keystore::{ALIAS_LEN_MAX, CHAIN_LEN_MAX, Content, ENTRIES_MAX, Entry, KeyStoreError, SealedKey};
use super::{PrivateKey, PrivateKeyError, random};
use crate::domain::Timestamp;

const MAGIC: u32 = 0xfeed_feed;
/// Version 1 was Java 1.1's.
const VERSION: u32 = 2;
const PRIVATE_KEY: u32 = 1;
const TRUSTED: u32 = 2;
const X509: &str = "X.509";
/// What OpenJDK mixes into the digest.
const WHITENER: &[u8] = b"Mighty Aphrodite";
const DIGEST_LEN: usize = 20;
/// Sun's key protector, `sun.security.provider.KeyProtector`.
const PROTECTOR: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.42.2.17.1.1");

/// Reads all entries and checks the digest.
pub(super) fn read(bytes: &[u8], passphrase: &Zeroizing<String>) -> Result<Vec<Entry>, KeyStoreError> {
    const SHORT: KeyStoreError = KeyStoreError::Malformed("it ends too early");
    let (content, digest) = bytes.split_last_chunk::<DIGEST_LEN>().ok_or(SHORT)?;
    let mut input = Input(content);
    let (_, version) = (input.u32()?, input.u32()?);
    if version != VERSION {
        return Err(KeyStoreError::Unsupported(format!("JKS of version {version}")));
    }
    // First of all: a wrong passphrase is more likely than a damaged file, and nothing of a damaged one is worth reading.
    if !digest_of(content, passphrase).as_slice().eq(digest) {
        return Err(KeyStoreError::Passphrase);
    }
    let count = input.u32()? as usize;
    if count > ENTRIES_MAX {
        return Err(KeyStoreError::TooLarge("more entries than any key store has"));
    }
    let mut entries = Vec::new();
    for _ in 0..count {
        let kind = input.u32()?;
        let alias = input.text()?.to_owned();
        if alias.len() > ALIAS_LEN_MAX {
            return Err(KeyStoreError::TooLarge("an alias longer than any"));
        }
        input.take(8)?; // When it was made.
        let content = match kind {
            PRIVATE_KEY => {
                let key = SealedKey::Jks(input.block()?.to_vec());
                let length = input.u32()? as usize;
                if length > CHAIN_LEN_MAX {
                    return Err(KeyStoreError::TooLarge("a longer chain of certificates than any"));
                }
                Content::Key { key, chain: (0..length).map(|_| input.certificate()).collect::<Result<_, _>>()? }
            }
            TRUSTED => Content::Trusted(input.certificate()?),
            _ => return Err(KeyStoreError::Malformed("an entry of unknown kind")),
        };
        entries.push(Entry { alias, content });
    }
    match input.0.is_empty() {
        true => Ok(entries),
        false => Err(KeyStoreError::Malformed("bytes behind the last entry")),
    }
}

/// What is left to read.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], KeyStoreError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(KeyStoreError::Malformed("it ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn u32(&mut self) -> Result<u32, KeyStoreError> {
        let bytes = self.take(4)?;
        Ok(u32::from_be_bytes(bytes.try_into().expect("4 bytes were taken")))
    }

    /// Java's modified UTF-8 differs from UTF-8 only in the character 0 and beyond the basic plane; no alias has those.
    fn text(&mut self) -> Result<&'a str, KeyStoreError> {
        let len = self.take(2)?;
        let len = u16::from_be_bytes(len.try_into().expect("2 bytes were taken"));
        core::str::from_utf8(self.take(len.into())?).map_err(|_| KeyStoreError::Malformed("a name that is no text"))
    }

    fn block(&mut self) -> Result<&'a [u8], KeyStoreError> {
        let len = self.u32()?;
        self.take(len as usize)
    }

    fn certificate(&mut self) -> Result<Vec<u8>, KeyStoreError> {
        match self.text()? {
            X509 => Ok(self.block()?.to_vec()),
            other => Err(KeyStoreError::Unsupported(format!("a certificate of type {other:?}"))),
        }
    }
}

/// The passphrase as Java digests it.
fn utf16(passphrase: &str) -> Zeroizing<Vec<u8>> {
    // Room for all of it, so that no copy is left behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(2 * passphrase.len()));
    bytes.extend(passphrase.encode_utf16().flat_map(u16::to_be_bytes));
    bytes
}

fn digest_of(content: &[u8], passphrase: &str) -> [u8; DIGEST_LEN] {
    let digest = Sha1::new().chain_update(&*utf16(passphrase)).chain_update(WHITENER).chain_update(content);
    digest.finalize().into()
}

/// PKCS#8's EncryptedPrivateKeyInfo.
#[derive(Sequence)]
struct EncryptedKey<'a> {
    algorithm: Algorithm<'a>,
    sealed: &'a OctetStringRef,
}

#[derive(Sequence)]
struct Algorithm<'a> {
    oid: ObjectIdentifier,
    parameters: Option<AnyRef<'a>>,
}

/// Opens a key: `sealed` is salt (20 bytes), the key's PKCS#8 xored with a stream, and SHA-1 of passphrase and PKCS#8.
pub(super) fn unseal(sealed: &[u8], passphrase: &Zeroizing<String>) -> Result<Zeroizing<Vec<u8>>, KeyStoreError> {
    let info = EncryptedKey::from_der(sealed).map_err(|_| KeyStoreError::Malformed("a key of unknown form"))?;
    if info.algorithm.oid != PROTECTOR {
        return Err(KeyStoreError::Unsupported(format!("a key under {}", info.algorithm.oid)));
    }
    let parts = info.sealed.as_bytes().split_first_chunk::<DIGEST_LEN>();
    let parts = parts.and_then(|(salt, rest)| Some((salt, rest.split_last_chunk::<DIGEST_LEN>()?)));
    let (salt, (encrypted, check)) = parts.ok_or(KeyStoreError::Malformed("a key that ends too early"))?;
    let passphrase = utf16(passphrase);
    let mut pkcs8 = Zeroizing::new(encrypted.to_vec());
    apply_stream(&mut pkcs8, &passphrase, salt);
    match check_of(&passphrase, &pkcs8).eq(check) {
        true => Ok(pkcs8),
        false => Err(KeyStoreError::Passphrase),
    }
}

/// Each block of the stream is SHA-1 of the passphrase and the block before; the salt stands before the first.
fn apply_stream(bytes: &mut [u8], passphrase: &[u8], salt: &[u8; DIGEST_LEN]) {
    let mut block = Zeroizing::new(*salt);
    for chunk in bytes.chunks_mut(DIGEST_LEN) {
        *block = Sha1::new().chain_update(passphrase).chain_update(*block).finalize().into();
        chunk.iter_mut().zip(&*block).for_each(|(byte, pad)| *byte ^= pad);
    }
}

fn check_of(passphrase: &[u8], pkcs8: &[u8]) -> [u8; DIGEST_LEN] {
    Sha1::new().chain_update(passphrase).chain_update(pkcs8).finalize().into()
}

/// Makes a JKS store, as a Corda node reads it.
pub struct Writer {
    entries: Vec<u8>,
    count: u32,
    made: [u8; 8],
}

impl Writer {
    /// An empty one, whose entries are said to have been made at `now`.
    pub fn new(now: Timestamp) -> Self {
        Self { entries: Vec::new(), count: 0, made: now.as_millis().to_be_bytes() }
    }

    /// Adds a private key with its certificates (DER): its own first, each certified by the next. A Corda node takes `passphrase` to
    /// be the store's.
    ///
    /// # Errors
    /// [`PrivateKeyError::Random`].
    ///
    /// # Panics
    /// If the alias or a certificate is larger than any.
    pub fn key(
        mut self,
        alias: &str,
        key: &PrivateKey,
        chain: &[Vec<u8>],
        passphrase: &Zeroizing<String>,
    ) -> Result<Self, PrivateKeyError> {
        let sealed = seal(key, passphrase)?;
        self.begin(PRIVATE_KEY, alias);
        self.block(&sealed);
        self.entries.extend(u32::try_from(chain.len()).expect("a handful").to_be_bytes());
        chain.iter().for_each(|der| self.certificate(der));
        Ok(self)
    }

    /// Adds a trusted certificate (DER).
    ///
    /// # Panics
    /// If the alias or the certificate is larger than any.
    pub fn trusted(mut self, alias: &str, der: &[u8]) -> Self {
        self.begin(TRUSTED, alias);
        self.certificate(der);
        self
    }

    /// The whole store; `passphrase` is needed to notice changes of it.
    pub fn finish(self, passphrase: &Zeroizing<String>) -> Vec<u8> {
        let head = [MAGIC, VERSION, self.count].map(u32::to_be_bytes).concat();
        with_digest([head, self.entries].concat(), passphrase)
    }

    fn begin(&mut self, kind: u32, alias: &str) {
        self.count += 1;
        self.entries.extend(kind.to_be_bytes());
        // As Java keeps them.
        self.text(&alias.to_lowercase());
        self.entries.extend(self.made);
    }

    fn text(&mut self, text: &str) {
        assert!(text.len() <= ALIAS_LEN_MAX, "names are short");
        self.entries.extend((text.len() as u16).to_be_bytes());
        self.entries.extend(text.as_bytes());
    }

    fn block(&mut self, bytes: &[u8]) {
        self.entries.extend(u32::try_from(bytes.len()).expect("some thousand bytes").to_be_bytes());
        self.entries.extend(bytes);
    }

    fn certificate(&mut self, der: &[u8]) {
        self.text(X509);
        self.block(der);
    }
}

pub(super) fn with_digest(mut content: Vec<u8>, passphrase: &Zeroizing<String>) -> Vec<u8> {
    let digest = digest_of(&content, passphrase);
    content.extend(digest);
    content
}

fn seal(key: &PrivateKey, passphrase: &Zeroizing<String>) -> Result<Vec<u8>, PrivateKeyError> {
    let mut salt = [0; DIGEST_LEN];
    random(&mut salt)?;
    let (passphrase, pkcs8) = (utf16(passphrase), key.to_pkcs8_der());
    let mut encrypted = Zeroizing::new(pkcs8.as_bytes().to_vec());
    apply_stream(&mut encrypted, &passphrase, &salt);
    let sealed = [&salt[..], &encrypted, &check_of(&passphrase, pkcs8.as_bytes())].concat();
    let info = EncryptedKey {
        algorithm: Algorithm { oid: PROTECTOR, parameters: Some(AnyRef::NULL) },
        sealed: OctetStringRef::new(&sealed).expect("some hundred bytes"),
    };
    Ok(info.to_der().expect("some hundred bytes"))
}
