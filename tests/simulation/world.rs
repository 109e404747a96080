//! A simulated world: one agenda of things to happen, in virtual time. Whatever happens draws on one stream of chance, so the
//! seed decides everything and a run can be repeated exactly.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::Arc;

use notary_worker::domain::{CheckedRequest, Timestamp, TxId};
use notary_worker::stages::uniqueness;

use crate::broker::{Broker, CopyId};
use crate::bugs::Bug;
use crate::clients::Clients;
use crate::history::{self, Answer, Asks, Check, Event, Expectations, Record, Settled, Violation};
use crate::random::Random;
use crate::scenario::{Faults, Noise, Scenario};
use crate::signer::ModelVerifier;
use crate::store::Store;
use crate::trace::{Coverage, Lines, Trace};
use crate::worker::{Process, Task, Worker};

/// The longest time from healing until everything is answered: promise P7.
const CLOSE_WITHIN_MS: u64 = 60_000;

/// More than a hundred times what a run usually takes: then something goes round in circles.
const HAPPENINGS_MAX: u64 = 200_000;

/// Something that is going to happen.
pub(crate) enum Happening {
    /// A client asks.
    Ask { goal: usize },
    /// A client has waited long enough.
    LostPatience { goal: usize, attempt: u64 },
    /// A message comes that is no request.
    Noise(Noise),
    /// The broker looks for a worker.
    Dispatch { copy: CopyId },
    /// A worker takes a step, if it still lives the same life.
    Step { worker: usize, life: u64, task: Box<Task> },
    /// A batch reaches the store. Nobody asks if it comes late, when the worker was told that its outcome is unknown.
    StoreTakes { asker: Option<(usize, u64, uniqueness::BatchId)>, requests: Vec<CheckedRequest>, moment: Timestamp },
    /// A dead worker comes back.
    Restart { worker: usize },
    /// From now on nothing goes wrong any more.
    Heal,
}

/// An order to kill a worker just before something happens, counted from 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Crash {
    pub(crate) before: u64,
    pub(crate) worker: usize,
}

/// How to run a scenario.
#[derive(Clone, Default)]
pub(crate) struct Options<'a> {
    pub(crate) bug: Option<Bug>,
    pub(crate) crashes: &'a [Crash],
    /// Where to tell what happens.
    pub(crate) lines: Option<Lines>,
}

/// What came of a run.
pub(crate) struct Outcome {
    pub(crate) violations: Vec<Violation>,
    pub(crate) history: Vec<Record>,
    pub(crate) digest: u64,
    /// How many things happened.
    pub(crate) happenings: u64,
    pub(crate) coverage: Coverage,
}

/// Runs the scenario of `seed`.
pub(crate) fn run(seed: u64, options: Options<'_>) -> Outcome {
    let mut rng = Random::new(seed);
    let scenario = Scenario::draw(&mut rng);
    World::new(scenario, rng, &options).run(options.crashes)
}

/// Runs the small scenario, in which nothing goes wrong but `options.crashes`.
pub(crate) fn run_small(options: Options<'_>) -> Outcome {
    let mut rng = Random::new(0);
    let scenario = Scenario::small(&mut rng);
    World::new(scenario, rng, &options).run(options.crashes)
}

/// The world.
pub(crate) struct World {
    pub(crate) scenario: Scenario,
    pub(crate) rng: Random,
    pub(crate) now_ms: u64,
    pub(crate) workers: Vec<Worker>,
    pub(crate) broker: Broker,
    pub(crate) store: Store,
    pub(crate) clients: Clients,
    pub(crate) bug: Option<Bug>,
    pub(crate) trace: Trace,
    pub(crate) coverage: Coverage,
    agenda: BinaryHeap<Appointment>,
    appointments: u64,
    history: Vec<Record>,
    observer: Arc<str>,
    violations: Vec<Violation>,
}

impl World {
    fn new(scenario: Scenario, rng: Random, options: &Options<'_>) -> Self {
        let mut world = Self {
            rng,
            now_ms: 0,
            workers: (0..scenario.workers).map(|_| Worker::new(&scenario)).collect(),
            broker: Broker::default(),
            store: Store::new(options.bug),
            clients: Clients::new(&scenario),
            bug: options.bug,
            trace: Trace::new(options.lines.clone()),
            coverage: Coverage::default(),
            agenda: BinaryHeap::new(),
            appointments: 0,
            history: Vec::new(),
            observer: "simulation".into(),
            violations: Vec::new(),
            scenario,
        };
        for tx in 0..world.scenario.transactions.len() {
            world.trace.note(0, "tx", &[tx as u64], || format!("{tx}: {}", world.scenario.describe(tx)));
        }
        for goal in 0..world.scenario.goals.len() {
            world.later(world.scenario.goals[goal].first_ask_ms, Happening::Ask { goal });
        }
        for (at_ms, noise) in world.scenario.noise.clone() {
            world.later(at_ms, Happening::Noise(noise));
        }
        world.later(world.scenario.heal_at_ms, Happening::Heal);
        world
    }

