//! Verifies the signatures of a real notary, for histories of processes.

use notary_worker::domain::{PublicKey, TxId};
use notary_worker::wire::{CordaSignedForm, Limits, NotaryReply, decode_notary_reply};

use super::check::Verifier;

/// Reads a signature from the `NotarisationResponse` that brought it, as it came, and verifies it as a Corda client does.
pub(crate) struct CordaVerifier {
    /// The service key.
    pub(crate) notary: PublicKey,
}

impl Verifier for CordaVerifier {
    fn verify(&self, tx: &TxId, response: &[u8]) -> Result<(), String> {
        let reply = decode_notary_reply(response, &Limits::default()).map_err(|error| error.to_string())?;
        let NotaryReply::Signatures(signatures) = reply else { return Err("not a response".into()) };
        let [signature] = signatures.as_slice() else { return Err(format!("{} signatures", signatures.len())) };
        if signature.by != self.notary {
            return Err("the signature is by another key".into());
        }
        signature.verify(tx, &CordaSignedForm).map_err(|error| error.to_string())
    }
}
