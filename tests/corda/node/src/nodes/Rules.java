package nodes;

import static judge.Verdicts.require;
import static judge.Verdicts.requireEqual;
import static nodes.Parties.consumedBy;
import static nodes.Parties.requireConflict;
import static nodes.Parties.requireRefused;

import coin.Answer;
import coin.Coin;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Future;
import judge.Verdicts;
import net.corda.core.contracts.StateAndRef;
import net.corda.core.contracts.StateRef;
import net.corda.core.contracts.TimeWindow;
import net.corda.core.crypto.SecureHash;
import net.corda.core.flows.NotaryError;
import net.corda.core.flows.StateConsumptionDetails.ConsumedStateType;
import net.corda.core.transactions.SignedTransaction;

/** What a notary service must answer while all is well. Each claim uses coins of its own. */
final class Rules {
    private static final int MANY_INPUTS = 300;

    /** Rivals for one coin, half of them from each party. */
    private static final int RIVALS = 12;

    /** Transactions in flight at once, half of them from each party. */
    private static final int AT_ONCE = 60;

    private final Parties parties;
    private final ClientNode alice;
    private final ClientNode bob;
    private final boolean ours;

    /** `ours`: what is asked of our workers and is known not to hold with Corda's own notary. */
    Rules(Parties parties, boolean ours) {
        this.parties = parties;
        this.alice = parties.alice;
        this.bob = parties.bob;
        this.ours = ours;
    }

    void judge(Verdicts verdicts) {
        judgeFinality(verdicts);
        judgeRepeats(verdicts);
        judgeConflicts(verdicts);
        judgeTimeWindows(verdicts);
        judgeNotaryChange(verdicts);
        judgeMany(verdicts);
    }

    private void judgeFinality(Verdicts verdicts) {
        verdicts.judge("an issuance needs no notary, and both parties record it", () -> {
            SignedTransaction issued =
                    ClientNode.await(alice.finalising(alice.issuing(parties.notary, 1, null), bob.party()));
            require(issued.getSigs().stream().noneMatch(sig -> sig.getBy().equals(parties.notary.getOwningKey())),
                    "the notary signed");
            return requireRecorded(issued.getId());
        });
        verdicts.judge("an issuance with a time window becomes final", () ->
                requireFinal(alice.issuing(parties.notary, 1, soon())));
        verdicts.judge("a spending becomes final", () -> requireFinal(parties.spending(alice, parties.coin())));
        verdicts.judge("a coin is spent again and again along a chain, by both parties in turn", () -> {
            StateRef coin = parties.coin();
            SignedTransaction first = finalise(alice, parties.spending(alice, coin), bob);
            SignedTransaction second = finalise(bob, parties.spending(bob, new StateRef(first.getId(), 0)), alice);
            return requireFinal(parties.spending(alice, new StateRef(second.getId(), 0)));
        });
        verdicts.judge("several inputs, references and a time window become final", () ->
                requireFinal(alice.spending(parties.notary, parties.coins(5), parties.coins(3), soon())));
        verdicts.judge(MANY_INPUTS + " inputs become final", () ->
                requireFinal(alice.spending(parties.notary, parties.coins(MANY_INPUTS), List.of(), null)));
    }

    private static SignedTransaction finalise(ClientNode by, SignedTransaction transaction, ClientNode witness) {
        return ClientNode.await(by.finalising(transaction, witness.party()));
    }

    /** Final with Alice, witnessed by Bob: his node verified all of it again. */
    private String requireFinal(SignedTransaction transaction) {
        SignedTransaction done = finalise(alice, transaction, bob);
        requireEqual(transaction.getId(), done.getId(), "transaction");
        parties.requireSigned(done.getId(), done.getSigs());
        return requireRecorded(done.getId());
    }

    private String requireRecorded(SecureHash id) {
        alice.awaitRecorded(id);
        bob.awaitRecorded(id);
        return id.prefixChars(8);
    }

