//! Eight writers in four processes, over few states, with references in circles, while connections are cut at any moment: also in
//! the middle of a commit, with the server's process going on. Afterwards every verdict is checked.
//!
//! The processes reach the database through a proxy of the test, which cuts. Every writer asks again until it is told; a seed,
//! printed first, replays the requests (not the timing).

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use notary_worker::sql::postgres::Place;
use suite::{Random, serial_order};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// Tells a process that it is one of the four: `port database role process seed`.
const CHILD: &str = "NOTARY_TEST_TORTURE_CHILD";
const PROCESSES: u64 = 4;
const WRITERS_EACH: u64 = 2;
const WRITERS: u64 = PROCESSES * WRITERS_EACH;
const BATCHES: u64 = 60;

/// What a writer asks for. Pairs of writers, of two processes, ask for the same; and every fifth batch has its writer's link of a
/// chain of references that closes to a circle over all writers.
fn history(seed: u64, writer: u64) -> Vec<Vec<CheckedRequest>> {
    let mut random = Random::over_states(150, seed * 1000 + writer % (WRITERS / 2));
    let batch = |n: u64| {
        let mut batch: Vec<CheckedRequest> = (0..=random.below(4)).map(|_| random.request()).collect();
        if n.is_multiple_of(5) {
            let link = |writer: u64| state(1_000_000 + n * WRITERS + writer % WRITERS);
            batch.push(spend(1_000_000 + n * WRITERS + writer, &[link(writer)], &[link(writer + 1)]));
        }
        batch
    };
    (0..BATCHES).map(batch).collect()
}

