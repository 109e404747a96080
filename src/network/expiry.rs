//! When certificates end: for operators, who have to renew them in time. Nothing here says that a certificate is to be believed.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use der::Decode;

use super::certificate::{CERTIFICATE_LEN_MAX, Signed, Tbs, seconds};
use super::files::{NODE_INFO_PREFIX, NODE_INFOS, PARAMETERS, ROOT};
use crate::domain::Timestamp;
use crate::wire::{self, Limits};

/// Bytes of a file read; what is larger is no material that the worker would load.
const FILE_LEN_MAX: u64 = 4 * 1024 * 1024;

/// A certificate's file, and its last moment.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Expiry {
    /// When the first certificate in the file ends.
    pub at: Timestamp,
    /// The file.
    pub file: PathBuf,
}

/// The first end among the certificates of each file of the network material in `dir`, soonest first. Files that cannot be read
/// are left out: loading the network names them.
pub fn network_expiries(dir: &Path) -> Vec<Expiry> {
    let mut found = Vec::new();
    let mut add = |file: PathBuf, certificates: Vec<Vec<u8>>| {
        found.extend(certificates.iter().filter_map(|der| ends(der)).min().map(|at| Expiry { at, file }));
    };
    let limits = &Limits::DEFAULT;
    if let Ok(bytes) = read(&dir.join(ROOT)) {
        add(dir.join(ROOT), pem_blocks(&bytes));
    }
    let parameters = dir.join(PARAMETERS);
    let signed = read(&parameters).ok().and_then(|bytes| wire::decode_signed_network_parameters(&bytes, limits).ok());
    if let Some(signed) = signed {
        add(parameters, [signed.certificate].into_iter().chain(signed.parent_certificates).collect());
    }
    let nodes = dir.join(NODE_INFOS);
    for entry in std::fs::read_dir(&nodes).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(NODE_INFO_PREFIX) {
            continue;
        }
        let info = read(&entry.path()).ok().and_then(|bytes| {
            let signed = wire::decode_signed_node_info(&bytes, limits).ok()?;
            wire::decode_node_info(&signed.raw, limits).ok()
        });
        if let Some(info) = info {
            add(entry.path(), info.identities.into_iter().flat_map(|path| path.0).collect());
        }
    }
    found.sort();
    found
}

/// The first end among the certificates in a PEM file.
///
/// # Errors
/// If it cannot be read, or holds no certificate.
pub fn pem_expiry(file: &Path) -> io::Result<Expiry> {
    let at = pem_blocks(&read(file)?).iter().filter_map(|der| ends(der)).min();
    let at = at.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no certificate in it"))?;
    Ok(Expiry { at, file: file.to_owned() })
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

    #[test]
    fn every_file_of_a_network_tells_its_end_and_so_does_pem() {
        let folder = tempfile::tempdir().expect("a folder");
        let now = Timestamp::new(1_790_000_000, 0).expect("in range");
        let dir = folder.path().join("network");
        DevelopmentNetwork::create(&dir, &Spec { parties: 2, ..Spec::new(now) }).expect("made");
        let network = DevelopmentNetwork::open(&dir).network_dir();
        let expiries = network_expiries(&network);
        // The root, the parameters, two parties and the worker.
        assert_eq!(expiries.len(), 5, "{expiries:?}");
        assert!(expiries.iter().all(|expiry| expiry.at > now), "{expiries:?}");
        assert_eq!(pem_expiry(&network.join(ROOT)).expect("PEM").at, expiries[0].at);
        std::fs::write(folder.path().join("empty.pem"), "no PEM").expect("written");
        assert!(pem_expiry(&folder.path().join("empty.pem")).is_err());
    }
}
