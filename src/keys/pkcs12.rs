//! PKCS#12 (RFC 7292), as `keytool` and `openssl pkcs12` make it: integrity by a passphrase, keys and certificates encrypted by
//! PBES2 (today) or PKCS#12's own old schemes (Java before 16, OpenSSL before 3). Read only.
//!
//! Own code, and not the crate `p12-keystore`: that one leaves opened private keys in memory unwiped, opens all keys of a store to
//! read one, and rests on pre-releases of two other crates. What is hard here, the ciphers and digests, comes from libraries.

use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockModeDecrypt, KeyIvInit};
use der::asn1::{AnyRef, BitStringRef, BmpString, ObjectIdentifier, OctetStringRef};
use der::{Decode, Encode, Reader, Sequence, SliceReader, Tag};
use hmac::digest::block_api::BlockSizeUser;
use hmac::{Hmac, KeyInit, Mac};
use pkcs8::pkcs5::pbes2::{self, Kdf};
use sha1::Sha1;
use sha1::digest::Digest;
use sha2::{Sha256, Sha384, Sha512};
use zeroize::{Zeroize, Zeroizing};

use super::file::is_affordable;
use super::keystore::{ALIAS_LEN_MAX, CHAIN_LEN_MAX, Content, ENTRIES_MAX, Entry, KeyStoreError, SealedKey};
use crate::domain::PublicKey;

const fn oid(text: &str) -> ObjectIdentifier {
    ObjectIdentifier::new_unwrap(text)
}

const DATA: ObjectIdentifier = oid("1.2.840.113549.1.7.1");
const ENCRYPTED_DATA: ObjectIdentifier = oid("1.2.840.113549.1.7.6");
const KEY_BAG: ObjectIdentifier = oid("1.2.840.113549.1.12.10.1.1");
const SHROUDED_KEY_BAG: ObjectIdentifier = oid("1.2.840.113549.1.12.10.1.2");
const CERTIFICATE_BAG: ObjectIdentifier = oid("1.2.840.113549.1.12.10.1.3");
const X509: ObjectIdentifier = oid("1.2.840.113549.1.9.22.1");
const FRIENDLY_NAME: ObjectIdentifier = oid("1.2.840.113549.1.9.20");
const LOCAL_KEY_ID: ObjectIdentifier = oid("1.2.840.113549.1.9.21");
/// Java marks certificates that are trusted with this attribute; others only accompany keys.
const TRUSTED_KEY_USAGE: ObjectIdentifier = oid("2.16.840.1.113894.746875.1.1");
const PBES2: ObjectIdentifier = oid("1.2.840.113549.1.5.13");
const SHA1_3DES: ObjectIdentifier = oid("1.2.840.113549.1.12.1.3");
const SHA1_RC2_40: ObjectIdentifier = oid("1.2.840.113549.1.12.1.6");
const SHA1: ObjectIdentifier = oid("1.3.14.3.2.26");
const SHA256: ObjectIdentifier = oid("2.16.840.1.101.3.4.2.1");
const SHA384: ObjectIdentifier = oid("2.16.840.1.101.3.4.2.2");
const SHA512: ObjectIdentifier = oid("2.16.840.1.101.3.4.2.3");

/// Rounds of the old key derivation; Java itself takes no more (`PKCS12KeyStore`), and makes 10 000 to 100 000.
const ROUNDS_MAX: u32 = 5_000_000;
/// Encrypted parts of a store, each of which costs a derivation. `keytool` makes one, OpenSSL too.
const SAFES_MAX: usize = 8;

const MALFORMED: KeyStoreError = KeyStoreError::Malformed("not PKCS#12 in DER, or damaged");

impl From<der::Error> for KeyStoreError {
    fn from(_: der::Error) -> Self {
        MALFORMED
    }
}

#[derive(Sequence)]
struct Pfx<'a> {
    version: u8,
    safe: ContentInfo<'a>,
    mac: Option<MacData<'a>>,
}

#[derive(Sequence)]
struct ContentInfo<'a> {
    kind: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    content: AnyRef<'a>,
}

