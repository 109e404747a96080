//! The other side: Corda-style clients. They make transactions, sign requests, send them over AMQP and judge the answers as a
//! Corda node does. The demo, `submit`, the benchmarks and the tests use them; a worker does not.

pub mod cast;
pub mod judge;
pub mod ledger;
pub mod line;
pub mod scenes;
pub mod session;
