package nodes;

import static judge.Verdicts.require;
import static judge.Verdicts.requireEqual;
import static nodes.Parties.consumedBy;
import static nodes.Parties.requireConflict;

import coin.Answer;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.OptionalLong;
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

    private static final int KILLS = 11;

    /** What Artemis says of a message that it delivered too often. */
    private static final Pattern GIVEN_UP = Pattern.compile("AMQ222149|AMQ222150");

    /** Transactions at once, so that each worker gets some: a client hands its requests out in turn. */
    private static final int AT_ONCE = 6;

    /** Few enough to be there before the first client asks again. */
    private static final int TOGETHER = 12;

    /**
     * How long a worker takes that is slow on purpose: less than a client's patience, {@link
     * Network#FLOW_TIMEOUT_SECONDS}, ...
     */
    private static final int QUICK_MS = 3_000;

    /** ... and, added to it, more than that with all of its jitter, which is a half. */
    private static final int SLOW_MS = 9_000;

    /** Each of these is told to wait longer than the one before it. A worker takes no more from a bridge at once. */
    private static final int TOLD = 5;

    /** A bridge that lost its worker tries again after 2, 4, 8, ... 60 s. */
    private static final Duration RECONNECT = Duration.ofSeconds(150);

    private final Parties parties;
    private final Workers workers;
    private final Broker broker;
    private final ClientNode alice;
    private final boolean ours;

    /** `broker`: what lies between nodes and workers, or null. `ours`: the workers can be broken at each stage. */
    Outages(Parties parties, Workers workers, Broker broker, boolean ours) {
        this.parties = parties;
        this.workers = workers;
        this.broker = broker;
        this.alice = parties.alice;
        this.ours = ours;
    }

    void judge(Verdicts verdicts) {
        if (ours) {
            for (String stage : STAGES) {
                judgeKilledAt(verdicts, stage);
            }
            judgeKilledAgainAndAgain(verdicts);
            judgeTogether(verdicts);
            // What follows takes half a minute and has nothing to do with what is between nodes and workers.
            if (broker == null) {
                judgeWait(verdicts);
            }
        }
        if (workers.count() > 1) {
            judgeFrozen(verdicts);
        }
        if (broker != null) {
            judgeBrokerKilled(verdicts);
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
            workers.killAll();
            workers.startAll();
            return requireRivalsRefused(asked);
        });
        if (broker == null) {
            judgeClientKilled(verdicts);
        }
    }

    private void judgeClientKilled(Verdicts verdicts) {
        verdicts.judge("a client killed while it waits finalises after its restart", () -> {
            workers.killAll();
            StateRef coin = parties.coin();
            SignedTransaction transaction = parties.spending(alice, coin);
            int mark = alice.logged();
            alice.finalising(transaction, parties.bob.party());
            alice.awaitLog(mark, Pattern.compile("Sending transaction to notary"), 1, ClientNode.PATIENCE);
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

    private void judgeKilledAt(Verdicts verdicts, String stage) {
        verdicts.judge("a worker killed at the stage «" + stage + "» costs no answer", () -> {
            workers.stop(1);
            workers.start(1, Map.of("NOTARY_FAULTS", stage + "=kill"), List.of());
            // The other worker gets all requests until the client's bridge has found this one.
            Instant deadline = Instant.now().plus(RECONNECT);
            List<Asked> asked;
            do {
                require(Instant.now().isBefore(deadline), "the worker was not killed within %s", RECONNECT);
                asked = ask(AT_ONCE);
                requireAnswered(asked);
            } while (workers.isAlive(1));
            requireEqual(Child.KILLED, workers.awaitEnd(1, ClientNode.PATIENCE), "the worker's end");
            workers.start(1);
            return requireRivalsRefused(asked);
        });
    }

    /** A broker's own default is to give a message up after ten deliveries. */
    private void judgeKilledAgainAndAgain(Verdicts verdicts) {
        verdicts.judge("a request whose worker is killed " + KILLS + " times is answered by the next one", () -> {
            int mark = alice.logged();
            workers.killAll();
            List<Asked> asked = ask(1);
            for (int i = 0; i < KILLS; i++) {
                workers.start(1, Map.of("NOTARY_FAULTS", "before_publish=kill"), List.of());
                requireEqual(Child.KILLED, workers.awaitEnd(1, RECONNECT), "the worker's end");
            }
            workers.startAll();
            requireAnswered(asked);
            requireEqual(0L, alice.count(mark, GIVEN_UP), "messages that the client's broker gave up");
            return requireRivalsRefused(asked);
        });
    }

    /** Committed transactions that reach the signing stage at once. */
    private void judgeTogether(Verdicts verdicts) {
        verdicts.judge("requests that arrive together come under one signature, and clients verify it", () -> {
            workers.killAll();
            List<Asked> asked = ask(TOGETHER);
            // Another worker would take some of them.
            workers.start(1, Map.of("NOTARY_FAULTS", "before_sign=gather:" + TOGETHER), List.of());
            requireAnswered(asked);
            workers.stop(1);
            workers.startAll();
            long together = asked.stream().flatMap(one -> ClientNode.await(one.answer()).getSignatures().stream())
                    .filter(signature -> signature.getPartialMerkleTree() != null).count();
            require(together > 1, "%d came under a signature with others", together);
            return together + " of " + asked.size();
        });
    }

    /**
     * Rows BP1, BP4. The first request tells the worker how fast it is; the next ones take longer than clients wait.
     */
    private void judgeWait(Verdicts verdicts) {
        verdicts.judge("clients told of a long wait do not ask again before its end, and others do", () -> {
            workers.killAll();
            // Within the clients' patience, and then beyond it: from the second request on.
            String faults = "before_sign=delay:" + QUICK_MS + ";before_commit=delay:" + SLOW_MS + "@2";
            workers.start(1, Map.of("NOTARY_FAULTS", faults), List.of("--set", "flow.eta_message_threshold_ms=0"));
            requireAnswered(ask(1));
            int mark = alice.logged();
            List<Asked> asked = ask(TOLD);
            requireAnswered(asked);
            int obeyed = 0;
            int impatient = 0;
            for (Asked one : asked) {
                String about = " \\[" + one.transaction().getId() + "\\]";
                long attempts = alice.count(mark, Pattern.compile("Sending transaction to notary: .*" + about));
                OptionalLong told = alice.find(mark, Pattern.compile(
                        "has been asked to wait for an additional PT([0-9]+)S for completion\\.*" + about))
                        .mapToLong(found -> Long.parseLong(found.group(1))).min();
                if (told.isPresent() && told.getAsLong() * 1_000 > QUICK_MS + SLOW_MS) {
                    requireEqual(1L, attempts, "attempts of one that was told " + told.getAsLong() + " s");
                    obeyed++;
                } else if (attempts > 1) {
                    impatient++;
                }
            }
            workers.stop(1);
            workers.startAll();
            require(obeyed > 0, "none was told of a long wait");
            require(impatient > 0, "no client asks again, told or not");
            return obeyed + " waited, " + impatient + " asked again";
        });
    }

    /** Row LB5. */
    private void judgeBrokerKilled(Verdicts verdicts) {
        verdicts.judge("a broker killed with requests under way costs no answer", () -> {
            List<Asked> asked = ask(AT_ONCE);
            broker.kill();
            broker.start();
            requireAnswered(asked);
            return requireRivalsRefused(asked);
        });
        verdicts.judge("what waits in a broker that is killed, for workers that are down, is answered", () -> {
            workers.killAll();
            List<Asked> asked = ask(AT_ONCE);
            broker.kill();
            broker.start();
            workers.startAll();
            requireAnswered(asked);
            return requireRivalsRefused(asked);
        });
        verdicts.judge("workers that start before their broker serve when it is there", () -> {
            workers.killAll();
            broker.kill();
            List<Asked> asked = ask(AT_ONCE);
            for (int number = 1; number <= workers.count(); number++) {
                workers.launch(number);
            }
            broker.start();
            workers.startAll();
            return requireAnswered(asked);
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
