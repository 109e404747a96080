package judge;

import static judge.Verdicts.require;

import java.io.NotSerializableException;
import java.time.Duration;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import net.corda.core.flows.FlowException;
import net.corda.core.flows.NotarisationResponse;
import net.corda.core.flows.NotaryException;
import net.corda.core.flows.WaitTimeUpdate;
import net.corda.core.identity.Party;
import net.corda.node.services.statemachine.ConfirmSessionMessage;
import net.corda.node.services.statemachine.DataSessionMessage;
import net.corda.node.services.statemachine.EndSessionMessage;
import net.corda.node.services.statemachine.ErrorSessionMessage;
import net.corda.node.services.statemachine.ExistingSessionMessagePayload;
import net.corda.node.services.statemachine.RejectSessionMessage;

/**
 * A flow session from the client's side. It takes messages only in the order in which a client's flow survives them: a
 * confirm first and once, then data, then the end; or an error, or a rejection in place of the confirm.
 */
public final class Conversation {
    /** How the notary answered. */
    public sealed interface Answer {}

    public record Notarised(NotarisationResponse response) implements Answer {}

    public record Refused(NotaryException exception) implements Answer {}

    /** An error that reveals nothing: something broke on the notary's side. */
    public record Unrevealed() implements Answer {}

    /** No session at all. */
    public record Rejected(String message) implements Answer {}

    /** The notary's half of the session, once confirmed. */
    public record Peer(Party party, long sessionId, int flowVersion) {}

    private enum State {
        INITIATING, CONFIRMED, RESPONDED, OVER
    }

    /** How long anything may take. A worker answers in milliseconds; a laden machine is forgiven a lot. */
    public static final Duration PATIENCE = Duration.ofSeconds(30);

    public final long sessionId;
    public final long entropy;
    private final CompletableFuture<Peer> peer = new CompletableFuture<>();
    private final CompletableFuture<Answer> answer = new CompletableFuture<>();
    private State state = State.INITIATING;
    private NotarisationResponse response;
    private volatile String violation;

    public Conversation(long sessionId, long entropy) {
        this.sessionId = sessionId;
        this.entropy = entropy;
    }

    /** Takes one message for this session, sent by `from`. Called by one thread only. */
    public void receive(Party from, ExistingSessionMessagePayload message) {
        try {
            advance(from, message);
        } catch (Exception | AssertionError e) {
            violation = "a client's flow would fail: " + (e instanceof AssertionError ? e.getMessage() : e.toString());
            peer.completeExceptionally(new AssertionError(violation));
            answer.completeExceptionally(new AssertionError(violation));
        }
    }

    private void advance(Party from, ExistingSessionMessagePayload message) throws NotSerializableException {
        if (message instanceof ConfirmSessionMessage confirm) {
            require(state == State.INITIATING, "a confirm in state %s", state);
            state = State.CONFIRMED;
            peer.complete(new Peer(from, confirm.getInitiatedSessionId().getToLong(),
                    confirm.getInitiatedFlowInfo().getFlowVersion()));
        } else if (message instanceof RejectSessionMessage reject) {
            require(state == State.INITIATING, "a rejection in state %s", state);
            state = State.OVER;
            peer.completeExceptionally(new AssertionError("the session was rejected: " + reject.getMessage()));
            answer.complete(new Rejected(reject.getMessage()));
        } else if (message instanceof DataSessionMessage data) {
            require(state == State.CONFIRMED, "data in state %s", state);
            receiveData(Corda.deserialize(Object.class, data.getPayload()));
        } else if (message instanceof ErrorSessionMessage error) {
            require(state == State.CONFIRMED, "an error in state %s", state);
            state = State.OVER;
            FlowException exception = error.getFlowException();
            if (exception == null) {
                answer.complete(new Unrevealed());
            } else {
                require(exception instanceof NotaryException, "not an error of a notary: %s", exception);
                answer.complete(new Refused((NotaryException) exception));
            }
        } else if (message instanceof EndSessionMessage) {
            require(state == State.RESPONDED, "the end in state %s", state);
            state = State.OVER;
            answer.complete(new Notarised(response));
        } else {
            throw new AssertionError("an unknown kind of session message: " + message);
        }
    }

    private void receiveData(Object payload) {
        if (payload instanceof NotarisationResponse notarised) {
            state = State.RESPONDED;
            response = notarised;
        } else {
            // Only a hint to be patient.
            require(payload instanceof WaitTimeUpdate, "unexpected data: %s", payload);
        }
    }

    public Peer awaitConfirm() throws Exception {
        return await(peer, "confirm");
    }

    public Answer awaitAnswer() throws Exception {
        return await(answer, "answer");
    }

    /** The same for who does not wait. */
    public CompletableFuture<Answer> answered() {
        return answer.copy();
    }

    /** What went wrong after the answer, if anything. */
    public String violation() {
        return violation;
    }

    private <T> T await(CompletableFuture<T> future, String what) throws Exception {
        try {
            return future.get(PATIENCE.toMillis(), TimeUnit.MILLISECONDS);
        } catch (TimeoutException e) {
            throw new AssertionError("no " + what + " within " + PATIENCE);
        } catch (ExecutionException e) {
            throw new AssertionError(e.getCause().getMessage());
        }
    }
}
