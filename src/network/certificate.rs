//! X.509 certificates as Corda networks use them (PROTOCOL i): reading one. Trust comes from `path`.
//!
//! Only what a notary needs is understood; a critical extension that is not leads to refusal, as RFC 5280 demands.

use core::fmt;

use der::asn1::{AnyRef, BitStringRef, ObjectIdentifier, UintRef};
use der::oid::AssociatedOid;
use der::{Decode, Encode, Sequence};
use x509_cert::ext::pkix::constraints::NameConstraints;
use x509_cert::ext::pkix::{AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage};
use x509_cert::ext::pkix::{SubjectAltName, SubjectKeyIdentifier};
use x509_cert::ext::{Extension, Extensions};
use x509_cert::name::Name;
use x509_cert::time::{Time, Validity};

use crate::domain::party::NameError;
use crate::domain::signature::KeyError;
use crate::domain::{PublicKey, SignatureScheme, Timestamp, X500Name};

/// Bytes of one certificate read. Real ones have about 600; a composite key of a dozen members some thousand.
pub const CERTIFICATE_LEN_MAX: usize = 16 * 1024;

/// What Corda lets a certificate be used for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Role {
    /// Issues node CAs and identities; once called doorman.
    IdentityCa = 1,
    /// Signs the network map, and before platform version 4 the network parameters.
    NetworkMap = 2,
    /// An identity that several nodes share, such as a notary cluster's.
    ServiceIdentity = 3,
    /// A node's own authority, for its identity and its TLS certificate.
    NodeCa = 4,
    /// A node's TLS certificate.
    Tls = 5,
    /// A node's well-known identity.
    LegalIdentity = 6,
    /// A one-off identity below a legal one.
    ConfidentialIdentity = 7,
    /// Signs the network parameters.
    NetworkParameters = 8,
}

impl Role {
    /// Where the role stands in a certificate: extension 1.3.6.1.4.1.50530.1.1, an INTEGER.
    pub(super) const OID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.50530.1.1");
    const ALL: [Self; 8] = [
        Self::IdentityCa,
        Self::NetworkMap,
        Self::ServiceIdentity,
        Self::NodeCa,
        Self::Tls,
        Self::LegalIdentity,
        Self::ConfidentialIdentity,
        Self::NetworkParameters,
    ];

    /// Whether a certificate of this role may be issued by one of role `issuer`; `None` is a root or an authority between root
    /// and identity CA.
    pub(super) const fn may_be_issued_by(self, issuer: Option<Self>) -> bool {
        match self {
            Self::IdentityCa | Self::NetworkMap | Self::NetworkParameters => issuer.is_none(),
            Self::ServiceIdentity | Self::NodeCa => matches!(issuer, Some(Self::IdentityCa)),
            Self::Tls => matches!(issuer, Some(Self::NodeCa)),
            Self::LegalIdentity => matches!(issuer, Some(Self::IdentityCa | Self::NodeCa)),
            Self::ConfidentialIdentity => matches!(issuer, Some(Self::LegalIdentity)),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::IdentityCa => "identity CA",
            Self::NetworkMap => "network map",
            Self::ServiceIdentity => "service identity",
            Self::NodeCa => "node CA",
            Self::Tls => "TLS",
            Self::LegalIdentity => "legal identity",
            Self::ConfidentialIdentity => "confidential identity",
            Self::NetworkParameters => "network parameters",
        })
    }
}

/// Bytes that are no certificate that this worker understands.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CertificateError {
    /// Not an X.509 v3 certificate in DER.
    #[error("not an X.509 v3 certificate: {0}")]
    Malformed(String),
    /// Larger than any real one.
    #[error("a certificate of more than {CERTIFICATE_LEN_MAX} bytes")]
    TooLarge,
    /// A critical extension that is not understood.
    #[error("critical extension {0} is not understood")]
    CriticalExtension(ObjectIdentifier),
    /// The role extension has a value that Corda does not know.
    #[error("unknown certificate role")]
    UnknownRole,
    /// The key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl From<der::Error> for CertificateError {
    fn from(error: der::Error) -> Self {
        Self::Malformed(error.to_string())
    }
}

