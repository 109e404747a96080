//! Goal: a registration ends complete and verified, or can be gone on with, whatever the identity manager does and whenever the
//! process dies (RG1 to RG3). Method: a stub of ours that fails at each step in each way, and copies of the folder as a process
//! killed at that moment would leave it.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::stub::{self, Fault, Stub};
use super::*;
use crate::domain::network::HostAndPort;
use crate::keys::file;

fn now() -> Timestamp {
    Timestamp::new(1_800_000_000, 0).expect("in range")
}

fn name(organisation: &str) -> X500Name {
    X500Name::new(organisation, "Zurich", "CH").expect("a name")
}

fn worker(n: u16) -> Worker {
    let addresses = vec![HostAndPort { host: "notary.example".into(), port: 10_000 + n }];
    Worker { name: name(&format!("Notary Worker {n}")), addresses }
}

fn plan(stub: &Stub, workers: u16) -> Plan {
    let workers = (1..=workers).map(worker).collect();
    Plan { url: stub.url(), email: "ops@bank.example".into(), service: name("Notary Service"), workers }
}

fn passphrase() -> Zeroizing<String> {
    Zeroizing::new("correct horse".into())
}

/// One call, as one run of the verb makes it.
fn advance_with(
    dir: &Path,
    plan: Plan,
    stub: &Stub,
    service_key: ServiceKey<'_>,
    tell: &dyn Fn(&str),
) -> Result<Progress, RegistrationError> {
    let options = ManagerOptions { url: stub.url(), authorities: None, token: None };
    let registration = Registration::begin(dir, plan, &stub.root())?;
    registration.advance(&Means {
        manager: &IdentityManager::new(&options).expect("fine"),
        passphrase: &passphrase(),
        service_key,
        tls_valid_seconds: 825 * 86_400,
        now: now(),
        worker_files: &|_| vec![("notary.toml".into(), "# made\n".into())],
        tell,
    })
}

fn advance(dir: &Path, plan: Plan, stub: &Stub) -> Result<Progress, RegistrationError> {
    advance_with(dir, plan, stub, ServiceKey::File(SignatureScheme::Ed25519), &|_| {})
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("read") {
        let (path, target) = (entry.as_ref().expect("read").path(), to.join(entry.expect("read").file_name()));
        if path.is_dir() { copy(&path, &target) } else { fs::copy(&path, &target).map(drop).expect("copied") }
    }
}

/// Every file below `dir`, by its path in it.
fn files(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.expect("read").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(dir).expect("below").to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    found
}

/// What is published is whole, verified and consistent, however far the registration has come.
fn assert_sound(dir: &Path, stub: &Stub) {
    let root = stub.root();
    let chain = |path: PathBuf| {
        let pem = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Certificate::chain_from_pem(&pem).expect("a chain")
    };
    let verify = |chain: &[Certificate], role| {
        let path: Vec<_> = chain.iter().rev().map(|certificate| certificate.as_der().to_vec()).collect();
        verify_path(&path, &root, Some(now()), &[role]).expect("verified")
    };
    let fits = |chain: &[Certificate], key: PathBuf| {
        let key = file::load_encrypted(&key, &passphrase()).expect("a key");
        assert_eq!(chain[0].public_key(), key.public_key());
    };
    if dir.join("service").exists() {
        let service = chain(dir.join("service/certificates.pem"));
        verify(&service, Role::ServiceIdentity);
        fits(&service, dir.join("service/service.p8"));
    }
    for entry in fs::read_dir(dir.join("authorities")).into_iter().flatten() {
        let path = entry.expect("read").path();
        let authority = chain(path.join("certificates.pem"));
        verify(&authority, Role::NodeCa);
        fits(&authority, path.join("node-ca.p8"));
    }
    for entry in fs::read_dir(dir.join("workers")).into_iter().flatten() {
        let path = entry.expect("read").path();
        for (use_, role) in [("identity", Role::LegalIdentity), ("tls", Role::Tls), ("service", Role::ServiceIdentity)]
        {
            let chain = chain(path.join(format!("certificates/{use_}.pem")));
            verify(&chain, role);
            fits(&chain, path.join(format!("keys/{use_}.p8")));
        }
        let infos = files(&path.join("network/node-infos"));
        assert_eq!(infos.len(), 1, "{infos:?}");
        let bytes = fs::read(path.join("network/node-infos").join(&infos[0])).expect("read");
        let node = verify_node_info(&bytes, &root, now()).expect("verified");
        assert_eq!(
            node.identities.iter().map(|i| i.role).collect::<Vec<_>>(),
            [Role::LegalIdentity, Role::ServiceIdentity]
        );
        // ID3: whoever takes over a worker's machine cannot certify anything in its name.
        assert!(!files(&path).iter().any(|file| file.contains("node-ca")), "the CA's key is not on the worker");
    }
}

