//! What a network publishes about itself: node infos and network parameters (PROTOCOL i).
//!
//! The signatures here are not checked, and certificates are not looked into: both are bytes, for `network` to judge.

use core::time::Duration;
use std::collections::HashSet;

use super::amqp::header::unpack;
use super::amqp::{Message, View, Writer};
use super::component::read_opaque;
use super::error::WireError;
use super::hash::{read_hashes, write_hash};
use super::limits::Limits;
use super::party::{read_party, read_public_key, write_party, write_public_key};
use super::signature::read_signature_bytes;
use super::time::{read_duration, read_instant, write_duration, write_instant};
use super::types::Type;
use crate::domain::announcement::Announcement;
use crate::domain::network::{HostAndPort, NetworkParameters, NotaryInfo};
use crate::domain::{PublicKey, SecureHash};

const CERT_PATH: &str = "java.security.cert.CertPath";
const CERTIFICATE: &str = "java.security.cert.X509Certificate";
/// Java's name for paths of X.509 certificates.
const X509: &str = "X.509";

/// A node's description of itself, with signatures over its serialized form.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SignedNodeInfo {
    /// What is signed: a serialized [`NodeInfo`].
    pub raw: Vec<u8>,
    /// One signature per identity that is not composite, in the identities' order.
    pub signatures: Vec<Vec<u8>>,
}

/// A node's description of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeInfo {
    /// Where it listens.
    pub addresses: Vec<HostAndPort>,
    /// Its legal identities, its own first; each a certificate path.
    pub identities: Vec<CertificatePath>,
    /// Its platform version.
    pub platform_version: i32,
    /// Grows with each new version of the node info.
    pub serial: i64,
}

/// X.509 certificates in DER, the root first and the identity's own last.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CertificatePath(pub Vec<Vec<u8>>);

/// Network parameters, with the network's signature over their serialized form.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SignedNetworkParameters {
    /// What is signed: serialized [`NetworkParametersDocument`]. Its SHA-256 is the hash that transactions name.
    pub raw: Vec<u8>,
    /// The signer's X.509 certificate in DER.
    pub certificate: Vec<u8>,
    /// The signature.
    pub signature: Vec<u8>,
    /// Certificates above the signer's, in DER, as far as they are given.
    pub parent_certificates: Vec<Vec<u8>>,
}

/// Network parameters in full: what a notary needs of them, and the rest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NetworkParametersDocument {
    /// What a notary needs.
    pub parameters: NetworkParameters,
    /// How long a node may stay away. Absent in parameters older than platform version 3.
    pub event_horizon: Option<Duration>,
    /// Who owns which Java packages.
    pub package_ownership: Vec<(String, PublicKey)>,
    /// Attachments that may hold a contract's code, by contract class.
    pub contract_whitelist: Vec<(String, Vec<SecureHash>)>,
}

/// Reads a `SignedNodeInfo`.
///
/// # Errors
/// [`WireError`] for anything else.
pub fn decode_signed_node_info(bytes: &[u8], limits: &Limits) -> Result<SignedNodeInfo, WireError> {
    let plain = unpack(bytes, limits)?;
    let message = Message::read(&plain, limits)?;
    let object = message.root().object(Type::SignedNodeInfo)?;
    let signatures = object.field("signatures")?.list()?.map(|signature| {
        // A signature with its key is a signature too.
        let signature = signature?;
        match signature.as_object() {
            Some(object) if signature.is(Type::DigitalSignatureWithKey) => read_signature_bytes(object.field("bytes")?),
            _ => read_signature_bytes(signature.object(Type::DigitalSignature)?.field("bytes")?),
        }
    });
    Ok(SignedNodeInfo {
        raw: read_opaque(object.field("raw")?)?.to_vec(),
        signatures: signatures.collect::<Result<_, _>>()?,
    })
}

/// Reads a `NodeInfo`.
///
/// # Errors
/// [`WireError`] for anything else.
pub fn decode_node_info(bytes: &[u8], limits: &Limits) -> Result<NodeInfo, WireError> {
    let plain = unpack(bytes, limits)?;
    let message = Message::read(&plain, limits)?;
    let object = message.root().object(Type::NodeInfo)?;
    let identities = object
        .field("legalIdentitiesAndCerts")?
        .list()?
        .map(|identity| read_certificate_path(identity?.object(Type::PartyAndCertificate)?.field("certPath")?));
    Ok(NodeInfo {
        addresses: object.field("addresses")?.list()?.map(|at| read_host_and_port(at?)).collect::<Result<_, _>>()?,
        identities: identities.collect::<Result<_, _>>()?,
        platform_version: object.field("platformVersion")?.int()?,
        serial: object.field("serial")?.long()?,
    })
}

