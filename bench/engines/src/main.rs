//! Compares candidate engines for the embedded store, at the size where they differ. What follows from the figures is said in
//! `src/sql/embedded.rs`; this prints them: `cargo run --release -- all DIR 10000000` (some 5 GiB in DIR, and an hour).

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

mod engine;
// The layer under redb that the worker ships: measured as shipped.
#[allow(dead_code, unused_imports)]
#[path = "../../../src/sql/embedded/sealed.rs"]
mod sealed;

use engine::{Engine, KEY_LEN, Key};

/// What a full uniqueness batch holds at one input a request.
const BATCH: u64 = 100;
/// Sizes are reached with this many at a time: few enough that a copy-on-write tree is not left with a file of free pages.
const PRELOAD_BATCH: u64 = 10_000;
/// Engines take turns, so that a noisy neighbour of the machine disturbs all of them; the median of the turns is reported.
const TURNS: usize = 5;
/// Durable batches of one turn, after others that warm the cache.
const WARM_BATCHES: u64 = 50;
const MEASURED_BATCHES: u64 = 200;
const LOOKUPS: u64 = 50_000;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let number = |word: &str| word.parse::<u64>().expect("a number");
    match words[..] {
        ["grow", name, dir, from, until] => grow(name, dir.as_ref(), number(from), number(until)),
        ["turn", name, dir, stored] => turn(name, dir.as_ref(), number(stored)),
        ["write-until-killed", name, dir, from] => write_until_killed(name, dir.as_ref(), number(from)),
        [names, dir, keys] if engines(names).is_some() => {
            compare(&engines(names).expect("checked"), dir.as_ref(), number(keys))
        }
        _ => {
            eprintln!("usage: engines all|ENGINE,.. DIR KEYS\nengines: {}", engine::NAMES.join(" "));
            std::process::exit(2);
        }
    }
}

fn engines(names: &str) -> Option<Vec<&str>> {
    match names {
        "all" => Some(engine::NAMES.to_vec()),
        names => names.split(',').map(|name| engine::NAMES.contains(&name).then_some(name)).collect(),
    }
}

/// One engine's store as this process sees it; all work happens in processes of their own.
struct Candidate<'a> {
    name: &'a str,
    dir: PathBuf,
    stored: u64,
}

fn compare(names: &[&str], dir: &Path, keys: u64) {
    let mut candidates: Vec<Candidate<'_>> =
        names.iter().map(|name| Candidate { name, dir: dir.join(name), stored: 0 }).collect();
    for candidate in &candidates {
        let _ = std::fs::remove_dir_all(&candidate.dir);
        std::fs::create_dir_all(&candidate.dir).expect("DIR can be made");
    }
    println!("medians of {TURNS} turns; batches of {BATCH}, each looked up, inserted and durable");
    println!(
        "{:<12} {:>9} {:>9} {:>8} {:>8} {:>9} {:>9} {:>9} {:>8}",
        "engine", "keys", "insert/s", "p50 ms", "p99 ms", "found/s", "absent/s", "open ms", "peak MiB"
    );
    for size in [0, keys / 10, keys] {
        for candidate in &mut candidates {
            let from = candidate.stored;
            candidate.child("grow", &[from, size]);
            candidate.stored = size.max(from);
        }
        let mut turns: Vec<Vec<Vec<f64>>> = vec![Vec::new(); candidates.len()];
        for _ in 0..TURNS {
            for (candidate, turns) in candidates.iter_mut().zip(&mut turns) {
                let stored = candidate.stored;
                let figures = candidate.child("turn", &[stored]);
                turns.push(figures.split_whitespace().map(|figure| figure.parse().expect("a figure")).collect());
                candidate.stored += (1 + WARM_BATCHES + MEASURED_BATCHES) * BATCH;
            }
        }
        println!("{:<12} {:>9} {:>9.0}", "append+sync", "", raw_appends(dir));
        for (candidate, turns) in candidates.iter().zip(&turns) {
            let median = |figure: usize| {
                let mut turns: Vec<f64> = turns.iter().map(|turn| turn[figure]).collect();
                turns.sort_by(f64::total_cmp);
                turns[turns.len() / 2]
            };
            println!(
                "{:<12} {:>9} {:>9.0} {:>8.1} {:>8.1} {:>9.0} {:>9.0} {:>9.1} {:>8.0}",
                candidate.name,
                size,
                median(0),
                median(1),
                median(2),
                median(3),
                median(4),
                median(5),
                median(6)
            );
        }
    }
    for candidate in &candidates {
        println!("{:<12} {}", candidate.name, size_on_disk(&candidate.dir, candidate.stored));
        println!("{:<12} {}", candidate.name, candidate.killed());
        let _ = std::fs::remove_dir_all(&candidate.dir);
    }
}