fn assert_complete(dir: &Path, stub: &Stub, workers: usize) {
    assert_sound(dir, stub);
    assert_eq!(fs::read_dir(dir.join("workers")).expect("read").count(), workers);
    assert_eq!(files(&dir.join("notary-info")).len(), workers);
    assert_eq!(files(&dir.join("pending")), Vec::<String>::new());
    assert!(!files(dir).iter().any(|file| file.contains("unfinished")), "{:?}", files(dir));
}

#[test]
fn service_first_then_workers_and_a_second_run_has_nothing_to_do() {
    let stub = Stub::start(now());
    let home = tempfile::tempdir().expect("a folder");
    let dir = home.path().join("registration");
    assert_eq!(advance(&dir, plan(&stub, 2), &stub).expect("done"), Progress::Done);
    assert_complete(&dir, &stub, 2);

    let submitted = stub.submitted();
    let asked: Vec<_> = submitted.iter().map(|s| (s.name.organisation.as_str(), s.role, s.email.as_str())).collect();
    let email = "ops@bank.example";
    assert_eq!(asked, [("Notary Service", 3, email), ("Notary Worker 1", 4, email), ("Notary Worker 2", 4, email)]);
    assert_eq!(submitted[0].headers["platform-version"], "12");
    assert_eq!(submitted[0].headers["content-type"], "application/octet-stream");
    assert!(
        submitted[0].headers.contains_key("client-version") && submitted[0].headers["private-network-map"].is_empty()
    );
    assert!(!submitted[0].headers.contains_key("x-cenm-submission-token"));

    // Nothing is asked again, nothing changes.
    let (before, listed) = (stub.requests(), files(&dir));
    assert_eq!(advance(&dir, plan(&stub, 2), &stub).expect("done"), Progress::Done);
    assert_eq!((stub.requests(), files(&dir)), (before, listed));

    // WK1: a third worker is one more run; the others are left alone.
    let third = Plan { workers: vec![worker(3)], ..plan(&stub, 0) };
    assert_eq!(advance(&dir, third, &stub).expect("done"), Progress::Done);
    assert_complete(&dir, &stub, 3);
    assert_eq!(stub.submitted().len(), 4);
}

#[test]
fn a_chain_without_its_root_is_completed() {
    let stub = Stub::start(now());
    stub.send_root(false);
    let home = tempfile::tempdir().expect("a folder");
    let dir = home.path().join("registration");
    assert_eq!(advance(&dir, plan(&stub, 1), &stub).expect("done"), Progress::Done);
    assert_complete(&dir, &stub, 1);
}