#[derive(Sequence)]
pub(super) struct Signed<'a> {
    pub(super) tbs: AnyRef<'a>,
    pub(super) algorithm: AnyRef<'a>,
    pub(super) signature: BitStringRef<'a>,
}

/// The part that is signed. The key stays raw, because composite keys have an OID that the X.509 crate cannot hold.
#[derive(Sequence)]
pub(super) struct Tbs<'a> {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    pub(super) version: u8,
    pub(super) serial: UintRef<'a>,
    pub(super) algorithm: AnyRef<'a>,
    pub(super) issuer: Name,
    pub(super) validity: Validity,
    pub(super) subject: Name,
    pub(super) spki: AnyRef<'a>,
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT", optional = "true")]
    pub(super) extensions: Option<Extensions>,
}

/// Version 3 is written as 2.
pub(super) const V3: u8 = 2;

/// A certificate, read but not yet trusted.
#[derive(Clone, Debug)]
pub struct Certificate {
    pub(super) der: Vec<u8>,
    pub(super) tbs: Vec<u8>,
    pub(super) algorithm: Vec<u8>,
    pub(super) signature: Vec<u8>,
    pub(super) issuer: Name,
    pub(super) subject: Name,
    /// Seconds since 1970; both ends belong to the period.
    pub(super) validity: (i64, i64),
    public_key: PublicKey,
    pub(super) constraints: Option<BasicConstraints>,
    pub(super) key_usage: Option<KeyUsage>,
    pub(super) name_constraints: Option<NameConstraints>,
    /// What others call its key in their authority key identifiers.
    pub(super) key_identifier: Option<Vec<u8>>,
    pub(super) role: Option<Role>,
}