#[derive(Sequence)]
struct MacData<'a> {
    digest: DigestInfo<'a>,
    salt: &'a OctetStringRef,
    #[asn1(default = "one")]
    rounds: u32,
}

fn one() -> u32 {
    1
}

#[derive(Sequence)]
struct DigestInfo<'a> {
    algorithm: Algorithm<'a>,
    digest: &'a OctetStringRef,
}

#[derive(Sequence)]
struct Algorithm<'a> {
    oid: ObjectIdentifier,
    parameters: Option<AnyRef<'a>>,
}

#[derive(Sequence)]
struct EncryptedData<'a> {
    version: u8,
    content: EncryptedContent<'a>,
}

#[derive(Sequence)]
struct EncryptedContent<'a> {
    kind: ObjectIdentifier,
    algorithm: Algorithm<'a>,
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT")]
    encrypted: &'a OctetStringRef,
}

#[derive(Sequence)]
struct EncryptedKey<'a> {
    algorithm: Algorithm<'a>,
    encrypted: &'a OctetStringRef,
}

#[derive(Sequence)]
struct OldParameters<'a> {
    salt: &'a OctetStringRef,
    rounds: u32,
}

/// One key or certificate. The attributes are a SET, which not everybody sorts, so it is read by hand.
#[derive(Sequence)]
struct Bag<'a> {
    kind: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    value: AnyRef<'a>,
    attributes: Option<AnyRef<'a>>,
}

#[derive(Sequence)]
struct Attribute<'a> {
    kind: ObjectIdentifier,
    values: AnyRef<'a>,
}

#[derive(Sequence)]
struct CertificateBag<'a> {
    kind: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    der: &'a OctetStringRef,
}

/// What the bags hold, before keys are told their certificates.
#[derive(Default)]
struct Found {
    keys: Vec<(Attributes, SealedKey)>,
    certificates: Vec<(Attributes, Vec<u8>)>,
}

#[derive(Default)]
struct Attributes {
    name: Option<String>,
    key_id: Option<Vec<u8>>,
    trusted: bool,
}

/// Reads all entries and checks their integrity. Private keys stay sealed.
pub(super) fn read(bytes: &[u8], passphrase: &Zeroizing<String>) -> Result<Vec<Entry>, KeyStoreError> {
    let pfx = Pfx::from_der(bytes)?;
    if pfx.version != 3 || pfx.safe.kind != DATA {
        return Err(KeyStoreError::Unsupported("PKCS#12 that is signed, or not of version 3".into()));
    }
    let safe: &OctetStringRef = pfx.safe.content.decode_as()?;
    // Without a passphrase there is no integrity at all; nothing that a notary relies on should lie like that.
    let mac = pfx.mac.ok_or_else(|| KeyStoreError::Unsupported("PKCS#12 without integrity".into()))?;
    check_mac(&mac, safe.as_bytes(), passphrase)?;

    let mut found = Found::default();
    let (mut safes, mut count) = (sequence(safe.as_bytes())?, 0);
    while !safes.is_finished() {
        count += 1;
        if count > SAFES_MAX {
            return Err(KeyStoreError::TooLarge("more parts than any key store has"));
        }
        let part: ContentInfo<'_> = safes.decode()?;
        match part.kind {
            DATA => found.bags(part.content.decode_as::<&OctetStringRef>()?.as_bytes())?,
            ENCRYPTED_DATA => {
                let EncryptedData { content, .. } = part.content.decode_as()?;
                let opened = decrypt(&content.algorithm, content.encrypted.as_bytes(), passphrase)?;
                found.bags(&opened)?;
            }
            other => return Err(KeyStoreError::Unsupported(format!("PKCS#12 with content {other}"))),
        }
    }
    found.entries()
}

/// Opens a key that lies as EncryptedPrivateKeyInfo.
pub(super) fn unseal(sealed: &[u8], passphrase: &Zeroizing<String>) -> Result<Zeroizing<Vec<u8>>, KeyStoreError> {
    let info = EncryptedKey::from_der(sealed)?;
    let opened = decrypt(&info.algorithm, info.encrypted.as_bytes(), passphrase)?;
    // Garbage with good padding: one wrong passphrase in 256 gets here.
    match AnyRef::from_der(&opened).is_ok_and(|any| der::Tagged::tag(&any) == Tag::Sequence) {
        true => Ok(opened),
        false => Err(KeyStoreError::Passphrase),
    }
}