#[test]
fn nothing_is_published_while_the_operators_decide_and_the_key_stays_the_same() {
    let stub = Stub::start(now());
    stub.approve(false);
    let home = tempfile::tempdir().expect("a folder");
    let dir = home.path().join("registration");
    for _ in 0..2 {
        let Progress::Waiting { parts, retry } = advance(&dir, plan(&stub, 2), &stub).expect("waiting") else {
            panic!("nothing was approved")
        };
        // The manager's own interval.
        assert_eq!(retry, Duration::from_secs(7));
        assert_eq!(parts.iter().map(|(name, _)| name).collect::<Vec<_>>(), [&name("Notary Service")]);
        let published = files(&dir);
        let allowed =
            [".lock", "pending/service/key.p8", "pending/service/request-id", "registration.json", "root.pem"];
        assert_eq!(published, allowed);
    }
    assert_eq!(stub.submitted().len(), 1, "no worker is asked for before the service, and nobody twice");
    stub.approve(true);
    assert_eq!(advance(&dir, plan(&stub, 2), &stub).expect("done"), Progress::Done);
    assert_complete(&dir, &stub, 2);
    assert_eq!(stub.submitted().len(), 3);
}

/// A registration of one worker is four questions: request and certificate, of the service and of the worker. Tries each fault
/// at question `step`.
fn whatever_goes_wrong_nothing_unverified_is_kept_and_the_next_run_ends_it(step: usize) {
    let is_request = step.is_multiple_of(2);
    let stub = Stub::start(now());
    let home = tempfile::tempdir().expect("a folder");
    // Questions before this one are answered, once for all: by a run that ends at the step.
    let begun = home.path().join("begun");
    if step >= 2 {
        let only_service = Plan { workers: vec![], ..plan(&stub, 0) };
        assert_eq!(advance(&begun, only_service, &stub).expect("done"), Progress::Done);
    }
    for fault in Fault::ALL {
        // Faults of certificates do not touch requests.
        let of_certificates = !matches!(
            fault,
            Fault::Lost | Fault::AnswerLost | Fault::Unavailable | Fault::CutOff | Fault::Rejected | Fault::Garbage
        );
        if is_request && of_certificates {
            continue;
        }
        let dir = home.path().join(format!("{fault:?}"));
        if begun.exists() {
            copy(&begun, &dir);
        }
        let (submitted, at) = (stub.submitted().len(), step % 2);
        stub.on_request(move |number| if number == at { fault } else { Fault::None });
        let first = advance(&dir, plan(&stub, 1), &stub);
        assert_sound(&dir, &stub);
        let told = format!("{fault:?} at step {step}: {first:?}");
        let fine = match fault {
            Fault::Lost | Fault::AnswerLost | Fault::Unavailable | Fault::CutOff | Fault::NotYet => {
                matches!(first, Ok(Progress::Waiting { .. }))
            }
            Fault::Rejected | Fault::Garbage => matches!(first, Err(RegistrationError::Manager { .. })),
            _ => matches!(first, Err(RegistrationError::Certificate { .. })),
        };
        assert!(fine, "{told}");
        assert!(!told.contains('\u{1b}'), "what a manager says is made fit to be printed");
        let published = [dir.join("service"), dir.join("authorities")].iter().filter(|dir| dir.exists()).count();
        assert_eq!(published, step / 2, "{told}");

        stub.on_request(|_| Fault::None);
        assert_eq!(advance(&dir, plan(&stub, 1), &stub).expect("done"), Progress::Done, "{told}");
        assert_complete(&dir, &stub, 1);
        // One key a part, whatever happened: a request that is sent again is the same one.
        assert_eq!(stub.submitted().len() - submitted, if step < 2 { 2 } else { 1 }, "{told}");
    }
}

#[test]
fn faults_at_the_services_request() {
    whatever_goes_wrong_nothing_unverified_is_kept_and_the_next_run_ends_it(0);
}

#[test]
fn faults_at_the_services_certificate() {
    whatever_goes_wrong_nothing_unverified_is_kept_and_the_next_run_ends_it(1);
}

#[test]
fn faults_at_the_workers_request() {
    whatever_goes_wrong_nothing_unverified_is_kept_and_the_next_run_ends_it(2);
}

#[test]
fn faults_at_the_workers_certificate() {
    whatever_goes_wrong_nothing_unverified_is_kept_and_the_next_run_ends_it(3);
}

