package nodes;

import static judge.Verdicts.require;
import static judge.Verdicts.requireEqual;
import static nodes.Parties.consumedBy;
import static nodes.Parties.requireConflict;

import coin.Answer;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Future;
import java.util.regex.Pattern;
import judge.Verdicts;
import net.corda.core.contracts.StateRef;
import net.corda.core.transactions.SignedTransaction;

/** What clients must get although workers, or the clients themselves, are killed. */
final class Outages {
    /** Where a worker is killed: the points of a delivery's way at which its tests can break it. */
    private static final List<String> STAGES = List.of(
            "before_commit", "committed", "before_sign", "signed", "before_publish", "published", "before_ack");

    /** Transactions at once, so that each worker gets some: a client hands its requests out in turn. */
    private static final int AT_ONCE = 6;

    /** How a process ends by SIGKILL, as Java tells it. */
    private static final int KILLED = 128 + 9;

    /** A bridge that lost its worker tries again after 2, 4, 8, ... 60 s. */
    private static final Duration RECONNECT = Duration.ofSeconds(150);

    private final Parties parties;
    private final Workers workers;
    private final ClientNode alice;

    Outages(Parties parties, Workers workers) {
        this.parties = parties;
        this.workers = workers;
        this.alice = parties.alice;
    }

    /** `stages`: the workers can be broken at each stage. */
    void judge(Verdicts verdicts, boolean stages) {
        if (stages) {
            for (String stage : STAGES) {
                judgeKilledAt(verdicts, stage);
            }
        }
        if (workers.count() > 1) {
            judgeFrozen(verdicts);
        }
        verdicts.judge("with all workers killed, requests wait until they are back", () -> {
            workers.killAll();
            List<Asked> asked = ask(AT_ONCE);
            workers.startAll();
            return requireAnswered(asked);
        });
        verdicts.judge("what was notarised before all workers were killed is known to the next ones", () -> {
            List<Asked> asked = ask(AT_ONCE);
            requireAnswered(asked);
            int mark = alice.logged();
            workers.killAll();
            workers.startAll();
            awaitBridges(mark);
            return requireRivalsRefused(asked);
        });
        verdicts.judge("a client killed while it waits finalises after its restart", () -> {
            workers.killAll();
            StateRef coin = parties.coin();
            SignedTransaction transaction = parties.spending(alice, coin);
            int mark = alice.logged();
            alice.finalising(transaction, parties.bob.party());
            alice.awaitLog(mark, Pattern.compile("Sending transaction to notary"), ClientNode.PATIENCE);
            alice.kill();
            workers.startAll();
            alice.start();
            alice.connect();
            alice.awaitRecorded(transaction.getId());
            parties.bob.awaitRecorded(transaction.getId());
            SignedTransaction recorded = alice.recorded(transaction.getId());
            return parties.requireSigned(recorded.getId(), recorded.getSigs());
        });
    }

    private record Asked(StateRef coin, SignedTransaction transaction, Future<Answer> answer) {}

    private List<Asked> ask(int count) {
        List<Asked> asked = new ArrayList<>();
        for (StateRef coin : parties.coins(count)) {
            SignedTransaction transaction = parties.spending(alice, coin);
            asked.add(new Asked(coin, transaction, alice.asking(transaction)));
        }
        return asked;
    }

    private String requireAnswered(List<Asked> asked) {
        for (Asked one : asked) {
            parties.requireNotarised(one.transaction().getId(), ClientNode.await(one.answer()));
        }
        return asked.size() + " transactions";
    }

    /** Each coin is spent, by the transaction that asked for it: nothing was lost, and nothing decided twice. */
    private String requireRivalsRefused(List<Asked> asked) {
        for (Asked one : asked) {
            SignedTransaction rival = parties.spending(parties.bob, one.coin());
            requireConflict(rival, parties.bob.ask(rival), Map.of(one.coin(), consumedBy(one.transaction())));
        }
        return asked.size() + " transactions";
    }

    /** Waits until the client's bridges have found all workers. */
    private void awaitBridges(int since) {
        for (int worker = 1; worker <= workers.count(); worker++) {
            awaitBridge(since, worker);
        }
    }

    private void awaitBridge(int since, int worker) {
        alice.awaitLog(since, Pattern.compile(
                "Handshake completed with subject: " + Pattern.quote(workers.name(worker)) + ","), RECONNECT);
    }

    private void judgeKilledAt(Verdicts verdicts, String stage) {
        verdicts.judge("a worker killed at the stage «" + stage + "» costs no answer", () -> {
            int mark = alice.logged();
            workers.stop(1);
            workers.start(1, Map.of("NOTARY_FAULTS", stage + "=kill"), List.of());
            awaitBridge(mark, 1);
            List<Asked> asked = new ArrayList<>(ask(AT_ONCE));
            requireEqual(KILLED, workers.awaitEnd(1, ClientNode.PATIENCE), "the worker's end");
            requireAnswered(asked);
            mark = alice.logged();
            workers.start(1);
            awaitBridge(mark, 1);
            return requireRivalsRefused(asked);
        });
    }

    private void judgeFrozen(Verdicts verdicts) {
        verdicts.judge("a worker that hangs with its connections open costs no answer", () -> {
            workers.freeze(1);
            List<Asked> asked;
            try {
                asked = ask(AT_ONCE);
                requireAnswered(asked);
            } finally {
                workers.thaw(1);
            }
            require(workers.isAlive(1), "it ended");
            return requireRivalsRefused(asked);
        });
    }
}
