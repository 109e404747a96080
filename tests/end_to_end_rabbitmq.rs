//! The whole service on RabbitMQ, PostgreSQL and SoftHSM2: set up by the README's page, two workers on one queue (issue 4; rows LB1,
//! LB4, LB5, HS9, DB6, GL1; faults F04, F12, F25, F32, F34).

mod rivals;
mod services;
mod stack;
mod trials;
mod worker;

use services::{or_skip, rabbitmq};
use stack::{Broker, Stack};

#[test]
fn the_service_on_rabbitmq_postgresql_and_softhsm_keeps_its_promises() {
    let broker = rabbitmq::Server::start(None).map(Broker::RabbitMq);
    let Some((stack, said)) = or_skip("RabbitMQ, PostgreSQL or SoftHSM2", broker.and_then(Stack::set_up)) else {
        return;
    };
    trials::run(stack, &said);
}