impl Certificate {
    /// Reads DER.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        if der.len() > CERTIFICATE_LEN_MAX {
            return Err(CertificateError::TooLarge);
        }
        let signed = Signed::from_der(der)?;
        let tbs_der = signed.tbs.to_der()?;
        let tbs = Tbs::from_der(&tbs_der)?;
        if tbs.version != V3 {
            return Err(CertificateError::Malformed("another version".into()));
        }
        if tbs.algorithm != signed.algorithm {
            return Err(CertificateError::Malformed("two signature algorithms".into()));
        }
        let signature = signed.signature.as_bytes();
        let signature = signature.ok_or_else(|| CertificateError::Malformed("signature with unused bits".into()))?;
        let mut certificate = Self {
            der: der.to_vec(),
            algorithm: signed.algorithm.to_der()?,
            signature: signature.to_vec(),
            validity: (seconds(tbs.validity.not_before), seconds(tbs.validity.not_after)),
            public_key: PublicKey::from_spki(&tbs.spki.to_der()?)?,
            issuer: tbs.issuer,
            subject: tbs.subject,
            constraints: None,
            key_usage: None,
            name_constraints: None,
            key_identifier: None,
            role: None,
            tbs: tbs_der.clone(),
        };
        certificate.read_extensions(&tbs.extensions.unwrap_or_default())?;
        Ok(certificate)
    }

    fn read_extensions(&mut self, extensions: &[Extension]) -> Result<(), CertificateError> {
        for (i, extension) in extensions.iter().enumerate() {
            let Extension { extn_id, critical, extn_value } = extension;
            if extensions[..i].iter().any(|earlier| earlier.extn_id == *extn_id) {
                return Err(CertificateError::Malformed(format!("extension {extn_id} twice")));
            }
            let value = extn_value.as_bytes();
            match *extn_id {
                BasicConstraints::OID => self.constraints = Some(BasicConstraints::from_der(value)?),
                KeyUsage::OID => self.key_usage = Some(KeyUsage::from_der(value)?),
                NameConstraints::OID => self.name_constraints = Some(NameConstraints::from_der(value)?),
                Role::OID => {
                    let number = u8::from_der(value)?;
                    let role = Role::ALL.into_iter().find(|role| *role as u8 == number);
                    self.role = Some(role.ok_or(CertificateError::UnknownRole)?);
                }
                SubjectKeyIdentifier::OID => {
                    self.key_identifier = Some(SubjectKeyIdentifier::from_der(value)?.0.as_bytes().to_vec());
                }
                // Understood, and of no consequence here: purposes concern TLS, the others help to find certificates.
                ExtendedKeyUsage::OID | SubjectAltName::OID | AuthorityKeyIdentifier::OID => {}
                other if *critical => return Err(CertificateError::CriticalExtension(other)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Reads one PEM block `CERTIFICATE`.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn from_pem(pem: &str) -> Result<Self, CertificateError> {
        match der::Document::from_pem(pem) {
            Ok(("CERTIFICATE", document)) => Self::from_der(document.as_bytes()),
            Ok((label, _)) => Err(CertificateError::Malformed(format!("PEM of {label}"))),
            Err(error) => Err(CertificateError::Malformed(error.to_string())),
        }
    }

    /// Reads a chain in PEM: blocks `CERTIFICATE` one after another, in their order; text between them is skipped.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn chain_from_pem(pem: &str) -> Result<Vec<Self>, CertificateError> {
        const BEGIN: &str = "-----BEGIN ";
        const END: &str = "-----END CERTIFICATE-----";
        let mut chain = Vec::new();
        let mut rest = pem;
        while let Some(begin) = rest.find(BEGIN) {
            let block = &rest[begin..];
            let end = block.find(END).ok_or_else(|| CertificateError::Malformed("PEM without an end".into()))?;
            let (block, after) = block.split_at(end + END.len());
            chain.push(Self::from_pem(&format!("{block}\n"))?);
            rest = after;
        }
        Ok(chain)
    }

    /// The DER bytes.
    pub fn as_der(&self) -> &[u8] {
        &self.der
    }

    /// The key it certifies.
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// What it may be used for; absent in roots.
    pub fn role(&self) -> Option<Role> {
        self.role
    }

    /// The legal name of its subject.
    ///
    /// # Errors
    /// [`NameError`] if the subject is no Corda name, such as many CAs'.
    pub fn legal_name(&self) -> Result<X500Name, NameError> {
        X500Name::from_der(&self.subject.to_der().map_err(|_| NameError::Malformed("not the DER of a name"))?)
    }

    /// Its last moment.
    pub fn expires(&self) -> Timestamp {
        // A certificate cannot name a year beyond 9999.
        Timestamp::new(self.validity.1, 0).unwrap_or(Timestamp::from_millis(i64::MAX))
    }

    /// Whether it names itself as its issuer, as roots do; its signature is not looked at.
    pub(crate) fn is_self_issued(&self) -> bool {
        self.issuer == self.subject
    }

    /// The PEM form.
    ///
    /// # Panics
    /// Never: the DER was read, so it can be written.
    pub fn to_pem(&self) -> String {
        let document = der::Document::try_from(self.der.as_slice()).expect("DER that was read");
        document.to_pem("CERTIFICATE", der::pem::LineEnding::LF).expect("DER that was read")
    }

    /// Whether `issuer`'s key made the signature, in an algorithm that fits the key.
    pub(super) fn is_signed_by(&self, issuer: &Self) -> bool {
        let fits = match issuer.public_key.scheme() {
            SignatureScheme::RsaSha256 => self.algorithm == ALGORITHM_RSA,
            SignatureScheme::Ed25519 => self.algorithm == ALGORITHM_ED25519,
            SignatureScheme::EcdsaSecp256k1Sha256 | SignatureScheme::EcdsaSecp256r1Sha256 => {
                // BouncyCastle, so Corda, appends the curve as parameters, where RFC 5758 wants none.
                self.algorithm == ALGORITHM_ECDSA
                    || self.algorithm == ALGORITHM_ECDSA_P256
                    || self.algorithm == ALGORITHM_ECDSA_K256
            }
            SignatureScheme::Composite => false,
        };
        fits && issuer.public_key.verify(&self.tbs, &self.signature).is_ok()
    }
}

impl fmt::Display for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.legal_name() {
            Ok(name) => name.fmt(f),
            Err(_) => self.subject.fmt(f),
        }
    }
}

