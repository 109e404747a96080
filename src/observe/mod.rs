//! What an operator sees: figures and logs. Everyone may report here; nothing here decides anything.

pub mod certificates;
pub mod health;
pub mod http;
pub mod logs;
pub mod metrics;
pub mod network;
pub mod supervisor;
