//! When certificates end: for operators, who have to renew them in time. Nothing here says that a certificate is to be believed.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use der::Decode;

use super::certificate::{CERTIFICATE_LEN_MAX, Signed, Tbs, seconds};
use crate::domain::Timestamp;
use crate::wire::{self, Limits};

/// Bytes of a file read; what is larger is no material that the worker would load.
const FILE_LEN_MAX: u64 = 4 * 1024 * 1024;

/// The first end among certificates in DER; `None` if none of them can be read.
pub fn chain_expiry<'a>(chain: impl IntoIterator<Item = &'a [u8]>) -> Option<Timestamp> {
    chain.into_iter().filter_map(ends).min()
}

/// The first end among the certificates in a PEM file.
///
/// # Errors
/// If it cannot be read, or holds no certificate.
pub fn pem_expiry(file: &Path) -> io::Result<Timestamp> {
    let blocks = pem_blocks(&read(file)?);
    let at = chain_expiry(blocks.iter().map(Vec::as_slice));
    at.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no certificate in it"))
}

/// The first end among the certificates that vouch for the network parameters in a file; `None` if there are none in it.
pub fn parameters_expiry(file: &Path) -> Option<Timestamp> {
    let signed = wire::decode_signed_network_parameters(&read(file).ok()?, &Limits::DEFAULT).ok()?;
    let chain = [signed.certificate].into_iter().chain(signed.parent_certificates);
    chain.filter_map(|der| ends(&der)).min()
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_LEN_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn pem_blocks(pem: &[u8]) -> Vec<Vec<u8>> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    let text = String::from_utf8_lossy(pem);
    let blocks = text.match_indices(BEGIN).filter_map(|(at, _)| match der::Document::from_pem(&block(&text[at..])?) {
        Ok((_, document)) => Some(document.as_bytes().to_vec()),
        Err(_) => None,
    });
    blocks.collect()
}

/// The first PEM block of `text` with its line's end.
fn block(text: &str) -> Option<String> {
    const END: &str = "-----END CERTIFICATE-----";
    let end = text.find(END)?;
    Some(format!("{}{END}\n", &text[..end]))
}

fn ends(der: &[u8]) -> Option<Timestamp> {
    if der.len() > CERTIFICATE_LEN_MAX {
        return None;
    }
    let signed = Signed::from_der(der).ok()?;
    let tbs = der::Encode::to_der(&signed.tbs).ok()?;
    Timestamp::new(seconds(Tbs::from_der(&tbs).ok()?.validity.not_after), 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::development::{DevelopmentNetwork, Spec};
    use crate::network::files::{PARAMETERS, ROOT};

    #[test]
    fn root_and_parameters_tell_their_end_and_so_does_a_chain() {
        let folder = tempfile::tempdir().expect("a folder");
        let now = Timestamp::new(1_790_000_000, 0).expect("in range");
        let dir = folder.path().join("network");
        DevelopmentNetwork::create(&dir, &Spec::new(now)).expect("made");
        let network = DevelopmentNetwork::open(&dir).network_dir();
        let root = pem_expiry(&network.join(ROOT)).expect("PEM");
        let parameters = parameters_expiry(&network.join(PARAMETERS)).expect("signed");
        assert!(now < parameters && parameters <= root, "{parameters} {root}");
        let pem = std::fs::read(network.join(ROOT)).expect("PEM");
        let chain = pem_blocks(&pem);
        assert_eq!(chain_expiry(chain.iter().map(Vec::as_slice)), Some(root));
        assert_eq!(chain_expiry([&b"no certificate"[..]]), None);
        std::fs::write(folder.path().join("empty.pem"), "no PEM").expect("written");
        assert!(pem_expiry(&folder.path().join("empty.pem")).is_err());
        assert_eq!(parameters_expiry(&folder.path().join("empty.pem")), None);
    }
}
