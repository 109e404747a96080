//! The whole service on Artemis, PostgreSQL and SoftHSM2: set up by the README's page, two workers on one queue (issue 4; rows LB1,
//! LB4, LB5, HS9, DB6, GL1; faults F04, F12, F26, F32, F34).

mod rivals;
mod services;
mod stack;
mod trials;
mod worker;

use services::{artemis, or_skip};
use stack::{Broker, Stack};

#[test]
fn the_service_on_artemis_postgresql_and_softhsm_keeps_its_promises() {
    let broker = artemis::Server::start(None).map(Broker::Artemis);
    let Some((stack, said)) = or_skip("Artemis, PostgreSQL or SoftHSM2", broker.and_then(Stack::set_up)) else {
        return;
    };
    trials::run(stack, &said);
}