/// The inside of a SEQUENCE.
fn sequence(bytes: &[u8]) -> Result<SliceReader<'_>, KeyStoreError> {
    let any = AnyRef::from_der(bytes)?;
    match der::Tagged::tag(&any) {
        Tag::Sequence => Ok(SliceReader::new(any.value())?),
        _ => Err(MALFORMED),
    }
}

impl Found {
    fn bags(&mut self, bytes: &[u8]) -> Result<(), KeyStoreError> {
        let mut bags = sequence(bytes)?;
        while !bags.is_finished() {
            if self.keys.len() + self.certificates.len() >= ENTRIES_MAX {
                return Err(KeyStoreError::TooLarge("more entries than any key store has"));
            }
            let bag: Bag<'_> = bags.decode()?;
            let attributes = Attributes::read(bag.attributes)?;
            match bag.kind {
                SHROUDED_KEY_BAG => self.keys.push((attributes, SealedKey::Pkcs12(bag.value.to_der()?))),
                KEY_BAG => self.keys.push((attributes, SealedKey::Open(Zeroizing::new(bag.value.to_der()?)))),
                CERTIFICATE_BAG => {
                    let bag: CertificateBag<'_> = bag.value.decode_as()?;
                    if bag.kind != X509 {
                        return Err(KeyStoreError::Unsupported("a certificate that is not X.509".into()));
                    }
                    self.certificates.push((attributes, bag.der.as_bytes().to_vec()));
                }
                // Symmetric keys and the like, which are of no use here.
                _ => {}
            }
        }
        Ok(())
    }

    fn entries(self) -> Result<Vec<Entry>, KeyStoreError> {
        let mut entries = Vec::new();
        let outlines: Vec<_> = self.certificates.iter().map(|(_, der)| Outline::read(der)).collect();
        for (attributes, key) in self.keys {
            // OpenSSL names keys only if told to; the key's id is all there is then.
            let id = attributes.key_id.as_deref();
            let alias = attributes.name.unwrap_or_else(|| hex::encode(id.unwrap_or_default()));
            let own = self.certificates.iter().position(|(of, _)| id.is_some() && of.key_id.as_deref() == id);
            let mut chain = Vec::new();
            let mut next = own;
            while let Some(at) = next {
                chain.push(at);
                if chain.len() >= CHAIN_LEN_MAX {
                    break;
                }
                next = issuer_of(at, &outlines, &chain);
            }
            let chain = chain.into_iter().map(|at| self.certificates[at].1.clone()).collect();
            entries.push(Entry { alias, content: Content::Key { key, chain } });
        }
        for (attributes, der) in self.certificates.into_iter().filter(|(of, _)| of.trusted) {
            entries.push(Entry { alias: attributes.name.unwrap_or_default(), content: Content::Trusted(der) });
        }
        Ok(entries)
    }
}

impl Attributes {
    fn read(set: Option<AnyRef<'_>>) -> Result<Self, KeyStoreError> {
        let mut found = Self::default();
        let Some(set) = set else { return Ok(found) };
        let mut attributes = SliceReader::new(set.value())?;
        while !attributes.is_finished() {
            let attribute: Attribute<'_> = attributes.decode()?;
            let mut values = SliceReader::new(attribute.values.value())?;
            match attribute.kind {
                FRIENDLY_NAME => {
                    let name: BmpString = values.decode()?;
                    let name = name.to_string();
                    if name.len() > ALIAS_LEN_MAX {
                        return Err(KeyStoreError::TooLarge("an alias longer than any"));
                    }
                    found.name = Some(name);
                }
                LOCAL_KEY_ID => found.key_id = Some(values.decode::<&OctetStringRef>()?.as_bytes().to_vec()),
                TRUSTED_KEY_USAGE => found.trusted = true,
                _ => {}
            }
        }
        Ok(found)
    }
}