fn read_host_and_port(view: View<'_, '_>) -> Result<HostAndPort, WireError> {
    let object = view.object(Type::NetworkHostAndPort)?;
    let port = object.field("port")?;
    match u16::try_from(port.int()?) {
        Ok(port) => Ok(HostAndPort { host: object.field("host")?.string()?.to_owned(), port }),
        Err(_) => port.refuse("a port is out of range"),
    }
}

fn read_certificate_path(view: View<'_, '_>) -> Result<CertificatePath, WireError> {
    let [data, kind] = view.custom(CERT_PATH)?.exactly(view)?;
    if kind.string()? != X509 {
        return kind.refuse("a certificate path is not of X.509 certificates");
    }
    match split_der_sequence(data.binary()?) {
        Some(certificates) => Ok(CertificatePath(certificates)),
        None => data.refuse("a certificate path is not a DER sequence of certificates"),
    }
}

/// DER's tag of a SEQUENCE.
const SEQUENCE: u8 = 0x30;

/// The elements of a DER sequence of sequences, each with its own tag and length.
fn split_der_sequence(der: &[u8]) -> Option<Vec<Vec<u8>>> {
    let (content, rest) = take_der_sequence(der)?;
    let mut left = rest.is_empty().then_some(content)?;
    let mut elements = Vec::new();
    while !left.is_empty() {
        let (_, after) = take_der_sequence(left)?;
        elements.push(left[..left.len() - after.len()].to_vec());
        left = after;
    }
    Some(elements)
}

/// The content of the sequence at the start of `der`, and what follows it.
fn take_der_sequence(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[SEQUENCE, first], rest) = der.split_first_chunk()? else { return None };
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

fn write_der_sequence(out: &mut Vec<u8>, content: &[u8]) {
    out.push(SEQUENCE);
    match u8::try_from(content.len()) {
        Ok(length @ 0..=0x7f) => out.push(length),
        _ => {
            let digits = content.len().to_be_bytes();
            let first = digits.iter().position(|digit| *digit != 0).unwrap_or(digits.len() - 1);
            out.push(0x80 | (digits.len() - first) as u8);
            out.extend_from_slice(&digits[first..]);
        }
    }
    out.extend_from_slice(content);
}

/// Reads `SignedDataWithCert<NetworkParameters>`.
///
/// # Errors
/// [`WireError`] for anything else.
pub fn decode_signed_network_parameters(bytes: &[u8], limits: &Limits) -> Result<SignedNetworkParameters, WireError> {
    let plain = unpack(bytes, limits)?;
    let message = Message::read(&plain, limits)?;
    let object = message.root().object(Type::SignedDataWithCert)?;
    let signature = object.field("sig")?.object(Type::DigitalSignatureWithCert)?;
    // The chain was added in platform version 4.
    let parents = match signature.optional("parentCertsChain")? {
        Some(parents) => parents.list()?.map(|certificate| read_certificate(certificate?)).collect::<Result<_, _>>()?,
        None => Vec::new(),
    };
    Ok(SignedNetworkParameters {
        raw: read_opaque(object.field("raw")?)?.to_vec(),
        certificate: read_certificate(signature.field("by")?)?,
        signature: read_signature_bytes(signature.field("bytes")?)?,
        parent_certificates: parents,
    })
}

fn read_certificate(view: View<'_, '_>) -> Result<Vec<u8>, WireError> {
    let [der] = view.custom(CERTIFICATE)?.exactly(view)?;
    Ok(der.binary()?.to_vec())
}

/// Reads `NetworkParameters`.
///
/// # Errors
/// [`WireError`] for anything else.
pub fn decode_network_parameters(bytes: &[u8], limits: &Limits) -> Result<NetworkParametersDocument, WireError> {
    let plain = unpack(bytes, limits)?;
    let message = Message::read(&plain, limits)?;
    let object = message.root().object(Type::NetworkParameters)?;
    let int = |name| object.field(name)?.int();
    let notaries = object.field("notaries")?.list()?.map(|notary| {
        let notary = notary?.object(Type::NotaryInfo)?;
        Ok(NotaryInfo {
            identity: read_party(notary.field("identity")?)?,
            validating: notary.field("validating")?.boolean()?,
        })
    });
    // Package ownership was added in platform version 4.
    let owners = object.optional("packageOwnership")?.map(|owners| read_named(owners, read_public_key)).transpose()?;
    Ok(NetworkParametersDocument {
        parameters: NetworkParameters {
            epoch: int("epoch")?,
            minimum_platform_version: int("minimumPlatformVersion")?,
            notaries: notaries.collect::<Result<_, _>>()?,
            max_message_size: int("maxMessageSize")?,
            max_transaction_size: int("maxTransactionSize")?,
            modified_time: read_instant(object.field("modifiedTime")?)?,
        },
        event_horizon: object.optional("eventHorizon")?.map(read_duration).transpose()?,
        package_ownership: owners.unwrap_or_default(),
        contract_whitelist: read_named(object.field("whitelistedContractImplementations")?, read_hashes)?,
    })
}

