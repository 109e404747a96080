//! `notary inspect`: what one reaches for at a dead-letter queue.

use std::collections::HashMap;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use serde_json::{Value, json};

use super::{ConfigSource, Exit, Failure};
use crate::domain::check::{self, CheckPolicy};
use crate::domain::network::{KnownParameters, NetworkParameters, NetworkView, NotaryInfo};
use crate::domain::transaction::{CoreTransaction, NotarisationPayload};
use crate::domain::{Party, SecureHash, Timestamp, X500Name};
use crate::wire::{self, CordaSignedForm, Limits, SessionMessage};
use crate::worker;

#[derive(Args, Debug)]
pub(crate) struct InspectArguments {
    /// The message: a file, or - for standard input. Bytes, or the same in hex.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Judge a request as this worker would, by its network and its service; otherwise only by itself.
    #[command(flatten)]
    source: ConfigSource,
    /// The party that sent it; otherwise whoever signed it.
    #[arg(long, value_name = "NAME")]
    caller: Option<String>,
}

/// Largest input, in bytes: a message in hex, with room.
const INPUT_BYTES_MAX: u64 = 64 << 20;

pub(crate) fn run(arguments: &InspectArguments) -> Result<Exit, Failure> {
    let bytes = unhex(read(&arguments.file)?);
    let message = match wire::inspect(&bytes, &Limits::DEFAULT) {
        Ok(message) => message,
        Err(error) => return Err(Failure::new(Exit::Negative, format!("malformed: {error}"))),
    };
    let world = World::of(arguments)?;
    let mut out = json!({ "bytes": bytes.len(), "message": message });
    let verdict = payload_of(&bytes).map(|payload| world.judge(&payload));
    let sound = verdict.as_ref().is_none_or(|verdict| verdict["wellFormed"] == json!(true));
    if let Some(verdict) = verdict {
        out["verdict"] = verdict;
    }
    println!("{out:#}");
    Ok(if sound { Exit::Done } else { Exit::Negative })
}

