//! The service key on PKCS#11 tokens (FEATURES HS1, HS2, HS7, HS9, HS10, HS11, MT16; FAULTS F34-F36), with SoftHSM as the device.

mod services;
#[path = "suites/signer.rs"]
mod suite;

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use notary_worker::domain::merkle_batch::Signable;
use notary_worker::domain::signed_form::SignatureMetadata;
use notary_worker::domain::{CommittedTx, HashAlgorithm, SignatureScheme, TxId};
use notary_worker::hsm::TokenKey;
use notary_worker::hsm::pkcs11::{KeyPlace, OpenError, Options, PinSource, Profile};
use notary_worker::ports::{Probe, Signer};
use notary_worker::wire::CordaSignedForm;
use services::or_skip;
use services::softhsm2::{PIN, SoftHsm};
use tokio::runtime::Handle;
use zeroize::Zeroizing;

const KEY: &str = "notary-service";

/// How long anything may take that has no shorter limit of its own, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

fn options(hsm: &SoftHsm, tokens: &[&str]) -> Options {
    Options {
        module: hsm.module.clone(),
        tokens: tokens.iter().map(ToString::to_string).collect(),
        key: KeyPlace { label: KEY.into(), id: Vec::new() },
        pin: pin(PIN),
        profile: Profile::find("softhsm2").expect("a profile"),
        sessions: 4,
        // Other tests keep the machine busy.
        deadline: Duration::from_secs(5),
        program: PathBuf::from(env!("CARGO_BIN_EXE_notary")),
        environment: vec![hsm.environment()],
    }
}

fn pin(pin: &'static str) -> PinSource {
    PinSource { fetch: Arc::new(move || Ok(Zeroizing::new(pin.into()))), stamp: Arc::new(|| None), notes: None }
}

async fn open(options: Options) -> Result<TokenKey, OpenError> {
    TokenKey::open(options, &Handle::current()).await
}

fn signable(signer: &dyn Signer, n: u32) -> Signable {
    let id = HashAlgorithm::Sha256.digest(&[&n.to_be_bytes()]).expect("computable");
    let metadata = SignatureMetadata { platform_version: 12, scheme_number_id: signer.public_key().scheme().number() };
    Signable::single(CommittedTx::after_durable_commit(TxId(id)), metadata, &CordaSignedForm)
}