/// Reads a map from strings, each occurring once.
fn read_named<'m, 'a, T>(
    view: View<'m, 'a>,
    read: impl Fn(View<'m, 'a>) -> Result<T, WireError>,
) -> Result<Vec<(String, T)>, WireError> {
    let mut parts = view.map()?;
    let (mut entries, mut seen) = (Vec::new(), HashSet::new());
    while let (Some(key), Some(value)) = (parts.next(), parts.next()) {
        let key = key?;
        if !seen.insert(key.string()?) {
            return key.refuse("a key of a map occurs twice");
        }
        entries.push((key.string()?.to_owned(), read(value?)?));
    }
    Ok(entries)
}

/// Serializes a `SignedNodeInfo`.
pub fn encode_signed_node_info(signed: &SignedNodeInfo) -> Vec<u8> {
    Writer::message(|w| {
        w.composite(Type::SignedNodeInfo, |w| {
            w.composite(Type::SerializedNodeInfo, |w| w.binary(&signed.raw));
            w.list_of(Type::ListOfDigitalSignature, |w| {
                for signature in &signed.signatures {
                    w.composite(Type::DigitalSignature, |w| w.binary(signature));
                }
            });
        });
    })
}

/// What a worker's identities sign to publish `info`.
pub fn announcement(info: &NodeInfo) -> Announcement {
    Announcement::of_serialized_node_info(encode_node_info(info))
}

/// Serializes a `NodeInfo`.
pub fn encode_node_info(info: &NodeInfo) -> Vec<u8> {
    Writer::message(|w| {
        w.composite(Type::NodeInfo, |w| {
            w.list_of(Type::ListOfNetworkHostAndPort, |w| {
                for address in &info.addresses {
                    w.composite(Type::NetworkHostAndPort, |w| {
                        w.string(&address.host);
                        w.int(address.port.into());
                    });
                }
            });
            w.list_of(Type::ListOfPartyAndCertificate, |w| {
                for path in &info.identities {
                    w.composite(Type::PartyAndCertificate, |w| write_certificate_path(w, path));
                }
            });
            w.int(info.platform_version);
            w.long(info.serial);
        });
    })
}

fn write_certificate_path(w: &mut Writer, path: &CertificatePath) {
    w.custom_list(CERT_PATH, |w| {
        let mut der = Vec::new();
        write_der_sequence(&mut der, &path.0.concat());
        w.binary(&der);
        w.string(X509);
    });
}

/// Serializes `SignedDataWithCert<NetworkParameters>`.
pub fn encode_signed_network_parameters(signed: &SignedNetworkParameters) -> Vec<u8> {
    Writer::message(|w| {
        w.composite(Type::SignedDataWithCert, |w| {
            w.composite(Type::SerializedObject, |w| w.binary(&signed.raw));
            w.composite(Type::DigitalSignatureWithCert, |w| {
                w.custom_binary(CERTIFICATE, &signed.certificate);
                w.binary(&signed.signature);
                w.list_of(Type::ListOfX509Certificate, |w| {
                    signed.parent_certificates.iter().for_each(|der| w.custom_binary(CERTIFICATE, der));
                });
            });
        });
    })
}

/// Serializes `NetworkParameters`. Without an event horizon, Java's longest number of days is written, as Corda reads its
/// absence.
pub fn encode_network_parameters(document: &NetworkParametersDocument) -> Vec<u8> {
    const EVENT_HORIZON_DEFAULT: Duration = Duration::from_secs(i32::MAX as u64 * 86_400);
    let parameters = &document.parameters;
    Writer::message_sharing_hashes(|w| {
        w.composite(Type::NetworkParameters, |w| {
            w.int(parameters.epoch);
            write_duration(w, document.event_horizon.unwrap_or(EVENT_HORIZON_DEFAULT));
            w.int(parameters.max_message_size);
            w.int(parameters.max_transaction_size);
            w.int(parameters.minimum_platform_version);
            write_instant(w, parameters.modified_time);
            w.list_of(Type::ListOfNotaryInfo, |w| {
                for notary in &parameters.notaries {
                    w.composite(Type::NotaryInfo, |w| {
                        write_party(w, &notary.identity);
                        w.boolean(notary.validating);
                    });
                }
            });
            w.map_of(Type::MapOfPublicKey, |w| {
                for (package, owner) in &document.package_ownership {
                    w.string_object(package);
                    write_public_key(w, owner);
                }
            });
            w.map_of(Type::MapOfHashes, |w| {
                for (class, hashes) in &document.contract_whitelist {
                    w.string_object(class);
                    w.list_of(Type::ListOfSecureHash, |w| hashes.iter().for_each(|hash| write_hash(w, hash)));
                }
            });
        });
    })
}
