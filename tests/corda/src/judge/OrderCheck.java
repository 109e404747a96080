package judge;

import static judge.Verdicts.require;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import judge.Conversation.Notarised;
import judge.Conversation.Refused;
import net.corda.core.identity.Party;
import net.corda.node.services.statemachine.ExistingSessionMessage;
import net.corda.node.services.statemachine.SessionMessage;

/** Judges the judge: a conversation must fail on the orders of messages on which a client's flow fails. */
final class OrderCheck {
    private static final String CONFIRM = "session_confirm.bin";
    private static final String WAIT = "wait_time_update.bin";
    private static final String RESPONSE = "response_single.bin";
    private static final String END = "session_end.bin";
    private static final String ERROR = "session_error_conflict.bin";
    private static final String REJECT = "session_reject.bin";

    private final Path vectors;
    private final Party notary;

    private OrderCheck(Path vectors) throws Exception {
        this.vectors = vectors;
        this.notary = Corda.deserialize(Party.class, Files.readAllBytes(vectors.resolve("party_notary.bin")));
    }

    static void judge(Path vectors, Verdicts verdicts) throws Exception {
        OrderCheck check = new OrderCheck(vectors);
        verdicts.judge("a conversation takes confirm, wait, response, end", () -> {
            Conversation.Answer answer = check.play(List.of(CONFIRM, WAIT, RESPONSE, END)).awaitAnswer();
            require(answer instanceof Notarised, "answered with %s", answer);
            return "";
        });
        verdicts.judge("a conversation takes confirm, error", () -> {
            Conversation.Answer answer = check.play(List.of(CONFIRM, ERROR)).awaitAnswer();
            require(answer instanceof Refused, "answered with %s", answer);
            return "";
        });
        List<List<String>> broken = List.of(List.of(RESPONSE), List.of(ERROR), List.of(END), List.of(CONFIRM, CONFIRM),
                List.of(CONFIRM, END), List.of(CONFIRM, REJECT), List.of(CONFIRM, RESPONSE, RESPONSE),
                List.of(CONFIRM, RESPONSE, END, END), List.of(CONFIRM, ERROR, END), List.of(REJECT, CONFIRM));
        for (List<String> order : broken) {
            verdicts.judge("a conversation fails on " + String.join(", ", order), () -> {
                String violation = check.play(order).violation();
                require(violation != null, "it takes that");
                return violation;
            });
        }
    }

    private Conversation play(List<String> files) throws Exception {
        Conversation conversation = new Conversation(0, 0);
        for (String file : files) {
            byte[] bytes = Files.readAllBytes(vectors.resolve(file));
            ExistingSessionMessage message = (ExistingSessionMessage) Corda.deserialize(SessionMessage.class, bytes);
            conversation.receive(notary, message.getPayload());
        }
        return conversation;
    }
}
