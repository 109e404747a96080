//! `notary bench stages`: each step of a request alone, on one core, on a request of a given size.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use super::figures::Figures;
use crate::client::ledger::Draft;
use crate::commands::{Exit, Failure, table};
use crate::domain::check::CheckPolicy;
use crate::domain::merkle_batch::Signable;
use crate::domain::network::{KnownParameters, NetworkParameters, NetworkView, NotaryInfo};
use crate::domain::signed_form::{SignatureMetadata, SignedForm};
use crate::domain::verdict::CommittedTx;
use crate::domain::{
    HashAlgorithm, Party, SecureHash, SignatureScheme, StateRef, TimeWindow, Timestamp, TxId, X500Name, merkle,
};
use crate::keys::PrivateKey;
use crate::stages::session::{self, Answer, CLIENT_FLOW, Inspection, Notary, Session};
use crate::wire::{self, CordaSignedForm, InitialSession, Limits};

#[derive(Args, Debug)]
pub(crate) struct StagesArguments {
    /// Inputs of the transaction.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=9999))]
    inputs: u16,
    /// References of the transaction.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=9999))]
    refs: u16,
    /// How long to measure each step, in milliseconds.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    millis: u64,
    /// End with one JSON line.
    #[arg(long)]
    json: bool,
}

/// The platform version that requests and signatures state.
const PLATFORM_VERSION: i32 = 12;

pub(crate) fn run(arguments: &StagesArguments) -> Result<Exit, Failure> {
    let bench = Bench::new(arguments)?;
    let time = Duration::from_millis(arguments.millis);
    let mut rows: Vec<(&str, f64, Figures, Duration)> = Vec::new();
    let mut measure = |name: &'static str, step: &mut dyn FnMut()| -> Result<(), Failure> {
        let (figures, elapsed) = repeat(time, step)?;
        let micros = elapsed.as_secs_f64() * 1e6 / figures.transactions.max(1) as f64;
        rows.push((name, micros, figures, elapsed));
        Ok(())
    };
    measure("decode session and payload", &mut || {
        black_box(bench.decode());
    })?;
    measure("Merkle root over the inputs", &mut || {
        black_box(bench.merkle_root());
    })?;
    measure("request bytes that are signed", &mut || {
        black_box(bench.request_bytes());
    })?;
    measure("verify one Ed25519 signature", &mut || bench.verify())?;
    measure("decode and check, all of it", &mut || {
        black_box(bench.inspect());
    })?;
    measure("sign, Ed25519", &mut || {
        black_box(bench.sign(&bench.ed25519));
    })?;
    measure("sign, P-256", &mut || {
        black_box(bench.sign(&bench.p256));
    })?;
    measure("encode the answer", &mut || {
        black_box(bench.encode());
    })?;

    println!(
        "one core, {} input(s), {} reference(s), a request of {} bytes\n",
        arguments.inputs,
        arguments.refs,
        bench.message.len()
    );
    let lines: Vec<Vec<String>> = rows
        .iter()
        .map(|(name, micros, figures, elapsed)| {
            let per_second = Figures::per_second(figures.transactions, *elapsed);
            vec![
                (*name).into(),
                format!("{micros:.1}"),
                format!("{per_second:.0}"),
                format!("{:.3}", figures.quantile_ms(0.99)),
            ]
        })
        .collect();
    println!("{}", table::render(&["step", "µs", "per second", "p99 ms"], &lines));
    if arguments.json {
        let path =
            ["decode and check, all of it", "sign, Ed25519", "verify one Ed25519 signature", "encode the answer"];
        let micros: f64 = rows.iter().filter(|(name, ..)| path.contains(name)).map(|(_, micros, ..)| micros).sum();
        let (_, _, whole, elapsed) = &rows[4];
        let mut line = whole.json(*elapsed);
        line["tx_per_s"] = json!((1e6 / micros).round());
        line["states_per_s"] = json!((1e6 / micros * f64::from(arguments.inputs + arguments.refs)).round());
        line["request_bytes"] = json!(bench.message.len());
        line["stages_us"] =
            rows.iter().map(|(name, micros, ..)| ((*name).to_owned(), json!((micros * 10.0).round() / 10.0))).collect();
        println!("{line}");
    }
    Ok(Exit::Done)
}

/// Runs `step` for `time`, at least once, after a warm-up of a tenth of it.
fn repeat(time: Duration, step: &mut dyn FnMut()) -> Result<(Figures, Duration), Failure> {
    let warm = Instant::now();
    while warm.elapsed() < time / 10 {
        step();
    }
    let mut figures = Figures::new()?;
    let started = Instant::now();
    loop {
        let one = Instant::now();
        step();
        figures.right(0, false, one.elapsed());
        if started.elapsed() >= time {
            return Ok((figures, started.elapsed()));
        }
    }
}

/// A notary, a caller and one good request.
struct Bench {
    notary: Notary,
    network: NetworkView,
    caller: X500Name,
    message: Vec<u8>,
    tx_id: TxId,
    inputs: Vec<StateRef>,
    leaves: Vec<SecureHash>,
    signed: Vec<u8>,
    signature: Vec<u8>,
    client: PrivateKey,
    ed25519: PrivateKey,
    p256: PrivateKey,
    answer: Answer,
}

