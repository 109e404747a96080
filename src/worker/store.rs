//! Which store serves which setting.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use super::StartError;
use crate::config::{BrokerKind, Fault, Settings, StoreKind};
use crate::domain::X500Name;
use crate::domain::network::NetworkView;
use crate::ports::{Finding, Probe, UniquenessProvider};
use crate::sql::embedded::{self, Embedded};
use crate::sql::postgres::{self, Password, Place, Postgres};
use crate::tls::TlsFiles;

/// An open store. With a shared one the worker's name is leased for as long as the provider lives.
pub(super) struct Store {
    pub(super) provider: Arc<dyn UniquenessProvider>,
    pub(super) probe: Option<Arc<dyn Probe>>,
}

/// What can be checked without connecting.
pub(super) fn preflight(settings: &Settings) -> Vec<Fault> {
    match settings.store.kind {
        StoreKind::Embedded => Vec::new(),
        StoreKind::Postgres => preflight_postgres(settings),
    }
}

/// Opens the store. The worker never makes one: with a wrong path it would begin to forget.
pub(super) async fn open(settings: &Settings, runtime: &Handle) -> Result<Store, StartError> {
    match settings.store.kind {
        StoreKind::Embedded => {
            let store = Arc::new(embedded(settings, false)?);
            Ok(Store { probe: Some(Arc::clone(&store) as Arc<dyn Probe>), provider: store })
        }
        StoreKind::Postgres => {
            let failed = StartError::of("store");
            let options = postgres_options(settings).map_err(|fault| failed(&fault))?;
            let store = Arc::new(Postgres::open(options, runtime).await.map_err(|error| failed(&error))?);
            Ok(Store { provider: Arc::clone(&store) as _, probe: Some(store) })
        }
    }
}

/// A store of one worker's own, although the network map knows other workers of the service, would let each sign what another has
/// seen spent.
///
/// # Errors
/// [`StartError`]; the operator decides.
pub(super) fn check_shared(settings: &Settings, view: &NetworkView) -> Result<(), StartError> {
    let is_alone = settings.store.sole_worker || settings.store.kind != StoreKind::Embedded;
    // Clients of the embedded endpoint are told where to go; they do not choose among workers.
    if is_alone || settings.broker.kind == BrokerKind::Embedded {
        return Ok(());
    }
    let parse = |key, name| X500Name::parse(name).map_err(|error| StartError::of(key)(&error));
    let (own, service) = (parse("worker.name", &settings.worker.name)?, parse("service.name", &settings.service.name)?);
    let others = view.routes.iter().filter(|(name, route)| **name != own && route.names.contains(&service));
    let mut others: Vec<String> = others.map(|(name, _)| name.to_string()).collect();
    others.sort();
    if others.is_empty() {
        return Ok(());
    }
    let problem = format!(
        "the embedded store is this worker's alone, and the network map lists other workers of the service ({}): give all of them \
         one database (store.kind = \"postgres\", store.url), or set store.sole_worker if they will never serve again",
        others.join("; ")
    );
    Err(StartError::of("store.kind")(&problem).misconfigured())
}

/// Makes a new, empty embedded store.
///
/// # Errors
/// [`StartError`]; among others if there is one already, or if the store is of another kind.
pub fn create_store(settings: &Settings) -> Result<(), StartError> {
    match settings.store.kind {
        StoreKind::Embedded => embedded(settings, true).map(drop),
        StoreKind::Postgres => Err(StartError::of("store")(&"a database is set up with `notary db apply`")),
    }
}

/// Looks the configured database over, as a worker would meet it. Blocks; `None` unless the store is a database.
pub fn examine_database(settings: &Settings) -> Option<Vec<Finding>> {
    (settings.store.kind == StoreKind::Postgres).then(|| match postgres_options(settings) {
        Ok(options) => postgres::examine(&options),
        Err(fault) => vec![Finding::fault(fault.key, fault.problem, "correct the configuration")],
    })
}