impl Candidate<'_> {
    fn command(&self, verb: &str, numbers: &[u64]) -> Command {
        let mut command = Command::new(std::env::current_exe().expect("own path"));
        command.arg(verb).arg(self.name).arg(&self.dir).args(numbers.iter().map(u64::to_string));
        command
    }

    /// Runs this program on the store and returns what it printed.
    fn child(&self, verb: &str, numbers: &[u64]) -> String {
        let output = self.command(verb, numbers).stderr(Stdio::inherit()).output().expect("the program starts itself");
        assert!(output.status.success(), "{} failed to {}", self.name, verb);
        String::from_utf8(output.stdout).expect("figures")
    }

    /// Kills a process that writes, opens what it left, and looks for what it had acknowledged.
    fn killed(&self) -> String {
        let mut child = self
            .command("write-until-killed", &[self.stored])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts itself");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
        let warm = lines.by_ref().nth(300).expect("it writes until it is killed");
        child.kill().expect("kill -9");
        child.wait().expect("the child is gone");
        let acknowledged: u64 = lines.last().unwrap_or(warm).parse().expect("a number");
        let start = Instant::now();
        let mut engine = engine::open(self.name, &self.dir);
        insert(engine.as_mut(), acknowledged + BATCH..acknowledged + 2 * BATCH); // One may have been in flight.
        let opened = millis(start.elapsed());
        let lost = (self.stored..acknowledged).filter(|n| engine.get(&key(*n)) != Some(*n)).count();
        let written = acknowledged - self.stored;
        format!("after kill -9: {opened:.1} ms to the first commit, {lost} of {written} acknowledged keys lost")
    }
}

fn grow(name: &str, dir: &Path, from: u64, until: u64) {
    let mut engine = engine::open(name, dir);
    let mut stored = from;
    while stored < until {
        let next = until.min(stored + PRELOAD_BATCH);
        insert(engine.as_mut(), stored..next);
        stored = next;
    }
}

/// Opens the store, commits, looks up, and prints the figures of [`compare`]'s columns.
fn turn(name: &str, dir: &Path, mut stored: u64) {
    let mut batch = |engine: &mut dyn Engine| {
        let start = Instant::now();
        insert(engine, stored..stored + BATCH);
        stored += BATCH;
        start.elapsed()
    };
    let start = Instant::now();
    let mut engine = engine::open(name, dir);
    batch(engine.as_mut());
    let opened = start.elapsed();
    for _ in 0..WARM_BATCHES {
        batch(engine.as_mut());
    }
    let mut times: Vec<Duration> = (0..MEASURED_BATCHES).map(|_| batch(engine.as_mut())).collect();
    let rate = (MEASURED_BATCHES * BATCH) as f64 / times.iter().sum::<Duration>().as_secs_f64();
    times.sort_unstable();
    let at = |part: f64| millis(times[(times.len() as f64 * part) as usize]);
    let (found, absent) = (lookups(engine.as_mut(), stored, 0), lookups(engine.as_mut(), stored, 1 << 40));
    println!("{rate} {} {} {found} {absent} {} {}", at(0.5), at(0.99), millis(opened), peak_memory_mib());
}

fn lookups(engine: &mut dyn Engine, stored: u64, offset: u64) -> f64 {
    let mut random = stored;
    let start = Instant::now();
    for _ in 0..LOOKUPS {
        random = mix(random);
        let n = random % stored;
        assert_eq!(engine.get(&key(n + offset)), (offset == 0).then_some(n), "a wrong answer");
    }
    LOOKUPS as f64 / start.elapsed().as_secs_f64()
}

/// The disk's own limit, in batches' worth of keys a second: append 8 KiB, sync, again.
fn raw_appends(dir: &Path) -> f64 {
    let path = dir.join("raw");
    let mut file = std::fs::File::create(&path).expect("a file can be made");
    let start = Instant::now();
    for _ in 0..MEASURED_BATCHES {
        file.write_all(&[7; 8192]).expect("write");
        file.sync_data().expect("sync");
    }
    let rate = (MEASURED_BATCHES * BATCH) as f64 / start.elapsed().as_secs_f64();
    std::fs::remove_file(path).expect("remove");
    rate
}

/// Looks every key up and inserts it, as a notary does, and commits durably.
fn insert(engine: &mut dyn Engine, range: std::ops::Range<u64>) {
    let mut batch: Vec<(Key, u64)> = range.map(|n| (key(n), n)).collect();
    batch.sort_unstable();
    engine.insert(&batch);
}

fn write_until_killed(name: &str, dir: &Path, mut next: u64) {
    let mut engine = engine::open(name, dir);
    loop {
        insert(engine.as_mut(), next..next + BATCH);
        next += BATCH;
        println!("{next}");
    }
}

/// What the files take on the disk: allocated blocks, which is less than their length where they have holes.
fn size_on_disk(dir: &Path, stored: u64) -> String {
    let bytes: u64 = files(dir).iter().map(|path| allocated(path)).sum();
    let mebibytes = bytes as f64 / f64::from(1 << 20);
    format!("{mebibytes:.0} MiB, {:.1} bytes a key of {KEY_LEN}+8", bytes as f64 / stored as f64)
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).expect("readable").map(|entry| entry.expect("readable").path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[cfg(unix)]
fn allocated(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).map_or(0, |data| data.blocks() * 512)
}

#[cfg(not(unix))]
fn allocated(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |data| data.len())
}

fn peak_memory_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// The key of number `n`: a state's, under a random transaction id.
fn key(n: u64) -> Key {
    let mut key = [0; KEY_LEN];
    let mut word = mix(n + 1);
    for part in key[1..33].chunks_mut(8) {
        part.copy_from_slice(&word.to_be_bytes());
        word = mix(word);
    }
    key
}

/// splitmix64: full period, good enough to look random to an index.
fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