/// Which certificate certifies the one at `at`, and is not in the chain yet. Names do not tell alone: a Corda node's own authority
/// has the same name as the identities below it. So the one whose key verifies; or by name, where the key is of an unknown scheme.
fn issuer_of(at: usize, outlines: &[Option<Outline>], chain: &[usize]) -> Option<usize> {
    let own = outlines[at].as_ref()?;
    // The same certificate may lie in the store several times, once for each key.
    let is_used = |outline: &Outline| {
        chain.iter().any(|used| outlines[*used].as_ref().is_some_and(|used| used.signed == outline.signed))
    };
    let named = |index: &usize| {
        outlines[*index].as_ref().is_some_and(|outline| outline.subject == own.issuer && !is_used(outline))
    };
    let verifies = |index: &usize| {
        let key = outlines[*index].as_ref().and_then(|outline| PublicKey::from_spki(&outline.key).ok());
        key.is_some_and(|key| key.verify(&own.signed, &own.signature).is_ok())
    };
    let mut candidates = (0..outlines.len()).filter(named);
    let by_name = || (0..outlines.len()).find(|index| named(index) && own.subject != own.issuer);
    candidates.find(verifies).or_else(by_name)
}

/// What links certificates, each part as encoded.
struct Outline {
    subject: Vec<u8>,
    issuer: Vec<u8>,
    key: Vec<u8>,
    signed: Vec<u8>,
    signature: Vec<u8>,
}

impl Outline {
    /// `None` for what does not look like a certificate; whoever uses it will say so.
    fn read(certificate: &[u8]) -> Option<Self> {
        let mut outer = sequence(certificate).ok()?;
        let signed = outer.tlv_bytes().ok()?;
        outer.tlv_bytes().ok()?;
        let signature = outer.decode::<BitStringRef<'_>>().ok()?.as_bytes()?.to_vec();
        let mut inner = sequence(signed).ok()?;
        // Version, if it is there, and serial number, signature algorithm; then issuer, period, subject, key (RFC 5280, 4.1).
        if matches!(Tag::peek(&inner).ok()?, Tag::ContextSpecific { .. }) {
            inner.tlv_bytes().ok()?;
        }
        inner.tlv_bytes().ok()?;
        inner.tlv_bytes().ok()?;
        let issuer = inner.tlv_bytes().ok()?.to_vec();
        inner.tlv_bytes().ok()?;
        let (subject, key) = (inner.tlv_bytes().ok()?.to_vec(), inner.tlv_bytes().ok()?.to_vec());
        Some(Self { subject, issuer, key, signed: signed.to_vec(), signature })
    }
}

fn check_mac(mac: &MacData<'_>, content: &[u8], passphrase: &str) -> Result<(), KeyStoreError> {
    if mac.rounds > ROUNDS_MAX {
        return Err(KeyStoreError::TooLarge("its integrity check costs too much"));
    }
    macro_rules! verify {
        ($Digest:ty) => {{
            let key =
                derive::<$Digest>(passphrase, mac.salt.as_bytes(), Purpose::Mac, mac.rounds, <$Digest>::output_size());
            let hmac = Hmac::<$Digest>::new_from_slice(&key).expect("HMAC takes keys of any length");
            hmac.chain_update(content).verify_slice(mac.digest.digest.as_bytes()).is_ok()
        }};
    }
    let right = match mac.digest.algorithm.oid {
        SHA1 => verify!(Sha1),
        SHA256 => verify!(Sha256),
        SHA384 => verify!(Sha384),
        SHA512 => verify!(Sha512),
        other => return Err(KeyStoreError::Unsupported(format!("PKCS#12 with integrity by {other}"))),
    };
    match right {
        true => Ok(()),
        false => Err(KeyStoreError::Passphrase),
    }
}

