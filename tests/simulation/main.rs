//! The notary's machines in a simulated world: real decisions, modelled broker, store, key, clients and clocks, and everything
//! that can go wrong with them. A history checker that shares no rule with the notary judges every run.
//!
//! `SIMULATION_SEEDS=n` runs n seeds, `SIMULATION_FIRST=n` starts elsewhere, `SIMULATION_SEED=n` replays one and tells what
//! happened; with `SIMULATION_BUG=name` a bug of [`bugs::Bug`] is planted in it.

mod broker;
mod bugs;
mod clients;
mod crash_points;
#[path = "../history/mod.rs"]
mod history;
mod perform;
mod random;
mod scenario;
mod seeds;
mod signer;
mod store;
mod trace;
mod worker;
mod world;