fn read(file: &std::path::Path) -> Result<Vec<u8>, Failure> {
    let failed = |error: std::io::Error| Failure::unavailable(format!("{}: {error}", file.display()));
    let mut bytes = Vec::new();
    let source: Box<dyn Read> = match file.as_os_str() == "-" {
        true => Box::new(std::io::stdin()),
        false => Box::new(std::fs::File::open(file).map_err(failed)?),
    };
    source.take(INPUT_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    match bytes.len() as u64 > INPUT_BYTES_MAX {
        true => Err(Failure::new(Exit::Negative, format!("malformed: more than {INPUT_BYTES_MAX} bytes"))),
        false => Ok(bytes),
    }
}

/// Undoes hex, which is how queue browsers show messages. Corda's bytes never look like it: they start with `corda`.
fn unhex(bytes: Vec<u8>) -> Vec<u8> {
    let text: Vec<u8> = bytes.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    match hex::decode(&text) {
        Ok(decoded) if !decoded.is_empty() => decoded,
        _ => bytes,
    }
}

/// The notarisation payload of a message: the message itself, or what a session start or data message carries.
fn payload_of(bytes: &[u8]) -> Option<Vec<u8>> {
    let limits = &Limits::DEFAULT;
    let carried = match wire::decode_session_message(bytes, limits) {
        Ok(SessionMessage::Initial(start)) => Some(start.first_payload?.into_owned()),
        Ok(SessionMessage::Existing { payload: wire::ExistingPayload::Data(data), .. }) => Some(data.into_owned()),
        Ok(_) => return None,
        Err(_) => None,
    };
    let is_reply = |bytes: &[u8]| wire::decode_notary_reply(bytes, limits).is_ok();
    let plain = wire::unpack(carried.as_deref().unwrap_or(bytes), limits).ok()?.into_owned();
    // Something else that is carried, such as an answer, is no request; a bare message may be any type.
    let request = carried.is_some() && !is_reply(&plain) || wire::decode_notarisation_payload(&plain, limits).is_ok();
    request.then_some(plain)
}

/// What a request is judged by.
enum World {
    /// A worker's network.
    Known { policy: CheckPolicy, view: Arc<NetworkView>, caller: Option<X500Name> },
    /// The request's own claims: its notary serves it, its signer sent it, its parameters are in force.
    Claimed { caller: Option<X500Name> },
}

impl World {
    fn of(arguments: &InspectArguments) -> Result<Self, Failure> {
        let caller = match &arguments.caller {
            Some(name) => Some(X500Name::parse(name).map_err(|e| Failure::new(Exit::Usage, format!("--caller: {e}")))?),
            None => None,
        };
        if arguments.source.config.is_none() {
            return Ok(Self::Claimed { caller });
        }
        let settings = arguments.source.load()?.settings;
        let view = Arc::clone(worker::load_network(&settings).map_err(Failure::unavailable)?.view());
        let service = X500Name::parse(&settings.service.name).map_err(Failure::unavailable)?;
        let listed = view
            .parameters
            .current()
            .and_then(|parameters| parameters.notaries.iter().find(|notary| notary.identity.name == service));
        let Some(listed) = listed else {
            return Err(Failure::unavailable(format!("{service} is not among the network's notaries")));
        };
        let service_key = listed.identity.owning_key.clone();
        Ok(Self::Known {
            policy: CheckPolicy { service_key, states_limit: settings.service.states_limit },
            view,
            caller,
        })
    }

    fn judge(&self, payload: &[u8]) -> Value {
        let payload = match wire::decode_notarisation_payload(payload, &Limits::DEFAULT) {
            Ok(payload) => payload,
            Err(error) => return json!({ "wellFormed": false, "reason": error.to_string() }),
        };
        let signer = &payload.request_signature.by;
        let (policy, caller, parameters, assumed) = match self {
            Self::Known { policy, view, caller } => {
                let by_key = || view.parties.values().find(|party| party.owning_key == *signer);
                let party = match caller {
                    Some(name) => view.parties.get(name),
                    None => by_key(),
                };
                let Some(party) = party else {
                    return json!({ "wellFormed": true, "accepted": false, "error": "UnknownCaller",
                        "reason": "the caller is not in the network map" });
                };
                let assumed: &[&str] = if caller.is_some() { &[] } else { &["the signer sent it"] };
                (policy.clone(), party.clone(), view.parameters.clone(), assumed)
            }
            Self::Claimed { caller } => {
                let name =
                    caller.clone().unwrap_or_else(|| X500Name::parse("O=Signer, L=Unknown, C=ZZ").expect("a name"));
                let caller = Party { name, owning_key: signer.clone() };
                let Some((policy, parameters)) = claims(&payload) else {
                    return json!({ "wellFormed": true, "accepted": false, "error": "TransactionInvalid",
                        "reason": "the transaction names no notary, or is of a kind that no non-validating notary accepts" });
                };
                let assumed: &[&str] =
                    &["the signer sent it", "its notary serves it", "its network parameters are in force"];
                (policy, caller, parameters, assumed)
            }
        };
        match check::check(&payload, &caller, &policy, &parameters, &CordaSignedForm) {
            Ok(request) => json!({
                "wellFormed": true,
                "accepted": true,
                "txId": request.tx_id.to_string(),
                "assumed": assumed,
                "note": "checked up to the store: whether its states are spent is not looked up",
            }),
            Err(refusal) => json!({
                "wellFormed": true,
                "accepted": false,
                "txId": refusal.tx_id.map(|id| id.to_string()),
                "error": refusal.error.kind(),
                "reason": refusal.error.to_string(),
                "assumed": assumed,
            }),
        }
    }
}

/// A policy and parameters under which the request's own claims hold.
fn claims(payload: &NotarisationPayload<'_>) -> Option<(CheckPolicy, KnownParameters)> {
    let (notary, whitelisted, parameters) = match &payload.transaction {
        CoreTransaction::Filtered(tx) => {
            let notary = tx.visible.notaries.first()?;
            (notary, notary, tx.visible.parameters.first().copied())
        }
        CoreTransaction::NotaryChange(tx) => (&tx.notary, &tx.new_notary, tx.parameters),
        CoreTransaction::ContractUpgrade(tx) => (&tx.notary, &tx.notary, tx.parameters),
        CoreTransaction::Unsupported { .. } => return None,
    };
    // Without attached parameters it is judged as before platform version 4, when none were.
    let hash = parameters.unwrap_or_else(|| SecureHash::sha256([0; 32]));
    let minimum_platform_version = if parameters.is_some() { 4 } else { 3 };
    let listed = |party: &Party| NotaryInfo { identity: party.clone(), validating: false };
    let in_force = NetworkParameters {
        epoch: 1,
        minimum_platform_version,
        notaries: vec![listed(notary), listed(whitelisted)],
        max_message_size: i32::MAX,
        max_transaction_size: i32::MAX,
        modified_time: Timestamp::from_millis(0),
    };
    let policy = CheckPolicy { service_key: notary.owning_key.clone(), states_limit: CheckPolicy::STATES_LIMIT };
    Some((policy, KnownParameters { current: Some(hash), by_hash: HashMap::from([(hash, Arc::new(in_force))]) }))
}