    private void judgeRepeats(Verdicts verdicts) {
        verdicts.judge("a notarised transaction is notarised again", () -> {
            SignedTransaction transaction = parties.spending(alice, parties.coin());
            parties.requireNotarised(transaction.getId(), alice.ask(transaction));
            return parties.requireNotarised(transaction.getId(), alice.ask(transaction));
        });
        verdicts.judge("another party's notarised transaction is notarised again", () -> {
            SignedTransaction transaction = parties.spending(alice, parties.coin());
            parties.requireNotarised(transaction.getId(), alice.ask(transaction));
            return parties.requireNotarised(transaction.getId(), bob.ask(transaction));
        });
        if (ours) {
            // Corda's own notary forgets here that it signed, and refuses.
            verdicts.judge("after its reference was spent, a transaction is notarised again", () -> {
                StateRef reference = parties.coin();
                SignedTransaction transaction =
                        alice.spending(parties.notary, parties.coins(1), List.of(reference), null);
                parties.requireNotarised(transaction.getId(), alice.ask(transaction));
                SignedTransaction consumer = parties.spending(bob, reference);
                parties.requireNotarised(consumer.getId(), bob.ask(consumer));
                return parties.requireNotarised(transaction.getId(), alice.ask(transaction));
            });
        }
        verdicts.judge("after its time window, a transaction is notarised again", () -> {
            // Enough for a laden machine to ask once within the window.
            Instant end = Instant.now().plusSeconds(8);
            SignedTransaction transaction = parties.spendingWithin(TimeWindow.untilOnly(end), parties.coin());
            parties.requireNotarised(transaction.getId(), alice.ask(transaction));
            // The one wait for the clock: the claim is about its passing.
            while (!Instant.now().isAfter(end)) {
                Thread.sleep(Duration.between(Instant.now(), end).toMillis() + 1);
            }
            return parties.requireNotarised(transaction.getId(), alice.ask(transaction));
        });
    }

    private void judgeConflicts(Verdicts verdicts) {
        verdicts.judge("of two transactions, built before either was notarised, the second is a conflict", () -> {
            StateRef coin = parties.coin();
            SignedTransaction winner = parties.spending(alice, coin);
            SignedTransaction rival = parties.spending(bob, coin);
            parties.requireNotarised(winner.getId(), alice.ask(winner));
            return requireConflict(rival, bob.ask(rival), Map.of(coin, consumedBy(winner)));
        });
        verdicts.judge("a conflict names each spent input and its consumer, and no other", () -> {
            List<StateRef> coins = parties.coins(3);
            SignedTransaction rival = alice.spending(parties.notary, coins, List.of(), null);
            SignedTransaction first = parties.spending(alice, coins.get(0));
            SignedTransaction third = parties.spending(bob, coins.get(2));
            parties.requireNotarised(first.getId(), alice.ask(first));
            parties.requireNotarised(third.getId(), bob.ask(third));
            String conflict = requireConflict(rival, alice.ask(rival),
                    Map.of(coins.get(0), consumedBy(first), coins.get(2), consumedBy(third)));
            SignedTransaction second = parties.spending(bob, coins.get(1));
            parties.requireNotarised(second.getId(), bob.ask(second));
            return conflict + ", and the other input stays unspent";
        });
        verdicts.judge("a conflict is a conflict again", () -> {
            StateRef coin = parties.coin();
            SignedTransaction winner = parties.spending(alice, coin);
            SignedTransaction rival = parties.spending(alice, coin);
            parties.requireNotarised(winner.getId(), alice.ask(winner));
            requireConflict(rival, alice.ask(rival), Map.of(coin, consumedBy(winner)));
            return requireConflict(rival, alice.ask(rival), Map.of(coin, consumedBy(winner)));
        });
        verdicts.judge("a reference to a spent state is a conflict of that type", () -> {
            StateRef reference = parties.coin();
            SignedTransaction reader =
                    alice.spending(parties.notary, parties.coins(1), List.of(reference, parties.coin()), null);
            SignedTransaction consumer = parties.spending(bob, reference);
            parties.requireNotarised(consumer.getId(), bob.ask(consumer));
            return requireConflict(reader, alice.ask(reader), Map.of(
                    reference, consumedBy(consumer.getId(), ConsumedStateType.REFERENCE_INPUT_STATE)));
        });
        verdicts.judge("a double spend fails finality, and neither party records it", () -> {
            StateRef coin = parties.coin();
            SignedTransaction winner = parties.spending(alice, coin);
            SignedTransaction rival = parties.spending(alice, coin);
            finalise(alice, winner, bob);
            try {
                finalise(alice, rival, bob);
            } catch (AssertionError refused) {
                require(refused.getMessage().contains("Conflict"), "refused otherwise: %s", refused.getMessage());
                require(alice.recorded(rival.getId()) == null && bob.recorded(rival.getId()) == null, "recorded");
                return "";
            }
            throw new AssertionError("final: " + rival.getId());
        });
    }