/// Polls until `done`, and says how long that took.
async fn eventually(what: &str, mut done: impl AsyncFnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !done().await {
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    start.elapsed()
}

/// A token with a key that OpenSC's tool made.
struct OneToken {
    hsm: SoftHsm,
    by_id: bool,
}

impl OneToken {
    fn new(kind: &str, by_id: bool) -> Option<Self> {
        let hsm = or_skip("SoftHSM", SoftHsm::with_tokens(&["notary"]))?;
        hsm.make_key("notary", kind, KEY, "0a0b");
        Some(Self { hsm, by_id })
    }
}

impl suite::Fixture for Option<OneToken> {
    fn open(&self) -> Box<dyn Signer> {
        let token = self.as_ref().expect("the suite asks whether it is there");
        let mut options = options(&token.hsm, &["notary"]);
        if token.by_id {
            options.key = KeyPlace { label: String::new(), id: vec![0x0a, 0x0b] };
        }
        // A hundred signatures of RSA wait for four sessions here, at the mercy of a busy machine.
        options.deadline = Duration::from_secs(20);
        let key = tokio::task::block_in_place(|| Handle::current().block_on(open(options)));
        Box::new(key.expect("it opens"))
    }

    fn is_missing(&self) -> bool {
        self.is_none()
    }
}

signer_suite!(ed25519, OneToken::new("EC:edwards25519", false));
signer_suite!(p256, OneToken::new("EC:prime256v1", true));
signer_suite!(secp256k1, OneToken::new("EC:secp256k1", false));
signer_suite!(rsa, OneToken::new("rsa:3072", false));

fn signal(pid: u32, name: &str) {
    assert!(Command::new("kill").args([name, &pid.to_string()]).status().expect("kill runs").success());
}

/// Askers that want signatures without a pause, and what became of them.
struct Load {
    end: Arc<AtomicBool>,
    made: Arc<AtomicUsize>,
    failed: Arc<AtomicUsize>,
    askers: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn on(key: &Arc<TokenKey>) -> Self {
        let load = Self { end: Arc::default(), made: Arc::default(), failed: Arc::default(), askers: Vec::new() };
        let asker = |asker: u32| {
            let (key, end) = (Arc::clone(key), Arc::clone(&load.end));
            let (made, failed) = (Arc::clone(&load.made), Arc::clone(&load.failed));
            tokio::spawn(async move {
                let mut n = asker << 24;
                while !end.load(Ordering::Relaxed) {
                    n += 1;
                    let what = signable(&*key, n);
                    match key.sign(&what).await {
                        Ok(bytes) => {
                            assert_eq!(key.public_key().verify(what.bytes(), &bytes), Ok(()));
                            made.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(_) => {
                            failed.fetch_add(1, Ordering::Relaxed);
                            // As the signing stage pauses before it tries again.
                            tokio::time::sleep(Duration::from_millis(10)).await;
                        }
                    }
                }
            })
        };
        let askers = (0..6).map(asker).collect();
        Self { askers, ..load }
    }

    fn made(&self) -> usize {
        self.made.load(Ordering::Relaxed)
    }

    /// Waits until so many more were made.
    async fn more(&self, count: usize) {
        let goal = self.made() + count;
        eventually("more signatures", async || self.made() >= goal).await;
    }

    /// Ends; how many requests failed.
    async fn end(self) -> usize {
        self.end.store(true, Ordering::Relaxed);
        for asker in self.askers {
            asker.await.expect("every signature verified");
        }
        self.failed.load(Ordering::Relaxed)
    }
}

fn works(key: &TokenKey, token: &str) -> bool {
    key.health().iter().any(|(label, problem)| label == token && problem.is_none())
}

/// HS9, F34: one of two tokens is taken away under load. Goal: not one request fails, and the token serves again once it is back,
/// which is shown by taking the other one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_token_costs_no_request_while_another_holds_the_key() {
    let Some(hsm) = or_skip("SoftHSM", SoftHsm::with_tokens(&["left", "right"])) else { return };
    hsm.clone_key(&["left", "right"], KEY);
    let key = Arc::new(open(options(&hsm, &["left", "right"])).await.expect("it opens"));
    let load = Load::on(&key);
    load.more(50).await;

    for (lost, other) in [("left", "right"), ("right", "left")] {
        hsm.take_away(lost);
        eventually("the loss is noticed", async || !works(&key, lost)).await;
        assert!(works(&key, other));
        assert_eq!(key.probe().await, Ok(()));
        load.more(100).await;
        hsm.put_back(lost);
        eventually("it is back", async || works(&key, lost)).await;
        load.more(50).await;
    }
    assert_eq!(load.end().await, 0, "requests failed");
}

/// HS7, F34: the only token is taken away for a while, under load. Goal: the probe tells within five seconds; the same open key
/// serves again after the token's return, without a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_token_vanishes_and_returns_without_a_restart() {
    let Some(hsm) = or_skip("SoftHSM", SoftHsm::with_tokens(&["only"])) else { return };
    hsm.make_key("only", "EC:prime256v1", KEY, "01");
    let key = Arc::new(open(options(&hsm, &["only"])).await.expect("it opens"));
    let load = Load::on(&key);
    load.more(50).await;

    hsm.take_away("only");
    let noticed = eventually("the loss is noticed", async || key.probe().await.is_err()).await;
    assert!(noticed < Duration::from_secs(5), "{noticed:?}");
    // As long as it takes to fail to open it three times: 0.2 s, 0.4 s, 0.8 s.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let why = key.probe().await.expect_err("still away");
    assert!(why.contains("no token is called \"only\""), "{why}");
    assert!(key.sign(&signable(&*key, 1)).await.is_err());

    hsm.put_back("only");
    eventually("it is back", async || key.probe().await.is_ok()).await;
    load.more(50).await;
    assert!(load.end().await > 0, "nobody can have been served while it was away");
}

/// HS7: nobody asks for signatures. Goal: a lost token is noticed all the same, within five seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_loss_of_an_idle_token_is_noticed() {
    let Some(hsm) = or_skip("SoftHSM", SoftHsm::with_tokens(&["idle"])) else { return };
    hsm.make_key("idle", "EC:edwards25519", KEY, "01");
    let key = open(options(&hsm, &["idle"])).await.expect("it opens");
    hsm.take_away("idle");
    let noticed = eventually("the loss is noticed", async || key.probe().await.is_err()).await;
    assert!(noticed < Duration::from_secs(5), "{noticed:?}");
}

