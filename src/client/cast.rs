//! The parties of a development network as clients, each with its keys and its own connection.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use super::judge::Answer;
use super::ledger::{Draft, WireTransaction};
use super::line::{Artemis, Endpoint, Line, RabbitMq};
use super::session::{AskError, NotaryConnection};
use crate::broker::client::{Listen, Options};
use crate::broker::{Outcome, artemis, rabbitmq};

use crate::domain::merkle::MerkleError;
use crate::domain::{HashAlgorithm, Party, SecureHash, StateRef, TxId, X500Name};
use crate::keys::PrivateKey;
use crate::network::FileNetworkMap;
use crate::network::development::{DevelopmentNetwork, PartyAccount};
use crate::ports::clock::SystemClock;
use crate::ports::{Clock, NetworkMap};

/// The flow whose sessions a notary serves.
const CLIENT_FLOW: &str = "net.corda.core.flows.NotaryFlow$Client";
/// Clients speak as Corda 4.10.
const PLATFORM_VERSION: i32 = 12;
/// How long a request may take, broken connections included: twice what a Corda client waits before it tries again.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a step with a broker may take, in either direction.
const STEP: Duration = Duration::from_secs(30);

/// How the parties reach the notary.
#[derive(Clone)]
pub enum Access {
    /// At the worker's own endpoint.
    Endpoint(SocketAddr),
    /// Over a RabbitMQ.
    RabbitMq {
        /// How to reach it; user and password are each party's own.
        access: rabbitmq::Access,
        /// What the names of the service's queues begin with.
        prefix: String,
        /// A folder with a password for each broker user, `USER.password`. A party's user is called like its folder, such as `alice`.
        secrets: PathBuf,
    },
    /// Over an Artemis.
    Artemis {
        /// As for RabbitMQ.
        access: artemis::Access,
        /// As for RabbitMQ.
        prefix: String,
        /// As for RabbitMQ.
        secrets: PathBuf,
    },
}

impl Access {
    fn line(&self, member: &PartyAccount, service: &Party) -> Result<Box<dyn Line>, CastError> {
        let inbox = format!("p2p.inbound.{}", member.party.owning_key.name_hash());
        let requests = format!("p2p.inbound.{}", service.owning_key.name_hash());
        let user = &member.short_name;
        let password = |secrets: &Path| {
            let path = secrets.join(format!("{user}.password"));
            let text = std::fs::read_to_string(&path).map_err(|e| CastError(format!("{}: {e}", path.display())))?;
            Ok(Zeroizing::new(text.trim_end().to_owned()))
        };
        Ok(match self {
            Self::Endpoint(address) => {
                let (user, secret) = (&member.sasl_user, &member.sasl_secret.0);
                let options = Options::new(*address, user, secret, &requests, Listen::Inbox(inbox));
                Box::new(Endpoint { options })
            }
            Self::RabbitMq { access, prefix, secrets } => {
                let (name, password) = (format!("client {user}"), password(secrets)?);
                let password = Arc::new(move || Ok(password.clone()));
                let access = rabbitmq::Access { user: user.clone(), password, name, ..access.clone() };
                let reply_queue = format!("{prefix}.replies.{user}");
                let options = rabbitmq::client::Options { access, prefix: prefix.clone(), reply_queue, timeout: STEP };
                Box::new(RabbitMq { options })
            }
            Self::Artemis { access, prefix, secrets } => {
                let (name, password) = (format!("client {user}"), password(secrets)?);
                let password = Arc::new(move || Ok(password.clone()));
                let access = artemis::Access { user: user.clone(), password, name, ..access.clone() };
                Box::new(Artemis { access, prefix: prefix.clone(), patience: STEP })
            }
        })
    }
}

/// All parties of a development network, connected.
pub struct Cast {
    actors: Vec<Arc<Actor>>,
}

/// The parties cannot take part.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct CastError(String);

impl Cast {
    /// Reads the development network in `folder` and connects every party to the worker's own endpoint at `address`.
    ///
    /// # Errors
    /// [`CastError`] if the network cannot be read, or a party is not let in.
    pub async fn connect(folder: &Path, address: SocketAddr) -> Result<Self, CastError> {
        Self::connect_by(folder, &Access::Endpoint(address), PATIENCE).await
    }

    /// The same by any road; each request is given `patience`, broken connections included.
    ///
    /// # Errors
    /// [`CastError`] if the network cannot be read, or a party is not let in.
    pub async fn connect_by(folder: &Path, access: &Access, patience: Duration) -> Result<Self, CastError> {
        Self::connect_over(folder, |member, service| access.line(member, service), patience).await
    }

