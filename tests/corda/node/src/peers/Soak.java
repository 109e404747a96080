package peers;

import static judge.Verdicts.require;

import java.io.IOException;
import java.io.PrintStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Deque;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import judge.Conversation;
import judge.Transactions;
import judge.Verdicts;

/** Peers that ask at a steady rate for long, and what the workers take meanwhile. */
final class Soak {
    /** Requests a second: a fifth of what two unoptimised workers answer on two cores, together with their peers. */
    private static final int RATE = 50;

    /** Requests that may be under way: those of ten seconds. More are an outage. */
    private static final int UNDER_WAY_MAX = 10 * RATE;

    private static final int SAMPLE_SECONDS = 5;

    private static final int REPORT_SECONDS = 60;

    /** Of memory, from the second quarter of the run to the last: caches and pools have their size by then. */
    private static final double GROWTH_MAX = 0.10;

    /** Figures of one worker, by the names of this array. */
    private static final String[] FIGURES = {
        "resident MiB", "descriptors", "threads", "connections", "bridges", "database"
    };

    private final Crowd crowd;
    private final nodes.Workers workers;
    private final int count;
    private final PrintStream out;
    private final HttpClient http = HttpClient.newHttpClient();
    /** By worker, in time. */
    private final List<List<double[]>> samples = new ArrayList<>();

    Soak(Crowd crowd, nodes.Workers workers, int count, PrintStream out) {
        this.crowd = crowd;
        this.workers = workers;
        this.count = count;
        this.out = out;
        for (int worker = 0; worker < count; worker++) {
            samples.add(new ArrayList<>());
        }
    }

    void judge(Verdicts verdicts, Duration time) {
        verdicts.judge(crowd.peers.size() + " peers connect, and each is answered by each worker", () -> {
            crowd.greet();
            return "";
        });
        verdicts.judge(RATE + " transactions a second for " + time.toMinutes() + " minutes are notarised, each answer "
                + "verified", () -> run(time));
        report();
        verdicts.judge("descriptors, threads and connections are flat", () -> {
            for (int figure = 1; figure < FIGURES.length; figure++) {
                for (List<double[]> worker : samples) {
                    double early = maximum(worker, figure, 0, worker.size() / 2);
                    double late = maximum(worker, figure, worker.size() / 2, worker.size());
                    // A second connection to the store, or one that is being replaced.
                    require(late <= early + 2, "%s: %.0f at most, and %.0f later", FIGURES[figure], early, late);
                }
            }
            return "";
        });
        verdicts.judge("memory is flat", () -> {
            StringBuilder told = new StringBuilder();
            for (List<double[]> worker : samples) {
                int quarter = worker.size() / 4;
                double early = mean(worker, 0, quarter, 2 * quarter);
                double late = mean(worker, 0, 3 * quarter, worker.size());
                require(late <= early * (1 + GROWTH_MAX), "%.1f MiB in the second quarter, %.1f in the last", early,
                        late);
                told.append(told.isEmpty() ? "" : ", ").append(String.format("%+.1f%%", (late / early - 1) * 100));
            }
            return told + " from the second quarter of the time to the last";
        });
        verdicts.judge("nothing came that a node would not have taken", () -> {
            crowd.peers.forEach(Peer::requireNoComplaints);
            return crowd.peers.stream().mapToInt(Peer::sentAgain).sum() + " messages had to be sent again";
        });
    }

    private record Underway(Crowd.Asked asked, Instant since) {}

