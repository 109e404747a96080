//! `notary bench commit`: uniqueness and signing as the worker runs them, driven without a broker.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde_json::json;

use super::figures::Figures;
use crate::actors::pipeline::{Core, CoreLimits, CoreParts, Stages};
use crate::actors::signing::SigningKey;
use crate::commands::{Exit, Failure};
use crate::config::Settings;
use crate::domain::request::RequestParts;
use crate::domain::transaction::RequestSignature;
use crate::domain::verdict::Rejection;
use crate::domain::{CheckedRequest, HashAlgorithm, PublicKey, SignatureScheme, StateRef, TxId, Verdict, X500Name};
use crate::hsm::file_key::FileKey;
use crate::keys::PrivateKey;
use crate::ports::UniquenessProvider;
use crate::ports::clock::SystemClock;
use crate::sql::embedded::{Embedded, Options};
use crate::sql::memory::Memory;
use crate::wire::CordaSignedForm;
use crate::worker;

/// How many spent states a task remembers to spend again, for conflicts.
const SPENT_MAX: usize = 1000;

#[derive(Args, Debug)]
pub(crate) struct CommitArguments {
    /// The store: `memory:`, or `embedded:PATH` for a file that is kept; without it, an embedded store in a throw-away folder.
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// What signs.
    #[arg(long, value_enum, default_value_t = SignWith::Ed25519)]
    sign: SignWith,
    /// Inputs of each transaction.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(0..=9999))]
    inputs: u16,
    /// References of each transaction.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=9999))]
    refs: u16,
    /// Percentage of transactions that try to spend a spent state.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    conflict: u8,
    /// Requests in flight (closed loop).
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u16).range(1..))]
    concurrency: u16,
    /// How long.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Most transactions under one signature.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    sign_batch: u16,
    /// End with one JSON line.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
enum SignWith {
    Ed25519,
    P256,
    None,
}

pub(crate) fn run(arguments: &CommitArguments) -> Result<Exit, Failure> {
    let runtime = worker::runtime(0).map_err(Failure::unavailable)?;
    let folder = tempfile::tempdir().map_err(Failure::unavailable)?;
    let settings = Settings::defaults();
    let scheme = match arguments.sign {
        SignWith::P256 => SignatureScheme::EcdsaSecp256r1Sha256,
        SignWith::Ed25519 | SignWith::None => SignatureScheme::Ed25519,
    };
    let key = PrivateKey::generate(scheme).map_err(Failure::unavailable)?;
    let key = FileKey::start(key, worker::signing_threads(&settings));
    let limits = worker::core_limits(&settings);
    let limits = CoreLimits {
        uniqueness_slots: limits.uniqueness_slots.max(arguments.concurrency.into()),
        signing_slots: limits.signing_slots.max(arguments.concurrency.into()),
        signing: crate::stages::signing::Limits {
            batch_transactions_max: arguments.sign_batch.into(),
            ..limits.signing
        },
        ..limits
    };
    let parts = CoreParts {
        uniqueness: open_store(arguments.store.as_deref(), folder.path().join("bench.store"))?,
        key: SigningKey {
            signer: Arc::new(key),
            form: Arc::new(CordaSignedForm),
            platform_version: settings.worker.platform_version.into(),
        },
        clock: Arc::new(SystemClock),
        limits,
    };
    let core = Core::start(parts, runtime.handle()).map_err(Failure::unavailable)?;

    let load = Load::of(arguments)?;
    let started = Instant::now();
    let until = started + Duration::from_secs(arguments.seconds);
    let tasks: Vec<_> = (0..arguments.concurrency)
        .map(|_| runtime.spawn(drive(core.stages().clone(), load.clone(), arguments.sign, until)))
        .collect();
    let mut figures = Figures::new()?;
    for task in tasks {
        figures.merge(&runtime.block_on(task).map_err(Failure::unavailable)??);
    }
    let elapsed = started.elapsed();
    core.stop();

    println!("commit and sign ({:?}, {} in flight): {}", arguments.sign, arguments.concurrency, figures.text(elapsed));
    if arguments.json {
        let mut line = figures.json(elapsed);
        line["inputs"] = json!(arguments.inputs);
        line["refs"] = json!(arguments.refs);
        println!("{line}");
    }
    Ok(if figures.errors == 0 { Exit::Done } else { Exit::Negative })
}