    private void judgeTimeWindows(Verdicts verdicts) {
        judgeOutside(verdicts, "a time window that is over is refused",
                now -> TimeWindow.untilOnly(now.minusSeconds(60)));
        judgeOutside(verdicts, "a time window with two ends that is over is refused",
                now -> TimeWindow.between(now.minusSeconds(120), now.minusSeconds(60)));
        judgeOutside(verdicts, "a time window that has not begun is refused",
                now -> TimeWindow.fromOnly(now.plus(Duration.ofHours(1))));
        verdicts.judge("an issuance outside its time window is refused", () -> {
            SignedTransaction issuance =
                    alice.issuing(parties.notary, 1, TimeWindow.untilOnly(Instant.now().minusSeconds(60)));
            requireRefused(NotaryError.TimeWindowInvalid.class, issuance, alice.ask(issuance));
            return "";
        });
        verdicts.judge("a conflict is told before the time window", () -> {
            StateRef coin = parties.coin();
            SignedTransaction rival =
                    parties.spendingWithin(TimeWindow.untilOnly(Instant.now().minusSeconds(60)), coin);
            SignedTransaction winner = parties.spending(bob, coin);
            parties.requireNotarised(winner.getId(), bob.ask(winner));
            return requireConflict(rival, alice.ask(rival), Map.of(coin, consumedBy(winner)));
        });
    }

    private interface Window {
        TimeWindow at(Instant now);
    }

    private void judgeOutside(Verdicts verdicts, String claim, Window window) {
        verdicts.judge(claim + ", and spends nothing", () -> {
            StateRef coin = parties.coin();
            TimeWindow outside = window.at(Instant.now());
            SignedTransaction transaction = parties.spendingWithin(outside, coin);
            NotaryError.TimeWindowInvalid error =
                    requireRefused(NotaryError.TimeWindowInvalid.class, transaction, alice.ask(transaction));
            requireEqual(outside, error.getTxTimeWindow(), "window");
            Duration apart = Duration.between(error.getCurrentTime(), Instant.now()).abs();
            require(apart.compareTo(ClientNode.PATIENCE) < 0, "the notary's time is %s away", apart);
            SignedTransaction other = parties.spending(alice, coin);
            parties.requireNotarised(other.getId(), alice.ask(other));
            return "at " + error.getCurrentTime();
        });
    }

    private void judgeNotaryChange(Verdicts verdicts) {
        verdicts.judge("a coin moves to another notary, and is spent at this one", () -> {
            StateRef coin = parties.coin();
            SignedTransaction rival = parties.spending(bob, coin);
            StateAndRef<Coin> moved = alice.changeNotary(coin, parties.otherNotary);
            requireEqual(parties.otherNotary, moved.getState().getNotary(), "notary");
            SignedTransaction change = alice.recorded(moved.getRef().getTxhash());
            parties.requireSigned(change.getId(), change.getSigs());
            return requireConflict(rival, bob.ask(rival), Map.of(coin, consumedBy(change)));
        });
        verdicts.judge("a spent coin cannot move", () -> {
            StateRef coin = parties.coin();
            SignedTransaction winner = parties.spending(bob, coin);
            parties.requireNotarised(winner.getId(), bob.ask(winner));
            try {
                alice.changeNotary(coin, parties.otherNotary);
            } catch (AssertionError refused) {
                require(refused.getMessage().contains("Unable to notarise"),
                        "refused otherwise: %s", refused.getMessage());
                return "";
            }
            throw new AssertionError("moved");
        });
    }

