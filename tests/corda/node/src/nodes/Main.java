package nodes;

import static judge.Verdicts.require;

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.regex.Pattern;
import judge.Verdicts;
import net.corda.core.node.NodeInfo;

/** Judges a notary service with complete, unmodified Corda nodes as its clients. */
public final class Main {
    private static final String USAGE = """
            usage: make DIR --workers N --cordapp JAR --node-args FILE
               or: free DIR
               or: port
               or: judge DIR --of corda|notary --workers N --node-args FILE --logs DIR --ready REGEX [--artemis DIR]
                   -- COMMAND...
               or: follow DIR --node-args FILE --logs DIR --ready REGEX -- COMMAND...

            make    makes a network with Corda's bootstrapper
            free    succeeds if no port of the network is taken
            port    prints a free port of the loopback address
            judge   starts the nodes of two parties, and workers by the command, whose {folder} and {number} are each
                    worker's, with a broker between them if there is one. Of
                    Corda's own notary less is asked than of ours: where it is known to fail, and where only ours can
                    be broken on purpose
            follow  runs the command, which starts all workers by itself, and judges them by the same rules. Nothing is
                    broken on purpose""";

    private Main() {}

    /** Exits with 0 if every claim held, 1 if one did not, 2 on wrong arguments. */
    public static void main(String[] arguments) throws Exception {
        Options options = Options.parse(arguments);
        boolean good = switch (options.mode) {
            case "make" -> {
                Network.make(options.directory, options.workers, options.cordapp, options.nodeArguments);
                yield true;
            }
            case "free" -> new Network(options.directory).isFree();
            case "port" -> {
                System.out.println(Ports.free(1));
                yield true;
            }
            case "follow" -> follow(options);
            default -> judge(options);
        };
        System.exit(good ? 0 : 1);
    }

    private static boolean follow(Options options) {
        Verdicts verdicts = new Verdicts(System.out);
        Network network = new Network(options.directory);
        Child instructions = new Child("instructions", options.command, options.directory,
                options.logs.resolve("instructions.log"), Pattern.compile(options.ready));
        try (ClientNode alice = new ClientNode(network, "alice", options.nodeArguments, options.logs);
                ClientNode bob = new ClientNode(network, "bob", options.nodeArguments, options.logs)) {
            // Whatever ends the judge, its children end with it; the instructions end theirs if they are asked to.
            Runtime.getRuntime().addShutdownHook(new Thread(() -> {
                instructions.stop();
                alice.abandon();
                bob.abandon();
            }));
            verdicts.judge("the instructions lead to workers that serve", () -> {
                instructions.start();
                instructions.awaitReady();
                alice.start();
                bob.start();
                alice.connect();
                bob.connect();
                return alice.party().getName() + ", " + bob.party().getName();
            });
            if (!bob.isConnected()) {
                // Nothing else can be judged.
                return verdicts.finish();
            }
            new Rules(new Parties(alice, bob), true).judge(verdicts);
            verdicts.judge("the workers still run, and end when they are asked to", () -> {
                require(instructions.isAlive(), "they have ended");
                int code = instructions.stop();
                // Ended by the signal that was passed on, or done: not by force.
                require(code == 0 || code == 143, "exit code %d", code);
                return "exit code " + code;
            });
        }
        return verdicts.finish();
    }

    private static boolean judge(Options options) {
        Verdicts verdicts = new Verdicts(System.out);
        Network network = new Network(options.directory);
        try (Workers workers = new Workers(
                        network, options.command, Pattern.compile(options.ready), options.workers, options.logs);
                ClientNode alice = new ClientNode(network, "alice", options.nodeArguments, options.logs);
                ClientNode bob = new ClientNode(network, "bob", options.nodeArguments, options.logs);
                Broker broker = options.artemis == null ? null : new Broker(options.artemis, options.logs)) {
            // Whatever ends the judge, its children end with it.
            Runtime.getRuntime().addShutdownHook(new Thread(() -> {
                workers.killAll();
                alice.abandon();
                bob.abandon();
                if (broker != null) {
                    broker.kill();
                }
            }));
            verdicts.judge("two unmodified nodes and the workers start", () -> {
                alice.start();
                bob.start();
                if (broker != null) {
                    broker.start();
                }
                workers.startAll();
                alice.connect();
                bob.connect();
                return alice.party().getName() + ", " + bob.party().getName() + ", " + workers.count() + " workers";
            });
            if (!bob.isConnected()) {
                // Nothing else can be judged.
                return verdicts.finish();
            }
            Parties parties = new Parties(alice, bob);
            verdicts.judge("they find one notary service of several workers in their network map", () -> {
                List<NodeInfo> serving = parties.workers();
                // Only then does a client ask again when no answer comes.
                require(serving.size() > 1, "%d workers", serving.size());
                return parties.notary.getName() + ", " + serving.size() + " workers";
            });
            new Rules(parties, options.ours).judge(verdicts);
            new Outages(parties, workers, broker, options.ours).judge(verdicts);
        }
        return verdicts.finish();
    }

    private static final class Options {
        private String mode;
        private Path directory;
        private int workers;
        private Path cordapp;
        private Path nodeArguments;
        private Path logs;
        private String ready;
        private Path artemis;
        private Boolean ours;
        private List<String> command = new ArrayList<>();

        static Options parse(String[] arguments) {
            Options options = new Options();
            try {
                options.mode = arguments[0];
                if (!options.mode.equals("port")) {
                    options.directory = Path.of(arguments[1]);
                }
                for (int i = 2; i < arguments.length; i++) {
                    switch (arguments[i]) {
                        case "--workers" -> options.workers = Integer.parseInt(arguments[++i]);
                        case "--cordapp" -> options.cordapp = Path.of(arguments[++i]);
                        case "--node-args" -> options.nodeArguments = Path.of(arguments[++i]);
                        case "--logs" -> options.logs = Path.of(arguments[++i]);
                        case "--ready" -> options.ready = arguments[++i];
                        case "--artemis" -> options.artemis = Path.of(arguments[++i]);
                        case "--of" -> options.ours = switch (arguments[++i]) {
                            case "corda" -> false;
                            case "notary" -> true;
                            default -> throw new IllegalArgumentException(arguments[i]);
                        };
                        case "--" -> {
                            options.command = Arrays.asList(arguments).subList(i + 1, arguments.length);
                            i = arguments.length;
                        }
                        default -> throw new IllegalArgumentException(arguments[i]);
                    }
                }
            } catch (IndexOutOfBoundsException | IllegalArgumentException e) {
                throw wrong();
            }
            boolean complete = switch (options.mode) {
                case "make" -> options.workers > 0 && options.cordapp != null && options.nodeArguments != null;
                case "free", "port" -> true;
                case "follow" -> options.nodeArguments != null && options.logs != null && options.ready != null
                        && !options.command.isEmpty();
                case "judge" -> options.ours != null && options.workers > 0 && options.nodeArguments != null
                        && options.logs != null && options.ready != null && !options.command.isEmpty();
                default -> false;
            };
            if (!complete) {
                throw wrong();
            }
            return options;
        }

        /** Never returns; the result only lets callers `throw` it. */
        private static IllegalArgumentException wrong() {
            System.err.println(USAGE);
            System.exit(2);
            return new IllegalArgumentException(USAGE);
        }
    }
}