fn open_store(url: Option<&str>, throw_away: PathBuf) -> Result<Arc<dyn UniquenessProvider>, Failure> {
    let path = match url {
        Some("memory:") => return Ok(Arc::new(Memory::new())),
        Some(url) => match url.strip_prefix("embedded:") {
            Some(path) => PathBuf::from(path),
            None => return Err(Failure::new(Exit::Usage, format!("--store {url}: give memory: or embedded:PATH"))),
        },
        None => throw_away,
    };
    let name = X500Name::parse(&Settings::defaults().worker.name).map_err(Failure::unavailable)?;
    Ok(Arc::new(Embedded::open(&path, Options::new(name)).map_err(Failure::unavailable)?))
}

/// Makes requests: unique ones, and now and then a double spend.
#[derive(Clone)]
struct Load {
    inputs: usize,
    references: usize,
    conflict_percent: u64,
    requester: X500Name,
    key: PublicKey,
    counter: Arc<AtomicU64>,
    run: [u8; 16],
}

impl Load {
    fn of(arguments: &CommitArguments) -> Result<Self, Failure> {
        let mut run = [0; 16];
        getrandom::fill(&mut run).map_err(Failure::unavailable)?;
        let key = PrivateKey::generate(SignatureScheme::Ed25519).map_err(Failure::unavailable)?;
        Ok(Self {
            inputs: arguments.inputs.into(),
            references: arguments.refs.into(),
            conflict_percent: arguments.conflict.into(),
            requester: X500Name::parse("O=Alice Corp, L=Madrid, C=ES").map_err(Failure::unavailable)?,
            key: key.public_key().clone(),
            counter: Arc::new(AtomicU64::new(0)),
            run,
        })
    }

    fn fresh(&self, what: &[u8], number: u64) -> TxId {
        let digest = HashAlgorithm::Sha256.digest(&[&self.run, what, &number.to_be_bytes()]);
        TxId(digest.expect("SHA-256 is computable"))
    }

    /// A request, and whether it should conflict.
    fn next(&self, spent: &mut VecDeque<StateRef>) -> (CheckedRequest, bool) {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let states = |what: &[u8], count: usize| -> Vec<StateRef> {
            let tx_id = self.fresh(what, number);
            (0..count).map(|index| StateRef { tx_id, index: index as u32 }).collect()
        };
        let (mut inputs, references) = (states(b"inputs", self.inputs), states(b"references", self.references));
        let conflict = number % 100 < self.conflict_percent && !inputs.is_empty() && !spent.is_empty();
        if conflict && let Some(state) = spent.pop_front() {
            inputs[0] = state;
        } else if let Some(state) = inputs.first() {
            if spent.len() >= SPENT_MAX {
                spent.pop_front();
            }
            spent.push_back(*state);
        }
        let request = RequestParts {
            tx_id: self.fresh(b"transaction", number),
            inputs,
            references,
            time_window: None,
            requester: self.requester.clone(),
            request_signature: RequestSignature { by: self.key.clone(), bytes: vec![0x5a; 64], platform_version: 12 },
        };
        // What is measured begins behind the checks.
        (CheckedRequest::assume_checked(request), conflict)
    }
}

async fn drive(stages: Stages, load: Load, sign: SignWith, until: Instant) -> Result<Figures, Failure> {
    let mut figures = Figures::new()?;
    let mut spent = VecDeque::new();
    while Instant::now() < until {
        let (request, conflict) = load.next(&mut spent);
        let states = request.inputs.len() + request.references.len();
        let asked = Instant::now();
        let right = match (stages.commit(request).await, conflict) {
            (Ok(Verdict::Committed(tx)), false) => sign == SignWith::None || stages.sign(tx).await.is_ok(),
            (Ok(Verdict::Rejected(Rejection::Conflict(_))), true) => true,
            _ => false,
        };
        match right {
            true => figures.right(states, conflict, asked.elapsed()),
            false => figures.errors += 1,
        }
    }
    Ok(figures)
}
