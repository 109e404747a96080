//! What every holder of the service key must do. `signer_suite!` stamps these claims onto an adapter.

use futures_util::future::try_join_all;
use notary_worker::domain::merkle_batch::Signable;
use notary_worker::domain::network::HostAndPort;
use notary_worker::domain::signature::SignatureError;
use notary_worker::domain::signed_form::SignatureMetadata;
use notary_worker::domain::{CommittedTx, HashAlgorithm, SignatureScheme, TxId};
use notary_worker::ports::Signer;
use notary_worker::ports::signer::SignError;
use notary_worker::wire::{self, CordaSignedForm};

/// A service key that can be opened again and again, as by restarts of the worker.
pub(crate) trait Fixture {
    /// Opens it.
    fn open(&self) -> Box<dyn Signer>;

    /// Whether it cannot be had on this machine, as its maker has said.
    fn is_missing(&self) -> bool {
        false
    }
}

fn tx(n: u16) -> CommittedTx {
    let id = HashAlgorithm::Sha256.digest(&[&n.to_be_bytes()]).expect("computable");
    CommittedTx::after_durable_commit(TxId(id))
}

fn metadata(signer: &dyn Signer) -> SignatureMetadata {
    SignatureMetadata { platform_version: 12, scheme_number_id: signer.public_key().scheme().number() }
}

/// Goal: a client accepts the signature over one transaction, and over no other.
pub(crate) async fn a_single_signature_verifies_for_its_transaction_only(
    fixture: &dyn Fixture,
) -> Result<(), SignError> {
    let signer = fixture.open();
    let signable = Signable::single(tx(1), metadata(&*signer), &CordaSignedForm);

    let bytes = signer.sign(&signable).await?;

    let signatures = signable.signatures(signer.public_key(), &bytes).expect("one member");
    let [signature] = &signatures[..] else { panic!("one signature for one transaction") };
    assert_eq!(signature.verify(&tx(1).tx_id(), &CordaSignedForm), Ok(()));
    assert_eq!(signature.verify(&tx(2).tx_id(), &CordaSignedForm), Err(SignatureError::Mismatch));
    Ok(())
}

/// Goal: one signature over a batch serves each member, whatever the batch's size, and no stranger.
pub(crate) async fn a_batch_signature_verifies_for_each_member_only(fixture: &dyn Fixture) -> Result<(), SignError> {
    let signer = fixture.open();
    for size in [1, 2, 3, 8, 33] {
        let signable =
            Signable::batch((0..size).map(tx).collect(), metadata(&*signer), &CordaSignedForm).expect("a valid batch");

        let bytes = signer.sign(&signable).await?;

        let signatures = signable.signatures(signer.public_key(), &bytes).expect("members");
        assert_eq!(signatures.len(), usize::from(size));
        for (n, signature) in (0..size).zip(&signatures) {
            assert_eq!(signature.verify(&tx(n).tx_id(), &CordaSignedForm), Ok(()), "{n} of {size}");
            assert_eq!(signature.verify(&tx(n + 1).tx_id(), &CordaSignedForm), Err(SignatureError::NotCovered));
        }
    }
    Ok(())
}

/// Goal: a verifier that knows only key, message and signature bytes accepts them in the form of the scheme.
pub(crate) async fn signature_bytes_have_the_form_of_the_scheme(fixture: &dyn Fixture) -> Result<(), SignError> {
    let signer = fixture.open();
    for n in 0..32 {
        let signable = Signable::single(tx(n), metadata(&*signer), &CordaSignedForm);
        let bytes = signer.sign(&signable).await?;
        assert_eq!(signer.public_key().verify(signable.bytes(), &bytes), Ok(()));
        match signer.public_key().scheme() {
            SignatureScheme::Ed25519 => assert_eq!(bytes.len(), 64),
            SignatureScheme::EcdsaSecp256r1Sha256 => {
                assert!(p256::ecdsa::Signature::from_der(&bytes).is_ok(), "DER, not r and s side by side")
            }
            SignatureScheme::EcdsaSecp256k1Sha256 => {
                assert!(k256::ecdsa::Signature::from_der(&bytes).is_ok(), "DER, not r and s side by side")
            }
            SignatureScheme::RsaSha256 => assert_eq!(bytes.len(), 384, "as long as the modulus of 3072 bits"),
            other => panic!("a service key of scheme {other:?}"),
        }
    }
    Ok(())
}