/// HS9: a module that crashes. Goal: the process of the token dies, not ours; another takes its place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_module_that_crashes_takes_nothing_with_it() {
    let Some(hsm) = or_skip("SoftHSM", SoftHsm::with_tokens(&["left", "right"])) else { return };
    hsm.clone_key(&["left", "right"], KEY);
    let key = Arc::new(open(options(&hsm, &["left", "right"])).await.expect("it opens"));
    let load = Load::on(&key);
    for _ in 0..3 {
        load.more(20).await;
        let [keeper] = hsm.keepers("left")[..] else { panic!("one process for one token") };
        // Rust's own handler swallows a first SIGSEGV that comes from outside.
        signal(keeper, "-ABRT");
        eventually("the crash is noticed", async || !works(&key, "left")).await;
        eventually("it is opened anew", async || works(&key, "left")).await;
    }
    assert_eq!(load.end().await, 0, "requests failed");
}

/// HS1, F35: a token that does not answer. Goal: after the deadline another signs within the same request; the silent one is put
/// aside, so that the next request does not wait for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_hangs_is_waited_for_once() {
    let Some(hsm) = or_skip("SoftHSM", SoftHsm::with_tokens(&["left", "right"])) else { return };
    hsm.clone_key(&["left", "right"], KEY);
    let deadline = Duration::from_secs(1);
    let key = open(Options { deadline, ..options(&hsm, &["left", "right"]) }).await.expect("it opens");
    let [keeper] = hsm.keepers("left")[..] else { panic!("one process for one token") };
    signal(keeper, "-STOP");
    let since = Instant::now();
    let what = signable(&key, 1);
    let bytes = key.sign(&what).await.expect("the other token signs");
    assert!(since.elapsed() >= deadline / 2, "the first token was asked first");
    assert_eq!(key.public_key().verify(what.bytes(), &bytes), Ok(()));
    let since = Instant::now();
    key.sign(&what).await.expect("signed");
    assert!(since.elapsed() < deadline / 2, "{:?}", since.elapsed());
    // A stopped process cannot end by itself: it is killed, and another one keeps the token.
    eventually("it is opened anew", async || works(&key, "left")).await;
    eventually("the stopped process is gone", async || !hsm.keepers("left").contains(&keeper)).await;
}

/// F35: the only token hangs. Goal: askers are told within the deadline that there is no signature, and nothing waits for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_no_token_left_askers_are_told_in_time() {
    let Some(hsm) = or_skip("SoftHSM", SoftHsm::with_tokens(&["only"])) else { return };
    hsm.make_key("only", "EC:prime256v1", KEY, "01");
    let deadline = Duration::from_secs(1);
    let key = open(Options { deadline, ..options(&hsm, &["only"]) }).await.expect("it opens");
    let [keeper] = hsm.keepers("only")[..] else { panic!("one process for one token") };
    signal(keeper, "-STOP");
    let since = Instant::now();
    let signables: Vec<_> = (0..40).map(|n| signable(&key, n)).collect();
    let answers = futures_util::future::join_all(signables.iter().map(|what| key.sign(what))).await;
    assert!(answers.iter().all(Result::is_err));
    assert!(since.elapsed() < deadline * 3, "{:?}", since.elapsed());
}

/// HS9: goal: tokens with different keys under one name are not served from, whichever is asked first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn different_keys_under_one_name_are_refused() {
    let Some(hsm) = or_skip("SoftHSM", SoftHsm::with_tokens(&["left", "right"])) else { return };
    for token in ["left", "right"] {
        hsm.make_key(token, "EC:prime256v1", KEY, "01");
    }
    for tokens in [["left", "right"], ["right", "left"]] {
        let error = open(options(&hsm, &tokens)).await.expect_err("opened");
        assert!(matches!(error, OpenError::DifferentKeys(_)), "{error}");
    }
    // Two keys under one label on one token are as bad.
    hsm.make_key("left", "EC:prime256v1", KEY, "02");
    let error = open(options(&hsm, &["left"])).await.expect_err("opened");
    assert!(error.to_string().contains("2 private keys"), "{error}");
    // The id tells them apart.
    let by_id = Options { key: KeyPlace { label: KEY.into(), id: vec![2] }, ..options(&hsm, &["left"]) };
    assert_eq!(open(by_id).await.expect("it opens").public_key().scheme(), SignatureScheme::EcdsaSecp256r1Sha256);
}

