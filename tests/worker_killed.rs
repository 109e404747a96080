//! kill -9 in the middle of 5,000 requests (promises P1, P2, P3, P6; row LB5): every request is answered, nothing is lost, nothing
//! is spent twice, and every retry gets the same answer.

mod rivals;
mod worker;

use std::time::Duration;

use notary_worker::client::cast::Cast;
use notary_worker::sql::embedded::{LoggedOutcome, Reader, verify};
use rivals::Rivals;

/// Coins; each is spent by so many transactions, of which one must win.
const COINS: usize = 2_500;
const RIVALS: usize = 2;
/// Requests under way at once.
const IN_FLIGHT: usize = 96;
/// The worker is killed after so many answers, each time.
const KILLS: [usize; 4] = [400, 1_500, 2_600, 4_200];

#[test]
fn killed_in_the_middle_of_5000_requests_nothing_is_lost_or_spent_twice() {
    let network = worker::Network::init(&[]);
    let mut running = Some(network.start());
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");

    let winners = runtime.block_on(async {
        let cast = Cast::connect(&network.dir(), network.address).await.expect("the parties connect");
        let rivals = Rivals::new(&cast, COINS, RIVALS);
        let killing = async {
            for kill in KILLS {
                rivals.answered(kill).await;
                running.take().expect("it runs").kill();
                running = Some(network.start());
            }
        };
        // A minute is the client's patience; were requests lost, the kills would wait in vain.
        let (first, ()) = tokio::join!(rivals.ask(IN_FLIGHT), async {
            let killed = tokio::time::timeout(Duration::from_secs(600), killing).await;
            killed.expect("the requests go on after every kill");
        });
        let winners = rivals.judge(&first);
        assert_eq!(first.differences(&rivals.ask(IN_FLIGHT).await), 0, "every retry gets the same answer");
        cast.close().await;
        winners
    });

    // What the store holds is what was answered.
    assert!(running.take().expect("it runs").terminate().success(), "SIGTERM ends the worker with 0");
    let figures = verify(network.store()).expect("the store is sound");
    assert_eq!((figures.committed, figures.states), (winners.len() as u64, winners.len() as u64));
    let reader = Reader::open(network.store()).expect("the store opens");
    for (coin, winner) in &winners {
        let consumer = reader.consumer(coin).expect("it reads").expect("the coin is spent");
        assert_eq!((consumer.tx_id, consumer.outcome), (*winner, LoggedOutcome::Committed));
    }
}