#[test]
fn a_process_killed_at_any_moment_is_gone_on_with() {
    let stub = Stub::start(now());
    let home = tempfile::tempdir().expect("a folder");
    let dir = home.path().join("registration");
    let snapshots = Arc::new(Mutex::new(0_usize));
    let snapshot = {
        let (snapshots, dir, home) = (Arc::clone(&snapshots), dir.clone(), home.path().to_owned());
        move || {
            let mut count = snapshots.lock().expect("no panic");
            copy(&dir, &home.join(format!("snapshot-{count}")));
            *count += 1;
        }
    };
    let at_request = snapshot.clone();
    stub.on_request(move |_| {
        at_request();
        Fault::None
    });
    let told = RefCell::new(Vec::new());
    let tell = |line: &str| {
        told.borrow_mut().push(line.to_owned());
        snapshot();
    };
    let scheme = ServiceKey::File(SignatureScheme::EcdsaSecp256r1Sha256);
    assert_eq!(advance_with(&dir, plan(&stub, 1), &stub, scheme, &tell).expect("done"), Progress::Done);
    assert_eq!(told.borrow().len(), 5, "{told:?}");
    let count = *snapshots.lock().expect("no panic");
    assert_eq!(count, 4 + 5);

    stub.on_request(|_| Fault::None);
    for n in 0..count {
        let dir = home.path().join(format!("snapshot-{n}"));
        assert_sound(&dir, &stub);
        // What a killed process leaves besides.
        fs::create_dir_all(dir.join(".unfinished-0123/keys")).expect("made");
        fs::write(dir.join(".unfinished-4567"), "half").expect("written");
        assert_eq!(advance(&dir, plan(&stub, 1), &stub).expect("done"), Progress::Done, "snapshot {n}");
        assert_complete(&dir, &stub, 1);
    }
    // The service's request was sent again by snapshot 0 alone, which had no key yet.
    let services = stub.submitted().iter().filter(|submitted| submitted.role == 3).count();
    assert!(services <= 2, "{services}");
}

#[test]
fn one_rejected_worker_does_not_keep_the_others_waiting() {
    let stub = Stub::start(now());
    // 0 and 1 are the service's, 2 is the first worker's request.
    stub.on_request(|number| if number == 2 { Fault::Rejected } else { Fault::None });
    let home = tempfile::tempdir().expect("a folder");
    let dir = home.path().join("registration");
    let error = advance(&dir, plan(&stub, 2), &stub).expect_err("rejected");
    assert!(error.to_string().contains("Notary Worker 1") && error.to_string().contains("taken"), "{error}");
    assert!(dir.join("workers/notary-worker-2").exists() && !dir.join("workers/notary-worker-1").exists());
    assert_eq!(advance(&dir, plan(&stub, 2), &stub).expect("done"), Progress::Done);
    assert_complete(&dir, &stub, 2);
}

#[test]
fn a_service_key_that_lies_elsewhere_signs_and_is_never_written() {
    let stub = Stub::start(now());
    let home = tempfile::tempdir().expect("a folder");
    let dir = home.path().join("registration");
    let token = PrivateKey::generate(SignatureScheme::EcdsaSecp256r1Sha256).expect("a key");
    let sign = |bytes: &[u8]| Ok(token.sign(bytes));
    let elsewhere = || ServiceKey::Elsewhere(token.public_key().clone(), &sign);
    assert_eq!(advance_with(&dir, plan(&stub, 1), &stub, elsewhere(), &|_| {}).expect("done"), Progress::Done);
    assert!(!files(&dir).iter().any(|file| file.contains("service.p8")), "{:?}", files(&dir));
    assert_eq!(&stub.submitted()[0].public_key, token.public_key());

    // Another token later: its key is not the certified one, and says so before anything is made with it.
    let other = PrivateKey::generate(SignatureScheme::EcdsaSecp256r1Sha256).expect("a key");
    let sign = |bytes: &[u8]| Ok(other.sign(bytes));
    let wrong = ServiceKey::Elsewhere(other.public_key().clone(), &sign);
    let error = advance_with(&dir, plan(&stub, 2), &stub, wrong, &|_| {}).expect_err("another key");
    assert!(
        matches!(&error, RegistrationError::Certificate { error: chain, .. } if **chain == ChainError::Key),
        "{error}"
    );
    assert!(!dir.join("pending/notary-worker-2").exists());
}