/// HS9: goal: a public object that does not belong to the private key does not fool anybody. Method: the public half of another
/// key under the label, found before the own one is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_public_key_is_believed_only_after_a_signature() {
    let Some(hsm) = or_skip("SoftHSM", SoftHsm::with_tokens(&["notary"])) else { return };
    hsm.make_key("notary", "EC:prime256v1", KEY, "01");
    hsm.make_key("notary", "EC:prime256v1", "other", "02");
    let other = hsm.path().join("other.der");
    let other = other.to_str().expect("UTF-8");
    hsm.tool("notary", &["--read-object", "--type", "pubkey", "--label", "other", "--output-file", other]);
    hsm.tool("notary", &["--delete-object", "--type", "pubkey", "--label", KEY]);
    hsm.tool("notary", &["--write-object", other, "--type", "pubkey", "--label", KEY, "--id", "01"]);
    let error = open(options(&hsm, &["notary"])).await.expect_err("opened");
    assert!(error.to_string().contains("does not belong to its private key"), "{error}");
}

/// HS9: goal: a token that is missing at the start is a warning as long as another works, and is taken in when it comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_comes_later_is_taken_in() {
    let Some(hsm) = or_skip("SoftHSM", SoftHsm::with_tokens(&["left", "right"])) else { return };
    hsm.clone_key(&["left", "right"], KEY);
    hsm.take_away("left");
    let key = open(options(&hsm, &["left", "right"])).await.expect("one is enough");
    assert!(!works(&key, "left") && works(&key, "right"));
    hsm.put_back("left");
    eventually("it is taken in", async || works(&key, "left")).await;
    hsm.take_away("right");
    eventually("the first signs alone", async || key.sign(&signable(&key, 1)).await.is_ok() && !works(&key, "right"))
        .await;
    drop(key);

    hsm.take_away("left");
    let error = open(options(&hsm, &["left", "right"])).await.expect_err("opened without a token");
    assert!(matches!(error, OpenError::Unavailable(_)), "{error}");
}

/// F36: goal: a wrong PIN is tried once, however often the token is looked at and the worker started, until the secret changes.
/// Method: OpenSC's spy between us and SoftHSM writes down every call.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_pin_is_tried_exactly_once() {
    let Some(hsm) = or_skip("SoftHSM", SoftHsm::with_tokens(&["notary"])) else { return };
    let spies = [
        "/usr/lib/x86_64-linux-gnu/pkcs11-spy.so",
        "/usr/lib/aarch64-linux-gnu/pkcs11-spy.so",
        "/usr/lib64/pkcs11-spy.so",
    ];
    let spy = spies.into_iter().map(PathBuf::from).find(|path| path.exists());
    let spy = spy.ok_or_else(|| services::Missing("pkcs11-spy.so; the Debian package is opensc-pkcs11".into()));
    let Some(spy) = or_skip("OpenSC's spy", spy) else { return };
    hsm.make_key("notary", "EC:prime256v1", KEY, "01");
    let seen = hsm.path().join("calls");
    let logins = || std::fs::read_to_string(&seen).unwrap_or_default().matches(": C_Login\n").count();

    let looks = Arc::new(AtomicUsize::new(0));
    let source = |pin: &'static str, stamp: &'static str| {
        let looks = Arc::clone(&looks);
        let stamp = move || {
            looks.fetch_add(1, Ordering::Relaxed);
            Some(stamp.to_owned())
        };
        let fetch = Arc::new(move || Ok(Zeroizing::new(pin.into())));
        PinSource { fetch, stamp: Arc::new(stamp), notes: Some(hsm.path().join("pin-refused")) }
    };
    let with = |pin: PinSource, tokens: &[&str]| {
        let mut options = Options { module: spy.clone(), pin, ..options(&hsm, tokens) };
        let path = |path: &PathBuf| path.to_str().expect("UTF-8").to_owned();
        options.environment.push(("PKCS11SPY".into(), path(&hsm.module)));
        options.environment.push(("PKCS11SPY_OUTPUT".into(), path(&seen)));
        options
    };
    let wrong = source("not-the-pin-5150", "monday");
    let error = open(with(wrong.clone(), &["notary"])).await.expect_err("opened");
    assert!(matches!(&error, OpenError::Pin(why) if why.contains("CKR_PIN_INCORRECT")), "{error}");
    assert!(!error.to_string().contains("5150"), "{error}");
    assert_eq!(logins(), 1);
    assert!(hsm.list_tokens().contains("user PIN count low"), "the token itself has counted: {}", hsm.list_tokens());

    // The supervisor starts the worker again and again.
    for _ in 0..3 {
        let error = open(with(wrong.clone(), &["notary"])).await.expect_err("opened");
        assert!(matches!(&error, OpenError::Pin(why) if why.contains("not tried again")), "{error}");
    }
    assert_eq!(logins(), 1);

    // A second token takes this PIN: the worker runs, and looks at the first one again and again.
    hsm.make_token_with("second", "not-the-pin-5150");
    hsm.import_key("second", "not-the-pin-5150", &hsm.new_key_file("second"), KEY);
    std::fs::remove_file(hsm.path().join("pin-refused")).expect("the note");
    let before = logins();
    let key = open(with(wrong, &["notary", "second"])).await.expect("the second token works");
    let looked = looks.load(Ordering::Relaxed);
    eventually("it is looked at again", async || looks.load(Ordering::Relaxed) >= looked + 3).await;
    assert!(!works(&key, "notary") && works(&key, "second"));
    assert_eq!(logins(), before + 2, "each token once");
    drop(key);

    // The secret is corrected.
    let key = open(with(source(PIN, "tuesday"), &["notary"])).await.expect("the right PIN");
    assert!(works(&key, "notary"));
    assert!(!hsm.path().join("pin-refused").exists());
}

