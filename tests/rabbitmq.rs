//! RabbitMQ as the broker: the claims about every shared broker, and what only RabbitMQ does.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used)]

#[path = "rabbitmq/administration.rs"]
mod administration;
#[path = "rabbitmq/command.rs"]
mod command;
#[path = "rabbitmq/own.rs"]
mod own;
#[path = "rabbitmq/rig.rs"]
mod rig;
mod services;
#[path = "suites/shared_broker.rs"]
mod suite;

shared_broker_suite!(crate::rig::RabbitRig);
