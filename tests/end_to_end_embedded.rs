//! The whole service on its embedded parts: endpoint, store and key file. The same scenes and bad messages as on real services
//! (`tests/trials`); poison and a worker killed at every step are in `tests/process` and `tests/worker_killed.rs`.

mod rivals;
mod worker;

use notary_worker::client::cast::Cast;
use notary_worker::client::scenes;
use rivals::Rivals;

/// Larger than any message that the endpoint takes: 10 MiB and the sections around.
const OVERSIZED_BYTES: usize = 11 * 1024 * 1024;

#[test]
fn the_service_on_its_embedded_parts_keeps_its_promises() {
    let network = worker::Network::init(&[]);
    let running = network.start();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let cast = Cast::connect(&network.dir(), network.address).await.expect("the parties connect");
        let played = scenes::play(&cast).await.expect("the scenes can be played");
        let wrong: Vec<_> = played.iter().filter(|scene| !scene.right).map(|scene| scene.row().join(" | ")).collect();
        assert!(wrong.is_empty(), "wrong answers: {wrong:#?}");
        assert!(played.iter().any(|scene| scene.outcome == "Parked"), "garbage was among them");

        let oversized = cast.parties()[2].post(vec![b'x'; OVERSIZED_BYTES]).await;
        assert!(oversized.is_err(), "the endpoint does not take it: {oversized:?}");
        let rivals = Rivals::new(&cast, 20, 2);
        let answers = rivals.ask(16).await;
        rivals.judge(&answers);
        assert_eq!(answers.differences(&rivals.ask(16).await), 0, "every retry gets the same answer");
        cast.close().await;
    });
    assert_eq!(running.terminate().code(), Some(0), "SIGTERM ends the worker with 0");
}