    private void judgeMany(Verdicts verdicts) {
        verdicts.judge("of " + RIVALS + " rivals at once exactly one wins, and the others name it", () -> {
            StateRef coin = parties.coin();
            List<SignedTransaction> rivals = new ArrayList<>();
            for (int i = 0; i < RIVALS; i++) {
                rivals.add(parties.spending(i % 2 == 0 ? alice : bob, coin));
            }
            return requireOneWinner(coin, rivals);
        });
        verdicts.judge("of two that spend and refer crosswise at most one is notarised", () -> {
            StateRef here = parties.coin();
            StateRef there = parties.coin();
            SignedTransaction one = alice.spending(parties.notary, List.of(here), List.of(there), null);
            SignedTransaction other = bob.spending(parties.notary, List.of(there), List.of(here), null);
            Future<Answer> ofOne = alice.asking(one);
            Future<Answer> ofOther = bob.asking(other);
            Answer first = ClientNode.await(ofOne);
            Answer second = ClientNode.await(ofOther);
            require(first.getError() == null ^ second.getError() == null,
                    "answers: %s and %s", first.getError(), second.getError());
            boolean firstWon = first.getError() == null;
            SignedTransaction winner = firstWon ? one : other;
            SignedTransaction loser = firstWon ? other : one;
            parties.requireNotarised(winner.getId(), firstWon ? first : second);
            NotaryError.Conflict conflict =
                    requireRefused(NotaryError.Conflict.class, loser, firstWon ? second : first);
            StateRef lost = firstWon ? here : there;
            // Corda's own notary tells a reference from an input only if the other transaction is of an earlier batch.
            ConsumedStateType type = ours
                    ? ConsumedStateType.REFERENCE_INPUT_STATE : conflict.getConsumedStates().get(lost).getType();
            requireEqual(Map.of(lost, consumedBy(winner.getId(), type)), conflict.getConsumedStates(), "consumed");
            return winner.getId().prefixChars(8);
        });
        verdicts.judge(AT_ONCE + " transactions at once are notarised, and each node verifies its signatures", () -> {
            List<SignedTransaction> transactions = new ArrayList<>();
            for (int i = 0; i < AT_ONCE; i++) {
                transactions.add(parties.spending(i % 2 == 0 ? alice : bob, parties.coin()));
            }
            List<Answer> answers = askAll(transactions);
            long together = 0;
            for (int i = 0; i < AT_ONCE; i++) {
                parties.requireNotarised(transactions.get(i).getId(), answers.get(i));
                together += answers.get(i).getSignatures().stream()
                        .filter(signature -> signature.getPartialMerkleTree() != null).count();
            }
            return together + " under a signature with others";
        });
    }

    /** Asks for all at once, from the two nodes in turn. */
    private List<Answer> askAll(List<SignedTransaction> transactions) {
        List<Future<Answer>> asked = new ArrayList<>();
        for (SignedTransaction transaction : transactions) {
            asked.add((asked.size() % 2 == 0 ? alice : bob).asking(transaction));
        }
        return asked.stream().map(ClientNode::await).toList();
    }

    private String requireOneWinner(StateRef coin, List<SignedTransaction> rivals) {
        List<Answer> answers = askAll(rivals);
        List<SignedTransaction> winners = new ArrayList<>();
        for (int i = 0; i < rivals.size(); i++) {
            if (answers.get(i).getError() == null) {
                winners.add(rivals.get(i));
                parties.requireNotarised(rivals.get(i).getId(), answers.get(i));
            }
        }
        requireEqual(1, winners.size(), "winners");
        for (int i = 0; i < rivals.size(); i++) {
            if (answers.get(i).getError() != null) {
                requireConflict(rivals.get(i), answers.get(i), Map.of(coin, consumedBy(winners.get(0))));
            }
        }
        return winners.get(0).getId().prefixChars(8);
    }

    private static TimeWindow soon() {
        return TimeWindow.withTolerance(Instant.now(), Duration.ofMinutes(10));
    }
}
