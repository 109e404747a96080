//! Certificate paths, from a trust root down to an identity.
//!
//! Revocation is not looked at: Corda's own check is a soft-fail one, of TLS certificates only.

use x509_cert::ext::pkix::constraints::name::GeneralSubtree;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::name::Name;

use super::certificate::{Certificate, CertificateError, Role};
use crate::domain::Timestamp;
use crate::domain::party::NameError;

/// Certificates in a path. Corda's longest legitimate one has five (root, subordinate CA, identity CA, node CA, identity).
pub const PATH_LEN_MAX: usize = 8;

/// Why a path does not prove an identity. Certificates are named by subject.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PathError {
    /// None at all, only a root, or more than [`PATH_LEN_MAX`].
    #[error("a certificate path of {0} certificates")]
    Length(usize),
    /// A certificate cannot be read.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The path begins with another certificate than the trust root.
    #[error("the path begins at another root, {0}")]
    ForeignRoot(String),
    /// The certificate is not valid yet.
    #[error("the certificate of {0} is not valid yet")]
    NotYetValid(String),
    /// The certificate was valid once.
    #[error("the certificate of {0} has expired")]
    Expired(String),
    /// The certificate names another issuer than the one above it.
    #[error("the certificate of {0} was issued by somebody else")]
    IssuerMismatch(String),
    /// The signature of the certificate above it does not hold.
    #[error("the signature of the certificate of {0} does not verify")]
    Signature(String),
    /// The certificate issued another one without the right to.
    #[error("{0} may not issue certificates, or not so many below each other")]
    NotAnAuthority(String),
    /// The subject lies outside what an authority above may issue for.
    #[error("an authority may not issue certificates for {0}")]
    NameConstraint(String),
    /// The role does not fit the issuer's.
    #[error("the certificate of {0} has a role that its issuer may not give")]
    Role(String),
    /// The last certificate has another role than needed.
    #[error("the certificate of {subject} has the wrong role for this use")]
    WrongUse {
        /// Its subject.
        subject: String,
        /// Its role.
        role: Option<Role>,
    },
    /// The last certificate's subject is no legal name.
    #[error(transparent)]
    Name(#[from] NameError),
}

/// Checks a path, root first, and returns its last certificate, which must have one of the roles `allowed`.
///
/// The rules: the first certificate is `root`, to the byte; all are valid at `now`, ends included
/// (without `now`, periods are not looked at); each is signed by the one
/// before it, which is its issuer by name, is a CA by its basic constraints and key usage, has room left under its path length,
/// and permits the subject by its name constraints (directory names only; no other kind of name is used here). Roles follow
/// Corda's: below a certificate with a role all have one, and an issuer gives only the roles that Corda lets it give; what a node
/// CA issues bears the node's own name.
///
/// # Errors
/// [`PathError`], the first rule broken.
pub fn verify_path(
    path: &[Vec<u8>],
    root: &Certificate,
    now: Option<Timestamp>,
    allowed: &[Role],
) -> Result<Certificate, PathError> {
    Ok(verify_path_until(path, root, now, allowed)?.0)
}

/// As [`verify_path`], and the last second in which the whole path is valid.
pub(super) fn verify_path_until(
    path: &[Vec<u8>],
    root: &Certificate,
    now: Option<Timestamp>,
    allowed: &[Role],
) -> Result<(Certificate, i64), PathError> {
    if !(2..=PATH_LEN_MAX).contains(&path.len()) {
        return Err(PathError::Length(path.len()));
    }
    let path = path.iter().map(|der| Certificate::from_der(der)).collect::<Result<Vec<_>, _>>()?;
    if path[0].der != root.der {
        return Err(PathError::ForeignRoot(path[0].to_string()));
    }
    if let Some(now) = now {
        path.iter().try_for_each(|certificate| check_period(certificate, now))?;
    }
    for (i, pair) in path.windows(2).enumerate() {
        // Intermediate authorities below the issuer; the last certificate does not count (RFC 5280, 4.2.1.9).
        check_issued(&pair[0], &pair[1], path.len() - 2 - i)?;
        for subject in &path[i + 1..] {
            check_name_constraints(&pair[0], subject)?;
        }
    }
    let ends = path.iter().map(|certificate| certificate.validity.1).min().unwrap_or(i64::MIN);
    let last = path.into_iter().next_back().expect("a path of two or more");
    if !last.role.is_some_and(|role| allowed.contains(&role)) {
        return Err(PathError::WrongUse { subject: last.to_string(), role: last.role });
    }
    Ok((last, ends))
}