    private String run(Duration time) throws Exception {
        Instant start = Instant.now();
        Instant sampled = start;
        Instant reported = start;
        Deque<Underway> underWay = new ArrayDeque<>();
        long asked = 0;
        long answered = 0;
        long[] latencies = new long[Math.toIntExact(time.toSeconds() + 60) * RATE];
        sample();
        while (Instant.now().isBefore(start.plus(time)) || !underWay.isEmpty()) {
            Instant now = Instant.now();
            boolean asking = now.isBefore(start.plus(time));
            // What is due by now.
            long due = Duration.between(start, now).toMillis() * RATE / 1_000;
            while (asking && asked < due) {
                Peer peer = crowd.peers.get((int) (asked % crowd.peers.size()));
                underWay.add(new Underway(crowd.ask(crowd.prepare(peer, Transactions.randomState())), Instant.now()));
                asked++;
            }
            while (!underWay.isEmpty() && underWay.peek().asked().conversation().answered().isDone()) {
                Underway done = underWay.remove();
                Conversation.Answer answer = done.asked().answer(now);
                require(answer instanceof Conversation.Notarised, "refused: %s", answer);
                crowd.requireSigned(done.asked().prepared().id(), ((Conversation.Notarised) answer).response());
                done.asked().prepared().peer().forget(done.asked().conversation());
                if (answered < latencies.length) {
                    latencies[(int) answered] = Duration.between(done.since(), Instant.now()).toMillis();
                }
                answered++;
            }
            require(underWay.size() <= UNDER_WAY_MAX, "%d requests wait for an answer", underWay.size());
            require(underWay.isEmpty() || underWay.peek().since().plus(Conversation.PATIENCE).isAfter(now),
                    "a request has no answer after %s", Conversation.PATIENCE);
            if (now.isAfter(sampled.plusSeconds(SAMPLE_SECONDS))) {
                sampled = now;
                sample();
                crowd.peers.forEach(Peer::forgetIds);
            }
            if (now.isAfter(reported.plusSeconds(REPORT_SECONDS))) {
                reported = now;
                out.printf("      after %d s: %d answered, %d under way%s%n", Duration.between(start, now).toSeconds(),
                        answered, underWay.size(), latest());
            }
            TimeUnit.MILLISECONDS.sleep(5);
        }
        sample();
        long[] sorted = Arrays.copyOf(latencies, (int) Math.min(answered, latencies.length));
        Arrays.sort(sorted);
        return String.format("%d, in %d ms (median), %d ms (99%%), %d ms (longest)", answered,
                sorted[sorted.length / 2], sorted[sorted.length * 99 / 100], sorted[sorted.length - 1]);
    }

    // --- figures ----------------------------------------------------------------------------------------------------

    private void sample() throws IOException, InterruptedException {
        for (int worker = 1; worker <= count; worker++) {
            Path process = Path.of("/proc/" + workers.pid(worker));
            String status = Files.readString(process.resolve("status"));
            long descriptors;
            try (Stream<Path> open = Files.list(process.resolve("fd"))) {
                descriptors = open.count();
            }
            String metrics = metrics(worker);
            samples.get(worker - 1).add(new double[] {
                figure(status, "(?m)^VmRSS:\\s+([0-9]+) kB") / 1024, descriptors,
                figure(status, "(?m)^Threads:\\s+([0-9]+)"), sum(metrics, "notary_endpoint_connections"),
                sum(metrics, "notary_bridges"), sum(metrics, "notary_db_connections")
            });
        }
    }

    private String metrics(int worker) throws IOException, InterruptedException {
        Matcher place = Pattern.compile("(?m)^figures at (http://\\S+)").matcher(workers.output(worker));
        require(place.find(), "worker %d does not say where its figures are", worker);
        HttpRequest request = HttpRequest.newBuilder(URI.create(place.group(1))).timeout(Duration.ofSeconds(10)).build();
        return http.send(request, HttpResponse.BodyHandlers.ofString()).body();
    }

    private static double figure(String text, String pattern) {
        Matcher found = Pattern.compile(pattern).matcher(text);
        require(found.find(), "no %s", pattern);
        return Double.parseDouble(found.group(1));
    }

    /** Over all of a metric's labels. */
    private static double sum(String metrics, String name) {
        Pattern line = Pattern.compile("(?m)^" + name + "(?:\\{[^}]*\\})? ([0-9.e+]+)$");
        return line.matcher(metrics).results().mapToDouble(found -> Double.parseDouble(found.group(1))).sum();
    }

    private String latest() {
        StringBuilder text = new StringBuilder();
        for (int worker = 0; worker < count; worker++) {
            double[] last = samples.get(worker).get(samples.get(worker).size() - 1);
            text.append(String.format("; worker %d: %.1f MiB, %.0f descriptors, %.0f connections", worker + 1, last[0],
                    last[1], last[3]));
        }
        return text.toString();
    }

    private void report() {
        out.printf("      %-10s %-14s %10s %10s %10s%n", "", "", "first", "last", "maximum");
        for (int worker = 0; worker < count; worker++) {
            List<double[]> all = samples.get(worker);
            for (int figure = 0; figure < FIGURES.length && !all.isEmpty(); figure++) {
                out.printf("      %-10s %-14s %10.1f %10.1f %10.1f%n", "worker " + (worker + 1), FIGURES[figure],
                        all.get(0)[figure], all.get(all.size() - 1)[figure], maximum(all, figure, 0, all.size()));
            }
        }
    }

    private static double maximum(List<double[]> all, int figure, int from, int to) {
        return all.subList(from, to).stream().mapToDouble(sample -> sample[figure]).max().orElse(0);
    }

    private static double mean(List<double[]> all, int figure, int from, int to) {
        return all.subList(from, to).stream().mapToDouble(sample -> sample[figure]).average().orElse(0);
    }
}