/// Goal: many askers at once each get the signature over what they asked for. Method: more of them than any queue inside holds.
pub(crate) async fn concurrent_requests_are_not_mixed_up(fixture: &dyn Fixture) -> Result<(), SignError> {
    let signer = fixture.open();
    let signables: Vec<_> = (0..300).map(|n| Signable::single(tx(n), metadata(&*signer), &CordaSignedForm)).collect();

    let signatures = try_join_all(signables.iter().map(|signable| signer.sign(signable))).await?;

    for (signable, bytes) in signables.iter().zip(&signatures) {
        assert_eq!(signer.public_key().verify(signable.bytes(), bytes), Ok(()));
    }
    Ok(())
}

/// Goal: an asker that goes away takes nothing with it.
pub(crate) async fn an_abandoned_request_hurts_no_other(fixture: &dyn Fixture) -> Result<(), SignError> {
    let signer = fixture.open();
    let signables: Vec<_> = (0..200).map(|n| Signable::single(tx(n), metadata(&*signer), &CordaSignedForm)).collect();
    for signable in &signables {
        // Polled once, so that the request is under way, and dropped.
        let _ = futures_util::poll!(signer.sign(signable));
    }
    let bytes = signer.sign(&signables[0]).await?;
    assert_eq!(signer.public_key().verify(signables[0].bytes(), &bytes), Ok(()));
    Ok(())
}

/// Goal: a restarted worker is the same notary. Method: open twice, sign with one, verify with the other.
pub(crate) async fn a_restart_gives_the_same_key(fixture: &dyn Fixture) -> Result<(), SignError> {
    let before = fixture.open();
    let signable = Signable::single(tx(1), metadata(&*before), &CordaSignedForm);
    let bytes = before.sign(&signable).await?;
    let public_key = before.public_key().clone();
    drop(before);

    let after = fixture.open();
    assert_eq!(after.public_key(), &public_key);
    assert_eq!(after.public_key().verify(signable.bytes(), &bytes), Ok(()));
    let again = after.sign(&signable).await?;
    assert_eq!(public_key.verify(signable.bytes(), &again), Ok(()));
    Ok(())
}

/// Goal: the worker's node info can be published, and nobody can make a notarisation of it. Method: a node info that carries the bytes
/// that a transaction's signature covers; what is signed begins with another type all the same.
pub(crate) async fn an_announcement_is_signed_and_of_no_use_for_a_transaction(
    fixture: &dyn Fixture,
) -> Result<(), SignError> {
    let signer = fixture.open();
    let signable = Signable::single(tx(1), metadata(&*signer), &CordaSignedForm);
    let host = String::from_utf8_lossy(signable.bytes()).into_owned();
    let info = wire::NodeInfo {
        addresses: vec![HostAndPort { host, port: 1 }],
        identities: vec![wire::CertificatePath(vec![signable.bytes().to_vec()])],
        platform_version: 12,
        serial: 1,
    };
    let what = wire::announcement(&info);

    let bytes = signer.announce(&what).await?;

    assert_eq!(signer.public_key().verify(what.bytes(), &bytes), Ok(()));
    assert!(signer.public_key().verify(signable.bytes(), &bytes).is_err());
    // After Corda's header and the envelope's: the descriptor of the object's type.
    let first_type = |bytes: &[u8]| {
        let at = bytes.windows(10).position(|window| window == b"net.corda:").expect("a type");
        assert!(at < 64, "in the head: {at}");
        bytes[at..at + 34].to_vec()
    };
    assert_ne!(first_type(what.bytes()), first_type(signable.bytes()));
    Ok(())
}

/// One test for each claim above, on the adapter that `$fixture` opens.
#[macro_export]
macro_rules! signer_suite {
    ($adapter:ident, $fixture:expr) => {
        $crate::signer_suite!(@ $adapter, $fixture;
            a_single_signature_verifies_for_its_transaction_only
            a_batch_signature_verifies_for_each_member_only
            signature_bytes_have_the_form_of_the_scheme
            concurrent_requests_are_not_mixed_up
            an_abandoned_request_hurts_no_other
            a_restart_gives_the_same_key
            an_announcement_is_signed_and_of_no_use_for_a_transaction
        );
    };
    (@ $adapter:ident, $fixture:expr; $($claim:ident)*) => {
        mod $adapter {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $claim() -> Result<(), notary_worker::ports::signer::SignError> {
                    let fixture = $fixture;
                    if suite::Fixture::is_missing(&fixture) {
                        return Ok(());
                    }
                    suite::$claim(&fixture).await
                }
            )*
        }
    };
}