fn check_period(certificate: &Certificate, now: Timestamp) -> Result<(), PathError> {
    let (not_before, not_after) = certificate.validity;
    match now.seconds() {
        now if now < not_before => Err(PathError::NotYetValid(certificate.to_string())),
        now if now > not_after => Err(PathError::Expired(certificate.to_string())),
        _ => Ok(()),
    }
}

fn check_issued(issuer: &Certificate, subject: &Certificate, authorities_below: usize) -> Result<(), PathError> {
    if !is_same_name(&issuer.subject, &subject.issuer) {
        return Err(PathError::IssuerMismatch(subject.to_string()));
    }
    if !subject.is_signed_by(issuer) {
        return Err(PathError::Signature(subject.to_string()));
    }
    let may_issue = issuer.constraints.as_ref().is_some_and(|constraints| {
        constraints.ca && constraints.path_len_constraint.is_none_or(|max| authorities_below <= usize::from(max))
    }) && issuer.key_usage.is_none_or(|usage| usage.key_cert_sign());
    if !may_issue {
        return Err(PathError::NotAnAuthority(issuer.to_string()));
    }
    let fits = match subject.role {
        Some(role) => role.may_be_issued_by(issuer.role),
        None => issuer.role.is_none(),
    };
    let same_node = issuer.role != Some(Role::NodeCa) || is_same_name(&issuer.subject, &subject.subject);
    if fits && same_node { Ok(()) } else { Err(PathError::Role(subject.to_string())) }
}

fn check_name_constraints(authority: &Certificate, subject: &Certificate) -> Result<(), PathError> {
    let Some(constraints) = &authority.name_constraints else { return Ok(()) };
    let within = |subtree: &GeneralSubtree| match &subtree.base {
        GeneralName::DirectoryName(base) => is_below(&subject.subject, base),
        _ => false,
    };
    let directory = |subtree: &&GeneralSubtree| matches!(subtree.base, GeneralName::DirectoryName(_));
    let mut permitted = constraints.permitted_subtrees.iter().flatten().filter(directory).peekable();
    let mut excluded = constraints.excluded_subtrees.iter().flatten();
    if (permitted.peek().is_some() && !permitted.any(within)) || excluded.any(within) {
        return Err(PathError::NameConstraint(subject.to_string()));
    }
    Ok(())
}

/// Whether two names are equal, up to the type of their strings: Java and BouncyCastle choose differently.
fn is_same_name(a: &Name, b: &Name) -> bool {
    a.len() == b.len() && is_below(a, b)
}

/// Whether `name` begins with all RDNs of `base`.
fn is_below(name: &Name, base: &Name) -> bool {
    base.len() <= name.len()
        && name.iter_rdn().zip(base.iter_rdn()).all(|(a, b)| {
            a.len() == b.len()
                && a.iter().zip(b.iter()).all(|(a, b)| a.oid == b.oid && a.value.value() == b.value.value())
        })
}

#[cfg(test)]
mod tests {
    use x509_cert::ext::pkix::constraints::NameConstraints;

    use super::super::issue::{Authority, Request};
    use super::*;
    use crate::domain::{SignatureScheme, X500Name};
    use crate::keys::PrivateKey;

    const NOW: i64 = 1_800_000_000;
    const VALIDITY: (i64, i64) = (NOW - 1000, NOW + 1000);
    const IDENTITIES: [Role; 2] = [Role::LegalIdentity, Role::ServiceIdentity];

    fn key() -> PrivateKey {
        PrivateKey::generate(SignatureScheme::EcdsaSecp256r1Sha256).expect("a key")
    }

    fn name(organisation: &str) -> X500Name {
        X500Name::new(organisation, "Zurich", "CH").expect("a name")
    }

    fn root() -> Authority {
        Authority::root(&name("Root"), key(), VALIDITY).expect("a root")
    }

    fn below(issuer: &Authority, organisation: &str, role: Option<Role>) -> Authority {
        let (key, subject) = (key(), name(organisation));
        let public_key = &key.public_key().clone();
        issuer.authority(&Request { subject: &subject, public_key, role, validity: VALIDITY }, key).expect("issued")
    }