#[test]
fn two_runs_in_one_folder_or_a_foreign_folder_are_refused() {
    let stub = Stub::start(now());
    let home = tempfile::tempdir().expect("a folder");
    let dir = home.path().join("registration");
    let running = Registration::begin(&dir, plan(&stub, 1), &stub.root()).expect("begun");
    let second = Registration::begin(&dir, plan(&stub, 1), &stub.root()).expect_err("in use");
    assert!(second.to_string().contains("another run"), "{second}");
    drop(running);
    Registration::begin(&dir, plan(&stub, 1), &stub.root()).expect("free again");

    let other = Stub::start(now());
    let error = Registration::begin(&dir, plan(&stub, 1), &other.root()).expect_err("another root");
    assert!(error.to_string().contains("another root"), "{error}");
    fs::write(home.path().join("holiday.jpg"), "x").expect("written");
    let error = Registration::begin(home.path(), plan(&stub, 1), &stub.root()).expect_err("foreign");
    assert!(error.to_string().contains("no registration's folder"), "{error}");
}

/// Goal: the stub is what Corda takes for an identity manager. Method: Corda 4.10's own `HTTPNetworkRegistrationService` and
/// `NodeRegistrationHelper` register a notary worker with it. `tests/corda/registered` runs this, with the command for Java.
#[test]
fn cordas_own_registration_is_served_by_the_stub() {
    let Ok(java) = std::env::var("NOTARY_CORDA_REGISTRATION") else {
        eprintln!("skipped: Corda's own registration: tests/corda/registered sets NOTARY_CORDA_REGISTRATION");
        return;
    };
    // Corda looks at its own clock.
    let stub = Stub::start(crate::ports::Clock::now(&crate::ports::clock::SystemClock));
    let home = tempfile::tempdir().expect("a folder");
    let root = home.path().join("root.pem");
    fs::write(&root, stub.root().to_pem()).expect("written");
    let mut words = java.split_whitespace();
    let mut command = std::process::Command::new(words.next().expect("a program"));
    command.args(words).args(["register", &stub.url()]).arg(&root).arg(home.path().join("certificates"));
    // Corda's own log goes to where it is started.
    let output = command.current_dir(home.path()).output().expect("Java starts");
    let printed = String::from_utf8_lossy(&output.stdout);
    let told = format!("{printed}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{told}");
    let expected = ["distributed-notary-private-key: SERVICE_IDENTITY, 3", "cordaclientca: NODE_CA, 3", "registered"];
    assert_eq!(printed.lines().filter(|line| expected.contains(line)).collect::<Vec<_>>(), expected, "{told}");

    // Its requests say what ours say, to the byte.
    let submitted = stub.submitted();
    assert_eq!(submitted.iter().map(|corda| corda.role).collect::<Vec<_>>(), [3, 4]);
    for corda in &submitted {
        let key = PrivateKey::generate(SignatureScheme::Ed25519).expect("a key");
        let attributes = Attributes { email: "ops@bank.example", role: corda.role };
        let sign = |bytes: &[u8]| Ok(key.sign(bytes));
        let ours = CertificationRequest::with_attributes(&corda.name, key.public_key(), &attributes, sign);
        let ours = stub::read(ours.expect("made").as_der().to_vec(), <_>::default());
        assert_eq!((ours.attributes, ours.subject), (corda.attributes.clone(), corda.subject.clone()));
    }
}
