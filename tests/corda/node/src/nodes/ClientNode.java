package nodes;

import static judge.Verdicts.require;

import coin.Answer;
import coin.Build;
import coin.ChangeNotary;
import coin.Coin;
import coin.Finalise;
import coin.Notarise;
import coin.Plan;
import java.nio.file.Path;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.regex.MatchResult;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import net.corda.client.rpc.CordaRPCClient;
import net.corda.client.rpc.CordaRPCConnection;
import net.corda.core.contracts.StateAndRef;
import net.corda.core.contracts.StateRef;
import net.corda.core.contracts.TimeWindow;
import net.corda.core.crypto.SecureHash;
import net.corda.core.identity.Party;
import net.corda.core.messaging.CordaRPCOps;
import net.corda.core.transactions.SignedTransaction;
import net.corda.core.utilities.NetworkHostAndPort;

/** An unmodified node of a party, as a process of its own, driven by RPC. */
final class ClientNode implements AutoCloseable {
    /** How long one flow may take: several of the client's own attempts, whose limits grow. */
    static final Duration PATIENCE = Duration.ofSeconds(120);

    private static final Pattern READY = Pattern.compile("Running P2PMessaging loop");

    private final String folder;
    private final Child child;
    private final int rpcPort;
    private CordaRPCClient client;
    private CordaRPCConnection connection;
    private Party party;

    ClientNode(Network network, String folder, Path nodeArguments, Path logs) {
        this.folder = folder;
        rpcPort = network.rpcPort(folder);
        child = new Child(folder, Child.java(nodeArguments), network.folder(folder), logs.resolve(folder + ".log"),
                READY);
    }

    void start() {
        child.start();
    }

    void connect() {
        child.awaitReady();
        if (client == null) {
            client = new CordaRPCClient(new NetworkHostAndPort("127.0.0.1", rpcPort));
        }
        connection = client.start(Network.RPC_USER, Network.RPC_PASSWORD);
        party = rpc().nodeInfo().getLegalIdentities().get(0);
    }

    boolean isConnected() {
        return connection != null;
    }

    /** As a power cut would. */
    void kill() {
        connection.forceClose();
        child.kill();
    }

    /** Ends the process alone, whatever state we are in. */
    void abandon() {
        child.kill();
    }

    @Override
    public void close() {
        if (connection != null) {
            connection.forceClose();
        }
        child.stop();
    }

    CordaRPCOps rpc() {
        return connection.getProxy();
    }

    Party party() {
        return party;
    }

    /** Builds and signs, and asks nobody. */
    SignedTransaction issuing(Party notary, int coins, TimeWindow window) {
        return build(new Plan(notary, new ArrayList<>(), new ArrayList<>(), coins, window));
    }

    SignedTransaction spending(Party notary, List<StateRef> inputs, List<StateRef> references, TimeWindow window) {
        return build(new Plan(notary, new ArrayList<>(inputs), new ArrayList<>(references), 0, window));
    }

    private SignedTransaction build(Plan plan) {
        return await(rpc().startFlowDynamic(Build.class, plan).getReturnValue());
    }

    Future<Answer> asking(SignedTransaction transaction) {
        return rpc().startFlowDynamic(Notarise.class, transaction).getReturnValue();
    }

    Answer ask(SignedTransaction transaction) {
        return await(asking(transaction));
    }

    Future<SignedTransaction> finalising(SignedTransaction transaction, Party witness) {
        return rpc().startFlowDynamic(Finalise.class, transaction, witness).getReturnValue();
    }

    StateAndRef<Coin> changeNotary(StateRef coin, Party notary) {
        return await(rpc().startFlowDynamic(ChangeNotary.class, coin, notary).getReturnValue());
    }

    static <T> T await(Future<T> result) {
        try {
            return result.get(PATIENCE.toMillis(), TimeUnit.MILLISECONDS);
        } catch (ExecutionException e) {
            throw new AssertionError("the flow failed: " + e.getCause(), e);
        } catch (TimeoutException e) {
            throw new AssertionError("the flow has no result after " + PATIENCE, e);
        } catch (InterruptedException e) {
            throw new IllegalStateException("nobody interrupts the judge", e);
        }
    }

    /** A transaction that this node has recorded, verified; null if it has not. */
    @SuppressWarnings("deprecation")
    SignedTransaction recorded(SecureHash id) {
        return rpc().internalFindVerifiedTransaction(id);
    }

    /** Waits until it has recorded the transaction. */
    void awaitRecorded(SecureHash id) {
        Instant deadline = Instant.now().plus(PATIENCE);
        while (recorded(id) == null) {
            require(Instant.now().isBefore(deadline), "%s has not recorded %s after %s", folder, id, PATIENCE);
            Child.pause();
        }
    }

    /** What the node has logged so far: a mark for {@link #awaitLog}. */
    int logged() {
        return child.output().length();
    }

    /** Waits until so many lines match, since the mark. */
    void awaitLog(int since, Pattern line, int times, Duration patience) {
        Instant deadline = Instant.now().plus(patience);
        while (count(since, line) < times) {
            require(Instant.now().isBefore(deadline), "%s logs no «%s» within %s", folder, line, patience);
            Child.pause();
        }
    }

    /** How many lines match, since the mark. */
    long count(int since, Pattern line) {
        return find(since, line).count();
    }

    Stream<MatchResult> find(int since, Pattern line) {
        return line.matcher(child.output().substring(since)).results();
    }
}