    /// The same over lines of any making: `line` makes each party's, to the service it is given.
    ///
    /// # Errors
    /// [`CastError`] if the network cannot be read, or a line cannot be opened.
    pub async fn connect_over(
        folder: &Path,
        line: impl Fn(&PartyAccount, &Party) -> Result<Box<dyn Line>, CastError>,
        patience: Duration,
    ) -> Result<Self, CastError> {
        let failed = |error: &dyn core::fmt::Display| CastError(error.to_string());
        let network = DevelopmentNetwork::open(folder);
        let map = FileNetworkMap::load(&network.network_dir(), SystemClock.now()).map_err(|error| failed(&error))?;
        let parameters = &map.view().parameters;
        let (Some(parameters_hash), Some(in_force)) = (parameters.current, parameters.current()) else {
            return Err(CastError("the network has no parameters".into()));
        };
        let service = in_force.notaries.first().ok_or_else(|| CastError("the network has no notary".into()))?;
        let service = service.identity.clone();
        let mut actors = Vec::new();
        for member in network.parties().map_err(|error| failed(&error))? {
            let line = line(&member, &service)?;
            let user = member.sasl_user;
            let connection = NotaryConnection::connect(line, service.owning_key.clone(), PLATFORM_VERSION, patience)
                .await
                .map_err(|error| CastError(format!("{user}: {error}")))?;
            actors.push(Arc::new(Actor {
                party: member.party,
                key: member.key,
                notary: service.clone(),
                parameters: parameters_hash,
                connection,
            }));
        }
        match actors.is_empty() {
            true => Err(CastError("the network has no parties".into())),
            false => Ok(Self { actors }),
        }
    }

    /// The parties, in the order of their names in the network.
    pub fn parties(&self) -> &[Arc<Actor>] {
        &self.actors
    }

    /// Ends the connections.
    pub async fn close(&self) {
        for actor in &self.actors {
            actor.connection.close().await;
        }
    }
}

/// One party.
pub struct Actor {
    party: Party,
    key: PrivateKey,
    notary: Party,
    parameters: SecureHash,
    connection: NotaryConnection,
}

impl Actor {
    /// Its legal name.
    pub fn name(&self) -> &X500Name {
        &self.party.name
    }

    /// Its identity key.
    pub fn key(&self) -> &PrivateKey {
        &self.key
    }

    /// The notary service it uses.
    pub fn notary(&self) -> &Party {
        &self.notary
    }

    /// The network parameters in force.
    pub fn parameters(&self) -> SecureHash {
        self.parameters
    }

    /// The platform version it states.
    pub fn platform_version(&self) -> i32 {
        PLATFORM_VERSION
    }

    /// A state that nobody has seen before: a random transaction's first output.
    ///
    /// # Errors
    /// If the operating system gives no random numbers.
    pub fn fresh_state(&self) -> Result<StateRef, getrandom::Error> {
        let mut id = [0; 32];
        getrandom::fill(&mut id)?;
        Ok(StateRef { tx_id: TxId(SecureHash::sha256(id)), index: 0 })
    }

    /// A transaction that consumes `inputs` and does nothing else.
    ///
    /// # Errors
    /// If the operating system gives no random numbers.
    pub fn draft(&self, inputs: Vec<StateRef>) -> Result<Draft, getrandom::Error> {
        let mut privacy_salt = [0; 32];
        getrandom::fill(&mut privacy_salt)?;
        Ok(Draft {
            inputs,
            references: Vec::new(),
            time_window: None,
            notary: self.notary.clone(),
            parameters: self.parameters,
            digest: HashAlgorithm::Sha256,
            privacy_salt,
        })
    }

    /// [`Self::draft`], built.
    ///
    /// # Errors
    /// [`DraftError`].
    pub fn spend(&self, inputs: &[StateRef]) -> Result<WireTransaction, DraftError> {
        Ok(self.draft(inputs.to_vec())?.build()?)
    }

    /// Asks for a transaction's notarisation, in a new session.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn notarise(&self, transaction: &WireTransaction) -> Result<Answer, AskError> {
        let payload = transaction.payload(&self.key, PLATFORM_VERSION);
        let payload = payload.map_err(|error| AskError::Unable(error.to_string()))?;
        self.ask(Some(transaction.id()), payload).await
    }

    /// Asks with a payload, honest or not, in a new session.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn ask(&self, tx_id: Option<TxId>, payload: Vec<u8>) -> Result<Answer, AskError> {
        self.connection.ask(CLIENT_FLOW, tx_id, Some(&payload)).await
    }

    /// Starts a session of another flow.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn open_session(&self, flow: &str, payload: Option<&[u8]>) -> Result<Answer, AskError> {
        self.connection.ask(flow, None, payload).await
    }

    /// Whether its requests are stored on the way: see [`super::line::Line::stores`].
    pub fn stores(&self) -> bool {
        self.connection.stores()
    }

    /// Sends bytes as they are, once, and waits for what the broker says of them, not for an answer.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn post(&self, body: Vec<u8>) -> Result<Outcome, AskError> {
        self.connection.post(body).await
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn send_raw(&self, body: Vec<u8>) -> Result<Answer, AskError> {
        self.connection.send_raw(body).await
    }
}

/// A transaction cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum DraftError {
    /// No random numbers.
    #[error(transparent)]
    Random(#[from] getrandom::Error),
    /// Its id cannot be computed.
    #[error(transparent)]
    Merkle(#[from] MerkleError),
}