    fn run(mut self, crashes: &[Crash]) -> Outcome {
        let mut happenings = 0;
        // Twice the time that is allowed, so that the checker sees what comes too late.
        let end_ms = self.scenario.heal_at_ms + 2 * CLOSE_WITHIN_MS;
        while let Some(Appointment { at_ms, happening, .. }) = self.agenda.pop() {
            if at_ms > end_ms || happenings > HAPPENINGS_MAX {
                self.broken(Check::Closed, "the world never comes to rest".into());
                break;
            }
            self.now_ms = at_ms;
            for crash in crashes.iter().filter(|crash| crash.before == happenings) {
                self.crash(crash.worker);
            }
            happenings += 1;
            self.happen(happening);
        }
        self.conclude();
        let expectations = Expectations {
            store_watched: true,
            settlements_watched: true,
            requests_may_be_parked: false,
            close_within_ms: CLOSE_WITHIN_MS,
        };
        self.violations.extend(history::check(&self.history, &expectations, &ModelVerifier));
        Outcome {
            violations: self.violations,
            history: self.history,
            digest: self.trace.digest(),
            happenings,
            coverage: self.coverage,
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Ask { goal } => self.ask(goal),
            Happening::LostPatience { goal, attempt } => self.lost_patience(goal, attempt),
            Happening::Noise(noise) => self.make_noise(noise),
            Happening::Dispatch { copy } => self.dispatch(copy),
            Happening::Step { worker, life, task } => self.step(worker, life, task),
            Happening::StoreTakes { asker, requests, moment } => self.store_takes(asker, &requests, moment),
            Happening::Restart { worker } => {
                self.trace.note(self.now_ms, "restart", &[worker as u64], || format!("w{worker}"));
                self.workers[worker].alive = true;
                (0..self.scenario.flow_slots).for_each(|_| self.slot_free());
            }
            Happening::Heal => {
                self.trace.note(self.now_ms, "healed", &[], String::new);
                self.scenario.faults = Faults::default();
                self.scenario.store_outages.clear();
                self.scenario.signer_outages.clear();
                self.scenario.indigestible = None;
                self.workers.iter_mut().for_each(|worker| worker.frozen_until_ms = 0);
                self.record(Event::Healed);
            }
        }
    }

    fn step(&mut self, worker: usize, life: u64, task: Box<Task>) {
        let Worker { life: present, frozen_until_ms, .. } = self.workers[worker];
        if life != present {
            return; // It died with the life that it belonged to.
        }
        if frozen_until_ms > self.now_ms {
            let delay_ms = frozen_until_ms - self.now_ms + self.step_delay();
            return self.later(delay_ms, Happening::Step { worker, life, task });
        }
        self.perform(worker, *task);

        let faults = self.scenario.faults;
        if self.rng.chance(faults.crash) {
            self.coverage.hit("worker: crashed");
            self.crash(worker);
        }
        if self.rng.chance(faults.connection_lost) {
            self.lose_connection(worker);
        }
        if self.rng.chance(faults.freeze) {
            self.freeze(worker);
        }
        if self.rng.chance(faults.clock_step) {
            let step_ms = match self.rng.below(4) {
                0 => self.rng.pick(&[-7_200_000, 2_592_000_000]), // Two hours back, thirty days ahead.
                _ => self.rng.between(0, 4_000) as i64 - 2_000,
            };
            self.coverage.hit(if step_ms < 0 { "worker: clock set back" } else { "worker: clock set ahead" });
            self.workers[worker].clock_offset_ms += step_ms;
        }
    }

    fn crash(&mut self, worker: usize) {
        if !self.workers[worker].alive {
            return;
        }
        let delay_ms = self.rng.between(50, 1_500);
        self.trace.note(self.now_ms, "CRASH", &[worker as u64], || format!("w{worker}, back in {delay_ms} ms"));
        let dead = &mut self.workers[worker];
        dead.life += 1;
        dead.alive = false;
        dead.frozen_until_ms = 0;
        dead.process = Process::new(&self.scenario);
        self.lose_connection(worker);
        self.later(delay_ms, Happening::Restart { worker });
    }

    fn freeze(&mut self, worker: usize) {
        self.coverage.hit("worker: frozen");
        let pause_ms = self.rng.between(100, 2_000);
        self.trace.note(self.now_ms, "freeze", &[worker as u64], || format!("w{worker} for {pause_ms} ms"));
        self.workers[worker].frozen_until_ms = self.now_ms + pause_ms;
        if self.rng.chance(500) {
            self.lose_connection(worker); // The broker missed its heartbeats.
        }
    }