    fn at(seconds: i64) -> Option<Timestamp> {
        Some(Timestamp::new(seconds, 0).expect("in range"))
    }

    fn verify(path: &[&Authority], now: i64) -> Result<Certificate, PathError> {
        let der: Vec<_> = path.iter().map(|authority| authority.certificate.as_der().to_vec()).collect();
        verify_path(&der, &path[0].certificate, at(now), &IDENTITIES)
    }

    #[test]
    fn a_path_proves_name_and_key_of_its_end() {
        let root = root();
        let identity_ca = below(&root, "Identity CA", Some(Role::IdentityCa));
        let node_ca = below(&identity_ca, "Alice", Some(Role::NodeCa));
        let alice = below(&node_ca, "Alice", Some(Role::LegalIdentity));
        let proved = verify(&[&root, &identity_ca, &node_ca, &alice], NOW).expect("proved");
        assert_eq!(proved.legal_name(), Ok(name("Alice")));
        assert_eq!(proved.public_key(), alice.key.public_key());

        let service = below(&identity_ca, "Service", Some(Role::ServiceIdentity));
        assert!(verify(&[&root, &identity_ca, &service], NOW).is_ok());
        let direct = below(&identity_ca, "Direct", Some(Role::LegalIdentity));
        assert!(verify(&[&root, &identity_ca, &direct], NOW).is_ok());
        let subordinate = below(&root, "Subordinate CA", None);
        let identity_ca = below(&subordinate, "Identity CA", Some(Role::IdentityCa));
        let service = below(&identity_ca, "Service", Some(Role::ServiceIdentity));
        assert!(verify(&[&root, &subordinate, &identity_ca, &service], NOW).is_ok());
    }

    #[test]
    fn certificates_count_within_their_period_only() {
        let root = root();
        let identity_ca = below(&root, "Identity CA", Some(Role::IdentityCa));
        let service = below(&identity_ca, "Service", Some(Role::ServiceIdentity));
        let path = [&root, &identity_ca, &service];
        assert!(verify(&path, VALIDITY.0).is_ok() && verify(&path, VALIDITY.1).is_ok());
        assert!(matches!(verify(&path, VALIDITY.0 - 1), Err(PathError::NotYetValid(_))));
        assert!(matches!(verify(&path, VALIDITY.1 + 1), Err(PathError::Expired(_))));
        let der = path.map(|authority| authority.certificate.as_der().to_vec());
        assert!(verify_path(&der, &root.certificate, None, &IDENTITIES).is_ok(), "whenever");

        let (key, subject) = (key(), name("Service"));
        let request = Request {
            subject: &subject,
            public_key: key.public_key(),
            role: Some(Role::ServiceIdentity),
            validity: (NOW - 10, NOW - 1),
        };
        let expired = Authority { certificate: identity_ca.issue(&request).expect("issued"), key };
        let error = verify(&[&root, &identity_ca, &expired], NOW).expect_err("expired");
        assert_eq!(error, PathError::Expired(name("Service").to_string()), "the error names the certificate");
    }

    #[test]
    fn a_path_to_another_root_proves_nothing() {
        let (ours, theirs) = (root(), root());
        let identity_ca = below(&theirs, "Identity CA", Some(Role::IdentityCa));
        let service = below(&identity_ca, "Service", Some(Role::ServiceIdentity));
        let der = |path: &[&Authority]| path.iter().map(|a| a.certificate.as_der().to_vec()).collect::<Vec<_>>();
        let verify = |path: Vec<Vec<u8>>| verify_path(&path, &ours.certificate, at(NOW), &IDENTITIES);
        let path = der(&[&theirs, &identity_ca, &service]);
        assert!(matches!(verify(path), Err(PathError::ForeignRoot(_))));
        // The roots have the same name, so only the signature tells.
        let path = der(&[&ours, &identity_ca, &service]);
        assert!(matches!(verify(path), Err(PathError::Signature(_))));
        let path = der(&[&identity_ca, &service]);
        assert!(matches!(verify(path), Err(PathError::ForeignRoot(_))));
    }