fn decrypt(algorithm: &Algorithm<'_>, sealed: &[u8], passphrase: &str) -> Result<Zeroizing<Vec<u8>>, KeyStoreError> {
    let parameters = algorithm.parameters.ok_or(MALFORMED)?;
    let opened = match algorithm.oid {
        PBES2 => {
            let unsupported = |_| KeyStoreError::Unsupported("this cipher or key derivation of PBES2".into());
            let parameters: pbes2::Parameters = parameters.decode_as().map_err(unsupported)?;
            if !is_affordable(&parameters.kdf) {
                return Err(KeyStoreError::TooLarge("its key derivation costs too much"));
            }
            if matches!(&parameters.kdf, Kdf::Pbkdf2(kdf) if kdf.prf == pbes2::Pbkdf2Prf::HmacWithSha1) {
                return Err(KeyStoreError::Unsupported("PBES2 with HMAC-SHA-1".into()));
            }
            parameters.decrypt(passphrase, sealed).map_err(|_| KeyStoreError::Passphrase)?
        }
        SHA1_3DES => decrypt_old::<des::TdesEde3>(parameters, sealed, passphrase, 24)?,
        SHA1_RC2_40 => decrypt_old::<rc2::Rc2>(parameters, sealed, passphrase, 5)?,
        other => return Err(KeyStoreError::Unsupported(format!("PKCS#12 encrypted by {other}"))),
    };
    Ok(Zeroizing::new(opened))
}

/// PKCS#12's own schemes (appendix C): a cipher in CBC mode, key and first block derived with SHA-1.
fn decrypt_old<C>(
    parameters: AnyRef<'_>,
    sealed: &[u8],
    passphrase: &str,
    key_len: usize,
) -> Result<Vec<u8>, KeyStoreError>
where
    C: cbc::cipher::BlockCipherDecrypt + KeyInit,
{
    let OldParameters { salt, rounds } = parameters.decode_as()?;
    if rounds > ROUNDS_MAX {
        return Err(KeyStoreError::TooLarge("its key derivation costs too much"));
    }
    let key = derive::<Sha1>(passphrase, salt.as_bytes(), Purpose::Key, rounds, key_len);
    let first = derive::<Sha1>(passphrase, salt.as_bytes(), Purpose::FirstBlock, rounds, 8);
    let cipher = cbc::Decryptor::<C>::new_from_slices(&key, &first).map_err(|_| MALFORMED)?;
    cipher.decrypt_padded_vec::<Pkcs7>(sealed).map_err(|_| KeyStoreError::Passphrase)
}

/// What derived bytes are for; they differ even if all else is the same.
#[derive(Clone, Copy)]
enum Purpose {
    Key = 1,
    FirstBlock = 2,
    Mac = 3,
}

/// The key derivation of RFC 7292, appendix B.2; the letters are those of its text.
fn derive<D: Digest + BlockSizeUser>(
    passphrase: &str,
    salt: &[u8],
    purpose: Purpose,
    rounds: u32,
    len: usize,
) -> Zeroizing<Vec<u8>> {
    let v = D::block_size();
    let mut password = Zeroizing::new(Vec::with_capacity(2 * passphrase.len() + 2));
    password.extend(passphrase.encode_utf16().chain([0]).flat_map(u16::to_be_bytes));
    let fill = |bytes: &[u8]| bytes.iter().copied().cycle().take(bytes.len().div_ceil(v) * v).collect::<Vec<u8>>();
    let (s, p) = (fill(salt), Zeroizing::new(fill(&password)));
    let diversifier = vec![purpose as u8; v];
    let mut i = Zeroizing::new(Vec::with_capacity(s.len() + p.len()));
    i.extend_from_slice(&s);
    i.extend_from_slice(&p);

    let mut out = Zeroizing::new(Vec::with_capacity(len + 64));
    while out.len() < len {
        let mut a = D::new().chain_update(&diversifier).chain_update(&*i).finalize();
        for _ in 1..rounds {
            a = D::digest(&a);
        }
        out.extend_from_slice(&a);
        // B + 1 is added to each block of I, as numbers of v bytes; the carry beyond them is dropped.
        let b: Zeroizing<Vec<u8>> = Zeroizing::new(a.iter().copied().cycle().take(v).collect());
        for block in i.chunks_mut(v) {
            let mut carry = 1u16;
            for (byte, add) in block.iter_mut().zip(&*b).rev() {
                carry += u16::from(*byte) + u16::from(*add);
                *byte = carry as u8;
                carry >>= 8;
            }
        }
        a.zeroize();
    }
    out.truncate(len);
    out
}