/// Not a claim by itself: the processes that the next test starts. Without being told so it has nothing to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_that_asks_until_it_is_told() {
    let Ok(told) = std::env::var(CHILD) else { return };
    let words: Vec<&str> = told.split(' ').collect();
    let [port, database, role, process, seed] = words[..] else { panic!("{told}") };
    let number = |text: &str| text.parse::<u64>().expect("a number");
    let place = format!("postgresql://{role}@127.0.0.1:{port}/{database}");
    let template = Database { port: 0, name: database.into(), worker: role.into() };
    let writers = (0..WRITERS_EACH).map(|n| {
        let writer = number(process) + n * PROCESSES;
        let options = Options {
            place: Place::parse(&place, None).expect("a place"),
            worker: party(&format!("Worker {writer}")),
            deadline: Duration::from_secs(2),
            lease: Some(Duration::from_secs(10)),
            ..options(&template)
        };
        let batches = history(number(seed), writer);
        tokio::spawn(async move {
            let store = loop {
                match Postgres::open(options.clone(), &Handle::current()).await {
                    Ok(store) => break store,
                    Err(error) => eprintln!("worker {writer}: {error}"), // Cut while it connected.
                }
            };
            for (n, batch) in batches.iter().enumerate() {
                let (verdicts, errors) = insist(&store, &batch.iter().collect::<Vec<_>>()).await;
                let unknown = errors.iter().filter(|error| matches!(error, CommitError::OutcomeUnknown(_))).count();
                println!("VERDICTS {writer} {n} {unknown} {} {verdicts:?}", errors.len());
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.expect("no panic");
    }
}

/// How often a commit that passes the proxy is cut off: one in so many.
const CUT_ONE_IN: u64 = 12;

/// Passes bytes on, and now and then cuts a connection just as a commit passes.
#[derive(Clone)]
struct Proxy {
    server: u16,
    random: Arc<Mutex<Random>>,
    cuts: Arc<AtomicUsize>,
}

impl Proxy {
    async fn start(server: u16, seed: u64) -> (Self, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("it is bound").port();
        let proxy = Self { server, random: Arc::new(Mutex::new(Random::new(seed))), cuts: Arc::default() };
        let accepting = proxy.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let proxy = accepting.clone();
                tokio::spawn(async move {
                    // An end of either side ends both.
                    let _ = proxy.pass(client).await;
                });
            }
        });
        (proxy, port)
    }

    fn below(&self, bound: u64) -> u64 {
        self.random.lock().expect("no panic").below(bound)
    }

    async fn pass(self, client: TcpStream) -> std::io::Result<()> {
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = TcpStream::connect(("127.0.0.1", self.server)).await?.into_split();
        let back = tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
        let mut bytes = vec![0; 1 << 20];
        loop {
            let length = from_client.read(&mut bytes).await?;
            if length == 0 {
                back.abort();
                return Ok(());
            }
            let commits = bytes[..length].windows(6).any(|window| window == b"COMMIT");
            if !commits || self.below(CUT_ONE_IN) != 0 {
                to_server.write_all(&bytes[..length]).await?;
                continue;
            }
            self.cuts.fetch_add(1, Ordering::Relaxed);
            // The worker hears no more. The server gets all of it, half, or nothing; and learns of the cut now or too late.
            back.abort();
            drop(from_client);
            let arrives = length / 2 * self.below(3) as usize;
            to_server.write_all(&bytes[..arrives]).await?;
            tokio::time::sleep(Duration::from_millis(self.below(2) * self.below(400))).await;
            return Ok(());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verdicts_of_eight_writers_whose_connections_are_cut_are_as_if_one_had_decided() {
    let server = own_server!("track_commit_timestamp=on", "commit_delay=1000", "commit_siblings=0");
    let database = server.database();
    let seed = std::env::var("NOTARY_TEST_SEED")
        .map_or_else(|_| u64::from(std::process::id()), |seed| seed.parse().expect("a number"));
    println!("NOTARY_TEST_SEED={seed}");
    let (proxy, port) = Proxy::start(server.port, seed).await;

    let children = (0..PROCESSES).map(|process| {
        let told = format!("{port} {} {} {process} {seed}", database.name, database.worker);
        let mut child = Command::new(std::env::current_exe().expect("this program"));
        child.args(["torture::child_that_asks_until_it_is_told", "--exact", "--nocapture"]).env(CHILD, told);
        let mut child = child.stdout(Stdio::piped()).spawn().expect("it starts");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        std::thread::spawn(move || {
            let lines: Vec<String> = lines.map_while(Result::ok).collect();
            (lines, child.wait().expect("it ends").success())
        })
    });
    let children: Vec<_> = children.collect();
    let mut verdicts: BTreeMap<TxId, (CheckedRequest, String)> = BTreeMap::new();
    let (mut unknown, mut failed, mut batches) = (0, 0, 0);
    for child in children {
        let (lines, success) = tokio::task::block_in_place(|| child.join().expect("no panic"));
        assert!(success, "a process failed: {lines:?}");
        for line in lines.iter().filter_map(|line| line.split_once("VERDICTS ").map(|(_, told)| told)) {
            let mut words = line.splitn(5, ' ');
            let mut number = || words.next().and_then(|word| word.parse::<u64>().ok()).expect("a number");
            let (writer, n, unknown_here, failed_here) = (number(), number(), number(), number());
            (unknown, failed, batches) = (unknown + unknown_here, failed + failed_here, batches + 1);
            let told = words.next().expect("verdicts");
            verdicts_of(&history(seed, writer)[n as usize], told, &mut verdicts);
        }
    }
    let cuts = proxy.cuts.load(Ordering::Relaxed);
    println!(
        "{batches} batches, {} transactions, {cuts} connections cut, {failed} attempts failed, {unknown} of unknown outcome",
        verdicts.len()
    );
    assert_eq!(batches, WRITERS * BATCHES, "every writer was told everything");
    assert!(unknown > 0, "commits were cut");

    let store = open(&database).await;
    let mut on_record = BTreeMap::new();
    for (id, (request, told)) in &verdicts {
        let verdict = ask(&store, &[request]).await.expect("the database is well").remove(0);
        assert_eq!(format!("{verdict:?}"), *told, "what was told is on record, to the letter");
        on_record.insert(*id, (request.clone(), verdict));
    }
    assert_eq!(serial_order(&on_record).len(), on_record.len(), "some order explains every verdict");
    nobody_refers_to_what_was_consumed_before(&database, &on_record);
}

/// Takes a batch's verdicts apart as they were printed; each transaction is told one thing only.
fn verdicts_of(batch: &[CheckedRequest], told: &str, verdicts: &mut BTreeMap<TxId, (CheckedRequest, String)>) {
    let inner = told.strip_prefix('[').and_then(|told| told.strip_suffix(']')).expect("a list");
    let mut each: Vec<String> = Vec::new();
    for part in inner.split(", ") {
        // A verdict begins with its kind; what follows up to the next kind belongs to it.
        match each.last_mut() {
            Some(last) if !part.starts_with("Committed(") && !part.starts_with("Rejected(") => {
                *last += &format!(", {part}")
            }
            _ => each.push(part.to_owned()),
        }
    }
    assert_eq!(each.len(), batch.len(), "{told}");
    for (request, told) in batch.iter().zip(each) {
        let first = verdicts.entry(request.tx_id).or_insert_with(|| (request.clone(), told.clone()));
        assert_eq!(first.1, told, "one transaction, one verdict, whoever asks");
    }
}

/// Promise P1, in the database's own order of commits: who refers to a state was committed before its consumer.
fn nobody_refers_to_what_was_consumed_before(
    database: &Database,
    verdicts: &BTreeMap<TxId, (CheckedRequest, Verdict)>,
) {
    let times = database.sql(
        "SELECT encode(id, 'hex'), xmin, (extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000000)::bigint
         FROM notary.transactions WHERE outcome = 0",
    );
    let mut committed: HashMap<TxId, (&str, i64)> = HashMap::new();
    for line in times.lines() {
        let [id, transaction, time] = line.split('|').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let id = TxId::from_key(&hex::decode(id).expect("hex")).expect("a key");
        committed.insert(id, (transaction, time.parse().expect("a time")));
    }
    let all = || verdicts.values().map(|(request, _)| request).filter(|request| committed.contains_key(&request.tx_id));
    let consumers: HashMap<StateRef, TxId> =
        all().flat_map(|request| request.inputs.iter().map(|state| (*state, request.tx_id))).collect();
    let mut seen = 0;
    for request in all() {
        for consumer in request.references.iter().filter_map(|state| consumers.get(state)) {
            let ((batch, time), (other_batch, consumed)) = (committed[&request.tx_id], committed[consumer]);
            // Within one batch the order is the batch's, and `serial_order` has checked it.
            assert!(
                batch == other_batch || time < consumed,
                "{} refers to what {consumer} consumed before",
                request.tx_id
            );
            seen += 1;
        }
    }
    assert!(seen > 10, "references met consumers");
}
