//! Issuing certificates: for development networks, and by a worker's own node CA.

use core::time::Duration;

use der::asn1::ObjectIdentifier;
use der::asn1::{AnyRef, BitStringRef, OctetString, UintRef};
use der::oid::AssociatedOid;
use der::{Decode, Encode};
use sha2::{Digest, Sha256};
use x509_cert::ext::pkix::constraints::NameConstraints;
use x509_cert::ext::pkix::constraints::name::GeneralSubtree;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages, SubjectKeyIdentifier,
};
use x509_cert::ext::{Extension, Extensions};
use x509_cert::name::Name;
use x509_cert::time::{Time, Validity};

use super::certificate::{ALGORITHM_ECDSA, ALGORITHM_ED25519, Certificate, CertificateError, Role, Signed, Tbs, V3};
use crate::domain::{PublicKey, SignatureScheme, X500Name};
use crate::keys::{PrivateKey, PrivateKeyError, random};

/// Purposes of a key (RFC 5280, 4.2.1.12): TLS servers and clients.
const SERVER_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1");
const CLIENT_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2");

/// What a new certificate shall say.
pub(crate) struct Request<'a> {
    pub(crate) subject: &'a X500Name,
    pub(crate) public_key: &'a PublicKey,
    /// `None` for a root.
    pub(crate) role: Option<Role>,
    /// First and last moment, in seconds since 1970.
    pub(crate) validity: (i64, i64),
}

/// A certificate authority with its key.
pub(crate) struct Authority {
    pub(crate) certificate: Certificate,
    pub(crate) key: PrivateKey,
}

impl Authority {
    /// A new self-signed root.
    pub(crate) fn root(name: &X500Name, key: PrivateKey, validity: (i64, i64)) -> Result<Self, IssueError> {
        let request = Request { subject: name, public_key: key.public_key(), role: None, validity };
        let certificate = issue(&request, None, &key)?;
        Ok(Self { certificate, key })
    }

    /// Issues a certificate.
    pub(crate) fn issue(&self, request: &Request<'_>) -> Result<Certificate, IssueError> {
        Self::issue_with(&self.certificate, &self.key, request)
    }

    /// Issues a certificate by the authority with this certificate and key.
    pub(crate) fn issue_with(
        issuer: &Certificate,
        key: &PrivateKey,
        request: &Request<'_>,
    ) -> Result<Certificate, IssueError> {
        issue(request, Some(issuer), key)
    }

    /// Issues a certificate for a new authority below.
    pub(crate) fn authority(&self, request: &Request<'_>, key: PrivateKey) -> Result<Self, IssueError> {
        Ok(Self { certificate: self.issue(request)?, key })
    }
}

/// Why there is no new certificate.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IssueError {
    /// No random serial number.
    #[error(transparent)]
    Random(#[from] PrivateKeyError),
    /// Something does not encode, or the result does not read.
    #[error("a certificate cannot be made: {0}")]
    Certificate(#[from] CertificateError),
}

impl From<der::Error> for IssueError {
    fn from(error: der::Error) -> Self {
        Self::Certificate(error.into())
    }
}

fn issue(request: &Request<'_>, issuer: Option<&Certificate>, key: &PrivateKey) -> Result<Certificate, IssueError> {
    let Request { subject, public_key, role, validity: (not_before, not_after) } = *request;
    let algorithm = match key.public_key().scheme() {
        SignatureScheme::Ed25519 => &ALGORITHM_ED25519[..],
        _ => &ALGORITHM_ECDSA[..],
    };
    let algorithm = AnyRef::from_der(algorithm)?;
    let mut serial = [0; 16];
    random(&mut serial)?;
    serial[0] |= 0x40; // So that the number has no leading zero digits, whatever was drawn.
    let subject = Name::from_der(&subject.to_der())?;
    // A legal identity certifies the confidential identities of its party.
    let is_authority = matches!(role, None | Some(Role::IdentityCa | Role::NodeCa | Role::LegalIdentity));

    let mut extensions = Extensions::new();
    let mut add = |critical, oid, value: der::Result<Vec<u8>>| {
        extensions.push(Extension { extn_id: oid, critical, extn_value: OctetString::new(value?)? });
        der::Result::Ok(())
    };
    let constraints = BasicConstraints { ca: is_authority, path_len_constraint: None };
    add(true, BasicConstraints::OID, constraints.to_der())?;
    // Usages and purposes are those that Corda's own certificates of the role have.
    let usage = match role {
        _ if !is_authority => KeyUsages::DigitalSignature.into(),
        Some(Role::LegalIdentity) => KeyUsages::DigitalSignature | KeyUsages::KeyCertSign,
        _ => KeyUsages::DigitalSignature | KeyUsages::KeyCertSign | KeyUsages::CRLSign,
    };
    add(true, KeyUsage::OID, KeyUsage(usage).to_der())?;
    let purposes = match role {
        None => Vec::new(),
        Some(Role::Tls) => vec![SERVER_AUTH, CLIENT_AUTH],
        Some(_) => vec![CLIENT_AUTH],
    };
    if !purposes.is_empty() {
        add(false, ExtendedKeyUsage::OID, ExtendedKeyUsage(purposes).to_der())?;
    }
    add(false, SubjectKeyIdentifier::OID, SubjectKeyIdentifier(key_identifier(public_key)?).to_der())?;
    // As the issuer calls its own key: others compute identifiers differently.
    let issuer_identifier = match issuer.and_then(|issuer| issuer.key_identifier.as_deref()) {
        Some(identifier) => OctetString::new(identifier)?,
        None => key_identifier(key.public_key())?,
    };
    let authority = AuthorityKeyIdentifier { key_identifier: Some(issuer_identifier), ..<_>::default() };
    add(false, AuthorityKeyIdentifier::OID, authority.to_der())?;
    if role == Some(Role::NodeCa) {
        // As Corda does: a node CA may issue for its own name only.
        let own = GeneralSubtree { base: GeneralName::DirectoryName(subject.clone()), minimum: 0, maximum: None };
        let constraints = NameConstraints { permitted_subtrees: Some(vec![own]), excluded_subtrees: None };
        add(true, NameConstraints::OID, constraints.to_der())?;
    }
    if let Some(role) = role {
        add(false, Role::OID, (role as u8).to_der())?;
    }

    let time = |seconds: i64| Time::try_from(std::time::UNIX_EPOCH + Duration::from_secs(seconds.max(0) as u64));
    let tbs = Tbs {
        version: V3,
        serial: UintRef::new(&serial)?,
        algorithm,
        issuer: issuer.map_or_else(|| subject.clone(), |issuer| issuer.subject.clone()),
        validity: Validity::new(time(not_before)?, time(not_after)?),
        subject,
        spki: AnyRef::from_der(public_key.as_spki())?,
        extensions: Some(extensions),
    };
    let tbs = tbs.to_der()?;
    let signature = key.sign(&tbs);
    let signed = Signed { tbs: AnyRef::from_der(&tbs)?, algorithm, signature: BitStringRef::from_bytes(&signature)? };
    Ok(Certificate::from_der(&signed.to_der()?)?)
}

/// A key's identifier: the first 160 bits of its SHA-256 (RFC 7093, method 1, over the whole encoding).
fn key_identifier(key: &PublicKey) -> der::Result<OctetString> {
    OctetString::new(Sha256::digest(key.as_spki())[..20].to_vec())
}
