package peers;

import io.netty.channel.EventLoopGroup;
import io.netty.channel.nio.NioEventLoopGroup;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.regex.Pattern;
import judge.Corda;
import judge.Verdicts;

/** Judges a notary service with many light peers, with peers for long, or with hostile ones. */
public final class Main {
    private static final String USAGE = """
            usage: crowd DIR --peers N --each N        OPTIONS -- COMMAND...
               or: soak DIR --peers N --minutes N      OPTIONS -- COMMAND...
               or: hostile DIR                         OPTIONS -- COMMAND...

            OPTIONS: --workers N --logs DIR --ready REGEX

            DIR is a network of Corda's bootstrapper. The command starts a worker, whose {folder} and {number} are put in.
            It is given the peers' node infos, so each run has a copy of the network of its own.""";

    /** For all bridges of all peers. */
    private static final int THREADS = 4;

    private Main() {}

    /** Exits with 0 if every claim held, 1 if one did not, 2 on wrong arguments. */
    public static void main(String[] arguments) throws Exception {
        int end = Arrays.asList(arguments).indexOf("--");
        Map<String, String> options = new TreeMap<>();
        for (int i = 2; i + 1 < end; i += 2) {
            options.put(arguments[i], arguments[i + 1]);
        }
        if (end < 2 || end % 2 != 0 || !options.keySet().containsAll(List.of("--workers", "--logs", "--ready"))) {
            System.err.println(USAGE);
            System.exit(2);
        }
        Corda.start();
        Verdicts verdicts = new Verdicts(System.out);
        nodes.Network network = new nodes.Network(Path.of(arguments[1]));
        int count = Integer.parseInt(options.get("--workers"));
        Pool pool = new Pool(network, count);
        EventLoopGroup threads = new NioEventLoopGroup(THREADS);
        List<String> command = Arrays.asList(arguments).subList(end + 1, arguments.length);
        try (nodes.Workers workers = new nodes.Workers(network, command, Pattern.compile(options.get("--ready")), count,
                Path.of(options.get("--logs")))) {
            // Whatever ends the judge, its workers end with it.
            Runtime.getRuntime().addShutdownHook(new Thread(workers::killAll));
            switch (arguments[0]) {
                case "crowd" -> {
                    try (Crowd crowd = new Crowd(pool, Integer.parseInt(options.get("--peers")), threads)) {
                        workers.startAll();
                        crowd.judge(verdicts, Integer.parseInt(options.get("--each")));
                    }
                }
                case "soak" -> {
                    try (Crowd crowd = new Crowd(pool, Integer.parseInt(options.get("--peers")), threads)) {
                        workers.startAll();
                        new Soak(crowd, workers, count, System.out)
                                .judge(verdicts, Duration.ofMinutes(Integer.parseInt(options.get("--minutes"))));
                    }
                }
                case "hostile" -> {
                    try (Hostile hostile = new Hostile(pool, workers, threads)) {
                        workers.startAll();
                        hostile.judge(verdicts);
                    }
                }
                default -> {
                    System.err.println(USAGE);
                    System.exit(2);
                }
            }
        }
        boolean good = verdicts.finish();
        threads.shutdownGracefully();
        System.exit(good ? 0 : 1);
    }
}