    /// The last word of store, broker and workers.
    fn conclude(&mut self) {
        let kept: Vec<_> = self.store.entries().cloned().collect();
        for entry in kept {
            self.record(Event::Kept { copy: "store".into(), entry });
        }
        if self.broker.open() > 0 {
            self.broken(Check::Closed, format!("the broker still has {} messages", self.broker.open()));
        }
        for worker in 0..self.workers.len() {
            if !self.workers[worker].process.is_idle() {
                self.broken(Check::Closed, format!("worker {worker} is not idle in the end"));
            }
        }
    }

    fn broken(&mut self, check: Check, why: String) {
        self.violations.push(Violation { check, line: 0, why });
    }

    /// The machines and their performer do not agree. A planted bug may well bring that about; nothing else may.
    pub(crate) fn unexpected(&mut self, why: String) {
        self.broken(Check::Sound, why);
    }

    pub(crate) fn record(&mut self, event: Event) {
        let (what, marks) = marks(&event);
        self.trace.mix(what, &marks);
        self.history.push(Record { at_ms: self.now_ms, process: self.observer.clone(), event });
    }

    pub(crate) fn later(&mut self, delay_ms: u64, happening: Happening) {
        self.appointments += 1;
        // What is due at the same time happens in any order.
        let order = (self.rng.below(1 << 32), self.appointments);
        self.agenda.push(Appointment { at_ms: self.now_ms + delay_ms, order, happening });
    }

    /// A worker's next step, soon.
    pub(crate) fn step_later(&mut self, worker: usize, task: Task) {
        let delay_ms = self.step_delay();
        self.task_after(worker, delay_ms, task);
    }

    /// A worker's next step after a time.
    pub(crate) fn task_after(&mut self, worker: usize, delay_ms: u64, task: Task) {
        let life = self.workers[worker].life;
        self.later(delay_ms, Happening::Step { worker, life, task: Box::new(task) });
    }

    fn step_delay(&mut self) -> u64 {
        let slow = if self.rng.chance(30) { 20 } else { 1 };
        self.rng.below(self.scenario.step_ms_max * slow + 1)
    }

    pub(crate) fn network_delay(&mut self) -> u64 {
        self.delay(self.scenario.network_ms_max)
    }

    pub(crate) fn store_delay(&mut self) -> u64 {
        self.delay(self.scenario.store_ms_max)
    }

    /// Usually up to `usual_ms_max`, now and then longer.
    pub(crate) fn delay(&mut self, usual_ms_max: u64) -> u64 {
        let slow = if self.rng.chance(30) { 5 } else { 1 };
        self.rng.between(1, usual_ms_max * slow)
    }
}

/// What tells two events apart, or nearly: enough for a digest.
fn marks(event: &Event) -> (&'static str, [u64; 3]) {
    let head = |bytes: &[u8]| bytes.first_chunk().map_or(0, |head| u64::from_be_bytes(*head));
    let tx = |tx: &TxId| head(tx.0.as_bytes());
    match event {
        Event::Invoke { exchange, asks: Asks::Notarisation(request) } => ("invoke", [*exchange, tx(&request.tx), 0]),
        Event::Invoke { exchange, .. } => ("invoke", [*exchange, 0, 0]),
        Event::Answer { exchange, answer } => match answer {
            Answer::Ok { tx: id, signature } => ("ok", [*exchange, tx(id), head(signature)]),
            Answer::Conflict { tx: id, consumed } => {
                let consumers = consumed.iter().map(|one| head(one.hashed_consumer.as_bytes()));
                ("conflict", [*exchange, tx(id), consumers.fold(0, u64::wrapping_add)])
            }
            Answer::Invalid { tx: id, judged_at, .. } => {
                ("invalid", [*exchange, tx(id), judged_at.map_or(0, |moment| moment.as_millis() as u64)])
            }
            Answer::Unavailable => ("unavailable", [*exchange, 0, 0]),
            Answer::Unknown => ("unknown", [*exchange, 0, 0]),
        },
        Event::Complete { exchange } => ("complete", [*exchange, 0, 0]),
        Event::Settled { exchange, how: Settled::Accepted } => ("accepted", [*exchange, 0, 0]),
        Event::Settled { exchange, how: Settled::Released } => ("released", [*exchange, 0, 0]),
        Event::Settled { exchange, how: Settled::Parked { .. } } => ("parked", [*exchange, 0, 0]),
        Event::Stored(entry) | Event::Kept { entry, .. } => {
            let moment = entry.moment.map_or(0, |moment| moment.as_millis() as u64);
            (
                if entry.committed { "committed" } else { "refused" },
                [tx(&entry.tx), entry.position.unwrap_or(0), moment],
            )
        }
        Event::Healed => ("healed", [0; 3]),
    }
}

/// A happening and its time. The earliest is the greatest, for the heap's sake.
struct Appointment {
    at_ms: u64,
    order: (u64, u64),
    happening: Happening,
}

impl Ord for Appointment {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at_ms, other.order).cmp(&(self.at_ms, self.order))
    }
}

impl PartialOrd for Appointment {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Appointment {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Appointment {}
