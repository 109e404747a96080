package nodes;

import java.nio.file.Path;
import java.util.Map;
import java.util.regex.Pattern;

/** An Apache Artemis between nodes and workers, in the folder that the judge was given. */
final class Broker implements AutoCloseable {
    /** Small and quick to start, with one thread for garbage: it shares two cores with two nodes. */
    private static final Map<String, String> ENVIRONMENT = Map.of(
            "JAVA_ARGS", "-Xms64M -Xmx384M -XX:+UseSerialGC -XX:TieredStopAtLevel=1");

    /** What it logs once all of its acceptors listen. */
    private static final Pattern READY = Pattern.compile("AMQ221007");

    private final Child child;

    /** `instance`: as `artemis create` makes it, with all that workers need declared. */
    Broker(Path instance, Path logs) {
        // The script replaces itself by the JVM, so its pid is the broker's.
        String program = instance.resolve("bin/artemis").toString();
        child = new Child("artemis", java.util.List.of(program, "run"), instance, logs.resolve("artemis.log"), READY);
    }

    void start() {
        child.start(ENVIRONMENT);
        child.awaitReady();
    }

    void kill() {
        child.kill();
    }

    @Override
    public void close() {
        child.stop();
    }
}
