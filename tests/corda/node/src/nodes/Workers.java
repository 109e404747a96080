package nodes;

import java.io.IOException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.regex.Pattern;
import java.util.stream.IntStream;

/** The notary service's workers, started by the command that the judge was given. */
public final class Workers implements AutoCloseable {
    /** Replaced in the command by the folder of each worker. */
    static final String FOLDER = "{folder}";

    /** Replaced by its number, from 1. */
    static final String NUMBER = "{number}";

    private final Network network;
    private final List<String> command;
    private final Pattern ready;
    private final Path logs;
    private final int count;
    private final List<Child> children = new ArrayList<>();

    public Workers(Network network, List<String> command, Pattern ready, int count, Path logs) {
        this.network = network;
        this.command = command;
        this.ready = ready;
        this.logs = logs;
        this.count = count;
        for (int number = 1; number <= count; number++) {
            children.add(child(number, List.of()));
        }
    }

    private Child child(int number, List<String> more) {
        String folder = Network.worker(number);
        Path path = network.folder(folder);
        List<String> line = new ArrayList<>();
        for (String word : command) {
            line.add(word.replace(FOLDER, path.toString()).replace(NUMBER, Integer.toString(number)));
        }
        line.addAll(more);
        return new Child(folder, line, path, logs.resolve(folder + ".log"), ready);
    }

    int count() {
        return count;
    }

    /** What one wrote in this life. */
    public String output(int number) {
        return children.get(number - 1).output();
    }

    public long pid(int number) {
        return children.get(number - 1).pid();
    }

    /** Starts all that do not run, in no special condition. */
    public void startAll() {
        for (int number = 1; number <= count; number++) {
            if (!isAlive(number)) {
                children.set(number - 1, child(number, List.of()));
                children.get(number - 1).start();
            }
        }
        children.forEach(Child::awaitReady);
    }

    /** Starts one and does not wait. */
    void launch(int number) {
        children.set(number - 1, child(number, List.of()));
        children.get(number - 1).start();
    }

    void start(int number) {
        launch(number);
        children.get(number - 1).awaitReady();
    }

    /**
     * Starts one in a special condition: with words added to its environment and command. It lasts for this life, which
     * may be short: what waits for it in a broker reaches it before it says that it serves.
     */
    void start(int number, Map<String, String> environment, List<String> more) {
        children.set(number - 1, child(number, more));
        children.get(number - 1).start(environment);
        children.get(number - 1).awaitReadyOrKilled();
    }

    int stop(int number) {
        return children.get(number - 1).stop();
    }

    public int kill(int number) {
        return children.get(number - 1).kill();
    }

    public void killAll() {
        children.forEach(Child::kill);
    }

    /** It neither works nor ends; its connections stay open. */
    void freeze(int number) {
        signal(number, "-STOP");
    }

    void thaw(int number) {
        signal(number, "-CONT");
    }

    private void signal(int number, String signal) {
        try {
            String pid = Long.toString(children.get(number - 1).pid());
            Process kill = new ProcessBuilder("kill", signal, pid).inheritIO().start();
            if (kill.waitFor() != 0) {
                throw new IllegalStateException("kill " + signal + " " + pid + " failed");
            }
        } catch (IOException e) {
            throw new java.io.UncheckedIOException(e);
        } catch (InterruptedException e) {
            throw new IllegalStateException("nobody interrupts the judge", e);
        }
    }

    int awaitEnd(int number, Duration patience) {
        return children.get(number - 1).awaitEnd(patience);
    }

    public boolean isAlive(int number) {
        return children.get(number - 1).isAlive();
    }

    @Override
    public void close() {
        children.forEach(Child::stop);
    }
}