/// HS2: goal: vendors' ways are data. Method: where the standard leaves a choice, make the other one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_profile_decides_who_computes_the_digest() {
    let Some(hsm) = or_skip("SoftHSM", SoftHsm::with_tokens(&["notary"])) else { return };
    hsm.make_key("notary", "rsa:2048", KEY, "01");
    let file = hsm.path().join("mine.toml");
    let with = |choice: &str| {
        std::fs::write(&file, format!("name = \"mine\"\ntested = false\nsource = \"a test\"\n{choice}\n"))
            .expect("written");
        Profile::find(file.to_str().expect("UTF-8")).expect("a profile")
    };
    let mut made = Vec::new();
    for choice in ["rsa = \"ours\"", "rsa = \"token\"", "sessions_max = 1"] {
        let key = open(Options { profile: with(choice), ..options(&hsm, &["notary"]) }).await.expect("it opens");
        made.push(key.sign(&signable(&key, 1)).await.expect("signed"));
    }
    assert!(made.windows(2).all(|pair| pair[0] == pair[1]), "this padding has one signature for one message");

    // Nobody logs in: private keys are not seen.
    let error =
        open(Options { profile: with("login = \"none\""), ..options(&hsm, &["notary"]) }).await.expect_err("opened");
    assert!(error.to_string().contains("no private key"), "{error}");
    // A mechanism that the module does not know is named by its code.
    hsm.make_key("notary", "EC:edwards25519", "edwards", "02");
    let key = KeyPlace { label: "edwards".into(), id: Vec::new() };
    let profile = with("ed25519_mechanism = 0x80000c03");
    let error = open(Options { profile, key, ..options(&hsm, &["notary"]) }).await.expect_err("opened");
    assert!(error.to_string().contains("CKR_MECHANISM_INVALID"), "{error}");
}

/// HS2: goal: a token that has a certificate in place of a public object serves as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_public_half_may_come_from_a_certificate() {
    let Some(hsm) = or_skip("SoftHSM", SoftHsm::with_tokens(&["notary"])) else { return };
    hsm.clone_key(&["notary"], KEY);
    let expected = open(options(&hsm, &["notary"])).await.expect("it opens").public_key().clone();
    let (key, certificate) = (hsm.path().join(format!("{KEY}.p8")), hsm.path().join("certificate.der"));
    let (key, certificate) = (key.to_str().expect("UTF-8"), certificate.to_str().expect("UTF-8"));
    let issue =
        ["req", "-x509", "-new", "-key", key, "-subj", "/O=Notary/C=CH", "-outform", "DER", "-out", certificate];
    assert!(hsm.command("openssl").args(issue).output().expect("it runs").status.success());
    hsm.tool("notary", &["--delete-object", "--type", "pubkey", "--label", KEY]);
    let error = open(options(&hsm, &["notary"])).await.expect_err("opened");
    assert!(error.to_string().contains("no public half"), "{error}");
    hsm.tool("notary", &["--write-object", certificate, "--type", "cert", "--label", KEY, "--id", "01"]);
    let opened = open(options(&hsm, &["notary"])).await.expect("it opens");
    assert_eq!(opened.public_key(), &expected);
}