impl Bench {
    fn new(arguments: &StagesArguments) -> Result<Self, Failure> {
        let failed = |error: &dyn core::fmt::Display| Failure::unavailable(error);
        let key = |scheme| PrivateKey::generate(scheme).map_err(|error| failed(&error));
        let (client, ed25519, p256) = (
            key(SignatureScheme::Ed25519)?,
            key(SignatureScheme::Ed25519)?,
            key(SignatureScheme::EcdsaSecp256r1Sha256)?,
        );
        let name = |text: &str| X500Name::parse(text).map_err(|error| failed(&error));
        let service =
            Party { name: name("O=Notary Service, L=Zurich, C=CH")?, owning_key: ed25519.public_key().clone() };
        let caller = Party { name: name("O=Alice Corp, L=Madrid, C=ES")?, owning_key: client.public_key().clone() };
        let parameters_hash = SecureHash::sha256([9; 32]);
        let parameters = NetworkParameters {
            epoch: 1,
            minimum_platform_version: PLATFORM_VERSION,
            notaries: vec![NotaryInfo { identity: service.clone(), validating: false }],
            max_message_size: 10_485_760,
            max_transaction_size: 10_485_760,
            modified_time: Timestamp::from_millis(0),
        };
        let known = KnownParameters {
            current: Some(parameters_hash),
            by_hash: HashMap::from([(parameters_hash, Arc::new(parameters))]),
        };
        let state = |label: u8, number: u16| {
            let digest = HashAlgorithm::Sha256.digest(&[&[label], &number.to_be_bytes()]);
            StateRef { tx_id: TxId(digest.expect("SHA-256 is computable")), index: number.into() }
        };
        let inputs: Vec<_> = (0..arguments.inputs).map(|number| state(b'i', number)).collect();
        let draft = Draft {
            inputs: inputs.clone(),
            references: (0..arguments.refs).map(|number| state(b'r', number)).collect(),
            time_window: Some(TimeWindow::Until(Timestamp::from_millis(4_102_444_800_000))),
            notary: service.clone(),
            parameters: parameters_hash,
            digest: HashAlgorithm::Sha256,
            privacy_salt: [7; 32],
        };
        let transaction = draft.build().map_err(|error| failed(&error))?;
        let payload = transaction.payload(&client, PLATFORM_VERSION).map_err(|error| failed(&error))?;
        let message = wire::encode_session_initial(&InitialSession {
            initiator_session_id: 1,
            initiation_entropy: 2,
            flow_class: CLIENT_FLOW.into(),
            flow_version: 1,
            app_name: "corda-core-4.10".into(),
            first_payload: Some(payload.into()),
            telemetry: None,
        });
        let signed = CordaSignedForm.notarisation_request(&inputs, &transaction.id());
        let signature = client.sign(&signed);
        let metadata =
            SignatureMetadata { platform_version: PLATFORM_VERSION, scheme_number_id: SignatureScheme::Ed25519 as i32 };
        // What follows a commit is measured without one: nothing here leaves the process.
        let signable =
            Signable::single(CommittedTx::after_durable_commit(transaction.id()), metadata, &CordaSignedForm);
        let bytes = ed25519.sign(signable.bytes());
        let signatures = signable.signatures(ed25519.public_key(), &bytes).map_err(|error| failed(&error))?;
        let policy =
            CheckPolicy { service_key: ed25519.public_key().clone(), states_limit: CheckPolicy::STATES_LIMIT * 2 };
        Ok(Self {
            notary: Notary::new(policy, Limits::DEFAULT, PLATFORM_VERSION, "O=Notary Worker 1, L=Zurich, C=CH".into()),
            network: NetworkView {
                parties: HashMap::from([(caller.name.clone(), caller.clone())]),
                parameters: known,
                ..NetworkView::default()
            },
            caller: caller.name,
            tx_id: transaction.id(),
            leaves: inputs.iter().map(|state| state.tx_id.0).collect(),
            answer: Answer::Notarised {
                session: Session { peer_id: 1, entropy: 2, confirm: true },
                tx_id: transaction.id(),
                signature: signatures.into_iter().next().ok_or_else(|| Failure::unavailable("no signature"))?,
            },
            inputs,
            message,
            signed,
            signature,
            client,
            ed25519,
            p256,
        })
    }

    fn decode(&self) -> usize {
        let wire::SessionMessage::Initial(start) =
            wire::decode_session_message(&self.message, &Limits::DEFAULT).expect("it was encoded here")
        else {
            return 0;
        };
        let payload = start.first_payload.unwrap_or_default();
        let payload = wire::decode_notarisation_payload(&payload, &Limits::DEFAULT).expect("it was encoded here");
        // Not optimised away, and not more than was asked.
        usize::from(black_box(payload).request_signature.platform_version == PLATFORM_VERSION)
    }

    fn merkle_root(&self) -> SecureHash {
        merkle::root(HashAlgorithm::Sha256, &self.leaves).expect("there are leaves")
    }

    fn request_bytes(&self) -> Vec<u8> {
        CordaSignedForm.notarisation_request(&self.inputs, &self.tx_id)
    }

    fn verify(&self) {
        black_box(&self.client).public_key().verify(&self.signed, &self.signature).expect("it was signed here");
    }

    fn inspect(&self) -> Inspection {
        let inspection = session::inspect(&self.notary, &self.network, &self.caller, &self.message);
        assert!(matches!(inspection, Inspection::Request { .. }), "the request is good: {inspection:?}");
        inspection
    }

    fn sign(&self, key: &PrivateKey) -> Vec<u8> {
        key.sign(&self.signed)
    }

    fn encode(&self) -> usize {
        session::encode(&self.notary, &self.answer).len()
    }
}