fn embedded(settings: &Settings, create: bool) -> Result<Embedded, StartError> {
    let failed = StartError::of("store");
    let worker = X500Name::parse(&settings.worker.name).map_err(|error| failed(&error))?;
    let options =
        embedded::Options { cache_bytes_max: settings.store.cache_bytes_max, create, ..embedded::Options::new(worker) };
    Embedded::open(&settings.store.path, options).map_err(|error| failed(&error))
}

fn preflight_postgres(settings: &Settings) -> Vec<Fault> {
    let mut faults: Vec<Fault> = postgres_options(settings).err().into_iter().collect();
    let mut fault = |key: &str, problem: String| faults.push(Fault { key: key.into(), problem });
    if settings.store.password.is_configured()
        && let Err(error) = settings.store.password.fetch()
    {
        fault("store.password", error.to_string());
    }
    // The probe needs one too, or a worker with all commits in flight would look dead.
    let (commits, connections) = (settings.uniqueness.commits_in_flight_max, settings.store.connections_max);
    if commits >= connections {
        fault(
            "store.connections_max",
            format!("{connections}, but uniqueness.commits_in_flight_max is {commits}: give more"),
        );
    }
    faults
}

fn postgres_options(settings: &Settings) -> Result<postgres::Options, Fault> {
    let store = &settings.store;
    let fault = |key: &str, problem: &dyn std::fmt::Display| Fault { key: key.into(), problem: problem.to_string() };
    let tls = TlsFiles::configured(&store.tls_ca, &store.tls_certificate, &store.tls_key);
    let place = Place::parse(&store.url, tls.as_ref()).map_err(|error| fault("store.url", &error))?;
    let worker = X500Name::parse(&settings.worker.name).map_err(|error| fault("worker.name", &error))?;
    let secret = store.password.clone();
    let password: Option<Password> =
        secret.is_configured().then(|| Arc::new(move || secret.fetch().map_err(|error| error.to_string())) as Password);
    Ok(postgres::Options {
        place,
        password,
        worker,
        connections_max: store.connections_max,
        deadline: Duration::from_millis(store.deadline_ms),
        unsafe_for_tests: store.unsafe_for_tests,
        lease: Some(postgres::Options::LEASE_PATIENCE),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::domain::network::Route;

    fn view(workers: &[&str]) -> NetworkView {
        let name = |text: &str| X500Name::parse(text).expect("a legal name");
        let service = name("O=Notary Service, L=Zurich, C=CH");
        let mut view = NetworkView::default();
        for own in workers.iter().map(|worker| name(worker)) {
            view.routes.insert(own.clone(), Route { addresses: Vec::new(), names: vec![own, service.clone()] });
        }
        // Somebody else.
        let alice = name("O=Alice Corp, L=Madrid, C=ES");
        view.routes.insert(alice.clone(), Route { addresses: Vec::new(), names: vec![alice] });
        view
    }

    #[test]
    fn a_store_of_ones_own_is_refused_while_other_workers_of_the_service_are_known() {
        let check = |workers: &[&str], overrides: &[&str]| {
            let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
            check_shared(&config::load(None, &overrides).expect("valid").settings, &view(workers))
        };
        let both = ["O=Notary Worker 1, L=Zurich, C=CH", "O=Notary Worker 2, L=Zurich, C=CH"];
        let refused = check(&both, &["broker.kind=p2p"]).expect_err("refused");
        assert!(refused.is_misconfigured() && refused.to_string().contains("O=Notary Worker 2"), "{refused}");
        let postgres =
            ["broker.kind=p2p", "store.kind=postgres", "store.url=postgresql://worker@127.0.0.1:5432/notary"];
        for (workers, overrides) in [
            (&both[..1], &["broker.kind=p2p"][..]),
            (&[], &["broker.kind=p2p"]),
            (&both, &["broker.kind=p2p", "store.sole_worker=true"]),
            (&both, &postgres),
            (&both, &[]),
        ] {
            assert!(check(workers, overrides).is_ok(), "{workers:?} {overrides:?}");
        }
    }
}