/// `AlgorithmIdentifier`s: sha256WithRSAEncryption, Ed25519, ecdsa-with-SHA256 as RFC 5758 writes it, and as BouncyCastle does.
const ALGORITHM_RSA: [u8; 15] =
    [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b, 0x05, 0x00];
pub(super) const ALGORITHM_ED25519: [u8; 7] = [0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70];
pub(super) const ALGORITHM_ECDSA: [u8; 12] = [0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
const ALGORITHM_ECDSA_P256: [u8; 22] = [
    0x30, 0x14, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d,
    0x03, 0x01, 0x07,
];
const ALGORITHM_ECDSA_K256: [u8; 19] =
    [0x30, 0x11, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x0a];

pub(super) fn seconds(time: Time) -> i64 {
    // Neither form can name a moment before 1970 or after 9999 here.
    time.to_unix_duration().as_secs() as i64
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn pki() -> Value {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/manifest.json");
        let text = std::fs::read_to_string(path).expect("manifest");
        serde_json::from_str::<Value>(&text).expect("JSON")["pki"].take()
    }

    fn der(name: &str) -> Vec<u8> {
        hex::decode(pki()[name].as_str().expect("a string")).expect("hex")
    }

    #[test]
    fn certificates_by_corda_are_read_and_verify() {
        let root = Certificate::from_der(&der("rootCertDerHex")).expect("read");
        let identity_ca = Certificate::from_der(&der("intermediateCertDerHex")).expect("read");
        let service = Certificate::from_der(&der("serviceIdentityCertDerHex")).expect("read");
        assert_eq!(
            [&root, &identity_ca, &service].map(|c| c.role),
            [None, Some(Role::IdentityCa), Some(Role::ServiceIdentity)]
        );
        assert_eq!(service.to_string(), "O=HA Notary Service, L=Zurich, C=CH");
        assert_eq!(root.to_string(), "CN=Vector Root CA, O=Vectors, L=Zurich, C=CH");
        assert!(root.is_signed_by(&root) && identity_ca.is_signed_by(&root) && service.is_signed_by(&identity_ca));
        assert!(!service.is_signed_by(&root));
        let again = Certificate::from_pem(&root.to_pem()).expect("read");
        assert_eq!(again.as_der(), root.as_der());
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let service = der("serviceIdentityCertDerHex");
        let changed = |from: &str, to: &str| {
            let text = hex::encode(&service);
            assert!(text.contains(from), "{from}");
            Certificate::from_der(&hex::decode(text.replacen(from, to, 1)).expect("hex")).expect_err("accepted")
        };
        // Basic constraints, which are critical, become policy constraints.
        let error = changed("0603551d130101ff", "0603551d240101ff");
        assert!(matches!(error, CertificateError::CriticalExtension(_)), "{error}");
        assert_eq!(changed("0403020103", "0403020109"), CertificateError::UnknownRole);
        let malformed = |error| matches!(error, CertificateError::Malformed(_));
        assert!(malformed(changed("a003020102", "a003020101")), "version 2");
        assert!(malformed(changed("0603551d0f", "0603551d0e")), "an extension twice");
        // A key that is not on its curve.
        assert!(matches!(changed("03420004cc", "03420004cd"), CertificateError::Key(_)));

        assert_eq!(Certificate::from_der(&vec![0x30; CERTIFICATE_LEN_MAX + 1]).err(), Some(CertificateError::TooLarge));
        for len in 0..service.len() {
            assert!(Certificate::from_der(&service[..len]).is_err(), "cut to {len}");
        }
        assert!(malformed(Certificate::from_pem("").expect_err("empty")));
    }
}