    #[test]
    fn broken_chains_are_refused() {
        let root = root();
        let identity_ca = below(&root, "Identity CA", Some(Role::IdentityCa));
        let other_ca = below(&root, "Other CA", Some(Role::IdentityCa));
        let service = below(&identity_ca, "Service", Some(Role::ServiceIdentity));
        let error = verify(&[&root, &other_ca, &service], NOW).expect_err("another issuer");
        assert!(matches!(error, PathError::IssuerMismatch(_)), "{error}");
        let twin = below(&root, "Identity CA", Some(Role::IdentityCa));
        let error = verify(&[&root, &twin, &service], NOW).expect_err("another key");
        assert!(matches!(error, PathError::Signature(_)), "{error}");

        // A service identity issues a certificate, with the signature of its true key.
        let child = below(&service, "Service", Some(Role::ConfidentialIdentity));
        let error = verify(&[&root, &identity_ca, &service, &child], NOW).expect_err("no CA");
        assert!(matches!(error, PathError::NotAnAuthority(_)), "{error}");

        for count in [0, 1, PATH_LEN_MAX + 1] {
            let path = vec![root.certificate.as_der().to_vec(); count];
            let result = verify_path(&path, &root.certificate, at(NOW), &IDENTITIES);
            assert_eq!(result.err(), Some(PathError::Length(count)));
        }
    }

    #[test]
    fn roles_are_given_by_those_who_may() {
        let root = root();
        let identity_ca = below(&root, "Identity CA", Some(Role::IdentityCa));
        let node_ca = below(&identity_ca, "Alice", Some(Role::NodeCa));
        let role_error = |path: &[&Authority]| match verify(path, NOW) {
            Err(PathError::Role(subject)) => subject,
            other => panic!("{other:?}"),
        };
        let direct = below(&root, "Alice", Some(Role::LegalIdentity));
        role_error(&[&root, &direct]);
        let service = below(&node_ca, "Alice", Some(Role::ServiceIdentity));
        role_error(&[&root, &identity_ca, &node_ca, &service]);
        let nested = below(&identity_ca, "Identity CA 2", Some(Role::IdentityCa));
        let service = below(&nested, "Service", Some(Role::ServiceIdentity));
        role_error(&[&root, &identity_ca, &nested, &service]);
        let nameless = below(&identity_ca, "Subordinate CA", None);
        let service = below(&nameless, "Service", Some(Role::ServiceIdentity));
        role_error(&[&root, &identity_ca, &nameless, &service]);
        let bob = below(&node_ca, "Bob", Some(Role::LegalIdentity));
        assert!(role_error(&[&root, &identity_ca, &node_ca, &bob]).contains("Bob"), "Alice's CA speaks for Alice only");

        let tls = below(&node_ca, "Alice", Some(Role::Tls));
        let error = verify(&[&root, &identity_ca, &node_ca, &tls], NOW).expect_err("no identity");
        assert!(matches!(error, PathError::WrongUse { role: Some(Role::Tls), .. }), "{error}");
    }

    #[test]
    fn path_length_and_name_constraints_bind() {
        let root = root();
        let identity_ca = below(&root, "Identity CA", Some(Role::IdentityCa));
        let mut limited = root.certificate.clone();
        limited.constraints.as_mut().expect("a CA").path_len_constraint = Some(1);
        assert_eq!(check_issued(&limited, &identity_ca.certificate, 1), Ok(()));
        let error = check_issued(&limited, &identity_ca.certificate, 2).expect_err("too deep");
        assert!(matches!(error, PathError::NotAnAuthority(_)), "{error}");

        let alice = below(&identity_ca, "Alice", Some(Role::LegalIdentity)).certificate;
        let bob = below(&identity_ca, "Bob", Some(Role::LegalIdentity)).certificate;
        let subtree = |certificate: &Certificate| GeneralSubtree {
            base: GeneralName::DirectoryName(certificate.subject.clone()),
            minimum: 0,
            maximum: None,
        };
        let mut limited = identity_ca.certificate.clone();
        let only = NameConstraints { permitted_subtrees: Some(vec![subtree(&alice)]), excluded_subtrees: None };
        limited.name_constraints = Some(only);
        assert_eq!(check_name_constraints(&limited, &alice), Ok(()));
        assert!(matches!(check_name_constraints(&limited, &bob), Err(PathError::NameConstraint(_))));
        let except = NameConstraints { permitted_subtrees: None, excluded_subtrees: Some(vec![subtree(&alice)]) };
        limited.name_constraints = Some(except);
        assert_eq!(check_name_constraints(&limited, &bob), Ok(()));
        assert!(matches!(check_name_constraints(&limited, &alice), Err(PathError::NameConstraint(_))));
    }
}
