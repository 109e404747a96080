package judge;

import static judge.Verdicts.require;
import static judge.Verdicts.requireEqual;

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import net.corda.core.crypto.Crypto;
import org.apache.qpid.protonj2.client.Client;
import org.apache.qpid.protonj2.client.Connection;
import org.apache.qpid.protonj2.client.exceptions.ClientException;

/** Judges a notary worker with real Corda code. */
public final class Main {
    private static final String USAGE = """
            usage: vectors DIR
               or: drive --connect HOST:PORT --network DIR --party DIR --party DIR
                         --expect single|batch --scheme NAME""";

    private Main() {}

    /** Runs one mode; exits with 0 if every claim held, 1 if one did not, 2 on wrong arguments. */
    public static void main(String[] arguments) throws Exception {
        Corda.start();
        Verdicts verdicts = new Verdicts(System.out);
        switch (arguments.length == 0 ? "" : arguments[0]) {
            case "vectors" -> {
                Path directory = Path.of(Options.only(arguments));
                Vectors.judge(directory, verdicts);
                OrderCheck.judge(directory, verdicts);
            }
            case "drive" -> drive(Options.parse(arguments), verdicts);
            default -> throw Options.wrong();
        }
        System.exit(verdicts.finish() ? 0 : 1);
    }

    private record Options(String host, int port, Path network, List<Path> parties, boolean batch, String scheme) {
        static Options parse(String[] arguments) {
            String connect = null;
            Path network = null;
            List<Path> parties = new ArrayList<>();
            String expect = null;
            String scheme = null;
            for (int i = 1; i < arguments.length; i += 2) {
                if (i + 1 == arguments.length) {
                    throw wrong();
                }
                String value = arguments[i + 1];
                switch (arguments[i]) {
                    case "--connect" -> connect = value;
                    case "--network" -> network = Path.of(value);
                    case "--party" -> parties.add(Path.of(value));
                    case "--expect" -> expect = value;
                    case "--scheme" -> scheme = value;
                    default -> throw wrong();
                }
            }
            boolean complete = connect != null && connect.contains(":") && network != null && parties.size() == 2
                    && scheme != null && ("single".equals(expect) || "batch".equals(expect));
            if (!complete) {
                throw wrong();
            }
            int colon = connect.lastIndexOf(':');
            int port = Integer.parseInt(connect.substring(colon + 1));
            return new Options(connect.substring(0, colon), port, network, parties, expect.equals("batch"), scheme);
        }

        static String only(String[] arguments) {
            if (arguments.length != 2) {
                throw wrong();
            }
            return arguments[1];
        }

        /** Never returns; the result only lets callers `throw` it. */
        static IllegalArgumentException wrong() {
            System.err.println(USAGE);
            System.exit(2);
            return new IllegalArgumentException(USAGE);
        }
    }

    private static void drive(Options options, Verdicts verdicts) throws Exception {
        Network network = Network.read(options.network());
        verdicts.judge("Corda verifies the network parameters and every node info up to the root", () ->
                network.nodes().size() + " nodes, notary " + network.notary().getName());
        verdicts.judge("the service key is of the scheme asked for", () -> {
            String scheme = Crypto.findSignatureScheme(network.notary().getOwningKey()).getSchemeCodeName();
            requireEqual(options.scheme(), scheme, "scheme");
            return scheme;
        });

        Member first = Member.read(options.parties().get(0), network);
        Member second = Member.read(options.parties().get(1), network);
        try (Client client = Node.client();
                Node alice = new Node(client, options.host(), options.port(), network, first);
                Node bob = new Node(client, options.host(), options.port(), network, second)) {
            judgeAccess(client, options, network, first, second, verdicts);
            new Scenarios(network, alice, bob, options.batch()).judge(verdicts);
        }
    }

    /** Who may connect, and listen where. */
    private static void judgeAccess(
            Client client, Options options, Network network, Member alice, Member bob, Verdicts verdicts) {
        verdicts.judge("another party's password opens no connection", () -> {
            try (Connection connection = Node.connect(
                    client, options.host(), options.port(), alice.party().getName().toString(), bob.password())) {
                throw new AssertionError("connected as " + connection.client().containerId());
            } catch (ClientException refused) {
                return refused.getMessage();
            }
        });
        verdicts.judge("a party cannot listen at another's inbox", () -> {
            try (Connection connection = Node.connect(
                    client, options.host(), options.port(), alice.party().getName().toString(), alice.password())) {
                Node.await(connection.openReceiver(Network.inbox(bob.party())).openFuture());
            } catch (ClientException refused) {
                return refused.getMessage();
            }
            throw new AssertionError("it listens");
        });
        verdicts.judge("the judge speaks for two different parties", () -> {
            require(!alice.party().equals(bob.party()), "both are %s", alice.party());
            return alice.party().getName() + " and " + bob.party().getName();
        });
    }
}
